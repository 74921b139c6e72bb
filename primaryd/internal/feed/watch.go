package feed

import (
	"context"
	"sync"
)

// Watch returns a channel that receives after the head has moved: at once for commits of this process, and while Run
// runs for those of other replicas too. It holds one wake, so several commits may be heard of once. A wake may be
// spurious: read from the cursor. stop ends it; the channel is not closed.
func (f *Feed) Watch() (wake <-chan struct{}, stop func()) { return f.watchers.add() }

// advance tells the watchers of a head, once.
func (f *Feed) advance(head int64) {
	if f.watchers.advance(head) {
		f.metrics.head.Set(float64(head))
	}
}

// follow hears of other replicas' commits. Each wake costs one read of the head here, and wakes the watchers only if
// that moved: the database's regular wakes do not make every subscriber read.
func (f *Feed) follow(ctx context.Context) {
	wake, stop := f.db.Listen(channel)
	defer stop()
	for {
		head, err := f.Head(ctx)
		if err == nil {
			f.advance(head)
		} else if ctx.Err() == nil {
			f.logger.WarnContext(ctx, "cannot look for changes of other replicas", "error", err)
		}
		select {
		case <-ctx.Done():
			return
		case <-wake:
		}
	}
}

// watchers are the listeners of one Feed.
type watchers struct {
	mu       sync.Mutex
	head     int64
	channels map[chan struct{}]struct{}
}

func (w *watchers) add() (<-chan struct{}, func()) {
	wake := make(chan struct{}, 1)
	w.mu.Lock()
	defer w.mu.Unlock()
	w.channels[wake] = struct{}{}
	return wake, func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		delete(w.channels, wake)
	}
}

// advance wakes everyone if head is newer than what they were woken for, and says whether it was.
func (w *watchers) advance(head int64) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if head <= w.head {
		return false
	}
	w.head = head
	for wake := range w.channels {
		select {
		case wake <- struct{}{}:
		default: // one is waiting already
		}
	}
	return true
}
