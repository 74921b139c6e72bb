package tracking_test

import (
	"errors"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/antipode-registry/antipode/internal/database/databasetest"
	"github.com/antipode-registry/antipode/secondaryd/internal/tracking"
)

func (s *site) wantLost(err error) {
	s.Helper()
	if !errors.Is(err, tracking.ErrLeaseLost) {
		s.Errorf("%v, want ErrLeaseLost", err)
	}
}

func TestClaimPicks(t *testing.T) {
	each(t, tracking.Options{}, func(t *testing.T, s *site) {
		picked := func(pick tracking.Pick, want string) {
			t.Helper()
			l := s.claim(pick)
			switch {
			case l == nil && want == "":
			case l == nil || l.Repository != want:
				t.Errorf("pick %d claimed %+v, want %q", pick, l, want)
			default: // back to where it was
				s.exec("UPDATE repository SET lease_until = 0, lease_owner = '' WHERE name = $1", want)
			}
		}
		picked(tracking.OldestFirst, "")
		s.change("backfill", 1, tracking.Backfill)
		picked(tracking.LiveOnly, "")
		picked(tracking.LiveFirst, "backfill")
		s.change("live", 2, tracking.Live)
		s.exec("UPDATE repository SET next_attempt_at = 10 WHERE name = 'backfill'")
		s.exec("UPDATE repository SET next_attempt_at = 20 WHERE name = 'live'")
		picked(tracking.LiveOnly, "live")
		picked(tracking.LiveFirst, "live")
		picked(tracking.OldestFirst, "backfill")
		s.exec("UPDATE repository SET next_attempt_at = 5 WHERE name = 'live'")
		picked(tracking.OldestFirst, "live")

		// A live row in back-off is not in the way of backfill.
		s.finish(s.take("live"), failed())
		s.exec("UPDATE repository SET next_attempt_at = 9000000000000 WHERE name = 'live'")
		picked(tracking.LiveFirst, "backfill")
		picked(tracking.OldestFirst, "backfill")
		picked(tracking.LiveOnly, "")
	})
}

func TestLiveRaisesBackfillAndIsNotLowered(t *testing.T) {
	each(t, tracking.Options{}, func(t *testing.T, s *site) {
		s.change("a", 1, tracking.Backfill)
		s.change("a", 2, tracking.Live)
		s.change("a", 3, tracking.Backfill)
		l := s.claim(tracking.LiveOnly)
		if l == nil || l.Wanted != 3 || l.Class != tracking.Live {
			t.Fatalf("claimed %+v, want revision 3 as live", l)
		}
		s.finish(l, synced())
		s.change("a", 4, tracking.Backfill)
		if l := s.claim(tracking.LiveOnly); l != nil {
			t.Errorf("a synced row stayed live: %+v", l)
		}
	})
}

// A row that changes all the time keeps its place in the queue.
func TestNewChangeKeepsThePlace(t *testing.T) {
	each(t, tracking.Options{}, func(t *testing.T, s *site) {
		s.change("busy", 1, tracking.Live)
		s.exec("UPDATE repository SET next_attempt_at = 10 WHERE name = 'busy'")
		s.change("another", 2, tracking.Live)
		s.change("busy", 3, tracking.Live)
		s.take("busy")
	})
}

func TestClaimNeedsAnOwner(t *testing.T) {
	each(t, tracking.Options{}, func(t *testing.T, s *site) {
		if l, err := s.Claim(t.Context(), "", tracking.LiveFirst); l != nil || err == nil {
			t.Errorf("claimed %+v, %v for nobody", l, err)
		}
	})
}

func TestPausedGivesNoWork(t *testing.T) {
	each(t, tracking.Options{}, func(t *testing.T, s *site) {
		s.change("leased", 1, tracking.Live)
		lease := s.take("leased")
		s.change("a", 2, tracking.Live)
		s.must(s.SetPaused(t.Context(), true))
		if l := s.claim(tracking.LiveFirst); l != nil {
			t.Errorf("a paused site gave out %+v", l)
		}
		if _, ok, err := s.NextDue(t.Context(), tracking.LiveFirst); ok || err != nil {
			t.Errorf("a paused site has work due (%v)", err)
		}
		s.finish(lease, synced())
		s.must(s.SetPaused(t.Context(), false))
		s.take("a")
	})
}

