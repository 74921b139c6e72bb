package registry

import (
	"context"
	"io"
	"sync"
	"sync/atomic"
)

// slot is a request's share of the budget; it may be given back early, and by any goroutine.
type slot struct {
	budget *budget
	once   sync.Once
}

func (t *transport) hold(ctx context.Context) (*slot, error) {
	if err := t.budget.acquire(ctx); err != nil {
		return nil, err
	}
	return &slot{budget: t.budget}, nil
}

func (s *slot) release() { s.once.Do(s.budget.release) }

// watchedBody is the body of an answer: waiting for the next byte is bounded, bytes are counted, and passed on no
// faster than the cap allows.
type watchedBody struct {
	io.ReadCloser

	watch  *watchdog
	counts *counts
	pace   *Bandwidth
}

// Read implements io.Reader.
func (b *watchedBody) Read(p []byte) (int, error) {
	b.watch.expect(idleTimeout)
	n, err := b.ReadCloser.Read(b.pace.clip(p))
	b.watch.rest()
	b.counts.received(n)
	if err != nil && err != io.EOF {
		return n, b.watch.explain(err)
	}
	if waitErr := b.pace.wait(b.watch.ctx, n); waitErr != nil {
		return n, waitErr
	}
	return n, err
}

// Close implements io.Closer; it ends the connection unless all was read.
func (b *watchedBody) Close() error {
	err := b.ReadCloser.Close()
	b.watch.done()
	return err
}

// watchedUpload is the body of a request: the time between two reads of it, which the registry takes to accept what it
// was sent, is bounded; the time in a read, which is the source's and the cap's, is not.
type watchedUpload struct {
	io.ReadCloser

	watch  *watchdog
	counts *counts
	pace   *Bandwidth
	held   *slot
	size   int64
	sent   int64
	closed atomic.Bool
}

// Read implements io.Reader.
func (u *watchedUpload) Read(p []byte) (int, error) {
	u.watch.rest()
	n, err := u.ReadCloser.Read(u.pace.clip(p))
	u.sent += int64(n)
	u.counts.sent(n)
	if waitErr := u.pace.wait(u.watch.ctx, n); waitErr != nil {
		return n, waitErr
	}
	if fenced := u.watch.fence(); fenced != nil {
		return 0, fenced // of a manifest without its end the registry takes nothing
	}
	if u.sent > heldUpload {
		u.held.release()
	}
	if !u.closed.Load() {
		wait := idleTimeout
		if err != nil || u.sent == u.size {
			wait += storing(u.size)
		}
		u.watch.expect(wait)
	}
	return n, err
}

// Close implements io.Closer. A request that is answered early is closed while it is being read.
func (u *watchedUpload) Close() error {
	u.closed.Store(true)
	return u.ReadCloser.Close()
}
