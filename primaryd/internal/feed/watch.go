package feed

import (
	"context"
	"sync"
)

// Watch returns a channel that receives after the head has moved: at once for commits of this process, and while Run
// runs for those of other replicas too. It holds one wake, so several commits may be heard of once. A wake may be
// spurious: read from the cursor. stop ends it; the channel is not closed.
func (f *Feed) Watch() (wake <-chan struct{}, stop func()) { return f.watchers.add() }

// advance tells the watchers of a standing, once.
func (f *Feed) advance(standing Standing) {
	if f.watchers.advance(standing) {
		f.metrics.head.Set(float64(standing.Head))
	}
}

// follow hears of other replicas' commits, and of a history that was rewritten. Each wake costs one read of the head here, and wakes the watchers only if
// that moved: the database's regular wakes do not make every subscriber read.
func (f *Feed) follow(ctx context.Context) {
	wake, stop := f.db.Listen(channel)
	defer stop()
	for {
		standing, err := f.look(ctx)
		if err == nil {
			f.advance(standing)
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
	standing Standing // the newest of the newest incarnation, as far as this process has heard
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

// newest is what was heard last.
func (w *watchers) newest() Standing {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.standing
}

// advance wakes everyone if the standing is newer than what they were woken for, and says whether it was. One of another
// incarnation always is. When two are told in the wrong order, the worst of it is a wake too many, or an incarnation
// that would not have been needed; neither does harm.
func (w *watchers) advance(standing Standing) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if standing.Incarnation == w.standing.Incarnation && standing.Head <= w.standing.Head {
		return false
	}
	w.standing = standing
	for wake := range w.channels {
		select {
		case wake <- struct{}{}:
		default: // one is waiting already
		}
	}
	return true
}
