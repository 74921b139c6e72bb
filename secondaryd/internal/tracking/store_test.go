package tracking_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"go.uber.org/goleak"

	"github.com/antipode-registry/antipode/internal/database"
	"github.com/antipode-registry/antipode/internal/database/databasetest"
	"github.com/antipode-registry/antipode/secondaryd/internal/tracking"
)

func TestMain(m *testing.M) {
	if url := os.Getenv(claimerDatabase); url != "" {
		if err := claimer(url); err != nil {
			fmt.Println("failed", 0, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	goleak.VerifyTestMain(m)
}

const feedID = "feed-1"

// site is a store with its database and the shorthands of these tests. Every method fails the test on an error.
type site struct {
	testing.TB
	*tracking.Store
	db *database.DB
}

// each runs fn on SQLite and on Postgres, with a fresh store.
func each(t *testing.T, opts tracking.Options, fn func(t *testing.T, s *site)) {
	t.Helper()
	t.Parallel()
	databasetest.Each(t, func(t *testing.T, open func(testing.TB) *database.DB) { fn(t, newSite(t, open(t), opts)) })
}

func newSite(t testing.TB, db *database.DB, opts tracking.Options) *site {
	t.Helper()
	store, err := tracking.Open(t.Context(), db, opts)
	if err != nil {
		t.Fatal(err)
	}
	return &site{TB: t, Store: store, db: db}
}

func (s *site) must(err error) {
	s.Helper()
	if err != nil {
		s.Fatal(err)
	}
}

// change applies one change with the cursor at its revision.
func (s *site) change(name string, revision int64, class tracking.Class) {
	s.Helper()
	changes := []tracking.Change{{Repository: name, Revision: revision, ChangedAt: at(revision), Class: class}}
	s.must(s.Apply(s.Context(), tracking.Batch{FeedID: feedID, Changes: changes, Cursor: revision, Head: revision}))
}

// at is when a revision was made in these tests.
func at(revision int64) time.Time { return time.UnixMilli(1_000_000 + revision).UTC() }

func (s *site) claim(pick tracking.Pick) *tracking.Lease {
	s.Helper()
	lease, err := s.Claim(s.Context(), "worker", pick)
	s.must(err)
	return lease
}

// take claims and expects that repository.
func (s *site) take(name string) *tracking.Lease {
	s.Helper()
	lease := s.claim(tracking.LiveFirst)
	if lease == nil || lease.Repository != name {
		s.Fatalf("claimed %+v, want %s", lease, name)
	}
	return lease
}

func (s *site) finish(l *tracking.Lease, o tracking.Outcome) {
	s.Helper()
	s.must(s.Finish(s.Context(), l, o))
}

func (s *site) get(name string) tracking.Repository {
	s.Helper()
	r, found, err := s.Get(s.Context(), name)
	s.must(err)
	if !found {
		s.Fatalf("%s is not tracked", name)
	}
	return r
}

func (s *site) wantState(name string, want tracking.State) {
	s.Helper()
	if r := s.get(name); r.State != want {
		s.Fatalf("%s is %s, want %s: %+v", name, r.State, want, r)
	}
}

// exec changes rows behind the store's back: time passes faster that way.
func (s *site) exec(statement string, args ...any) {
	s.Helper()
	s.must(s.db.Write(s.Context(), func(ctx context.Context, tx *database.Tx) error {
		_, err := tx.ExecContext(ctx, statement, args...)
		return err
	}))
}

// expire lets the repository's lease run out.
func (s *site) expire(name string) {
	s.Helper()
	s.exec("UPDATE repository SET lease_until = 1 WHERE name = $1 AND lease_until > 0", name)
}

// backOffIsOver lets the time of the next attempt come.
func (s *site) backOffIsOver(name string) {
	s.Helper()
	s.exec("UPDATE repository SET next_attempt_at = 1 WHERE name = $1", name)
}

func synced() tracking.Outcome { return tracking.Outcome{Synced: true, TagCount: 3} }
func failed() tracking.Outcome {
	return tracking.Outcome{Failure: &tracking.Failure{Side: "source", Message: "503"}}
}
func held() tracking.Outcome  { return tracking.Outcome{Held: "would remove 12 of 20 tags"} }
func retry() tracking.Outcome { return tracking.Outcome{Retry: time.Hour} }

func TestApplyStoresChangesAndCursor(t *testing.T) {
	each(t, tracking.Options{}, func(t *testing.T, s *site) {
		before := time.Now().Add(-time.Minute)
		s.must(s.Apply(t.Context(), tracking.Batch{FeedID: feedID, Changes: []tracking.Change{
			{Repository: "b", Revision: 4, ChangedAt: at(4), Class: tracking.Backfill},
			{Repository: "a", Revision: 3, ChangedAt: at(3), Class: tracking.Backfill},
			{Repository: "b", Revision: 7, ChangedAt: at(7), Class: tracking.Live},
		}, Cursor: 7, Head: 20}))
		c, err := s.Cursor(t.Context())
		s.must(err)
		want := tracking.Cursor{FeedID: feedID, Revision: 7, Head: 20}
		if diff := cmp.Diff(want, c, cmpopts.IgnoreFields(c, "MovedAt", "HeardAt")); diff != "" {
			t.Errorf("cursor (-want +got):\n%s", diff)
		}
		if c.MovedAt.Before(before) || c.HeardAt.Before(before) {
			t.Errorf("cursor moved at %v, primary heard at %v", c.MovedAt, c.HeardAt)
		}
		list, err := s.List(t.Context(), "", "", 10)
		s.must(err)
		wantList := []tracking.Repository{
			{Name: "a", State: tracking.Pending, Wanted: 3, OldestUnsyncedAt: at(3)},
			{Name: "b", State: tracking.Pending, Wanted: 7, OldestUnsyncedAt: at(4)},
		}
		if diff := cmp.Diff(wantList, list, cmpopts.IgnoreFields(wantList[0], "NextAttemptAt")); diff != "" {
			t.Errorf("rows (-want +got):\n%s", diff)
		}
		if l := s.claim(tracking.LiveOnly); l == nil || l.Repository != "b" {
			t.Errorf("live claim %+v, want b: one of its two changes was live", l)
		}
	})
}

func TestApplyTwiceChangesNothing(t *testing.T) {
	each(t, tracking.Options{}, func(t *testing.T, s *site) {
		s.change("a", 5, tracking.Live)
		s.finish(s.take("a"), synced())
		s.change("a", 5, tracking.Live)
		s.wantState("a", tracking.Synced)
		s.must(s.Apply(t.Context(), tracking.Batch{FeedID: feedID, Changes: []tracking.Change{{Repository: "a", Revision: 2}}, Cursor: 5, Head: 5}))
		if r := s.get("a"); r.Wanted != 5 || r.State != tracking.Synced {
			t.Errorf("an older revision changed the row: %+v", r)
		}
	})
}

func TestApplyRefuses(t *testing.T) {
	each(t, tracking.Options{}, func(t *testing.T, s *site) {
		s.change("a", 5, tracking.Live)
		for name, test := range map[string]struct {
			feed   string
			change tracking.Change
			cursor int64
			want   error
		}{
			"other feed":      {"feed-2", tracking.Change{Repository: "b", Revision: 6}, 6, tracking.ErrOtherFeed},
			"cursor back":     {feedID, tracking.Change{Repository: "b", Revision: 4}, 4, tracking.ErrCursorBack},
			"no feed":         {"", tracking.Change{Repository: "b", Revision: 6}, 6, nil},
			"no repository":   {feedID, tracking.Change{Revision: 6}, 6, nil},
			"no revision":     {feedID, tracking.Change{Repository: "b"}, 6, nil},
			"class of no use": {feedID, tracking.Change{Repository: "b", Revision: 6, Class: 7}, 6, nil},
		} {
			err := s.Apply(t.Context(), tracking.Batch{FeedID: test.feed, Changes: []tracking.Change{test.change}, Cursor: test.cursor, Head: test.cursor})
			if err == nil || test.want != nil && !errors.Is(err, test.want) {
				t.Errorf("%s: %v, want %v", name, err, test.want)
			}
		}
		if _, found, err := s.Get(t.Context(), "b"); found || err != nil {
			t.Errorf("a refused batch left a row behind (%v)", err)
		}
		if c, err := s.Cursor(t.Context()); err != nil || c.Revision != 5 || c.FeedID != feedID {
			t.Errorf("a refused batch moved the cursor to %+v (%v)", c, err)
		}
	})
}

func TestApplyManyThousands(t *testing.T) {
	each(t, tracking.Options{}, func(t *testing.T, s *site) {
		s.change("repository-00042", 1, tracking.Live)
		s.fill(5000)
		sum, err := s.Summary(t.Context())
		s.must(err)
		if sum.Total != 5000 || sum.Counts[tracking.Pending] != 5000 {
			t.Errorf("%+v, want 5000 pending of 5000", sum)
		}
	})
}

// fill applies that many backfill changes in batches.
func (s *site) fill(n int) {
	s.Helper()
	const batch = 2000
	for first := 0; first < n; first += batch {
		var changes []tracking.Change
		for i := first; i < min(n, first+batch); i++ {
			revision := int64(i + 2)
			changes = append(changes, tracking.Change{
				Repository: fmt.Sprintf("repository-%05d", i), Revision: revision, ChangedAt: at(revision),
				Class: tracking.Backfill,
			})
		}
		last := changes[len(changes)-1].Revision
		s.must(s.Apply(s.Context(), tracking.Batch{FeedID: feedID, Changes: changes, Cursor: last, Head: last}))
	}
}

func TestHeard(t *testing.T) {
	each(t, tracking.Options{}, func(t *testing.T, s *site) {
		s.change("a", 5, tracking.Live)
		s.exec("UPDATE site SET heard_at = 1")
		s.must(s.Heard(t.Context(), 9, time.Time{}))
		s.must(s.Heard(t.Context(), 8, time.Time{}))
		c, err := s.Cursor(t.Context())
		s.must(err)
		if c.Head != 9 || c.Revision != 5 || c.HeardAt.UnixMilli() == 1 {
			t.Errorf("%+v, want head 9, cursor 5 and a new time", c)
		}
	})
}

func TestStartOver(t *testing.T) {
	each(t, tracking.Options{}, func(t *testing.T, s *site) {
		s.change("done", 1, tracking.Live)
		s.finish(s.take("done"), synced())
		s.change("held", 2, tracking.Live)
		s.finish(s.take("held"), held())
		s.change("failed", 3, tracking.Live)
		s.finish(s.take("failed"), failed())
		s.change("leased", 4, tracking.Live)
		lease := s.take("leased")

		s.must(s.StartOver(t.Context()))

		if err := s.Finish(t.Context(), lease, synced()); !errors.Is(err, tracking.ErrLeaseLost) {
			t.Errorf("a sync of the old feed ended with %v, want ErrLeaseLost", err)
		}
		list, err := s.List(t.Context(), "", "", 10)
		s.must(err)
		for _, r := range list {
			if r.Wanted != 0 || r.Synced != -1 || r.State == tracking.Synced || r.OldestUnsyncedAt.IsZero() {
				t.Errorf("not due by a complete listing: %+v", r)
			}
		}
		if r := s.get("held"); r.HeldReason == "" {
			t.Error("the hold was forgotten")
		}
		if r := s.get("failed"); r.Failures != 1 {
			t.Errorf("%d failures after starting over, want 1", r.Failures)
		}
		if sum, err := s.Summary(t.Context()); err != nil || sum.LowestUnsynced != 1 {
			t.Errorf("lowest unsynced %d, want 1 (%v)", sum.LowestUnsynced, err)
		}
		for range list {
			if l := s.claim(tracking.LiveFirst); l == nil || l.Synced != -1 {
				t.Errorf("claimed %+v, want a lease with synced -1", l)
			}
		}
		s.must(s.Apply(t.Context(), tracking.Batch{FeedID: "feed-2", Changes: []tracking.Change{{Repository: "done", Revision: 2}}, Cursor: 2, Head: 2}))
		if r := s.get("done"); r.Wanted != 2 || r.Synced != -1 {
			t.Errorf("the new feed's revision is not wanted: %+v", r)
		}
	})
}

func TestReopenKeepsEverything(t *testing.T) {
	each(t, tracking.Options{}, func(t *testing.T, s *site) {
		s.change("a", 1, tracking.Live)
		o := synced()
		o.Journal = []tracking.Entry{{At: at(1), Action: "copied", Reference: "latest", Digest: "sha256:1"}}
		s.finish(s.take("a"), o)
		s.change("b", 2, tracking.Live)
		s.finish(s.take("b"), failed())
		s.change("c", 3, tracking.Live)
		s.take("c")
		s.must(s.SetPaused(t.Context(), true))
		s.must(s.Content().Record(t.Context(), "a", "sha256:1"))

		again := newSite(t, databasetest.Shared(t, s.db), tracking.Options{})
		if diff := cmp.Diff(s.snapshot(), again.snapshot()); diff != "" {
			t.Errorf("after reopening (-before +after):\n%s", diff)
		}
	})
}

// snapshot is all that a store answers about itself.
func (s *site) snapshot() map[string]any {
	s.Helper()
	ctx := s.Context()
	result := map[string]any{}
	put := func(name string, value any, err error) {
		s.Helper()
		s.must(err)
		result[name] = value
	}
	cursor, err := s.Cursor(ctx)
	put("cursor", cursor, err)
	list, err := s.List(ctx, "", "", 100)
	put("list", list, err)
	summary, err := s.Summary(ctx)
	put("summary", summary, err)
	paused, err := s.Paused(ctx)
	put("paused", paused, err)
	journal, err := s.Journal(ctx, "a", 10)
	put("journal", journal, err)
	where, err := s.Content().Find(ctx, "a", "sha256:1")
	put("content", where, err)
	return result
}

// A process that was killed holds leases for nobody: the next one on its SQLite file need not wait for them.
func TestOpeningEndsLeasesOnSQLite(t *testing.T) {
	each(t, tracking.Options{}, func(t *testing.T, s *site) {
		s.change("a", 1, tracking.Live)
		killed := s.take("a")
		next, err := tracking.Open(t.Context(), s.db, tracking.Options{})
		if err != nil {
			t.Fatal(err)
		}
		lease, err := next.Claim(t.Context(), "next", tracking.LiveFirst)
		if err != nil {
			t.Fatal(err)
		}
		if s.db.Dialect() == database.Postgres {
			if lease != nil {
				t.Errorf("another process took %+v, which is leased", lease)
			}
			return
		}
		if lease == nil || lease.Fence <= killed.Fence {
			t.Fatalf("got %+v after %+v, want the repository under a newer fence", lease, killed)
		}
		s.wantLost(next.Renew(t.Context(), killed))
	})
}
