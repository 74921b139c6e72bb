// Package sweep is the primary's anti-entropy: it compares the feed with the registry's catalog and bumps what differs.
//
// It makes the promise that nothing stays lost: a notification that never came, one that a registry dropped with its
// queue, a repository that existed before the feed did. It never removes a row, and an error, whatever it is, changes
// nothing: the row is compared again in the next round.
package sweep

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"log/slog"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/antipode-registry/antipode/primaryd/internal/feed"
	"github.com/antipode-registry/antipode/primaryd/internal/listing"
)

// parallel is how many repositories are compared at once. The registry's own budget bounds the requests.
const parallel = 4

// batch is how many unknown repositories are appended in one commit, and how many rows are read at once.
const batch = 500

// Registry is what the sweep asks of the primary's registry; *registry.Registry implements it.
type Registry interface {
	Repositories(ctx context.Context) iter.Seq2[string, error]
}

// Lister makes complete listings; *listing.Lister implements it.
type Lister interface {
	Walk(ctx context.Context, row feed.Row) (listing.Listing, error)
}

// Feed is what the sweep reads and writes; *feed.Feed implements it.
type Feed interface {
	List(ctx context.Context, afterName string, limit int) ([]feed.Row, error)
	AddMissing(ctx context.Context, repositories []string) (int, error)
	RecordSweep(ctx context.Context, repository string, revision int64, fingerprint string, present bool) (bool, error)
}

// Options of a Sweeper.
type Options struct {
	// Interval between the end of one round and the start of the next; required.
	Interval time.Duration
	Logger   *slog.Logger
	Metrics  *Metrics
}

// Sweeper walks the catalog at start, at every interval, and when asked to.
type Sweeper struct {
	registry Registry
	lister   Lister
	feed     Feed
	opts     Options
	now      chan struct{}
}

// New returns a Sweeper; Run starts it.
func New(r Registry, l Lister, f Feed, opts Options) *Sweeper {
	return &Sweeper{registry: r, lister: l, feed: f, opts: opts, now: make(chan struct{}, 1)}
}

// Now asks for a round as soon as the running one has ended. It never blocks.
func (s *Sweeper) Now() {
	select {
	case s.now <- struct{}{}:
	default:
	}
}

// Run sweeps until ctx ends. A failed round is logged and counted, and tried again with back-off.
func (s *Sweeper) Run(ctx context.Context) error {
	failures := 0
	for {
		err := s.Round(ctx)
		switch {
		case ctx.Err() != nil:
			return nil
		case err != nil:
			failures++
			s.opts.Metrics.round("failed")
			s.opts.Logger.Error("sweep failed; nothing was concluded from it", "error", err, "attempt", failures)
		default:
			failures = 0
			s.opts.Metrics.round("complete")
		}
		timer := time.NewTimer(s.pause(failures))
		select {
		case <-timer.C:
		case <-s.now:
		case <-ctx.Done():
		}
		timer.Stop()
	}
}

// pause is the interval after a complete round, and 1 s doubling up to it after failed ones.
func (s *Sweeper) pause(failures int) time.Duration {
	if failures == 0 {
		return s.opts.Interval
	}
	return min(s.opts.Interval, time.Second<<min(failures-1, 10))
}

// Round compares everything once. First it makes known what the feed has never heard of, which needs no listing, so
// that a backfill begins at once; then it compares every row with what the registry answers.
// It returns the errors of all repositories that could not be compared.
func (s *Sweeper) Round(ctx context.Context) error {
	began := time.Now()
	added, err := s.discover(ctx)
	if err != nil {
		return fmt.Errorf("walk the catalog: %w", err)
	}
	compared, bumped, err := s.compare(ctx)
	s.opts.Metrics.found(added, bumped)
	s.opts.Logger.Info("swept", "new_repositories", added, "compared", compared, "changed", bumped,
		"seconds", time.Since(began).Seconds())
	return err
}

func (s *Sweeper) discover(ctx context.Context) (int, error) {
	var names []string
	total := 0
	flush := func() error {
		added, err := s.feed.AddMissing(ctx, names)
		total += added
		names = names[:0]
		return err
	}
	for name, err := range s.registry.Repositories(ctx) {
		if err != nil {
			return total, err
		}
		if names = append(names, name); len(names) == batch {
			if err := flush(); err != nil {
				return total, err
			}
		}
	}
	return total, flush()
}

// compare lists every repository of the feed. One without a fingerprint is not left out: a notified change forgets the
// fingerprint, and a notification that is lost after it is found by nobody else.
func (s *Sweeper) compare(ctx context.Context) (compared, bumped int, err error) {
	var failures []error
	for after := ""; ; {
		rows, err := s.feed.List(ctx, after, batch)
		if err != nil {
			return compared, bumped, fmt.Errorf("read the feed: %w", err)
		}
		if len(rows) == 0 {
			return compared, bumped, errors.Join(failures...)
		}
		after = rows[len(rows)-1].Repository
		results := make([]result, len(rows))
		s.each(ctx, rows, results)
		for _, r := range results {
			compared += r.compared
			bumped += r.bumped
			if r.err != nil {
				failures = append(failures, r.err)
			}
		}
		if ctx.Err() != nil {
			return compared, bumped, ctx.Err()
		}
	}
}

type result struct {
	compared, bumped int
	err              error
}

func (s *Sweeper) each(ctx context.Context, rows []feed.Row, results []result) {
	var workers errgroup.Group
	workers.SetLimit(parallel)
	for i, row := range rows {
		workers.Go(func() error {
			results[i] = s.one(ctx, row)
			return nil
		})
	}
	_ = workers.Wait() // every outcome is in results
}

func (s *Sweeper) one(ctx context.Context, row feed.Row) result {
	answer, err := s.lister.Walk(ctx, row)
	if err != nil {
		return result{err: err}
	}
	bumped, err := s.feed.RecordSweep(ctx, row.Repository, row.Revision, answer.Fingerprint(), answer.Present)
	if err != nil {
		return result{err: fmt.Errorf("record the sweep of %s: %w", row.Repository, err)}
	}
	if bumped {
		s.opts.Logger.Info("sweep found a change", "repository", row.Repository)
		return result{compared: 1, bumped: 1}
	}
	return result{compared: 1}
}
