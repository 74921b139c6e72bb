package tracking_test

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/antipode-registry/antipode/secondaryd/internal/tracking"
)

// did is a sync of the repository that did this.
func (s *site) did(revision int64, entries ...tracking.Entry) {
	s.Helper()
	s.change(repository, revision, tracking.Live)
	o := synced()
	o.Journal = entries
	s.finish(s.take(repository), o)
}

func removed(tag, digest string) tracking.Entry {
	return tracking.Entry{Action: "removed", Reference: tag, Previous: digest}
}

func tagged(tag, digest string) tracking.Entry {
	return tracking.Entry{Action: "tagged", Reference: tag, Digest: digest}
}

func (s *site) wantPins(want ...tracking.Pin) {
	s.Helper()
	pins, err := s.Pins(s.Context(), repository)
	s.must(err)
	if diff := cmp.Diff(want, pins); diff != "" {
		s.Errorf("pins (-want +got):\n%s", diff)
	}
}

func TestPin(t *testing.T) {
	each(t, tracking.Options{}, func(t *testing.T, s *site) {
		s.did(1, removed("a", "sha256:a1"), removed("b", "sha256:b1"), removed("@sha256:c1", "sha256:c1"),
			tracking.Entry{Action: "removed", Reference: "unreadable"})
		s.did(2, tagged("b", "sha256:b2"), removed("d", "sha256:d1"))
		s.did(3, tagged("a", "sha256:a2"))
		s.did(4, removed("a", "sha256:a2"))

		pins, found, err := s.Pin(t.Context(), "r", []string{"a", "b", "unknown"})
		if diff := cmp.Diff([]tracking.Pin{{Tag: "a", Digest: "sha256:a2"}}, pins); diff != "" || !found || err != nil {
			t.Errorf("pinned (found %t, %v):\n%s", found, err, diff)
		}
		s.wantPins(pins...)
		if lease := s.take("r"); lease.Synced != -1 || lease.Class != tracking.Live {
			t.Errorf("after a pin the lease is %+v, want a complete listing among the live ones", lease)
		} else {
			s.finish(lease, synced())
		}

		// Without tags: whatever was removed last, but for manifests that had no tag, and tags whose digest nobody knew.
		pins, _, err = s.Pin(t.Context(), "r", nil)
		s.must(err)
		both := []tracking.Pin{{Tag: "a", Digest: "sha256:a2"}, {Tag: "d", Digest: "sha256:d1"}}
		if diff := cmp.Diff(both, pins); diff != "" {
			t.Errorf("pinned (-want +got):\n%s", diff)
		}
		s.wantPins(both...)
		story, err := s.Journal(t.Context(), "r", 2)
		s.must(err)
		for i, pin := range []tracking.Pin{both[1], both[0]} {
			if e := story[i]; e.Action != "restore" || e.Reference != pin.Tag || e.Digest != pin.Digest {
				t.Errorf("journal entry %+v, want the restore of %+v", e, pin)
			}
		}
		s.finish(s.take("r"), synced())

		// Nothing to pin: nothing is due.
		if pins, found, err := s.Pin(t.Context(), "r", []string{"unknown"}); len(pins) > 0 || !found || err != nil {
			t.Errorf("pinned %v, found %t, %v", pins, found, err)
		}
		s.wantState("r", tracking.Synced)
		if pins, found, err := s.Pin(t.Context(), "nobody", nil); len(pins) > 0 || found || err != nil {
			t.Errorf("pinned %v of what is not tracked, found %t, %v", pins, found, err)
		}
	})
}

