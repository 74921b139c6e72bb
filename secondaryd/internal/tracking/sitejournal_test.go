package tracking_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/antipode-registry/antipode/secondaryd/internal/tracking"
)

// What is done to the site as a whole is kept with who asked and where the cursor stood, and what is no news is not.
func TestSiteJournal(t *testing.T) {
	each(t, tracking.Options{JournalPerRepository: 5}, func(t *testing.T, s *site) {
		s.change("a", 3, tracking.Live)
		ops := tracking.AskedBy(t.Context(), "ops")
		s.must(s.SetPaused(ops, true))
		s.must(s.SetPaused(ops, true))
		s.must(s.SetPaused(t.Context(), false))
		s.must(s.SetPaused(t.Context(), false))
		_, err := s.ResyncAll(ops)
		s.must(err)
		s.must(s.Promote(ops, -1))
		s.must(s.Demote(tracking.AskedBy(t.Context(), "other\x00")))
		var got []string
		acts, err := s.SiteJournal(t.Context(), time.Time{}, 10)
		s.must(err)
		for _, a := range acts {
			got = append(got, fmt.Sprintf("%s by %q at %d of %d: %s", a.Action, a.By, a.Revision, a.Head, a.Detail))
			if since := time.Since(a.At); since > time.Hour || since < -time.Hour {
				t.Errorf("%s happened at %s", a.Action, a.At)
			}
		}
		want := []string{
			`demote by "other` + "\uFFFD" + `" at 3 of 3: `,
			`promote by "ops" at 3 of 3: unplanned: 1 repositories were not synced`,
			`resync by "ops" at 3 of 3: 1 repositories`, `resume by "" at 3 of 3: `, `pause by "ops" at 3 of 3: `,
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("the site's journal (-want +got):\n%s", diff)
		}
		_, err = s.VerifyAll(ops, tracking.Graphs)
		s.must(err)
		if acts, err = s.SiteJournal(t.Context(), time.Time{}, 10); err != nil || len(acts) != 5 || acts[0].Action != "verify" {
			t.Errorf("of six acts five are kept: %v, %v", acts, err)
		}
		if acts, err = s.SiteJournal(t.Context(), time.Now().Add(time.Hour), 10); err != nil || len(acts) != 0 {
			t.Errorf("acts of a time to come: %v, %v", acts, err)
		}
		entries, err := s.Journal(t.Context(), "a", 10)
		s.must(err)
		if _, err := s.Resync(ops, "a"); err != nil {
			t.Fatal(err)
		}
		more, err := s.Journal(t.Context(), "a", 10)
		s.must(err)
		if len(more) != len(entries)+1 || more[0].Detail != "a complete listing was asked for by ops" {
			t.Errorf("the repository's journal does not say who asked: %v", more)
		}
	})
}