func TestDeadWorkerLosesItsLease(t *testing.T) {
	each(t, tracking.Options{}, func(t *testing.T, s *site) {
		s.change("a", 1, tracking.Live)
		s.finish(s.take("a"), failed())
		s.backOffIsOver("a")
		dead := s.take("a")
		if l := s.claim(tracking.LiveFirst); l != nil {
			t.Fatalf("leased twice: %+v", l)
		}
		s.expire("a")
		s.wantLost(s.Renew(t.Context(), dead))
		s.wantLost(s.Finish(t.Context(), dead, synced()))

		next := s.take("a")
		if next.Fence <= dead.Fence || next.Failures != 1 {
			t.Errorf("second lease %+v after %+v: want a higher fence and one failure", next, dead)
		}
		s.wantLost(s.Renew(t.Context(), dead))
		s.wantLost(s.Finish(t.Context(), dead, synced()))
		s.wantState("a", tracking.Syncing)
		s.must(s.Renew(t.Context(), next))
		s.finish(next, synced())
		s.wantLost(s.Finish(t.Context(), next, synced()))
		s.wantState("a", tracking.Synced)
	})
}

// Whatever a worker remembers about its repository, it remembers under its lease.
func TestWritesUnderALostLease(t *testing.T) {
	each(t, tracking.Options{}, func(t *testing.T, s *site) {
		s.change("a", 1, tracking.Live)
		lease := s.take("a")
		ctx := tracking.UnderLease(t.Context(), lease)
		referrer := tracking.Referrer{Digest: "sha256:1", Subject: "sha256:2"}
		writes := map[string]func() error{
			"AddReferrer":    func() error { return s.AddReferrer(ctx, "a", referrer) },
			"Record":         func() error { return s.Content().Record(ctx, "a", "sha256:1") },
			"DropReferrer":   func() error { return s.DropReferrer(ctx, "a", "sha256:1") },
			"Forget":         func() error { return s.Content().Forget(ctx, "a", "sha256:1") },
			"Retain":         func() error { return s.Content().Retain(ctx, "a", func(string) bool { return false }) },
			"DropRepository": func() error { return s.Content().DropRepository(ctx, "a") },
			"DropPin":        func() error { return s.DropPin(ctx, "a", "v1") },
			"ReserveRemovals": func() error {
				_, err := s.ReserveRemovals(ctx, 1, tracking.SiteBrake{Share: 1, Window: time.Hour})
				return err
			},
		}
		for name, write := range writes {
			if err := write(); err != nil {
				t.Errorf("%s under a lease: %v", name, err)
			}
		}
		s.expire("a")
		next := s.take("a")
		s.must(s.AddReferrer(tracking.UnderLease(t.Context(), next), "a", referrer))
		for name, write := range writes {
			if err := write(); !errors.Is(err, tracking.ErrLeaseLost) {
				t.Errorf("%s under a lost lease: %v", name, err)
			}
		}
		if list, err := s.Referrers(t.Context(), "a"); len(list) != 1 || err != nil {
			t.Errorf("referrers %v (%v) after refused writes, want the new holder's", list, err)
		}
		s.finish(next, synced())
		s.wantLost(s.DropPin(tracking.UnderLease(t.Context(), next), "a", "v1"))
		s.must(s.DropPin(tracking.UnderLease(ctx, nil), "a", "v1"))
	})
}

func TestChangeDuringASyncIsNotLost(t *testing.T) {
	each(t, tracking.Options{}, func(t *testing.T, s *site) {
		s.change("a", 1, tracking.Backfill)
		lease := s.take("a")
		s.change("a", 2, tracking.Live)
		s.change("a", 3, tracking.Live)
		s.finish(lease, synced())
		r := s.get("a")
		if r.Synced != 1 || r.Wanted != 3 || !r.OldestUnsyncedAt.Equal(at(2)) {
			t.Errorf("%+v, want synced 1 of 3 and the oldest change that of revision 2", r)
		}
		if l := s.claim(tracking.LiveOnly); l == nil || l.Wanted != 3 || l.Synced != 1 {
			t.Errorf("claimed %+v, want revision 3 as live", l)
		}
	})
}

func TestOldestUnsyncedSurvivesFailures(t *testing.T) {
	each(t, tracking.Options{}, func(t *testing.T, s *site) {
		s.change("a", 1, tracking.Live)
		lease := s.take("a")
		s.change("a", 2, tracking.Live)
		s.finish(lease, failed())
		if r := s.get("a"); !r.OldestUnsyncedAt.Equal(at(1)) {
			t.Errorf("oldest unsynced %v, want that of revision 1", r.OldestUnsyncedAt)
		}
		s.finish(s.take("a"), synced())
		if r := s.get("a"); !r.OldestUnsyncedAt.IsZero() || r.LastSyncedAt.IsZero() || r.TagCount != 3 {
			t.Errorf("after a success: %+v", r)
		}
	})
}

