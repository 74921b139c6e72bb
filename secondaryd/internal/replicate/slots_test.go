package replicate

import (
	"context"
	"testing"

	"github.com/antipode-registry/antipode/secondaryd/internal/tracking"
)

// take acquires a slot for that class of work.
func take(t *testing.T, s *slots, class tracking.Class) {
	t.Helper()
	if !s.acquire(t.Context()) {
		t.Fatal("no slot is free")
	}
	s.occupy(class)
}

func TestBackfillNeverGetsAllSlots(t *testing.T) {
	t.Parallel()
	s := newSlots(3)
	want := func(pick tracking.Pick) {
		t.Helper()
		if got := s.pick(0); got != pick {
			t.Fatalf("pick %d, want %d", got, pick)
		}
	}
	want(tracking.LiveFirst)
	take(t, s, tracking.Backfill)
	want(tracking.LiveFirst)
	take(t, s, tracking.Backfill)
	want(tracking.LiveOnly)
	s.release(tracking.Backfill)
	take(t, s, tracking.Live)
	want(tracking.LiveFirst) // the last slot is a backfill's too, as long as live changes have another
}

func TestOneSlotIsForEverything(t *testing.T) {
	t.Parallel()
	s := newSlots(1)
	take(t, s, tracking.Backfill)
	if got := s.pick(0); got != tracking.LiveFirst {
		t.Errorf("pick %d with one slot, want %d", got, tracking.LiveFirst)
	}
}

// However many live changes keep the slots busy, every eighth claim is what has waited longest.
func TestBackfillIsNotStarved(t *testing.T) {
	t.Parallel()
	s := newSlots(2)
	take(t, s, tracking.Live)
	oldest := 0
	for claims := range 80 {
		take(t, s, tracking.Live)
		if s.pick(claims) == tracking.OldestFirst {
			oldest++
		}
		s.release(tracking.Live)
	}
	if oldest != 10 {
		t.Errorf("%d of 80 claims went to what has waited longest, want 10", oldest)
	}
}

// What had no work is no news to those who wait for a slot; what ended is.
func TestOnlyWorkThatEndsWakes(t *testing.T) {
	t.Parallel()
	s := newSlots(2)
	if !s.acquire(t.Context()) {
		t.Fatal("no slot is free")
	}
	s.putBack()
	select {
	case <-s.freed:
		t.Error("a slot that was put back woke the engine")
	default:
	}
	take(t, s, tracking.Live)
	s.release(tracking.Live)
	select {
	case <-s.freed:
	default:
		t.Error("a slot that was released did not wake the engine")
	}
}

func TestNoSlotAfterTheEnd(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	for range 20 { // a free slot and the end are both there; which a select takes is chance
		s := newSlots(1)
		if s.acquire(ctx) {
			t.Fatal("a slot was given out after the end")
		}
	}
}
