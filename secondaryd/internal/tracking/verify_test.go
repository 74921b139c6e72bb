package tracking_test

import (
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/antipode-registry/antipode/internal/database/databasetest"
	"github.com/antipode-registry/antipode/secondaryd/internal/tracking"
)

func (s *site) verify(name string, depth tracking.Depth) {
	s.Helper()
	found, err := s.Verify(s.Context(), name, depth)
	s.must(err)
	if !found {
		s.Fatalf("%s is not tracked", name)
	}
}

func (s *site) wantDepth(l *tracking.Lease, want tracking.Depth) {
	s.Helper()
	if l.Verify != want {
		s.Errorf("the lease asks for depth %d, want %d", l.Verify, want)
	}
}

// How many are verified, and how many were found damaged, is counted through a repository's life.
func TestVerifiedAndDamagedAreCounted(t *testing.T) {
	each(t, tracking.Options{}, func(t *testing.T, s *site) {
		want := func(verified, damaged int64) {
			t.Helper()
			sum, err := s.Summary(t.Context())
			if s.must(err); sum.Verified != verified || sum.Damaged != damaged {
				t.Errorf("%d verified, %d damaged; want %d, %d", sum.Verified, sum.Damaged, verified, damaged)
			}
		}
		s.change("r", 1, tracking.Live)
		s.finish(s.take("r"), synced())
		want(0, 0)
		for range 2 { // counted once
			s.verify("r", tracking.Graphs)
			s.finish(s.take("r"), synced())
			want(1, 0)
		}
		s.verify("r", tracking.Graphs)
		broken := failed()
		broken.Damaged = true
		s.finish(s.take("r"), broken)
		want(1, 1)
		s.verify("r", tracking.Graphs)
		s.finish(s.take("r"), failed()) // the primary did not answer: nobody looked
		want(1, 1)
		s.verify("r", tracking.Graphs)
		s.finish(s.take("r"), synced())
		want(1, 0)
		_, err := s.SetScope(t.Context(), tracking.Scope{Selection: "all", Wants: func(string) bool { return true }})
		s.must(err)
		_, err = s.SetScope(t.Context(), tracking.Scope{Selection: "none", Wants: func(string) bool { return false }})
		s.must(err)
		want(0, 0)
	})
}

// A check is asked for until a sync succeeds: failures, retries, holds and lost leases do not use it up.
func TestVerifyLastsUntilSuccess(t *testing.T) {
	each(t, tracking.Options{}, func(t *testing.T, s *site) {
		s.change("r", 1, tracking.Live)
		s.finish(s.take("r"), synced())
		if at := s.get("r").VerifiedAt; !at.IsZero() {
			t.Errorf("verified at %v without a check", at)
		}
		s.verify("r", tracking.Deep)
		if e := s.newest("r"); e.Action != "verify" {
			t.Errorf("journal entry %+v, want verify", e)
		}
		for _, o := range []tracking.Outcome{failed(), retry(), held()} {
			lease := s.take("r")
			s.wantDepth(lease, tracking.Deep)
			if lease.Synced != -1 {
				t.Errorf("a check with changes since %d, want a complete listing", lease.Synced)
			}
			s.finish(lease, o)
			_, err := s.Resync(t.Context(), "r")
			s.must(err)
		}
		s.take("r")
		s.expire("r")
		lease := s.take("r")
		s.wantDepth(lease, tracking.Deep)
		if at := s.get("r").VerifiedAt; !at.IsZero() {
			t.Errorf("verified at %v although no check succeeded", at)
		}
		s.finish(lease, synced())
		s.wantState("r", tracking.Synced)
		row := s.get("r")
		if row.VerifiedAt.IsZero() || !row.VerifiedAt.Equal(row.LastSyncedAt) {
			t.Errorf("verified at %v, synced at %v", row.VerifiedAt, row.LastSyncedAt)
		}
		s.change("r", 9, tracking.Live)
		s.wantDepth(s.take("r"), tracking.TagsOnly)
	})
}

func (s *site) newest(name string) tracking.Entry {
	s.Helper()
	story, err := s.Journal(s.Context(), name, 1)
	s.must(err)
	return story[0]
}

