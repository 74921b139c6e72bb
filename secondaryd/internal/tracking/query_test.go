package tracking_test

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/antipode-registry/antipode/secondaryd/internal/tracking"
)

func TestSummary(t *testing.T) {
	each(t, tracking.Options{}, func(t *testing.T, s *site) {
		sum, err := s.Summary(t.Context())
		s.must(err)
		want := tracking.Summary{
			Counts: map[tracking.State]int64{"pending": 0, "syncing": 0, "synced": 0, "failed": 0, "held": 0},
		}
		if diff := cmp.Diff(want, sum); diff != "" {
			t.Errorf("of an empty store (-want +got):\n%s", diff)
		}
		s.change("synced", 1, tracking.Live)
		s.finish(s.take("synced"), synced())
		s.change("held", 2, tracking.Live)
		s.finish(s.take("held"), held())
		s.change("failed first", 3, tracking.Live)
		s.finish(s.take("failed first"), tracking.Outcome{Failure: &tracking.Failure{Message: "503", At: at(30)}})
		s.change("failed last", 4, tracking.Live)
		last := &tracking.Failure{Reference: "latest", Side: "destination", Message: "401", At: at(40)}
		s.finish(s.take("failed last"), tracking.Outcome{Failure: last})
		s.change("syncing", 5, tracking.Live)
		s.take("syncing")
		s.change("pending", 6, tracking.Live)

		sum, err = s.Summary(t.Context())
		s.must(err)
		if time.Since(sum.LastSyncedAt) > time.Minute {
			t.Errorf("last synced %v", sum.LastSyncedAt)
		}
		sum.LastSyncedAt = time.Time{}
		want = tracking.Summary{
			Counts: map[tracking.State]int64{"pending": 1, "syncing": 1, "synced": 1, "failed": 2, "held": 1},
			Total:  6, LowestUnsynced: 2, OldestUnsyncedAt: at(2),
			LastError: &tracking.Failure{
				Repository: "failed last", Reference: "latest", Side: "destination", Message: "401", At: at(40), Attempts: 1,
			},
		}
		if diff := cmp.Diff(want, sum); diff != "" {
			t.Errorf("summary (-want +got):\n%s", diff)
		}
		if diff := cmp.Diff(want.LastError, s.get("failed last").LastError); diff != "" {
			t.Errorf("last error of the row (-want +got):\n%s", diff)
		}
	})
}

// What is held comes first, then the newest failure; what a worker has taken meanwhile is left out, as in the counts.
func TestTroubled(t *testing.T) {
	each(t, tracking.Options{}, func(t *testing.T, s *site) {
		want := func(limit int, want ...string) {
			t.Helper()
			list, err := s.Troubled(t.Context(), limit)
			s.must(err)
			var got []string
			for _, r := range list {
				got = append(got, r.Name+" "+string(r.State))
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("%d at most (-want +got):\n%s", limit, diff)
			}
		}
		want(20)
		failed := func(second int64) tracking.Outcome {
			return tracking.Outcome{Failure: &tracking.Failure{Message: "503", At: at(second)}}
		}
		for i, row := range []struct {
			name    string
			outcome tracking.Outcome
		}{{"a", synced()}, {"held b", held()}, {"held a", held()}, {"failed last", failed(40)}, {"failed first", failed(30)}} {
			s.change(row.name, int64(i+1), tracking.Live)
			s.finish(s.take(row.name), row.outcome)
		}
		s.change("pending", 6, tracking.Backfill)
		want(20, "held a held", "held b held", "failed last failed", "failed first failed")
		want(3, "held a held", "held b held", "failed last failed")
		want(2, "held a held", "failed last failed") // neither hides the other
		want(1, "held a held")
		s.backOffIsOver("failed last")
		s.take("failed last")
		want(20, "held a held", "held b held", "failed first failed")
	})
}

func TestListPagesByName(t *testing.T) {
	each(t, tracking.Options{}, func(t *testing.T, s *site) {
		var want []string
		for i, name := range []string{"B", "a", "a-b", "a/b", "a_b", "ab", "b", "é"} { // bytewise, whatever the locale
			s.change(name, int64(i+1), tracking.Live)
			want = append(want, name)
		}
		for _, state := range []tracking.State{"", tracking.Pending} {
			var got []string
			for after := ""; ; {
				page, err := s.List(t.Context(), state, after, 3)
				s.must(err)
				if len(page) == 0 {
					break
				}
				for _, r := range page {
					got = append(got, r.Name)
				}
				after = got[len(got)-1]
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("state %q (-want +got):\n%s", state, diff)
			}
		}
		if _, err := s.List(t.Context(), "merry", "", 1); err == nil {
			t.Error("a state that does not exist was listed")
		}
		if _, found, err := s.Get(t.Context(), "merry"); found || err != nil {
			t.Errorf("found what is not tracked (%v)", err)
		}
	})
}