func TestNewChangeCutsBackOffShort(t *testing.T) {
	each(t, tracking.Options{BackoffMin: time.Hour}, func(t *testing.T, s *site) {
		s.change("a", 1, tracking.Live)
		s.finish(s.take("a"), failed())
		s.change("a", 2, tracking.Backfill)
		if l := s.claim(tracking.LiveFirst); l != nil {
			t.Errorf("a backfill change cut the back-off short: %+v", l)
		}
		s.change("a", 3, tracking.Live)
		lease := s.take("a")
		if lease.Failures != 1 {
			t.Errorf("%d failures, want 1: a change does not reset them", lease.Failures)
		}
		s.change("a", 4, tracking.Live) // while it is about to fail again
		s.finish(lease, failed())
		if lease = s.take("a"); lease.Failures != 2 {
			t.Errorf("%d failures, want 2", lease.Failures)
		}
	})
}

func TestRetryIsNoFailure(t *testing.T) {
	each(t, tracking.Options{}, func(t *testing.T, s *site) {
		s.change("a", 1, tracking.Live)
		s.finish(s.take("a"), retry())
		r := s.get("a")
		if r.State != tracking.Pending || r.Failures != 0 || time.Until(r.NextAttemptAt) < 50*time.Minute {
			t.Errorf("%+v, want pending in an hour", r)
		}
		if l := s.claim(tracking.LiveFirst); l != nil {
			t.Errorf("due before its time: %+v", l)
		}
	})
}

func TestReleaseLiftsTheBrakeOnce(t *testing.T) {
	each(t, tracking.Options{}, func(t *testing.T, s *site) {
		release := func(want bool) {
			t.Helper()
			if found, err := s.Release(t.Context(), "a"); found != want || err != nil {
				t.Errorf("release found %v, want %v (%v)", found, want, err)
			}
		}
		release(false)
		s.change("a", 1, tracking.Backfill)
		release(false)
		s.finish(s.take("a"), held())
		if l := s.claim(tracking.OldestFirst); l != nil {
			t.Fatalf("a held row was claimed: %+v", l)
		}
		s.change("a", 2, tracking.Live)
		running := s.take("a")
		if running.Released || running.Held == "" {
			t.Errorf("%+v, want a hold that is not released", running)
		}
		release(true) // during a sync that does not know of it
		s.finish(running, held())
		lease := s.take("a")
		if !lease.Released {
			t.Fatal("a release during a sync was lost")
		}
		s.finish(lease, failed())
		s.backOffIsOver("a")
		if lease = s.take("a"); !lease.Released {
			t.Fatal("a failure used the release up")
		}
		s.finish(lease, synced())
		if r := s.get("a"); r.Released || r.HeldReason != "" || r.State != tracking.Synced {
			t.Errorf("after the released sync: %+v", r)
		}
		release(false)
	})
}

func TestResyncDuringASyncIsDoneAfterwards(t *testing.T) {
	each(t, tracking.Options{}, func(t *testing.T, s *site) {
		s.change("a", 1, tracking.Live)
		for _, outcome := range []tracking.Outcome{synced(), failed(), held(), retry()} {
			lease := s.take("a")
			if found, err := s.Resync(t.Context(), "a"); !found || err != nil {
				t.Fatalf("resync: %v, %v", found, err)
			}
			s.finish(lease, outcome)
			again := s.take("a")
			if again.Synced != -1 {
				t.Errorf("after %+v the row asks for changes since %d, want a complete listing", outcome, again.Synced)
			}
			s.finish(again, synced())
			s.wantState("a", tracking.Synced)
			s.change("a", s.get("a").Wanted+1, tracking.Live)
		}
		if found, err := s.Resync(t.Context(), "b"); found || err != nil {
			t.Errorf("resync of what is not tracked: %v, %v", found, err)
		}
	})
}

func TestResyncAll(t *testing.T) {
	each(t, tracking.Options{}, func(t *testing.T, s *site) {
		s.change("a", 1, tracking.Live)
		s.finish(s.take("a"), synced())
		s.change("b", 2, tracking.Live)
		if n, err := s.ResyncAll(t.Context()); n != 2 || err != nil {
			t.Fatalf("%d repositories, want 2 (%v)", n, err)
		}
		if l := s.claim(tracking.LiveOnly); l == nil || l.Repository != "b" || l.Synced != -1 {
			t.Errorf("claimed %+v, want b with a complete listing", l)
		}
		if l := s.claim(tracking.LiveOnly); l != nil {
			t.Errorf("a resync of all made %s live", l.Repository)
		}
		s.take("a")
	})
}

func TestFinishRefusesAnUnclearOutcome(t *testing.T) {
	each(t, tracking.Options{}, func(t *testing.T, s *site) {
		s.change("a", 1, tracking.Live)
		lease := s.take("a")
		both := synced()
		both.Held = "held"
		for _, outcome := range []tracking.Outcome{{}, both, {Retry: -1}} {
			if err := s.Finish(t.Context(), lease, outcome); err == nil {
				t.Errorf("%+v was taken for an outcome", outcome)
			}
		}
		s.wantState("a", tracking.Syncing)
	})
}