// What is asked for during a sync is done by another one after it.
func TestVerifyDuringASync(t *testing.T) {
	each(t, tracking.Options{}, func(t *testing.T, s *site) {
		for _, running := range []tracking.Depth{tracking.TagsOnly, tracking.Graphs, tracking.Deep} {
			name := fmt.Sprint("during-", running)
			s.change(name, int64(running)+1, tracking.Live)
			if running > tracking.TagsOnly {
				s.verify(name, running)
			}
			lease := s.take(name)
			s.wantDepth(lease, running)
			s.verify(name, tracking.Graphs)
			s.finish(lease, synced())
			again := s.take(name)
			s.wantDepth(again, max(running, tracking.Graphs))
			s.finish(again, synced())
			s.wantState(name, tracking.Synced)
		}
		// A resync alone asks for no second check.
		s.change("resync", 9, tracking.Live)
		s.verify("resync", tracking.Graphs)
		lease := s.take("resync")
		_, err := s.Resync(t.Context(), "resync")
		s.must(err)
		s.finish(lease, synced())
		s.finish(s.take("resync"), synced())
		s.wantState("resync", tracking.Synced)
	})
}

func TestDeeperCheckWins(t *testing.T) {
	each(t, tracking.Options{}, func(t *testing.T, s *site) {
		s.change("r", 1, tracking.Live)
		s.verify("r", tracking.Deep)
		s.verify("r", tracking.Graphs)
		if n, err := s.VerifyAll(t.Context(), tracking.Graphs); n != 1 || err != nil {
			t.Errorf("%d are verified (%v), want 1", n, err)
		}
		s.wantDepth(s.take("r"), tracking.Deep)
		if found, err := s.Verify(t.Context(), "nobody", tracking.Graphs); found || err != nil {
			t.Errorf("verify of what is not tracked: %t, %v", found, err)
		}
	})
}

// All that is synced goes behind live changes; what is pending keeps its place.
func TestVerifyAll(t *testing.T) {
	each(t, tracking.Options{}, func(t *testing.T, s *site) {
		for i, name := range []string{"a", "b", "c"} {
			s.change(name, int64(i+1), tracking.Live)
			s.finish(s.take(name), synced())
		}
		s.change("c", 9, tracking.Live)
		if n, err := s.VerifyAll(t.Context(), tracking.Deep); n != 3 || err != nil {
			t.Errorf("%d are verified (%v), want 3", n, err)
		}
		for _, want := range []struct {
			name  string
			class tracking.Class
		}{{"c", tracking.Live}, {"a", tracking.Backfill}, {"b", tracking.Backfill}} {
			lease := s.take(want.name)
			s.wantDepth(lease, tracking.Deep)
			if lease.Class != want.class || lease.Synced != -1 {
				t.Errorf("lease %+v, want class %d", lease, want.class)
			}
		}
	})
}

// Those come first that have waited longest since their last check, or their first sync; those that are at work or
// held are left alone.
func TestVerifyStale(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t, databasetest.OpenSQLite(t), tracking.Options{})
		for i, name := range []string{"a", "b", "c", "d", "e"} {
			s.change(name, int64(i+1), tracking.Live)
			outcome := synced()
			if name == "e" {
				outcome = held()
			}
			s.finish(s.take(name), outcome)
			<-time.After(time.Hour)
		}
		// a was checked last, d is being synced.
		s.verify("a", tracking.Graphs)
		s.finish(s.take("a"), synced())
		s.change("d", 10, tracking.Live)
		running := s.take("d")
		stale := func(age time.Duration, limit int, want ...string) {
			t.Helper()
			n, err := s.VerifyStale(t.Context(), time.Now().Add(-age), limit)
			s.must(err)
			var got []string
			for lease := s.claim(tracking.LiveOnly); lease != nil; lease = s.claim(tracking.LiveOnly) {
				t.Errorf("%s is verified ahead of live changes", lease.Repository)
			}
			for lease := s.claim(tracking.LiveFirst); lease != nil; lease = s.claim(tracking.LiveFirst) {
				s.wantDepth(lease, tracking.Graphs)
				got = append(got, lease.Repository)
				s.finish(lease, synced())
			}
			if diff := cmp.Diff(want, got); diff != "" || int(n) != len(want) {
				t.Errorf("%d became due (-want +got):\n%s", n, diff)
			}
		}
		stale(24*time.Hour, 10)
		stale(0, 0)
		stale(2*time.Hour, 1, "b")
		<-time.After(time.Second)
		stale(0, 1, "c")
		stale(0, 1, "a")
		stale(time.Minute, 10)
		s.must(s.Renew(t.Context(), running))
	})
}

