// Package sweep is the site's anti-entropy: it compares what the site's registry holds with what was synced, and makes
// due what differs. It heals damage done behind our back; it asks nothing of the primary, and it removes nothing: the
// sync that follows decides by a complete listing of both sides.
package sweep

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
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

// retryEvery is how long to wait after the database did not answer.
const retryEvery = 10 * time.Second

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
	Promoted(ctx context.Context) (time.Time, error)
	VerifyStale(ctx context.Context, since time.Time, limit int) (int64, error)
	SinceSweep(ctx context.Context) (age time.Duration, known bool, err error)
	Swept(ctx context.Context) error
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

// Sweeper compares at every interval; the first time an interval after the site's first start. When the last round ended
// is kept in the database: neither a restart nor another leader begins the interval anew.
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
	for s.await(ctx) {
		err := s.Round(ctx)
		if ctx.Err() != nil {
			return nil //nolint:nilerr // the round was cut short, which is no failure
		}
		result := "complete"
		if err != nil {
			result = "failed"
			s.opts.Logger.Error("sweep of the site failed; nothing was concluded from it", "side", "destination", "error", err)
		}
		s.opts.Metrics.round(result)
		for s.tracking.Swept(ctx) != nil && rest(ctx, retryEvery) {
		}
	}
	return nil
}

// await returns true when a round is due, and false when ctx ended before.
func (s *Sweeper) await(ctx context.Context) bool {
	for ctx.Err() == nil {
		wait, err := s.due(ctx)
		if err == nil && wait <= 0 {
			return true
		}
		if err != nil {
			wait = retryEvery
		}
		rest(ctx, wait)
	}
	return false
}

// due says in how long the next round is: an interval after the last one ended, whichever process made it.
func (s *Sweeper) due(ctx context.Context) (wait time.Duration, err error) {
	age, known, err := s.tracking.SinceSweep(ctx)
	if err != nil {
		return 0, err
	}
	if !known {
		return s.opts.Interval, s.tracking.Swept(ctx)
	}
	return s.opts.Interval - max(0, age), nil
}

// rest returns false when ctx ended meanwhile.
func rest(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// Round compares every synced repository once. Its error is about one of those that could not be compared, and says how
// many more there were; a round is given up when the registry is unavailable for many in a row. A paused or
// promoted site is not swept.
func (s *Sweeper) Round(ctx context.Context) error {
	if paused, err := s.tracking.Paused(ctx); paused || err != nil {
		return err
	}
	if promoted, err := s.tracking.Promoted(ctx); !promoted.IsZero() || err != nil {
		return err
	}
	var failed failures
	for after := ""; ; {
		rows, err := s.tracking.List(ctx, tracking.Synced, after, batch)
		if err != nil {
			return fmt.Errorf("read the tracking table: %w", err)
		}
		if len(rows) == 0 {
			return errors.Join(failed.err(), s.verifyStale(ctx))
		}
		after = rows[len(rows)-1].Name
		var workers errgroup.Group
		workers.SetLimit(parallel)
		for _, row := range rows {
			workers.Go(func() error {
				if !failed.tooMany() {
					failed.add(s.compare(ctx, row))
				}
				return nil
			})
		}
		_ = workers.Wait() // every outcome is in failed
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if failed.tooMany() {
			return fmt.Errorf("given up before the end: %w", failed.err())
		}
	}
}

// inARow is after how many repositories, one after the other, a registry that is not available is asked no more: each
// would take its time to fail.
const inARow = 20

// failures counts what went wrong in a round.
type failures struct {
	mu          sync.Mutex
	first       error
	n           int
	unavailable int // since the last answer
}

func (f *failures) add(err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if !errors.Is(err, registry.ErrUnavailable) {
		f.unavailable = 0
	} else {
		f.unavailable++
	}
	if err == nil {
		return
	}
	if f.n++; f.first == nil {
		f.first = err
	}
}

func (f *failures) tooMany() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.unavailable >= inARow
}

func (f *failures) err() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.n < 2 {
		return f.first
	}
	return fmt.Errorf("%w (and %d more)", f.first, f.n-1)
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