func TestUnpin(t *testing.T) {
	each(t, tracking.Options{}, func(t *testing.T, s *site) {
		s.did(1, removed("a", "sha256:a1"), removed("b", "sha256:b1"), removed("c", "sha256:c1"))
		_, _, err := s.Pin(t.Context(), "r", nil)
		s.must(err)
		s.finish(s.take("r"), synced())
		a, b := tracking.Pin{Tag: "a", Digest: "sha256:a1"}, tracking.Pin{Tag: "b", Digest: "sha256:b1"}

		// The source has c again: nobody has to look because of that.
		s.must(s.DropPin(t.Context(), "r", "c"))
		s.must(s.DropPin(t.Context(), "r", "c"))
		s.wantPins(a, b)
		s.wantState("r", tracking.Synced)

		pins, found, err := s.Unpin(t.Context(), "r", []string{"a", "c"})
		if diff := cmp.Diff([]tracking.Pin{a}, pins); diff != "" || !found || err != nil {
			t.Errorf("unpinned (found %t, %v):\n%s", found, err, diff)
		}
		s.wantPins(b)
		if lease := s.take("r"); lease.Synced != -1 {
			t.Errorf("after an unpin the lease is %+v, want a complete listing", lease)
		} else {
			s.finish(lease, synced())
		}
		pins, _, err = s.Unpin(t.Context(), "r", nil)
		if diff := cmp.Diff([]tracking.Pin{b}, pins); diff != "" || err != nil {
			t.Errorf("unpinned (%v):\n%s", err, diff)
		}
		s.wantPins()
		s.finish(s.take("r"), synced())
		if pins, found, err := s.Unpin(t.Context(), "r", nil); len(pins) > 0 || !found || err != nil {
			t.Errorf("unpinned %v, found %t, %v", pins, found, err)
		}
		s.wantState("r", tracking.Synced)
	})
}

// A pin that comes during a sync is seen by another one after it.
func TestPinDuringASync(t *testing.T) {
	each(t, tracking.Options{}, func(t *testing.T, s *site) {
		s.did(1, removed("a", "sha256:a1"))
		s.change("r", 2, tracking.Live)
		lease := s.take("r")
		_, _, err := s.Pin(t.Context(), "r", nil)
		s.must(err)
		s.finish(lease, synced())
		s.wantState("r", tracking.Pending)
		s.finish(s.take("r"), synced())
		s.wantState("r", tracking.Synced)
	})
}

// What leaves the site's scope leaves its pins behind too.
func TestPinsGoWithTheRepository(t *testing.T) {
	each(t, tracking.Options{}, func(t *testing.T, s *site) {
		set := func(selection string) {
			t.Helper()
			_, err := s.SetScope(t.Context(), tracking.Scope{
				Selection: selection, Wants: func(string) bool { return selection == "all" },
			})
			s.must(err)
		}
		set("all")
		s.did(1, removed("a", "sha256:a1"))
		_, _, err := s.Pin(t.Context(), "r", nil)
		s.must(err)
		set("none")
		set("all")
		s.wantPins()
	})
}

func TestReferrersAreKept(t *testing.T) {
	each(t, tracking.Options{}, func(t *testing.T, s *site) {
		want := func(name string, want ...tracking.Referrer) {
			t.Helper()
			list, err := s.Referrers(t.Context(), name)
			s.must(err)
			if diff := cmp.Diff(want, list); diff != "" {
				t.Errorf("referrers of %s (-want +got):\n%s", name, diff)
			}
		}
		want("r")
		one := tracking.Referrer{Digest: "sha256:1", Subject: "sha256:s"}
		two := tracking.Referrer{Digest: "sha256:2", Subject: "sha256:s"}
		for _, r := range []tracking.Referrer{two, one, one} {
			s.must(s.AddReferrer(t.Context(), "r", r))
		}
		s.must(s.AddReferrer(t.Context(), "other", one))
		want("r", one, two)
		one.Subject = "sha256:t"
		s.must(s.AddReferrer(t.Context(), "r", one))
		s.must(s.DropReferrer(t.Context(), "r", two.Digest))
		s.must(s.DropReferrer(t.Context(), "r", two.Digest))
		want("r", one)
		want("other", tracking.Referrer{Digest: "sha256:1", Subject: "sha256:s"})
	})
}
