package database_test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/fstest"
	"time"

	"go.uber.org/goleak"

	"github.com/antipode-registry/antipode/internal/database"
	"github.com/antipode-registry/antipode/internal/database/databasetest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// tables is one migration set: the same SQL for both engines.
func tables(files map[string]string) fs.FS {
	folder := fstest.MapFS{}
	for name, statements := range files {
		for _, dialect := range []string{"sqlite", "postgres"} {
			folder[dialect+"/"+name] = &fstest.MapFile{Data: []byte("-- +goose Up\n" + statements + "\n")}
		}
	}
	return folder
}

func withTable(t *testing.T, db *database.DB) *database.DB {
	t.Helper()
	migrations := tables(map[string]string{"00001_kv.sql": "CREATE TABLE kv (k TEXT PRIMARY KEY, v BIGINT NOT NULL);"})
	if err := db.Migrate(t.Context(), "test", migrations); err != nil {
		t.Fatal(err)
	}
	return db
}

func set(t *testing.T, db *database.DB, key string, value int64) {
	t.Helper()
	if err := db.Write(t.Context(), put(key, value)); err != nil {
		t.Fatal(err)
	}
}

func put(key string, value int64) func(context.Context, *database.Tx) error {
	return func(ctx context.Context, tx *database.Tx) error {
		_, err := tx.ExecContext(ctx,
			"INSERT INTO kv (k, v) VALUES ($1, $2) ON CONFLICT (k) DO UPDATE SET v = excluded.v", key, value)
		return err
	}
}

func count(ctx context.Context, q database.Queryer) (n int64, err error) {
	err = q.QueryRowContext(ctx, "SELECT count(*) FROM kv").Scan(&n)
	return n, err
}

