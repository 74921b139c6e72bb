package main

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/antipode-registry/antipode/internal/database"
	"github.com/antipode-registry/antipode/internal/lease"
)

// sweepRole is the lease that one of several primaryd on a database holds: it sweeps, the others stand by.
//
// The sweep's writes need no check of the term. Each compares its listing with the row as it is in the transaction, so
// that two that overlap, while a stopped one wakes up, cost requests and nothing else.
const sweepRole = "sweep"

// askAgain is the pause after a request for a sweep that the database did not take.
const askAgain = time.Second

// sweep sweeps while this replica leads, and passes on what any replica asks for.
func (d *daemon) sweep(ctx context.Context) error {
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return d.requestSweeps(ctx) })
	group.Go(func() error {
		return d.leases.Lead(ctx, sweepRole, func(ctx context.Context, _ *lease.Term) error {
			leading, ctx := errgroup.WithContext(ctx)
			leading.Go(func() error { return d.sweeper.Run(ctx) })
			leading.Go(func() error { return d.hearRequests(ctx) })
			return leading.Wait()
		})
	})
	return group.Wait()
}

// wantSweep asks for a sweep, on whichever replica it will be. It never blocks.
func (d *daemon) wantSweep() {
	select {
	case d.wanted <- struct{}{}:
	default: // one is on its way
	}
}

// requestSweeps writes down what wantSweep asks for.
func (d *daemon) requestSweeps(ctx context.Context) error {
	for {
		select {
		case <-d.wanted:
		case <-ctx.Done():
			return nil
		}
		for err := d.feed.RequestSweep(ctx); err != nil && ctx.Err() == nil; err = d.feed.RequestSweep(ctx) {
			d.logger.Warn("could not ask for a sweep; trying again", "error", err)
			select {
			case <-time.After(askAgain):
			case <-ctx.Done():
			}
		}
	}
}

// hearRequests has the leader sweep when a replica asked for it. What was asked for before is covered by the sweep that a
// term begins with.
func (d *daemon) hearRequests(ctx context.Context) error {
	wake, stop := d.feed.WatchSweeps()
	defer stop()
	done, err := d.feed.SweepsRequested(ctx)
	for known := err == nil; ; {
		select {
		case <-wake:
		case <-ctx.Done():
			return nil
		}
		count, err := d.feed.SweepsRequested(ctx)
		switch {
		case err != nil:
			if ctx.Err() == nil {
				d.logger.Warn("could not look whether a sweep was asked for", "error", err)
			}
			continue
		case !known || count != done:
			d.sweeper.Now()
		}
		known, done = true, count
	}
}

// openLeases names this process to people as the sites' processes are named: host and process number.
func openLeases(ctx context.Context, db *database.DB, logger *slog.Logger) (*lease.Leases, error) {
	host, err := os.Hostname()
	if err != nil {
		return nil, fmt.Errorf("name of this machine: %w", err)
	}
	return lease.Open(ctx, db, lease.Options{Owner: fmt.Sprintf("%s/%d", host, os.Getpid()), Logger: logger})
}
