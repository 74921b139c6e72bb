// Package sweep is the site's anti-entropy: it compares what the site's registry holds with what was synced, and makes
// due what differs. It heals damage done behind our back; it asks nothing of the primary, and it removes nothing: the
// sync that follows decides by a complete listing of both sides.
package sweep

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/antipode-registry/antipode/internal/registry"
	"github.com/antipode-registry/antipode/secondaryd/internal/plan"
	"github.com/antipode-registry/antipode/secondaryd/internal/tracking"
)

// parallel is how many repositories are compared at once; batch is how many rows are read at once.
const (
	parallel = 4
	batch    = 500
)

// Registry is the site's; *registry.Registry implements it.
type Registry interface {
	ListReadable(ctx context.Context, repository string) (registry.Listing, []string, error)
}

// Tracking is the site's memory; *tracking.Store implements it.
type Tracking interface {
	List(ctx context.Context, state tracking.State, afterName string, limit int) ([]tracking.Repository, error)
	Get(ctx context.Context, name string) (tracking.Repository, bool, error)
	Resync(ctx context.Context, name string) (bool, error)
	Paused(ctx context.Context) (bool, error)
	VerifyStale(ctx context.Context, since time.Time, limit int) (int64, error)
}

// Content is what the copier believes the site's registry to hold; *tracking.Content implements it.
type Content interface {
	DropRepository(ctx context.Context, repository string) error
}

// Options of a Sweeper; Metrics may be nil.
type Options struct {
	// Interval between the end of one round and the start of the next.
	Interval time.Duration
	// VerifyAfter is how long after its last check a repository's whole content is checked again; 0 = never.
	VerifyAfter time.Duration
	// Target maps a repository's name at the primary to its name on the site.
	Target  func(repository string) string
	Logger  *slog.Logger
	Metrics *Metrics
}

// Sweeper compares at every interval; the first time an interval after it was started, since what was unfinished at
// start is due anyway.
type Sweeper struct {
	registry Registry
	tracking Tracking
	content  Content
	opts     Options
}

// New returns a Sweeper; Run starts it.
func New(r Registry, t Tracking, c Content, opts Options) *Sweeper {
	return &Sweeper{registry: r, tracking: t, content: c, opts: opts}
}

// Run sweeps until ctx ends. A failed round is logged and counted; the next one begins anew.
func (s *Sweeper) Run(ctx context.Context) error {
	ticker := time.NewTicker(s.opts.Interval)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		}
		err := s.Round(ctx)
		if ctx.Err() != nil {
			return nil
		}
		result := "complete"
		if err != nil {
			result = "failed"
			s.opts.Logger.Error("sweep of the site failed; nothing was concluded from it", "side", "destination", "error", err)
		}
		s.opts.Metrics.round(result)
	}
}

// Round compares every synced repository once, and returns the errors of those that could not be compared. A paused
// site is not swept.
func (s *Sweeper) Round(ctx context.Context) error {
	if paused, err := s.tracking.Paused(ctx); paused || err != nil {
		return err
	}
	var failures []error
	for after := ""; ; {
		rows, err := s.tracking.List(ctx, tracking.Synced, after, batch)
		if err != nil {
			return fmt.Errorf("read the tracking table: %w", err)
		}
		if len(rows) == 0 {
			return errors.Join(append(failures, s.verifyStale(ctx))...)
		}
		after = rows[len(rows)-1].Name
		errs := make([]error, len(rows))
		var workers errgroup.Group
		workers.SetLimit(parallel)
		for i, row := range rows {
			workers.Go(func() error {
				errs[i] = s.compare(ctx, row)
				return nil
			})
		}
		_ = workers.Wait() // every outcome is in errs
		failures = append(failures, errors.Join(errs...))
		if ctx.Err() != nil {
			return ctx.Err()
		}
	}
}

// verifyBatch bounds how many repositories one round makes due for a check of all their content.
const verifyBatch = 10_000

// verifyStale makes due what was not checked for long; the sync that follows checks it, and mends it.
func (s *Sweeper) verifyStale(ctx context.Context) error {
	if s.opts.VerifyAfter == 0 {
		return nil
	}
	n, err := s.tracking.VerifyStale(ctx, time.Now().Add(-s.opts.VerifyAfter), verifyBatch)
	if err == nil && n > 0 {
		s.opts.Logger.Info("verifying what was not verified for long", "repositories", n)
	}
	return err
}

// compare makes one repository due if the site does not hold what was synced, or if what that was is not known.
func (s *Sweeper) compare(ctx context.Context, row tracking.Repository) error {
	listing, unreadable, err := s.registry.ListReadable(ctx, s.opts.Target(row.Name))
	if err != nil {
		return err
	}
	tags := make([]plan.Tag, 0, len(listing.Tags))
	for _, tag := range listing.Tags {
		tags = append(tags, plan.Tag{Name: tag.Name, Digest: tag.Digest})
	}
	if len(unreadable) == 0 && plan.SumOf(tags).String() == row.Sum {
		return nil
	}
	// A sync that ran while we were listing explains the difference.
	now, found, err := s.tracking.Get(ctx, row.Name)
	if err != nil || !found || now.State != tracking.Synced || !now.LastSyncedAt.Equal(row.LastSyncedAt) {
		return err
	}
	return s.repair(ctx, row.Name)
}

// repair makes the repository due by a complete listing, and forgets what the copier believed about it: what took a
// tag away may have taken its blobs too.
func (s *Sweeper) repair(ctx context.Context, repository string) error {
	s.opts.Logger.Warn("the site does not hold what was synced; syncing it again", "side", "destination",
		"repository", repository)
	s.opts.Metrics.damaged()
	if err := s.content.DropRepository(ctx, s.opts.Target(repository)); err != nil {
		return fmt.Errorf("forget the content of %s: %w", repository, err)
	}
	if _, err := s.tracking.Resync(ctx, repository); err != nil {
		return fmt.Errorf("make %s due: %w", repository, err)
	}
	return nil
}
