package databasetest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"

	"github.com/antipode-registry/antipode/internal/database"
)

// Crash visits every crash point of writing operations: each statement of each fails once, in each way that a Fault is,
// and is then tried again as a daemon would.
type Crash[S any] struct {
	// Open makes what the operations are called on. It is called anew for every crash point, on the same database.
	Open func(t testing.TB, db *database.DB) S
	// Check is what must hold at every moment that others can see. nil = nothing.
	Check func(t testing.TB, db *database.DB)
	// Volatile are columns, as "table.column", and tables, whose values differ from run to run.
	Volatile []string
}

// Operation is a method that writes.
type Operation[S any] struct {
	Name string
	// Prepare brings about what the operation needs, without faults. nil = nothing. What it remembers for Run holds for
	// every crash point: the database is brought back to how Prepare left it.
	Prepare func(t testing.TB, s S)
	// Run is one try. It is called again on the same S after an error.
	Run func(ctx context.Context, s S) error
	// Commits is how many transactions it takes; 0 = one. Between them others see a part of it.
	Commits int
}

// Test goes through the operations on both engines. Of each crash point it shows that
//   - the operation says that it failed, with an error that matches database.ErrUnavailable, unless all was done;
//   - what others see then is either how it was before, or what one of the operation's commits makes: no half of it;
//   - tried again it ends in what it makes when nothing fails, run once or twice.
func (c Crash[S]) Test(t *testing.T, operations []Operation[S]) {
	t.Helper()
	Each(t, func(t *testing.T, open func(testing.TB) *database.DB) {
		for _, operation := range operations {
			t.Run(operation.Name, func(t *testing.T) {
				sound := open(t)
				failing, faults := OpenFailing(t, URL(t, sound))
				run := &crashing[S]{
					crash: c, operation: operation, failing: failing, faults: faults,
					tables: tables{sound: sound, volatile: c.Volatile},
				}
				run.test(t)
			})
		}
	})
}

// crashing is one operation on one engine.
type crashing[S any] struct {
	crash     Crash[S]
	operation Operation[S]
	failing   *database.DB
	faults    *Faults
	tables    tables

	none      string   // how it was before
	committed []string // after each commit of a run without a fault
	twice     string   // after a second run
}

func (c *crashing[S]) test(t *testing.T) {
	// What runs in the background of it has ended when rows are put back: it might take that for a fault of its own.
	t.Run("prepare", func(t *testing.T) {
		s := c.crash.Open(t, c.failing)
		if c.operation.Prepare != nil {
			c.operation.Prepare(t, s)
		}
	})
	c.tables.keep(t)
	c.none = c.tables.dump(t)
	points := 0
	t.Run("without a fault", func(t *testing.T) { points = c.sound(t) })
	for _, fault := range []Fault{Refused, Unheard, Severed} {
		for at := 1; at <= points && !t.Failed(); at++ {
			t.Run(fmt.Sprintf("%s %d of %d", fault, at, points), func(t *testing.T) { c.fail(t, fault, at) })
		}
	}
}

// sound runs the operation twice without a fault and returns how many statements the first run has.
func (c *crashing[S]) sound(t *testing.T) (points int) {
	s := c.reopen(t)
	c.faults.OnCommit(func() { c.committed = append(c.committed, c.tables.dump(t)) })
	c.faults.Arm(0, "")
	err := c.operation.Run(Mark(t.Context()), s)
	points = c.faults.Disarm()
	if want := max(1, c.operation.Commits); err != nil || len(c.committed) != want {
		t.Fatalf("without a fault: %v, %d commits, want %d", err, len(c.committed), want)
	}
	c.check(t)
	// Some things can be done once only: a lease that is finished is gone. Nothing changes then.
	if err := c.operation.Run(Mark(t.Context()), s); errors.Is(err, database.ErrUnavailable) {
		t.Fatalf("the second time: %v", err)
	}
	c.twice = c.tables.dump(t)
	return points
}

// fail runs the operation with a fault, and again without.
func (c *crashing[S]) fail(t *testing.T, fault Fault, at int) {
	s := c.reopen(t)
	c.faults.Arm(at, fault)
	err := c.operation.Run(Mark(t.Context()), s)
	c.faults.Disarm()
	c.check(t)
	after, done := c.tables.dump(t), c.committed[len(c.committed)-1]
	switch {
	case err == nil && after != done:
		t.Fatalf("it says that it was done, and left\n%s\ninstead of\n%s", after, done)
	case err != nil && !errors.Is(err, database.ErrUnavailable):
		t.Fatalf("the error does not say that the database is unavailable: %v", err)
	case after != c.none && !slices.Contains(c.committed, after):
		t.Fatalf("half of it is there:\n%s\nwhich is neither as before:\n%s\nnor committed:\n%s", after, c.none, done)
	case err == nil:
		return
	}
	if err := c.operation.Run(Mark(t.Context()), s); errors.Is(err, database.ErrUnavailable) {
		t.Fatalf("tried again: %v", err)
	}
	c.check(t)
	if again := c.tables.dump(t); again != done && again != c.twice {
		t.Fatalf("tried again it ends in\n%s\ninstead of\n%s\nor\n%s", again, done, c.twice)
	}
}

func (c *crashing[S]) reopen(t *testing.T) S {
	t.Helper()
	c.tables.restore(t)
	return c.crash.Open(t, c.failing)
}

func (c *crashing[S]) check(t *testing.T) {
	t.Helper()
	if c.crash.Check != nil {
		c.crash.Check(t, c.tables.sound)
	}
}

// Opening visits every crash point of making an empty database ready: each statement of open fails once, in each way,
// and open is then called again, as a daemon that starts anew would. That ends as it does when nothing fails.
func Opening(t *testing.T, open func(ctx context.Context, db *database.DB) error, volatile ...string) {
	t.Helper()
	Each(t, func(t *testing.T, fresh func(testing.TB) *database.DB) {
		points, done := 0, ""
		try := func(t *testing.T, fault Fault, at int) {
			t.Helper()
			sound := fresh(t)
			var err error
			t.Run("first", func(t *testing.T) { // a process of its own: what it opened is closed at the end
				failing, faults := OpenFailing(t, URL(t, sound))
				faults.Arm(at, fault)
				err = open(Mark(t.Context()), failing)
				points = max(points, faults.Disarm())
			})
			if again := open(t.Context(), sound); again != nil {
				t.Fatalf("opened again after %v: %v", err, again)
			}
			dump := tables{sound: sound, volatile: volatile}.dump(t)
			if done == "" {
				done = dump
			}
			if dump != done {
				t.Fatalf("after %v it ends in\n%s\ninstead of\n%s", err, dump, done)
			}
		}
		t.Run("without a fault", func(t *testing.T) { try(t, "", 0) })
		for _, fault := range []Fault{Refused, Unheard, Severed} {
			for at := 1; at <= points && !t.Failed(); at++ {
				t.Run(fmt.Sprintf("%s %d", fault, at), func(t *testing.T) { try(t, fault, at) })
			}
		}
	})
}
