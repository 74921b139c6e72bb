package replicate

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"github.com/antipode-registry/antipode/internal/registry"
	"github.com/antipode-registry/antipode/secondaryd/internal/tracking"
)

// heldLease keeps a lease alive while a repository is synced.
type heldLease struct {
	end   func()
	until atomic.Pointer[deadline]
}

// deadline is when a lease may have run out, by both clocks that this machine has.
type deadline struct{ monotonic, wall time.Time }

// hold renews lease three times in its length until end is called. asked is when the lease was asked for. The context
// that it returns ends when the lease is lost. What is written to the store with it is fenced, and it lets no manifest be
// written to a registry, or deleted, from when the lease may be lost without our knowing.
func hold(
	ctx context.Context, store *tracking.Store, lease *tracking.Lease, asked time.Time, length time.Duration,
) (context.Context, *heldLease) {
	ctx, cancel := context.WithCancelCause(ctx)
	held := &heldLease{}
	held.extend(asked, length)
	var renewer sync.WaitGroup
	renewer.Go(func() { held.renew(ctx, store, lease, length, cancel) })
	held.end = func() {
		cancel(nil)
		renewer.Wait()
	}
	return registry.WithGuard(tracking.UnderLease(ctx, lease), held.guard), held
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
		// Any other error may pass; the guard stops the writes if it does not pass in time.
	}
}

// extend counts from before the lease or its renewal was asked for, so that our idea of the end is never later than the
// database's. A tenth of the length is kept as a margin: for clocks that run at different speeds, and for what passes
// between the guard's answer and the registry's.
func (h *heldLease) extend(asked time.Time, length time.Duration) {
	until := asked.Add(length - length/10)
	h.until.Store(&deadline{monotonic: until, wall: until.Round(0)})
}

// guard refuses a write to the site's registry once the lease may have run out: after a long stop of the process it
// answers before any renewal does.
func (h *heldLease) guard() error {
	if h.until.Load().passed(time.Now()) {
		return tracking.ErrLeaseLost
	}
	return nil
}

// passed asks both clocks, and believes the one that is ahead. The monotonic clock goes on while the process is stopped,
// and cannot be set back; on Linux it stands still while the machine is suspended. The wall clock does not.
func (d *deadline) passed(now time.Time) bool {
	return !now.Before(d.monotonic) || !now.Round(0).Before(d.wall)
}