func rows(t *testing.T, db *database.DB) (n int64) {
	t.Helper()
	err := db.Read(t.Context(), func(ctx context.Context, q database.Queryer) (err error) {
		n, err = count(ctx, q)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func awaitWake(t *testing.T, wake <-chan struct{}) {
	t.Helper()
	select {
	case <-wake:
	case <-time.After(20 * time.Second):
		t.Fatal("no wake")
	}
}

func TestOpenRefuses(t *testing.T) {
	for url, want := range map[string]string{
		"":                                "expected",
		"mysql://root:hunter2@db/x":       "expected",
		"postgres:user:hunter2":           "expected",
		"sqlite:":                         "needs a path",
		"sqlite::memory:":                 "in-memory",
		"sqlite://data/x.db":              "two slashes",
		"sqlite:/nonexistent-folder/x.db": "no such file",
		"postgres://u:hunter2%zz@h/db":    "cannot be parsed",
		"postgres://u:hunter2@h:x/db":     "cannot be parsed",
		"postgres://u:hunter2@127.0.0.1:1/db?sslmode=disable": "refused",
	} {
		_, err := database.Open(t.Context(), url, nil)
		if err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("Open(%q) = %v, want %q and no password", url, err, want)
		}
		if unavailable := strings.Contains(url, "127.0.0.1"); unavailable != errors.Is(err, database.ErrUnavailable) {
			t.Errorf("Open(%q): ErrUnavailable is %v", url, !unavailable)
		}
	}
}

func TestSQLiteFileIsPrivateWhateverItsName(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a?b#c%d e.db")
	db := withTable(t, databasetest.Open(t, "sqlite:"+path))
	set(t, db, "k", 1)
	for _, file := range []string{path, path + "-wal"} {
		info, err := os.Stat(file)
		if err != nil {
			t.Fatal(err)
		}
		if info.Mode().Perm() != 0o600 {
			t.Errorf("%s has mode %v", file, info.Mode())
		}
	}
}

func TestWriteCommitsOrRollsBack(t *testing.T) {
	databasetest.Each(t, func(t *testing.T, open func(testing.TB) *database.DB) {
		db := withTable(t, open(t))
		set(t, db, "kept", 1)
		refused := errors.New("refused")
		err := db.Write(t.Context(), func(ctx context.Context, tx *database.Tx) error {
			return errors.Join(put("dropped", 1)(ctx, tx), refused)
		})
		if !errors.Is(err, refused) || errors.Is(err, database.ErrUnavailable) {
			t.Errorf("Write = %v, want the function's error alone", err)
		}
		func() {
			defer func() { _ = recover() }()
			_ = db.Write(t.Context(), func(context.Context, *database.Tx) error { panic("broken") })
		}()
		if n := rows(t, db); n != 1 {
			t.Errorf("%d rows, want 1", n)
		}
	})
}

func TestReadSeesOneSnapshotAndCannotWrite(t *testing.T) {
	databasetest.Each(t, func(t *testing.T, open func(testing.TB) *database.DB) {
		db := withTable(t, open(t))
		err := db.Read(t.Context(), func(ctx context.Context, q database.Queryer) error {
			before, err := count(ctx, q)
			if err != nil {
				return err
			}
			set(t, db, "meanwhile", 1)
			after, err := count(ctx, q)
			if before != after {
				t.Errorf("the snapshot moved from %d to %d rows", before, after)
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		err = db.Read(t.Context(), func(ctx context.Context, q database.Queryer) error {
			var k string
			return q.QueryRowContext(ctx, "INSERT INTO kv (k, v) VALUES ('x', 1) RETURNING k").Scan(&k)
		})
		if err == nil {
			t.Error("Read could write")
		}
		if n := rows(t, db); n != 1 {
			t.Errorf("%d rows, want 1", n)
		}
	})
}

func TestNotifyWakesAfterCommitAlone(t *testing.T) {
	databasetest.Each(t, func(t *testing.T, open func(testing.TB) *database.DB) {
		db := withTable(t, open(t))
		wake, stop := db.Listen("things")
		defer stop()
		other, stopOther := db.Listen("others")
		defer stopOther()
		drain(wake)
		drain(other)
		err := db.Write(t.Context(), func(ctx context.Context, tx *database.Tx) error {
			if err := tx.Notify(ctx, "things"); err != nil {
				return err
			}
			if drain(wake) {
				t.Error("woken before the commit")
			}
			return tx.Notify(ctx, "things")
		})
		if err != nil {
			t.Fatal(err)
		}
		awaitWake(t, wake)
		refused := errors.New("refused")
		err = db.Write(t.Context(), func(ctx context.Context, tx *database.Tx) error {
			return errors.Join(tx.Notify(ctx, "things"), refused)
		})
		if !errors.Is(err, refused) {
			t.Fatal(err)
		}
		if db.Dialect() == database.SQLite && (drain(wake) || drain(other)) { // Postgres may wake for no reason
			t.Error("woken by a rollback or by another channel")
		}
	})
}

// drain takes a waiting wake and says whether there was one.
func drain(wake <-chan struct{}) bool {
	select {
	case <-wake:
		return true
	default:
		return false
	}
}

func TestSQLiteFullIsUnavailable(t *testing.T) {
	db := withTable(t, databasetest.OpenSQLite(t))
	err := db.Write(t.Context(), func(ctx context.Context, tx *database.Tx) error {
		if _, err := tx.ExecContext(ctx, "PRAGMA max_page_count = 1"); err != nil {
			return err
		}
		for i := range 10_000 {
			if err := put(fmt.Sprint("a key that takes some room ", i), 1)(ctx, tx); err != nil {
				return fmt.Errorf("put: %w", err)
			}
		}
		return nil
	})
	if !errors.Is(err, database.ErrUnavailable) {
		t.Errorf("Write = %v, want ErrUnavailable", err)
	}
}

func TestEndOfTheCallersContextIsNotUnavailable(t *testing.T) {
	databasetest.Each(t, func(t *testing.T, open func(testing.TB) *database.DB) {
		db := withTable(t, open(t))
		ctx, cancel := context.WithCancel(t.Context())
		err := db.Write(ctx, func(ctx context.Context, tx *database.Tx) error {
			cancel()
			return put("k", 1)(ctx, tx)
		})
		if !errors.Is(err, context.Canceled) || errors.Is(err, database.ErrUnavailable) {
			t.Errorf("Write = %v, want the context's error", err)
		}
		set(t, db, "next", 1)
		if n := rows(t, db); n != 1 {
			t.Errorf("%d rows, want 1", n)
		}
	})
}

func TestClock(t *testing.T) {
	databasetest.Each(t, func(t *testing.T, open func(testing.TB) *database.DB) {
		db := open(t)
		err := db.Write(t.Context(), func(ctx context.Context, tx *database.Tx) error {
			now, err := tx.Now(ctx)
			if off := time.Since(now).Abs(); off > time.Minute {
				t.Errorf("the clock is off by %v", off)
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	})
}

func TestWritersDoNotLoseUpdates(t *testing.T) {
	databasetest.Each(t, func(t *testing.T, open func(testing.TB) *database.DB) {
		db := withTable(t, open(t))
		set(t, db, "n", 0)
		var writers sync.WaitGroup
		for range 8 {
			writers.Go(func() {
				for range 10 {
					err := db.Write(t.Context(), func(ctx context.Context, tx *database.Tx) error {
						_, err := tx.ExecContext(ctx, "UPDATE kv SET v = v + 1 WHERE k = 'n'")
						return err
					})
					if err != nil {
						t.Error(err)
					}
				}
			})
		}
		writers.Wait()
		err := db.Read(t.Context(), func(ctx context.Context, q database.Queryer) error {
			var n int64
			if err := q.QueryRowContext(ctx, "SELECT v FROM kv WHERE k = 'n'").Scan(&n); err != nil {
				return err
			}
			if n != 80 {
				t.Errorf("%d updates, want 80", n)
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	})
}
