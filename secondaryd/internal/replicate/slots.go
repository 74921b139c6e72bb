package replicate

import (
	"context"
	"sync/atomic"

	"github.com/antipode-registry/antipode/secondaryd/internal/tracking"
)

// Every fairShare-th claim goes to what has waited longest, whatever its class, so that a stream of live changes cannot
// starve a backfill.
const fairShare = 8

// slots bounds the repositories at work. One goroutine takes them and claims; any may release.
type slots struct {
	free     chan struct{}
	freed    chan struct{} // of one: a slot that was at work became free
	backfill atomic.Int64  // how many work on a backfill
}

func newSlots(n int) *slots {
	s := &slots{free: make(chan struct{}, n), freed: make(chan struct{}, 1)}
	for range n {
		s.free <- struct{}{}
	}
	return s
}

// acquire takes a slot, and says whether it got one before ctx ended.
func (s *slots) acquire(ctx context.Context) bool {
	select {
	case <-s.free:
		return ctx.Err() == nil
	case <-ctx.Done():
		return false
	}
}

// putBack returns a slot for which there was no work. It is no news: whoever waits for a freed slot would go round for
// ever.
func (s *slots) putBack() { s.free <- struct{}{} }

// occupy notes what an acquired slot is used for; release takes that class.
func (s *slots) occupy(class tracking.Class) {
	if class == tracking.Backfill {
		s.backfill.Add(1)
	}
}

func (s *slots) release(class tracking.Class) {
	if class == tracking.Backfill {
		s.backfill.Add(-1)
	}
	s.free <- struct{}{}
	select {
	case s.freed <- struct{}{}:
	default:
	}
}

// pick says what the slot just taken may be used for, after so many claims. A backfill never gets all slots: one is left
// to live changes, so that they need not wait for it.
func (s *slots) pick(claims int) tracking.Pick {
	switch {
	case cap(s.free) > 1 && s.backfill.Load() >= int64(cap(s.free)-1):
		return tracking.LiveOnly
	case claims%fairShare == fairShare-1:
		return tracking.OldestFirst
	default:
		return tracking.LiveFirst
	}
}
