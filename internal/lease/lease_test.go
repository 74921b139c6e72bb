package lease_test

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/antipode-registry/antipode/internal/database"
	"github.com/antipode-registry/antipode/internal/database/databasetest"
	"github.com/antipode-registry/antipode/internal/lease"
)

const role = "follow"

// hour is a term that no test waits for.
const hour = time.Hour

func open(t testing.TB, db *database.DB, owner string, ttl time.Duration) *lease.Leases {
	t.Helper()
	leases, err := lease.Open(t.Context(), db, lease.Options{Owner: owner, TTL: ttl})
	if err != nil {
		t.Fatal(err)
	}
	return leases
}

// candidate stands for leader in a goroutine until it is stopped or the test ends.
type candidate struct {
	terms chan *lease.Term // each term that begins
	ended chan error       // why each term's context ended
	stop  func()
}

func stand(t testing.TB, leases *lease.Leases) *candidate {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	c := &candidate{terms: make(chan *lease.Term, 100), ended: make(chan error, 100)}
	var running sync.WaitGroup
	running.Go(func() {
		err := leases.Lead(ctx, role, func(ctx context.Context, term *lease.Term) error {
			c.terms <- term
			<-ctx.Done()
			c.ended <- context.Cause(ctx)
			return nil
		})
		if err != nil {
			t.Errorf("Lead = %v, want no error", err)
		}
	})
	c.stop = func() {
		cancel()
		running.Wait()
	}
	t.Cleanup(c.stop)
	return c
}

// check is a write as the leader.
func check(ctx context.Context, db *database.DB, term *lease.Term) error {
	return db.Write(ctx, term.Check)
}

func wantLost(t testing.TB, err error) {
	t.Helper()
	if !errors.Is(err, lease.ErrTermLost) {
		t.Errorf("%v, want ErrTermLost", err)
	}
}

func wantLeader(t testing.TB, leases *lease.Leases, want string) {
	t.Helper()
	got, err := leases.Leader(t.Context(), role)
	if err != nil || got != want {
		t.Errorf("Leader = %q, %v, want %q", got, err, want)
	}
}

func TestOneLeadsAndHandsOver(t *testing.T) {
	databasetest.Each(t, func(t *testing.T, openDB func(testing.TB) *database.DB) {
		here := openDB(t)
		there := here
		if here.Dialect() == database.Postgres {
			there = databasetest.Shared(t, here)
		}
		one, two := open(t, here, "one", hour), open(t, there, "two", hour)
		wantLeader(t, one, "")
		first := stand(t, one)
		term := <-first.terms
		wantLeader(t, two, "one")
		if err := check(t.Context(), here, term); err != nil {
			t.Errorf("the leader's write: %v", err)
		}
		second := stand(t, two)
		first.stop() // in order: the other need not wait an hour
		next := <-second.terms
		wantLeader(t, one, "two")
		if next.Fence() <= term.Fence() {
			t.Errorf("fence %d follows %d", next.Fence(), term.Fence())
		}
		wantLost(t, check(t.Context(), here, term))
		if err := check(t.Context(), there, next); err != nil {
			t.Errorf("the new leader's write: %v", err)
		}
	})
}

// What the leader's function returns on its own ends Lead, and the role is free.
func TestLeadReturnsWhatItsFunctionDoes(t *testing.T) {
	db := databasetest.OpenSQLite(t)
	leases := open(t, db, "one", hour)
	broken := errors.New("broken")
	err := leases.Lead(t.Context(), role, func(context.Context, *lease.Term) error { return broken })
	if !errors.Is(err, broken) {
		t.Errorf("Lead = %v, want the function's error", err)
	}
	wantLeader(t, leases, "")
}

// Roles do not know of each other.
func TestRolesAreApart(t *testing.T) {
	db := databasetest.OpenSQLite(t)
	leases := open(t, db, "one", hour)
	c := stand(t, leases)
	<-c.terms
	err := leases.Lead(t.Context(), "another", func(context.Context, *lease.Term) error { return nil })
	if err != nil {
		t.Error(err)
	}
}