// A failure whose text no database takes as it is can be recorded all the same.
func TestTextOfAnyKind(t *testing.T) {
	each(t, tracking.Options{}, func(t *testing.T, s *site) {
		s.change("r", 1, tracking.Live)
		bad := "a\x00b\xff\xfec" + strings.Repeat("é", 3)
		s.finish(s.take("r"), tracking.Outcome{
			Failure: &tracking.Failure{Reference: bad, Side: "source", Message: bad}, Held: bad,
			Journal: []tracking.Entry{{Action: "failed", Reference: bad, Detail: bad, Digest: bad, Previous: bad}},
		})
		const want = "a\uFFFDb\uFFFDcééé"
		row := s.get("r")
		if f := row.LastError; f.Message != want || f.Reference != want || row.HeldReason != want {
			t.Errorf("stored %+v, held %q, want %q", f, row.HeldReason, want)
		}
		if e := s.newest("r"); e.Detail != want || e.Reference != want || e.Digest != want || e.Previous != want {
			t.Errorf("journal entry %+v, want %q", e, want)
		}
		s.backOffIsOver("r")
		s.finish(s.take("r"), tracking.Outcome{Held: bad})
		if got := s.get("r").HeldReason; got != want {
			t.Errorf("held for %q, want %q", got, want)
		}
	})
}

// The count and the sum of the site's tags are kept with every outcome; a count below zero keeps the one before.
func TestCountAndSumAreStored(t *testing.T) {
	each(t, tracking.Options{BackoffMin: time.Hour, BackoffMax: time.Hour}, func(t *testing.T, s *site) {
		with := func(o tracking.Outcome, count int64, sum string) tracking.Outcome {
			o.TagCount, o.Sum = count, sum
			return o
		}
		s.change("r", 1, tracking.Live)
		for _, step := range []struct {
			outcome tracking.Outcome
			count   int64
			sum     string
		}{
			{with(failed(), 1, "one"), 1, "one"},
			{with(retry(), 2, "two"), 2, "two"},
			{with(held(), 3, "three"), 3, "three"},
			{with(failed(), -1, ""), 3, ""},
			{with(synced(), 0, "none"), 0, "none"},
		} {
			_, err := s.Resync(t.Context(), "r")
			s.must(err)
			s.finish(s.take("r"), step.outcome)
			if row := s.get("r"); row.TagCount != step.count || row.Sum != step.sum {
				t.Errorf("after %+v the row has %d and %q, want %d and %q",
					step.outcome, row.TagCount, row.Sum, step.count, step.sum)
			}
		}
		s.change("r", 2, tracking.Live)
		if lease := s.take("r"); lease.Sum != "none" || lease.TagCount != 0 {
			t.Errorf("the lease has %d and %q", lease.TagCount, lease.Sum)
		}
		// A worker that died may have written more.
		s.expire("r")
		lease := s.take("r")
		if lease.Sum != "" {
			t.Errorf("after a death the lease knows the sum %q", lease.Sum)
		}
		s.finish(lease, with(synced(), 4, "four"))
		s.change("r", 3, tracking.Live)
		s.take("r")
		next, err := tracking.Open(t.Context(), s.db, tracking.Options{}) // which ends leases, on SQLite
		s.must(err)
		s.Store = next
		s.expire("r")
		if lease := s.take("r"); lease.Sum != "" {
			t.Errorf("after a death and a start the lease knows the sum %q", lease.Sum)
		}
	})
}
