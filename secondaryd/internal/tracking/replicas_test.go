package tracking_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/antipode-registry/antipode/internal/lease"
	"github.com/antipode-registry/antipode/secondaryd/internal/tracking"
)

// other is another process on the same database, as far as the store can tell.
func (s *site) other(t *testing.T) *site { return newSite(t, s.db, tracking.Options{}) }

func (s *site) adopt(name, selection string, wantInForce, wantChanged bool) {
	s.Helper()
	scope := tracking.Scope{Selection: selection, Names: "as they are", Wants: func(string) bool { return true }}
	inForce, changed, err := s.Adopt(s.Context(), name, scope)
	if inForce != wantInForce || changed != wantChanged || err != nil {
		s.Fatalf("%s adopts %s: in force %v, changed %v (%v); want %v, %v", name, selection, inForce, changed, err,
			wantInForce, wantChanged)
	}
}

// While processes are replaced by ones with another configuration, the old one is in force until its last process has
// ended, and nothing sets it back.
func TestScopeGivesWayWithItsLastProcess(t *testing.T) {
	each(t, tracking.Options{}, func(t *testing.T, s *site) {
		old, older, renewed := s, s.other(t), s.other(t)
		old.adopt("old", "all", true, false)
		older.adopt("older", "all", true, false)
		renewed.adopt("new", "a*", false, false)
		s.must(old.DropReplica(t.Context(), "old")) // in order
		renewed.adopt("new", "a*", false, false)
		s.exec("UPDATE replica SET seen_at = 1 WHERE name = 'older'") // killed
		renewed.adopt("new", "a*", true, true)

		// What was killed and is started again with its old configuration waits for the new one's end.
		old.adopt("old again", "all", false, false)
		renewed.adopt("new", "a*", true, false)
	})
}

// What was stopped so long that it passed for dead does nothing by its old configuration when it wakes up.
func TestOldScopeIsRefused(t *testing.T) {
	each(t, tracking.Options{}, func(t *testing.T, s *site) {
		s.adopt("stopped", "all", true, false)
		s.change("a", 1, tracking.Live)
		s.exec("UPDATE replica SET seen_at = 1")
		s.other(t).adopt("new", "a*", true, true)
		if inForce, err := s.InForce(t.Context()); inForce || err != nil {
			t.Errorf("the old scope is in force (%v)", err)
		}
		if lease := s.claim(tracking.LiveFirst); lease != nil {
			t.Errorf("claimed %s by the old scope", lease.Repository)
		}
		err := s.Apply(t.Context(), tracking.Batch{FeedID: feedID, Changes: []tracking.Change{{Repository: "b", Revision: 2}}, Cursor: 2, Head: 2})
		if !errors.Is(err, tracking.ErrOtherScope) {
			t.Errorf("Apply by the old scope = %v, want ErrOtherScope", err)
		}
	})
}

func TestReplicasVanish(t *testing.T) {
	each(t, tracking.Options{}, func(t *testing.T, s *site) {
		s.must(s.ReportReplica(t.Context(), "one", "first"))
		s.must(s.ReportReplica(t.Context(), "two", "{}"))
		s.must(s.ReportReplica(t.Context(), "one", "second"))
		want := func(names ...string) {
			t.Helper()
			list, err := s.Replicas(t.Context())
			s.must(err)
			if len(list) != len(names) {
				t.Fatalf("%d processes, want %v", len(list), names)
			}
			for i, r := range list {
				if r.Name != names[i] || time.Since(r.SeenAt) > time.Hour {
					t.Errorf("process %+v, want %s", r, names[i])
				}
			}
		}
		want("one", "two")
		if list, err := s.Replicas(t.Context()); err != nil || list[0].Report != "second" {
			t.Errorf("%+v (%v), want the newest report", list, err)
		}
		s.exec("UPDATE replica SET seen_at = 1 WHERE name = 'two'")
		want("one")
		s.must(s.DropReplica(t.Context(), "one"))
		want()
	})
}

// A leader whose term is over writes nothing by its context: neither a batch nor the feed's end, which a follower may
// have begun before it was stopped.
func TestFormerLeaderIsRefused(t *testing.T) {
	each(t, tracking.Options{}, func(t *testing.T, s *site) {
		leases, err := lease.Open(t.Context(), s.db, lease.Options{Owner: "one"})
		s.must(err)
		var former context.Context //nolint:containedctx // it is what the test is about
		s.must(leases.Lead(t.Context(), "site", func(ctx context.Context, _ *lease.Term) error {
			former = context.WithoutCancel(ctx)
			return s.Apply(former, tracking.Batch{FeedID: feedID, Changes: []tracking.Change{{Repository: "a", Revision: 1}}, Cursor: 1, Head: 1})
		}))
		for name, err := range map[string]error{
			"Apply":     s.Apply(former, tracking.Batch{FeedID: feedID, Changes: []tracking.Change{{Repository: "a", Revision: 2}}, Cursor: 2, Head: 2}),
			"Heard":     s.Heard(former, 7, time.Time{}),
			"StartOver": s.StartOver(former),
		} {
			if !errors.Is(err, lease.ErrTermLost) {
				t.Errorf("%s after the term = %v, want ErrTermLost", name, err)
			}
		}
		if c, err := s.Cursor(t.Context()); err != nil || c.Revision != 1 || c.Head != 1 {
			t.Errorf("cursor %+v (%v), want what the leader wrote", c, err)
		}
	})
}

// Two followers, one of them stopped between starting over and its first batch: the feed that it had is not adopted
// again.
func TestStoppedFollowerDoesNotAdoptItsOldFeed(t *testing.T) {
	each(t, tracking.Options{}, func(t *testing.T, s *site) {
		leases, err := lease.Open(t.Context(), s.db, lease.Options{Owner: "one"})
		s.must(err)
		lead := func(fn func(ctx context.Context) error) {
			t.Helper()
			s.must(leases.Lead(t.Context(), "site", func(ctx context.Context, _ *lease.Term) error { return fn(ctx) }))
		}
		var stopped context.Context //nolint:containedctx // it is what the test is about
		lead(func(ctx context.Context) error {
			stopped = context.WithoutCancel(ctx)
			return s.Apply(ctx, tracking.Batch{FeedID: "feed-1", Changes: []tracking.Change{{Repository: "a", Revision: 5}}, Cursor: 5, Head: 5})
		})
		lead(func(ctx context.Context) error { return s.StartOver(ctx) })
		err = s.Apply(stopped, tracking.Batch{FeedID: "feed-1", Changes: []tracking.Change{{Repository: "a", Revision: 6}}, Cursor: 6, Head: 6})
		if !errors.Is(err, lease.ErrTermLost) {
			t.Errorf("a batch of the old feed: %v, want ErrTermLost", err)
		}
		lead(func(ctx context.Context) error {
			return s.Apply(ctx, tracking.Batch{FeedID: "feed-2", Changes: []tracking.Change{{Repository: "a", Revision: 1}}, Cursor: 1, Head: 1})
		})
		if c, err := s.Cursor(t.Context()); err != nil || c.FeedID != "feed-2" {
			t.Errorf("cursor %+v (%v), want feed-2", c, err)
		}
	})
}