// A file of SQLite has one process: what a dead one held, nobody waits for.
func TestSQLiteWaitsForNoDeadProcess(t *testing.T) {
	db := databasetest.OpenSQLite(t)
	dead := stand(t, open(t, db, "dead", hour))
	term := <-dead.terms
	after := stand(t, open(t, db, "after", hour))
	<-after.terms
	wantLost(t, check(t.Context(), db, term))
}

// A leader is renewed for as long as the database answers, and ends by its own clock, before the row does, when it does
// not; a term that follows is a new one.
func TestTermEndsWithoutRenewal(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		db := databasetest.OpenSQLite(t)
		leases := open(t, db, "one", 6*time.Second)
		c := stand(t, leases)
		term := <-c.terms
		<-time.After(time.Minute + time.Second) // the last renewal was a second ago
		if err := check(t.Context(), db, term); err != nil {
			t.Errorf("after a minute: %v", err)
		}
		block, blocked := make(chan struct{}), make(chan error)
		go func() {
			blocked <- db.Write(t.Context(), func(context.Context, *database.Tx) error { <-block; return nil })
		}()
		began := time.Now()
		wantLost(t, <-c.ended)
		if took := time.Since(began); took != 4*time.Second {
			t.Errorf("the leader went on for %v, want 4s: 5s after its last renewal", took)
		}
		close(block)
		if err := <-blocked; err != nil {
			t.Error(err)
		}
		next := <-c.terms
		if took := time.Since(began); took != 5*time.Second {
			t.Errorf("the next term began after %v, want 5s: when the row's time is over", took)
		}
		wantLost(t, check(t.Context(), db, term))
		if next.Fence() != term.Fence()+1 {
			t.Errorf("fence %d follows %d", next.Fence(), term.Fence())
		}
		c.stop()
	})
}

// An outage shorter than a term's reserve does not end it.
func TestTermOutlivesAShortOutage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		db := databasetest.OpenSQLite(t)
		c := stand(t, open(t, db, "one", 6*time.Second))
		term := <-c.terms
		for range 10 {
			err := db.Write(t.Context(), func(context.Context, *database.Tx) error {
				<-time.After(2500 * time.Millisecond)
				return nil
			})
			if err != nil {
				t.Fatal(err)
			}
		}
		if err := check(t.Context(), db, term); err != nil {
			t.Errorf("after outages of 2.5 s: %v", err)
		}
		c.stop()
	})
}

// Between the check of a term and the end of its transaction nobody else begins one.
func TestSuccessorWaitsForACheckedTransaction(t *testing.T) {
	databasetest.SkipWithoutPostgres(t)
	here := databasetest.OpenPostgres(t)
	there := databasetest.Shared(t, here)
	first := stand(t, open(t, here, "one", hour))
	term := <-first.terms
	var second *candidate
	err := here.Write(t.Context(), func(ctx context.Context, tx *database.Tx) error {
		if err := term.Check(ctx, tx); err != nil {
			return err
		}
		// As if the hour were over. The successor needs the row, and this transaction has it.
		second = stand(t, open(t, there, "two", hour))
		if _, err := tx.ExecContext(ctx, "UPDATE lease SET ends_at = 1"); err != nil {
			return err
		}
		select {
		case <-second.terms:
			t.Error("a term began in the middle of another's write")
		case <-time.After(200 * time.Millisecond):
		}
		return tx.Notify(ctx, "lease "+role)
	})
	if err != nil {
		t.Fatal(err)
	}
	<-second.terms
}

// A leader that falls silent in the middle of a write does not keep its successor out, and does not commit.
func TestSilentTransactionIsEnded(t *testing.T) {
	databasetest.SkipWithoutPostgres(t)
	here := databasetest.OpenPostgres(t)
	there := databasetest.Shared(t, here)
	first := stand(t, open(t, here, "one", 3*time.Second))
	term := <-first.terms
	var second *candidate
	err := here.Write(t.Context(), func(ctx context.Context, tx *database.Tx) error {
		if err := term.Check(ctx, tx); err != nil {
			return err
		}
		second = stand(t, open(t, there, "two", 3*time.Second))
		first.stop() // it does not stand again
		<-second.terms
		return nil
	})
	if err == nil {
		t.Error("a write that fell silent was committed after its term")
	}
}
