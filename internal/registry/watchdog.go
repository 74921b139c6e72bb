package registry

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptrace"
	"sync"
	"time"
)

const (
	// headerTimeout bounds the wait for an answer, connecting included.
	headerTimeout = time.Minute
	// idleTimeout bounds the wait for the next byte of a body, either way.
	idleTimeout = time.Minute
	// storeRate is the slowest that a registry is expected to store an upload once it has all of it: object stores copy
	// or hash it before they answer.
	storeRate = 8 << 20 // bytes a second
)

// storing is how much longer an answer may take once an upload of size bytes is there.
func storing(size int64) time.Duration {
	return time.Duration(size/storeRate) * time.Second
}

// slowestLine is the slowest that a body in memory, whose way is not watched, is expected to be sent.
const slowestLine = 4 << 10 // bytes a second

// sending is how much longer the answer to a request with such a body may take.
func sending(req *http.Request, c call) time.Duration {
	if !c.inMemory(req) {
		return 0
	}
	return time.Duration(req.ContentLength/slowestLine) * time.Second
}

// stalledError says that a registry had a connection open and did nothing with it.
type stalledError struct{ after time.Duration }

func (e stalledError) Error() string { return fmt.Sprintf("no progress for %s", e.after) }

// watchdog ends a request that makes no progress. A fixed deadline would have to be as long as the largest blob takes
// on the slowest line; this one moves on with each byte. Safe for concurrent use: a request's body is sent by another
// goroutine than the one that waits for the answer.
type watchdog struct {
	ctx    context.Context
	cancel context.CancelCauseFunc
	guard  func() error // see WithGuard; may be nil

	mu    sync.Mutex
	timer *time.Timer
	rings time.Time     // when the timer fires; zero = it does not
	due   time.Time     // when the request is ended; zero = at rest
	wait  time.Duration // that due is the end of
}

// newWatchdog returns a watchdog at rest, with the context that it ends.
func newWatchdog(ctx context.Context, guard func() error) *watchdog {
	w := &watchdog{guard: guard}
	w.ctx, w.cancel = context.WithCancelCause(ctx)
	if guard != nil {
		w.ctx = httptrace.WithClientTrace(w.ctx, &httptrace.ClientTrace{GotConn: w.connected})
	}
	return w
}

// expect demands progress within d, to be reported by another expect, or by rest. It is called for each piece of a body, so
// the timer is left alone as long as it does not fire too late.
func (w *watchdog) expect(d time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.wait, w.due = d, time.Now().Add(d)
	if w.rings.IsZero() || w.due.Before(w.rings) {
		w.ring(d)
	}
}

// ring sets the timer. It needs w.mu.
func (w *watchdog) ring(d time.Duration) {
	w.rings = time.Now().Add(d)
	if w.timer == nil {
		w.timer = time.AfterFunc(d, w.bark)
		return
	}
	w.timer.Reset(d)
}

// rest stops the clock: it is not the registry's turn.
func (w *watchdog) rest() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.due = time.Time{}
}

func (w *watchdog) bark() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.rings = time.Time{}
	if w.due.IsZero() {
		return
	}
	if left := time.Until(w.due); left > 0 {
		w.ring(left)
		return
	}
	w.cancel(stalledError{after: w.wait})
}

// done ends the watch and frees the context.
func (w *watchdog) done() {
	w.rest()
	w.mu.Lock()
	if w.timer != nil {
		w.timer.Stop()
	}
	w.mu.Unlock()
	w.cancel(context.Canceled)
}

// explain replaces the error of a request that the watchdog has ended by the reason.
func (w *watchdog) explain(err error) error {
	if err == nil {
		return nil
	}
	switch cause := context.Cause(w.ctx); cause.(type) { //nolint:errorlint // the watchdog's own, never wrapped
	case stalledError, fencedError:
		return cause
	}
	return err
}
