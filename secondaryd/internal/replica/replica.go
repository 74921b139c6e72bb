// Package replica makes a process one of those that share a site, on one database: all of them sync repositories, and
// one, the leader, follows the feed, sweeps and reports.
//
// It guarantees that a process works only while what it is configured to replicate is what the site replicates: one that
// is configured otherwise waits until the last of the others has ended. It guarantees that one process leads at a time as
// far as package lease does: what a leader writes by its context is fenced.
package replica

import (
	"context"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/antipode-registry/antipode/internal/lease"
	"github.com/antipode-registry/antipode/secondaryd/internal/tracking"
)

// role is what processes stand for.
const role = "follow"

const (
	every  = 2 * time.Second // how often a process says that it lives, and looks whether its configuration is in force
	within = 5 * time.Second // how long one such question to the database may take
)

// Options of a Replica; all are required.
type Options struct {
	// Name is the process's among those of the site.
	Name string
	// Scope is what it is configured to replicate.
	Scope tracking.Scope
	// Shared says that other processes may use the database.
	Shared bool
	// Describe returns what the process says of itself to the others. Called every two seconds where Shared.
	Describe func() string
	Logger   *slog.Logger
}

// Replica is this process among those of the site. It is safe for concurrent use.
type Replica struct {
	tracking *tracking.Store
	leases   *lease.Leases
	opts     Options
	works    atomic.Bool // its configuration is in force
	leads    atomic.Bool
	changed  chan struct{} // there is something new to say
}

// New returns a Replica; Run starts it.
func New(t *tracking.Store, l *lease.Leases, opts Options) *Replica {
	return &Replica{tracking: t, leases: l, opts: opts, changed: make(chan struct{}, 1)}
}

// Name is the process's name.
func (r *Replica) Name() string { return r.opts.Name }

// Leads says whether this process leads, as far as it knows.
func (r *Replica) Leads() bool { return r.leads.Load() }

// Leader names the process that leads, as the database knows it; empty when none does.
func (r *Replica) Leader(ctx context.Context) (string, error) { return r.leases.Leader(ctx, role) }

// Works says whether what the process is configured to replicate is in force.
func (r *Replica) Works() bool { return r.works.Load() }

// Run has the process take part until ctx ends or one of the functions fails: work runs while the configuration is in
// force, and lead while the process leads besides. Both are begun again as often as that changes, and must return soon
// after their contexts end. The database's failures are logged and outlasted.
func (r *Replica) Run(ctx context.Context, work, lead func(ctx context.Context) error) error {
	stop := r.live(ctx)
	defer stop()
	for r.adopt(ctx) {
		if err := r.take(ctx, work, lead); err != nil {
			return err
		}
	}
	return nil
}

// take works until the configuration is no longer in force.
func (r *Replica) take(ctx context.Context, work, lead func(ctx context.Context) error) error {
	r.works.Store(true)
	defer r.works.Store(false)
	group, ctx := errgroup.WithContext(ctx)
	ctx, end := context.WithCancel(ctx)
	defer end()
	group.Go(func() error {
		defer end()
		r.outlast(ctx)
		return nil
	})
	group.Go(func() error { return work(ctx) })
	group.Go(func() error {
		return r.leases.Lead(ctx, role, func(ctx context.Context, _ *lease.Term) error {
			r.leads.Store(true)
			r.tell()
			defer r.tell()
			defer r.leads.Store(false)
			return lead(ctx)
		})
	})
	return group.Wait()
}

// adopt returns true once the configuration is in force, and false when ctx ended before.
func (r *Replica) adopt(ctx context.Context) bool {
	wake, stop := r.tracking.Watch()
	defer stop()
	for told := false; ctx.Err() == nil; {
		asking, cancel := context.WithTimeout(ctx, within)
		inForce, changed, err := r.tracking.Adopt(asking, r.opts.Name, r.opts.Scope)
		cancel()
		switch {
		case err != nil && ctx.Err() == nil:
			r.opts.Logger.Warn("could not note what is replicated; trying again", "side", "local", "error", err)
		case changed:
			r.opts.Logger.Info("what is replicated was changed in the configuration; reading the feed from its beginning")
		case err == nil && !inForce && !told:
			told = true
			r.opts.Logger.Warn("processes that replicate by another configuration are at work; waiting for their end")
		}
		if inForce {
			return true
		}
		rest(ctx, wake)
	}
	return false
}

// outlast returns when the configuration is no longer in force, or ctx ended. A database that does not answer changes
// nothing: it does not let anybody work either.
func (r *Replica) outlast(ctx context.Context) {
	if !r.opts.Shared {
		<-ctx.Done()
		return
	}
	for ctx.Err() == nil {
		rest(ctx, nil)
		asking, cancel := context.WithTimeout(ctx, within)
		inForce, err := r.tracking.InForce(asking)
		cancel()
		if err == nil && !inForce {
			r.opts.Logger.Warn("the site replicates by another configuration by now; this process ceases to work")
			return
		}
	}
}

// live says every two seconds that the process lives, until stop, which takes that back. It outlives ctx: what the
// process does on its way out, it does by its configuration.
func (r *Replica) live(ctx context.Context) (stop func()) {
	if !r.opts.Shared {
		return func() {}
	}
	living, end := context.WithCancel(context.WithoutCancel(ctx))
	var beating sync.WaitGroup
	beating.Go(func() {
		for failed := false; living.Err() == nil; rest(living, r.changed) {
			failed = r.report(living, failed)
		}
	})
	return func() {
		end()
		beating.Wait()
		leaving, cancel := context.WithTimeout(context.WithoutCancel(ctx), within)
		defer cancel()
		if err := r.tracking.DropReplica(leaving, r.opts.Name); err != nil {
			r.opts.Logger.Warn("could not say goodbye; the other processes notice in 15 s", "side", "local", "error", err)
		}
	}
}

// report says once that the process lives, and logs when that begins to fail.
func (r *Replica) report(ctx context.Context, failedBefore bool) (failed bool) {
	bounded, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	err := r.tracking.ReportReplica(bounded, r.opts.Name, r.opts.Describe())
	if err != nil && !failedBefore && ctx.Err() == nil {
		r.opts.Logger.Warn("could not tell the other processes that this one lives", "side", "local", "error", err)
	}
	return err != nil
}

// tell has the next report made now.
func (r *Replica) tell() {
	select {
	case r.changed <- struct{}{}:
	default:
	}
}

func rest(ctx context.Context, wake <-chan struct{}) {
	timer := time.NewTimer(every)
	defer timer.Stop()
	select {
	case <-wake:
	case <-timer.C:
	case <-ctx.Done():
	}
}
