package main

import (
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/antipode-registry/antipode/internal/database/databasetest"
)

// TestShort makes one short run on each database, in which primaryd's becomes an older copy of itself. Longer runs are
// for `make torture`.
func TestShort(t *testing.T) {
	dir, err := build(t.Context(), "..")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	registry, err := filepath.Abs("../.tools/bin/registry")
	if err != nil {
		t.Fatal(err)
	}
	for seed, database := range map[uint64]string{49: "sqlite", 498: "postgres"} {
		t.Run(fmt.Sprintf("%s-%d", database, seed), func(t *testing.T) {
			if database == "postgres" {
				databasetest.SkipWithoutPostgres(t)
			}
			var log strings.Builder
			s, err := run(t.Context(), options{
				Seed: seed, Duration: 15 * time.Second, Database: database, Programs: dir, Registry: registry,
			}, &log)
			if err != nil || len(s.Violations) > 0 {
				t.Errorf("error %v, violations %q\n%s", err, s.Violations, log.String())
			}
			t.Logf("equal after %s; %v", s.EqualAfter, s.Counts)
		})
	}
}

// TestPlanFollowsTheSeed: a run can be made again, and no two faults are on one target at once.
func TestPlanFollowsTheSeed(t *testing.T) {
	t.Parallel()
	w := world{options: options{Database: "postgres"}}
	for seed := range uint64(50) {
		faults := plan(seed, 2*time.Minute, w.parts())
		if !reflect.DeepEqual(faults, plan(seed, 2*time.Minute, w.parts())) {
			t.Fatalf("seed %d makes two plans", seed)
		}
		if reflect.DeepEqual(faults, plan(seed+1, 2*time.Minute, w.parts())) {
			t.Fatalf("seeds %d and %d make one plan", seed, seed+1)
		}
		over := map[string]time.Duration{}
		for _, f := range faults {
			if f.At < over[f.Target] || f.At+f.Lasts > 2*time.Minute {
				t.Errorf("seed %d: %s at %s for %s, while another lasts until %s", seed, f, f.At, f.Lasts, over[f.Target])
			}
			over[f.Target] = f.At + f.Lasts
		}
	}
}

// TestLedger tells what it must find and what it must not.
func TestLedger(t *testing.T) {
	t.Parallel()
	l := newLedger()
	put := func(digest string) {
		t.Helper()
		if err := l.Put("app", "v1", digest, func() error { return nil }); err != nil {
			t.Fatal(err)
		}
	}
	remove := func() {
		t.Helper()
		if err := l.Remove("app", []string{"v1"}, absent, true, func() error { return nil }); err != nil {
			t.Fatal(err)
		}
	}
	seen := func(digest string, wrong bool) {
		t.Helper()
		if got := l.Seen("app", "v1", digest, l.Hold("app", "v1")); (got != "") != wrong {
			t.Errorf("the site has %q: %q", digest, got)
		}
	}
	put("a")
	seen(absent, false) // not there yet
	seen("b", true)     // never was
	seen("a", false)
	seen(absent, true) // held all the while
	before := l.Hold("app", "v1")
	remove()
	if got := l.Seen("app", "v1", absent, before); got != "" {
		t.Errorf("gone while the site was asked: %q", got)
	}
	put("a")
	seen("a", false) // may be left of before
	seen(absent, false)
	put("c")
	seen("c", false) // a sync has read the primary since
	seen(absent, true)
	err := l.Put("app", "v1", "d", func() error { return os.ErrDeadlineExceeded })
	if _, calm := l.Calm("app"); err == nil || calm {
		t.Error("what was not confirmed is accounted for")
	}
	seen("d", false)
}

// TestLedgerForgetsWhatPrimarydForgot: what an older copy of the database may lack is covered by a sweep alone.
func TestLedgerForgetsWhatPrimarydForgot(t *testing.T) {
	t.Parallel()
	l := newLedger()
	var pushed event
	pushed.Action, pushed.Target.Repository, pushed.Target.Tag, pushed.Timestamp = "push", "app", "v1", time.Now().Add(time.Hour)
	calm := func(when string, want bool) {
		t.Helper()
		if _, got := l.Calm("app"); got != want {
			t.Errorf("%s: calm is %v", when, got)
		}
	}
	put := func() {
		t.Helper()
		if err := l.Put("app", "v1", "a", func() error { return nil }); err != nil {
			t.Fatal(err)
		}
	}
	put()
	calm("before it was acknowledged", false)
	asked := time.Now()
	l.Acknowledged(pushed, asked)
	calm("acknowledged", true)
	l.Rewound()
	calm("rewound", false)
	l.Account("app", asked)
	calm("swept before that", false)
	l.Account("app", time.Now().Add(time.Millisecond))
	calm("swept after it", true)
	put()
	l.Acknowledged(pushed, asked)
	calm("acknowledged by what was lost", false)
	l.Acknowledged(pushed, time.Now())
	calm("acknowledged anew", true)
}
