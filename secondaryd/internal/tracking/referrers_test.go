package tracking_test

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/antipode-registry/antipode/secondaryd/internal/tracking"
)

func TestReferrers(t *testing.T) {
	each(t, tracking.Options{}, func(t *testing.T, s *site) {
		ctx := t.Context()
		want := func(repository string, want ...tracking.Referrer) {
			t.Helper()
			got, err := s.Referrers(ctx, repository)
			if diff := cmp.Diff(want, got); err != nil || diff != "" {
				t.Errorf("referrers of %s: %v, %s", repository, err, diff)
			}
		}
		one, two := tracking.Referrer{Digest: "d1", Subject: "s"}, tracking.Referrer{Digest: "d2", Subject: "s"}
		written := tracking.Referrer{Digest: "d1", Subject: "s", Present: true}
		for _, r := range []tracking.Referrer{two, one, one} {
			s.must(s.AddReferrer(ctx, "a", r))
		}
		s.must(s.AddReferrer(ctx, "b", written))
		want("a", one, two)
		// To be about to write it again does not make it less present.
		s.must(s.AddReferrer(ctx, "a", written))
		s.must(s.AddReferrer(ctx, "a", one))
		want("a", written, two)
		// What is known of the content goes, what has to be looked after stays.
		s.must(s.Content().DropRepository(ctx, "a"))
		want("a", one, two)
		want("b", written)
		s.must(s.DropReferrer(ctx, "a", "d1"))
		s.must(s.DropReferrer(ctx, "a", "d1"))
		want("a", two)
	})
}
