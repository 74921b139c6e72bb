package registry

import (
	"context"
	"fmt"
	"sync"
	"time"
)

// maxPause bounds what a registry can ask for with Retry-After.
const maxPause = 5 * time.Minute

// budget bounds the requests in flight of one handle; the urgent ones go first. Its limit falls by half when the
// registry says that it is overloaded, and rises by one after as many successes as the limit allows at a time, up to
// the configured number: additive increase, multiplicative decrease, as in TCP.
type budget struct {
	counts *counts
	max    int

	mu          sync.Mutex
	limit       int
	inFlight    int
	successes   int       // since the limit last changed
	cutAt       time.Time // when the limit last fell
	pausedUntil time.Time
	wake        *time.Timer // set while paused with requests waiting
	waiting     queue
}

func newBudget(limit int, c *counts) *budget {
	c.load(0, limit)
	return &budget{counts: c, max: limit, limit: limit}
}

// acquire waits until a request may be sent. The error is the context's. Each success must be followed by release.
func (b *budget) acquire(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return context.Cause(ctx)
	}
	b.mu.Lock()
	if b.waiting.Len() == 0 && b.inFlight < b.limit && time.Until(b.pausedUntil) <= 0 {
		b.inFlight++
		b.counts.load(b.inFlight, b.limit)
		b.mu.Unlock()
		return nil
	}
	place := b.waiting.enter(isUrgent(ctx))
	b.admit()
	pause := time.Until(b.pausedUntil)
	b.mu.Unlock()
	select {
	case <-place.ready:
		return nil
	case <-ctx.Done():
	}
	b.leave(place)
	if pause > 0 {
		return fmt.Errorf("the registry had asked for a pause of %s: %w", pause.Round(time.Second), context.Cause(ctx))
	}
	return context.Cause(ctx)
}

// leave gives up a place in the queue, or the slot when it was granted at the same moment.
func (b *budget) leave(p *place) {
	b.mu.Lock()
	defer b.mu.Unlock()
	select {
	case <-p.ready:
		b.inFlight--
		b.admit()
	default:
		b.waiting.leave(p)
	}
}

// release gives a slot back.
func (b *budget) release() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.inFlight--
	b.admit()
}

// succeeded counts an answer that shows that the registry keeps up.
func (b *budget) succeeded() {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.limit >= b.max {
		return
	}
	b.successes++
	if b.successes >= b.limit {
		b.successes = 0
		b.limit++
		b.admit()
	}
}

// throttle slows all requests down, after one that was sent at sentAt was answered with 429 or 503. Requests that were
// under way when the limit fell do not make it fall again: they are the same overload.
func (b *budget) throttle(sentAt time.Time, pause time.Duration) {
	pause = min(pause, maxPause)
	now := time.Now()
	b.mu.Lock()
	defer b.mu.Unlock()
	if !sentAt.Before(b.cutAt) {
		b.limit = max(1, b.limit/2)
		b.successes = 0
		b.cutAt = now
	}
	until := now.Add(pause)
	if until.After(b.pausedUntil) {
		from := now
		if b.pausedUntil.After(now) {
			from = b.pausedUntil
		}
		b.counts.paused(until.Sub(from))
		b.pausedUntil = until
	}
	b.admit()
}

// admit lets waiting requests go, as far as limit and pause allow. The lock is held.
func (b *budget) admit() {
	defer func() { b.counts.load(b.inFlight, b.limit) }()
	if b.waiting.Len() == 0 {
		return
	}
	if pause := time.Until(b.pausedUntil); pause > 0 {
		if b.wake == nil {
			b.wake = time.AfterFunc(pause, b.awake)
		}
		return
	}
	for b.inFlight < b.limit && b.waiting.Len() > 0 {
		b.inFlight++
		b.waiting.admit()
	}
}

// awake runs when a pause should be over; admit starts another timer when it was prolonged meanwhile.
func (b *budget) awake() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.wake = nil
	b.admit()
}
