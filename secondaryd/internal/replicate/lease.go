package replicate

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"github.com/antipode-registry/antipode/secondaryd/internal/tracking"
)

// heldLease keeps a lease alive while a repository is synced.
type heldLease struct {
	end    func()
	ended  func() error // why the lease is no longer kept alive; nil while it is
	expiry atomic.Int64 // of the lease, as unix nanoseconds of our own clock
}

// hold renews lease three times in its length until end is called. asked is when the lease was asked for. The context
// that it returns ends when the lease is lost.
func hold(
	ctx context.Context, store *tracking.Store, lease *tracking.Lease, asked time.Time, length time.Duration,
) (context.Context, *heldLease) {
	ctx, cancel := context.WithCancelCause(ctx)
	held := &heldLease{ended: func() error { return context.Cause(ctx) }}
	held.extend(asked, length)
	var renewer sync.WaitGroup
	renewer.Go(func() { held.renew(ctx, store, lease, length, cancel) })
	held.end = func() {
		cancel(nil)
		renewer.Wait()
	}
	return ctx, held
}

func (h *heldLease) renew(
	ctx context.Context, store *tracking.Store, lease *tracking.Lease, length time.Duration, cancel context.CancelCauseFunc,
) {
	ticker := time.NewTicker(length / 3)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		asked := time.Now()
		err := store.Renew(ctx, lease)
		switch {
		case err == nil:
			h.extend(asked, length)
		case errors.Is(err, tracking.ErrLeaseLost):
			cancel(err)
			return
		}
		// Any other error may pass; the fence stops the writes if it does not pass in time.
	}
}

// extend counts from before the lease or its renewal was asked for, so that our idea of the expiry is never later than the
// database's. A tenth of the length is kept as a margin for clocks that run at different speeds.
func (h *heldLease) extend(asked time.Time, length time.Duration) {
	h.expiry.Store(asked.Add(length - length/10).UnixNano())
}

// fence refuses a write to the site's registry once the lease may have run out: after a long stop of the process it
// answers before any renewal does.
func (h *heldLease) fence(ctx context.Context) error {
	if err := context.Cause(ctx); err != nil {
		return err
	}
	if err := h.ended(); err != nil {
		return err
	}
	if time.Now().UnixNano() >= h.expiry.Load() {
		return tracking.ErrLeaseLost
	}
	return nil
}
