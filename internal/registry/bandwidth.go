package registry

import (
	"context"
	"slices"
	"sync"
	"time"

	"golang.org/x/time/rate"
)

const (
	// maxPiece is how many bytes are taken from a Bandwidth at a time, so that streams take turns.
	maxPiece = 64 << 10
	// pieceShare of a second's bytes is a piece where that is less: turns then come often on slow lines, too.
	pieceShare = 10
)

// Window is a part of each day with a limit of its own. From and To are wall clock times, as durations since midnight,
// in local time; a To before From is on the next day, and one equal to From makes the window empty.
type Window struct {
	From, To       time.Duration
	BytesPerSecond int64 // 0 = no cap in the window
}

// covers tells whether a wall clock time lies in the window.
func (w Window) covers(clock time.Duration) bool {
	if w.From <= w.To {
		return w.From <= clock && clock < w.To
	}
	return clock >= w.From || clock < w.To
}

// Bandwidth caps bytes per second over all that share it: all requests of a handle, and of all handles that are
// configured with it. Streams take turns by pieces of at most 64 KiB, first come, first served. What is left unused is
// lost, but for one piece. The limit in force is looked up with every piece, so a window begins and ends in the middle
// of a blob. Memory does not depend on the number of streams. It is safe for concurrent use; a nil *Bandwidth caps
// nothing.
type Bandwidth struct {
	base    int64
	windows []Window

	mu      sync.Mutex
	limit   int64
	limiter *rate.Limiter // of limit; nil = no cap is in force
}

// NewBandwidth caps at bytesPerSecond, 0 = no cap, outside of the windows. Of windows that overlap the first counts.
func NewBandwidth(bytesPerSecond int64, windows []Window) *Bandwidth {
	return &Bandwidth{base: bytesPerSecond, windows: slices.Clone(windows)}
}

// at is the limit at a time, by that time's own zone.
func (b *Bandwidth) at(t time.Time) int64 {
	hour, minute, second := t.Clock()
	clock := time.Duration(hour)*time.Hour + time.Duration(minute)*time.Minute +
		time.Duration(second)*time.Second + time.Duration(t.Nanosecond())
	for _, window := range b.windows {
		if window.covers(clock) {
			return window.BytesPerSecond
		}
	}
	return b.base
}

// clip shortens the buffer of one read, so that no stream is far ahead of its turn.
func (b *Bandwidth) clip(p []byte) []byte {
	if b == nil {
		return p
	}
	return p[:min(len(p), maxPiece)]
}

// wait returns when n bytes may have passed, or why it does not wait any longer.
func (b *Bandwidth) wait(ctx context.Context, n int) error {
	for b != nil && n > 0 {
		taken, turn := b.take(time.Now(), n)
		n -= taken
		if turn == nil {
			continue
		}
		if err := pause(ctx, turn.Delay()); err != nil {
			turn.Cancel() // for those behind
			return err
		}
	}
	return nil
}

// take takes the next piece of n bytes, and the turn to wait for; nil = none.
func (b *Bandwidth) take(now time.Time, n int) (taken int, turn *rate.Reservation) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if limit := b.at(now); limit != b.limit {
		b.change(now, limit)
	}
	if b.limiter == nil {
		return n, nil
	}
	taken = min(n, b.limiter.Burst())
	return taken, b.limiter.ReserveN(now, taken)
}

// change puts another limit in force. The limiter is a new one: what was taken ahead of the old limit would have to be
// made up for at the new, which may be a thousand times slower. It begins empty, as if it had been in use.
func (b *Bandwidth) change(now time.Time, limit int64) {
	b.limit, b.limiter = limit, nil
	if limit <= 0 {
		return
	}
	piece := int(max(1, min(limit/pieceShare, maxPiece)))
	b.limiter = rate.NewLimiter(rate.Limit(limit), piece)
	b.limiter.AllowN(now, piece)
}

// pause waits, or returns why it did not.
func pause(ctx context.Context, d time.Duration) error {
	if d <= 0 {
		return nil
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