func TestFailureThatIsAlsoHeld(t *testing.T) {
	each(t, tracking.Options{}, func(t *testing.T, s *site) {
		s.change("a", 1, tracking.Live)
		outcome := failed()
		outcome.Held = "would remove 12 of 20 tags"
		s.finish(s.take("a"), outcome)
		if r := s.get("a"); r.State != tracking.Failed || r.HeldReason != outcome.Held {
			t.Errorf("%+v, want failed with the hold's reason", r)
		}
	})
}

// Two processes on one database, four workers each.
func TestReplicasClaimDisjointRows(t *testing.T) {
	each(t, tracking.Options{}, func(t *testing.T, s *site) {
		const repositories = 120
		s.fill(repositories)
		stores := []*site{s, newSite(t, databasetest.Shared(t, s.db), tracking.Options{})}
		var mu sync.Mutex
		claimed := map[string]string{}
		var workers sync.WaitGroup
		for i := range 8 {
			workers.Go(func() {
				owner := fmt.Sprintf("worker-%d", i)
				for {
					l, err := stores[i%2].Claim(t.Context(), owner, tracking.LiveFirst)
					if err != nil || l == nil {
						if err != nil {
							t.Error(err)
						}
						return
					}
					mu.Lock()
					if other, twice := claimed[l.Repository]; twice {
						t.Errorf("%s leased to %s and to %s", l.Repository, other, owner)
					}
					claimed[l.Repository] = owner
					mu.Unlock()
				}
			})
		}
		workers.Wait()
		if len(claimed) != repositories {
			t.Errorf("%d claimed, want %d", len(claimed), repositories)
		}
	})
}

// The clock of the bubble is the database's clock on SQLite: hours pass in no time.
func TestLeaseAndBackOffByTheClock(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t, databasetest.OpenSQLite(t), tracking.Options{
			Lease: time.Minute, BackoffMin: time.Second, BackoffMax: 5 * time.Minute,
		})
		s.change("a", 1, tracking.Live)
		for n := range 12 {
			lease := s.claim(tracking.LiveFirst)
			if lease == nil {
				t.Fatalf("attempt %d: not due", n)
			}
			<-time.After(59 * time.Second)
			s.must(s.Renew(t.Context(), lease))
			<-time.After(59 * time.Second)
			s.finish(lease, failed())

			full := min(5*time.Minute, time.Second<<n)
			wait := time.Until(s.get("a").NextAttemptAt)
			if wait < full/2-time.Millisecond || wait > full {
				t.Errorf("after %d failures the wait is %v, want within %v and %v", n+1, wait, full/2, full)
			}
			if due, ok, err := s.NextDue(t.Context(), tracking.LiveFirst); !ok || err != nil || time.Until(due) != wait {
				t.Errorf("next due in %v (%v, %v), want %v", time.Until(due), ok, err, wait)
			}
			<-time.After(wait - time.Millisecond)
			if l := s.claim(tracking.LiveFirst); l != nil {
				t.Fatal("due before its time")
			}
			<-time.After(time.Millisecond)
		}
		dead := s.claim(tracking.LiveFirst)
		<-time.After(time.Minute - time.Millisecond)
		if l := s.claim(tracking.LiveFirst); l != nil {
			t.Fatal("leased twice")
		}
		s.wantState("a", tracking.Syncing)
		<-time.After(time.Millisecond)
		s.wantLost(s.Finish(t.Context(), dead, synced()))
		s.wantState("a", tracking.Failed)
		if l := s.take("a"); l.Failures != 12 {
			t.Errorf("%d failures, want 12: a lease that ran out is none", l.Failures)
		}
	})
}

func TestNextDue(t *testing.T) {
	each(t, tracking.Options{}, func(t *testing.T, s *site) {
		none := func() {
			t.Helper()
			if at, ok, err := s.NextDue(t.Context(), tracking.LiveFirst); ok || err != nil {
				t.Errorf("due at %v (%v), want never", at, err)
			}
		}
		none()
		s.change("a", 1, tracking.Backfill)
		s.exec("UPDATE repository SET next_attempt_at = 77")
		if at, ok, err := s.NextDue(t.Context(), tracking.LiveFirst); !ok || err != nil || at.UnixMilli() != 77 {
			t.Errorf("due at %v (%v, %v), want 77 ms", at, ok, err)
		}
		lease := s.take("a")
		if at, ok, err := s.NextDue(t.Context(), tracking.LiveFirst); !ok || err != nil || time.Until(at) < 50*time.Second {
			t.Errorf("due at %v (%v, %v), want the end of the lease", at, ok, err)
		}
		s.finish(lease, held())
		none()
	})
}
