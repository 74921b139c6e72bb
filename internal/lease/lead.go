package lease

import (
	"context"
	"errors"
	"time"
)

// retryEvery is how long a candidate waits after the database did not answer; releaseWithin bounds the end of a term in
// order, after which the row's time ends it.
const (
	retryEvery    = time.Second
	releaseWithin = 2 * time.Second
)

// Lead waits until this process leads in the role, and runs fn with a context that ends with ctx or with the term, and by
// which Check knows the term. When the term was lost it begins again once fn has returned; when fn returned before that,
// or ctx ended, it gives the role back and returns fn's error. Before it leads, the end of ctx is no error. The
// database's errors are logged, not returned: it tries again for as long as ctx lasts.
//
// fn must return soon after its context has ended, and must check the term in each transaction whose write another
// leader must not see.
func (l *Leases) Lead(ctx context.Context, role string, fn func(ctx context.Context, term *Term) error) error {
	wake, stop := l.db.Listen(channel(role))
	defer stop()
	for {
		term := l.await(ctx, role, wake)
		if term == nil {
			return nil
		}
		lost, err := l.serve(ctx, term, fn)
		if !lost || ctx.Err() != nil {
			return err
		}
	}
}

// await returns a term, or nil when ctx has ended.
func (l *Leases) await(ctx context.Context, role string, wake <-chan struct{}) *Term {
	for ctx.Err() == nil {
		term, wait, err := l.acquire(ctx, role)
		if term != nil {
			return term
		}
		if err != nil {
			wait = min(retryEvery, l.opts.TTL)
			if ctx.Err() == nil {
				l.opts.Logger.Warn("could not stand for leader; trying again", "role", role, "error", err)
			}
		}
		timer := time.NewTimer(max(wait, time.Millisecond))
		select {
		case <-wake:
		case <-timer.C:
		case <-ctx.Done():
		}
		timer.Stop()
	}
	return nil
}

// serve runs fn during the term and says whether the term was lost before fn returned.
func (l *Leases) serve(
	ctx context.Context, term *Term, fn func(ctx context.Context, term *Term) error,
) (lost bool, err error) {
	l.opts.Logger.Info("leads now", "role", term.role, "fence", term.fence)
	leading, end := context.WithCancelCause(context.WithValue(ctx, termKey{}, term))
	defer end(nil)
	// A term outlives ctx until fn has returned: what fn finishes on its way out is done as the leader.
	renewing, stop := context.WithCancel(context.WithoutCancel(ctx))
	renewed := make(chan struct{})
	go func() {
		defer close(renewed)
		term.keep(renewing, end)
	}()
	err = fn(leading, term)
	lost = errors.Is(context.Cause(leading), ErrTermLost)
	stop()
	<-renewed
	if lost {
		l.opts.Logger.Warn("leads no longer: the term could not be renewed in time", "role", term.role, "fence", term.fence)
		return true, err
	}
	releasing, done := context.WithTimeout(context.WithoutCancel(ctx), releaseWithin)
	defer done()
	if err := term.release(releasing); err != nil {
		l.opts.Logger.Warn("could not give the lead back; another takes it when its time is over",
			"role", term.role, "error", err)
	}
	return false, err
}

// keep renews the term until ctx ends, or until the term is lost, of which it tells lose.
func (t *Term) keep(ctx context.Context, lose context.CancelCauseFunc) {
	for wait := t.leases.opts.TTL / 3; ; wait = t.leases.opts.TTL / 3 {
		select {
		case <-ctx.Done():
			return
		case <-time.After(wait):
		}
		if err := t.keepOnce(ctx); err != nil {
			lose(err)
			return
		}
	}
}

// keepOnce renews the term, and tries again while the database does not answer and the deadline has not passed; its
// error is ErrTermLost. It returns at the deadline, whatever the database does.
func (t *Term) keepOnce(ctx context.Context) error {
	ctx, cancel := context.WithDeadline(ctx, t.deadline())
	defer cancel()
	for {
		err := t.renew(ctx)
		if err == nil || errors.Is(err, ErrTermLost) {
			return err
		}
		select {
		case <-time.After(t.leases.opts.TTL / 12):
		case <-ctx.Done():
			if errors.Is(ctx.Err(), context.DeadlineExceeded) {
				return ErrTermLost
			}
			return nil // fn has returned
		}
	}
}
