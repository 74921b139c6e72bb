package tracking_test

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/antipode-registry/antipode/secondaryd/internal/tracking"
)

// A hint is kept until its change is synced, and a newer change brings its own.
func TestHintsLiveUntilTheirChangeIsSynced(t *testing.T) {
	each(t, tracking.Options{}, func(t *testing.T, s *site) {
		apply := func(revision int64, h tracking.Hint) {
			t.Helper()
			s.must(s.Apply(t.Context(), tracking.Batch{FeedID: feedID, Cursor: revision, Head: revision, Changes: []tracking.Change{
				{Repository: "a", Revision: revision, ChangedAt: at(revision), Hint: h},
			}}))
		}
		want := func(h tracking.Hint) {
			t.Helper()
			if diff := cmp.Diff(h, s.get("a").Hint); diff != "" {
				t.Errorf("the hint (-want +got):\n%s", diff)
			}
		}
		first := tracking.Hint{Touches: []tracking.Touch{{Tag: "v1", Digest: "sha256:1", At: at(1), Revision: 1}}}
		second := tracking.Hint{Base: 1, Touches: []tracking.Touch{
			{Tag: "v0", Deleted: true, At: at(2), Revision: 2}, {Tag: "v1", Digest: "sha256:1", At: at(1), Revision: 1},
		}}
		apply(1, first)
		want(first)
		lease := s.take("a")
		apply(2, second)
		s.finish(lease, synced()) // of revision 1
		want(second)
		if left := s.get("a").Hint.After(1); len(left) != 1 || left[0].Tag != "v0" {
			t.Errorf("after revision 1 was touched: %v", left)
		}
		s.finish(s.take("a"), synced())
		want(tracking.Hint{})
		apply(3, first)
		s.must(s.StartOver(t.Context()))
		want(tracking.Hint{}) // its revisions are another feed's
		apply(1, tracking.Hint{Touches: []tracking.Touch{{Tag: "\xff\x00"}}})
		if got := s.get("a").Hint.Touches[0].Tag; got != "\uFFFD\uFFFD" {
			t.Errorf("stored %q", got)
		}
	})
}
