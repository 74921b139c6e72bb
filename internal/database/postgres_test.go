package database_test

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/antipode-registry/antipode/internal/database"
	"github.com/antipode-registry/antipode/internal/database/databasetest"
)

func TestPostgresNotifiesOtherProcesses(t *testing.T) {
	databasetest.SkipWithoutPostgres(t)
	here := withTable(t, databasetest.OpenPostgres(t))
	there := databasetest.Shared(t, here)
	wake, stop := there.Listen("things")
	defer stop()
	awaitWake(t, wake) // it listens now, or at the latest after a poll
	began := time.Now()
	for range 3 { // a poll may give one of the wakes, not all
		notify(t, here, "things")
		awaitWake(t, wake)
	}
	if took := time.Since(began); took > 4*time.Second {
		t.Errorf("three notifications took %v: they came by the poll", took)
	}
}

func notify(t *testing.T, db *database.DB, channel string) {
	t.Helper()
	err := db.Write(t.Context(), func(ctx context.Context, tx *database.Tx) error { return tx.Notify(ctx, channel) })
	if err != nil {
		t.Fatal(err)
	}
}

func TestPostgresRestart(t *testing.T) {
	databasetest.SkipWithoutPostgres(t)
	cluster := databasetest.NewCluster(t)
	here := withTable(t, databasetest.Open(t, cluster.URL("postgres")))
	there := databasetest.Shared(t, here)
	wake, stop := there.Listen("things")
	defer stop()
	set(t, here, "before", 1)
	cluster.Stop(t)
	if err := here.Ping(t.Context()); !errors.Is(err, database.ErrUnavailable) {
		t.Errorf("Ping without a server = %v, want ErrUnavailable", err)
	}
	if err := here.Write(t.Context(), put("lost", 1)); !errors.Is(err, database.ErrUnavailable) {
		t.Errorf("Write without a server = %v, want ErrUnavailable", err)
	}
	cluster.Start(t)
	set(t, here, "after", 1)
	if n := rows(t, here); n != 2 {
		t.Errorf("%d rows, want 2", n)
	}
	drain(wake)
	notify(t, here, "things")
	awaitWake(t, wake)
}

func TestPostgresDeadlockIsRunAgain(t *testing.T) {
	databasetest.SkipWithoutPostgres(t)
	db := withTable(t, databasetest.OpenPostgres(t))
	set(t, db, "a", 0)
	set(t, db, "b", 0)
	var locked, writers sync.WaitGroup
	locked.Add(2)
	for _, order := range [][2]string{{"a", "b"}, {"b", "a"}} {
		writers.Go(func() {
			var once sync.Once
			err := db.Write(t.Context(), func(ctx context.Context, tx *database.Tx) error {
				if err := put(order[0], 1)(ctx, tx); err != nil {
					return err
				}
				once.Do(func() { // only in the first run: both hold one row before either wants the other
					locked.Done()
					locked.Wait()
				})
				return put(order[1], 1)(ctx, tx)
			})
			if err != nil {
				t.Error(err)
			}
		})
	}
	writers.Wait()
}

// A server that stands still is waited for so long and no longer, by callers who set no deadline of their own; and once it
// goes on, everything does.
func TestPostgresHangs(t *testing.T) {
	databasetest.SkipWithoutPostgres(t)
	cluster := databasetest.NewCluster(t)
	patient := withTable(t, databasetest.Open(t, cluster.URL("postgres")))
	set(t, patient, "before", 1)
	db := databasetest.Open(t, cluster.URL("postgres"), database.WithPatience(time.Second))
	cluster.Freeze(t)
	read := func(ctx context.Context) error {
		return db.Read(ctx, func(ctx context.Context, q database.Queryer) error {
			var n int
			return q.QueryRowContext(ctx, "SELECT count(*) FROM kv").Scan(&n)
		})
	}
	write := func(ctx context.Context) error { return db.Write(ctx, put("during", 1)) }
	for name, call := range map[string]func(context.Context) error{"Read": read, "Write": write} {
		err := call(context.WithoutCancel(t.Context()))
		if !errors.Is(err, database.ErrUnavailable) || errors.Is(err, context.DeadlineExceeded) ||
			!strings.Contains(err.Error(), "no answer within 1s") {
			t.Errorf("%s of a server that stands still: %v", name, err)
		}
		ended, cancel := context.WithCancel(t.Context())
		cancel()
		if err := call(ended); !errors.Is(err, context.Canceled) || errors.Is(err, database.ErrUnavailable) {
			t.Errorf("%s of a caller that has left: %v", name, err)
		}
	}
	cluster.Thaw(t)
	set(t, patient, "after", 1)
	if n := rows(t, patient); n != 2 {
		t.Errorf("%d rows, want those before and after", n)
	}
}
