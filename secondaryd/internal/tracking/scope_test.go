package tracking_test

import (
	"strings"
	"testing"

	"github.com/antipode-registry/antipode/secondaryd/internal/tracking"
)

func TestScope(t *testing.T) {
	each(t, tracking.Options{}, func(t *testing.T, s *site) {
		names := "as they are"
		set := func(scope string, wants func(string) bool, want bool) {
			t.Helper()
			changed, err := s.SetScope(t.Context(), tracking.Scope{Selection: scope, Names: names, Wants: wants})
			if changed != want || err != nil {
				t.Fatalf("scope %s changed %v, want %v (%v)", scope, changed, want, err)
			}
		}
		everything := func(string) bool { return true }
		onlyA := func(name string) bool { return strings.HasPrefix(name, "a") }
		set("all", everything, false)
		set("all", everything, false)
		s.change("a", 1, tracking.Live)
		s.finish(s.take("a"), synced())
		s.change("b", 2, tracking.Live)
		old := s.take("b")

		set("a*", onlyA, true)
		if _, found, err := s.Get(t.Context(), "b"); found || err != nil {
			t.Errorf("what left the scope is still tracked (%v)", err)
		}
		s.wantState("a", tracking.Synced)
		if c, err := s.Cursor(t.Context()); err != nil || c.Revision != 0 || c.FeedID != feedID {
			t.Errorf("cursor %+v (%v), want the same feed from its beginning", c, err)
		}
		if sum, err := s.Summary(t.Context()); err != nil || sum.Total != 1 {
			t.Errorf("%d repositories counted, want 1 (%v)", sum.Total, err)
		}

		set("all", everything, true)
		s.change("b", 2, tracking.Backfill)
		if again := s.take("b"); again.Fence == old.Fence {
			t.Errorf("fence %d was given out twice", old.Fence)
		}
		s.wantLost(s.Finish(t.Context(), old, synced()))

		// Under other names the site holds nothing.
		names = "with a prefix"
		set("all", everything, true)
		set("all", everything, false)
		if lease := s.take("a"); lease.Synced != -1 {
			t.Errorf("the repository asks for changes since %d, want a complete listing", lease.Synced)
		}
	})
}