func TestJournalIsBoundedAndNewestFirst(t *testing.T) {
	each(t, tracking.Options{JournalPerRepository: 5}, func(t *testing.T, s *site) {
		s.change("other", 1, tracking.Live)
		o := synced()
		o.Journal = []tracking.Entry{{Action: "synced"}}
		s.finish(s.take("other"), o)

		next := 0
		for revision, n := range []int{3, 4, 0, 300} { // within the bound, over it, nothing, more than the bound at once
			s.change("a", int64(revision+2), tracking.Live)
			o := synced()
			for range n {
				next++
				o.Journal = append(o.Journal, tracking.Entry{
					At: at(int64(next)), Action: "removed", Reference: fmt.Sprint(next), Digest: "d", Previous: "p", Detail: "why",
				})
			}
			s.finish(s.take("a"), o)
			got, err := s.Journal(t.Context(), "a", 100)
			s.must(err)
			var want []tracking.Entry
			for i := next; i > max(0, next-5); i-- {
				want = append(want, tracking.Entry{
					At: at(int64(i)), Action: "removed", Reference: fmt.Sprint(i), Digest: "d", Previous: "p", Detail: "why",
				})
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("after %d entries (-want +got):\n%s", next, diff)
			}
		}
		if got, err := s.Journal(t.Context(), "a", 2); err != nil || len(got) != 2 || got[0].Reference != fmt.Sprint(next) {
			t.Errorf("%+v (%v), want the two newest", got, err)
		}
		got, err := s.Journal(t.Context(), "other", 10)
		if err != nil || len(got) != 1 || time.Since(got[0].At) > time.Minute {
			t.Errorf("another repository's journal is %+v (%v), want its one entry, of now", got, err)
		}
	})
}

func TestControlsAreJournalled(t *testing.T) {
	each(t, tracking.Options{}, func(t *testing.T, s *site) {
		s.change("a", 1, tracking.Live)
		s.finish(s.take("a"), held())
		_, err := s.Release(t.Context(), "a")
		s.must(err)
		_, err = s.Resync(t.Context(), "a")
		s.must(err)
		got, err := s.Journal(t.Context(), "a", 10)
		s.must(err)
		if len(got) != 2 || got[0].Action != "resync" || got[1].Action != "release" {
			t.Errorf("journal %+v, want resync and release", got)
		}
	})
}

func TestWatch(t *testing.T) {
	each(t, tracking.Options{}, func(t *testing.T, s *site) {
		wake, stop := s.Watch()
		defer stop()
		woken := func(what string) {
			t.Helper()
			select {
			case <-wake:
			case <-time.After(20 * time.Second):
				t.Errorf("no wake after %s", what)
			}
		}
		s.change("a", 1, tracking.Live)
		woken("a change")
		s.finish(s.take("a"), held())
		woken("a finish")
		_, err := s.Release(t.Context(), "a")
		s.must(err)
		woken("a release")
		_, err = s.Resync(t.Context(), "a")
		s.must(err)
		woken("a resync")
		_, err = s.ResyncAll(t.Context())
		s.must(err)
		woken("a resync of all")
		s.must(s.SetPaused(t.Context(), true))
		woken("a pause")
		s.must(s.StartOver(t.Context()))
		woken("starting over")
	})
}

func TestContent(t *testing.T) {
	each(t, tracking.Options{}, func(t *testing.T, s *site) {
		ctx, content := t.Context(), s.Content()
		want := func(digest, located string, holders ...string) {
			t.Helper()
			for _, name := range []string{"a", "b", "c"} {
				expected := located
				if slices.Contains(holders, name) {
					expected = name
				}
				if where, err := content.Find(ctx, name, digest, "d9"); where[digest] != expected || where["d9"] != "" || err != nil {
					t.Errorf("%s for %s found in %q (%v), want %q", digest, name, where, err, expected)
				}
			}
		}
		want("d1", "")
		s.must(content.Record(ctx, "b", "d1", "d2", "d1"))
		s.must(content.Record(ctx, "b", "d2"))
		s.must(content.Record(ctx, "a", "d2"))
		s.must(content.Record(ctx, "a"))
		want("d1", "b", "b")
		want("d2", "a", "a", "b")
		s.must(content.Forget(ctx, "a", "d1", "d2"))
		want("d2", "b", "b")
		s.must(content.Record(ctx, "a", "d1"))
		s.must(content.DropRepository(ctx, "b"))
		want("d1", "a", "a")
		want("d2", "")

		many := make([]string, 3000)
		for i := range many {
			many[i] = fmt.Sprintf("sha256:%064d", i)
		}
		s.must(content.Record(ctx, "b", many...))
		want(many[2999], "b", "b")
		s.must(content.Forget(ctx, "b", many...))
		want(many[0], "")
	})
}
