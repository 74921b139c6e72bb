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
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/antipode-registry/antipode/internal/database"
	"github.com/antipode-registry/antipode/internal/registry"
	"github.com/antipode-registry/antipode/primaryd/internal/feed"
	"github.com/antipode-registry/antipode/primaryd/internal/listing"
)

// parallel is how many repositories are compared at once. The registry's own budget bounds the requests.
const parallel = 4

// batch is how many unknown repositories are appended in one commit, and how many rows are read at once.
const batch = 500

// outageAfter is how many repositories in a row find the registry or the database unavailable before the round is given
// up: each of them was tried several times already, and a registry in trouble is not helped by thousands more.
const outageAfter = 10

// failuresLogged bounds the lines that one round logs about repositories that could not be compared.
const failuresLogged = 20

// ErrIncomplete says that a round came to its end, but left something out.
var ErrIncomplete = errors.New("incomplete")

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
	Get(ctx context.Context, repository string) (feed.Row, bool, error)
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
	hurries  hurries
	compared int // repositories of the last round
}

// New returns a Sweeper; Run starts it.
func New(r Registry, l Lister, f Feed, opts Options) *Sweeper {
	return &Sweeper{registry: r, lister: l, feed: f, opts: opts, now: make(chan struct{}, 1)}
}

// Now asks for a round as soon as the running one has ended, which then takes no more time than it needs. It never blocks.
func (s *Sweeper) Now() {
	select {
	case s.now <- struct{}{}:
	default:
	}
	s.hurries.up()
}

// Run sweeps until ctx ends. A round that is due by the interval alone is spread over a twentieth of it; the first, and one
// that was asked for, is not. A round that was given up is tried again with back-off; one that only left something out
// is not, or a registry with one broken repository would be walked for ever.
func (s *Sweeper) Run(ctx context.Context) error {
	failures := 0
	for due := false; ctx.Err() == nil; {
		if err := s.round(ctx, due); ctx.Err() == nil {
			failures = s.conclude(err, failures)
		}
		timer := time.NewTimer(s.pause(failures))
		select {
		case <-timer.C:
			due = failures == 0
		case <-s.now:
			due = false
		case <-ctx.Done():
		}
		timer.Stop()
	}
	return nil
}

// conclude tells of a round and returns how many in a row were given up.
func (s *Sweeper) conclude(err error, failures int) int {
	switch {
	case err == nil:
		s.opts.Metrics.round("complete")
	case errors.Is(err, ErrIncomplete):
		s.opts.Metrics.round("incomplete")
		s.opts.Logger.Error("sweep left something out; nothing was concluded about it", "error", err)
	default:
		failures++
		s.opts.Metrics.round("failed")
		s.opts.Logger.Error("sweep was given up", "error", err, "attempt", failures)
		return failures
	}
	return 0
}

// pause is the interval after a round that came to its end, and 1 s doubling up to it after those given up.
func (s *Sweeper) pause(failures int) time.Duration {
	if failures == 0 {
		return s.opts.Interval
	}
	return min(s.opts.Interval, time.Second<<min(failures-1, 10))
}

// Round compares everything once. First it makes known what the feed has never heard of, which needs no listing, so
// that a backfill begins at once; then it compares every row with what the registry answers.
//
// Its error wraps ErrIncomplete when it came to its end, but the registry does not show its catalog, as hosted ones do
// not, or some repositories could not be compared. With any other error it was given up.
func (s *Sweeper) Round(ctx context.Context) error { return s.round(ctx, false) }

// round is Round, spread over time where it is due by the interval alone.
func (s *Sweeper) round(ctx context.Context, due bool) error {
	r := round{Sweeper: s, began: time.Now()}
	if due && s.compared > 0 {
		r.pace = &pace{step: s.opts.Interval / spreadOver / time.Duration(s.compared), hurry: s.hurries.begin()}
	}
	hidden, err := r.discover(ctx)
	if err != nil {
		return err
	}
	err = r.compare(ctx)
	s.compared = r.compared
	r.report()
	if err != nil {
		return err
	}
	return errors.Join(hidden, r.failures())
}

// round is one walk over everything.
type round struct {
	*Sweeper
	began time.Time
	pace  *pace
	added int

	mu                        sync.Mutex
	compared, bumped          int
	failed, unavailableInARow int
	firstFailure, lastOutage  error
}

// discover walks the catalog. It says why that is hidden, if it is, or why the round cannot go on.
func (r *round) discover(ctx context.Context) (hidden, err error) {
	var names []string
	flush := func() error {
		added, err := r.feed.AddMissing(ctx, names)
		r.added += added
		names = names[:0]
		if err != nil {
			return fmt.Errorf("add to the feed: %w", err)
		}
		return nil
	}
	for name, err := range r.registry.Repositories(ctx) {
		if err != nil && (ctx.Err() != nil || errors.Is(err, registry.ErrUnavailable)) {
			return nil, fmt.Errorf("walk the catalog: %w", err)
		}
		if err != nil {
			hidden = fmt.Errorf("%w: walk the catalog: %w", ErrIncomplete, err)
			break
		}
		if names = append(names, name); len(names) == batch {
			if err := flush(); err != nil {
				return nil, err
			}
		}
	}
	return hidden, flush()
}

// compare lists every repository of the feed. One without a fingerprint is not left out: a notified change forgets the
// fingerprint, and a notification that is lost after it is found by nobody else.
func (r *round) compare(ctx context.Context) error {
	for after := ""; ; {
		rows, err := r.feed.List(ctx, after, batch)
		if err != nil {
			return fmt.Errorf("read the feed: %w", err)
		}
		if len(rows) == 0 {
			return nil
		}
		after = rows[len(rows)-1].Repository
		r.each(ctx, rows)
		if err := r.outage(); err != nil {
			return fmt.Errorf("given up after %d repositories in a row: %w", outageAfter, err)
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
	}
}

func (r *round) each(ctx context.Context, rows []feed.Row) {
	var workers errgroup.Group
	workers.SetLimit(parallel)
	for _, row := range rows {
		if ctx.Err() != nil || r.outage() != nil {
			break
		}
		r.pace.await(ctx)
		workers.Go(func() error {
			compared, bumped, err := r.one(ctx, row.Repository)
			if ctx.Err() == nil {
				r.note(row.Repository, compared, bumped, err)
			}
			return nil
		})
	}
	_ = workers.Wait() // every outcome was noted
}

// one compares one repository. Where a tag does not read as it was announced, either the registry has not written it yet
// or another change was lost; the row is bumped like any that differs, and the sites, who are told of such tags, look
// again until they are settled.
func (r *round) one(ctx context.Context, repository string) (compared, bumped bool, err error) {
	// The row of now: to one that a notification has moved meanwhile, the listing would seem to be of before.
	row, found, err := r.feed.Get(ctx, repository)
	if err != nil || !found {
		return false, false, err
	}
	if r.isNew(row) {
		return false, false, nil
	}
	answer, err := r.lister.Walk(ctx, row)
	if err != nil {
		return false, false, err
	}
	bumped, err = r.feed.RecordSweep(ctx, repository, row.Revision, answer.Fingerprint(), answer.Present)
	if err != nil {
		return false, false, fmt.Errorf("record the sweep of %s: %w", repository, err)
	}
	return true, bumped, nil
}

// isNew says whether this very round made the row: there is nothing to compare with, and the first listing that a site
// asks for will be what later rounds compare with. So the first walk over a registry costs it nothing but its catalog.
func (r *round) isNew(row feed.Row) bool {
	return row.SweptAt.IsZero() && row.Fingerprint == "" && len(row.Hint.Touches) == 0 && row.ChangedAt.After(r.began)
}

func (r *round) note(repository string, compared, bumped bool, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	switch {
	case err == nil:
		r.unavailableInARow = 0
	case errors.Is(err, registry.ErrUnavailable), errors.Is(err, database.ErrUnavailable):
		r.unavailableInARow++
		r.lastOutage = err
	}
	if err != nil {
		if r.failed++; r.failed == 1 {
			r.firstFailure = err
		}
		if r.failed <= failuresLogged {
			r.opts.Logger.Warn("repository could not be compared", "repository", repository, "error", err)
		}
	}
	if compared {
		r.compared++
	}
	if bumped {
		r.bumped++
		r.opts.Logger.Info("sweep found a change", "repository", repository)
	}
}

// outage is the error of a registry or a database that answers nobody; nil while it is not sure.
func (r *round) outage() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.unavailableInARow < outageAfter {
		return nil
	}
	return r.lastOutage
}

func (r *round) failures() error {
	if r.failed == 0 {
		return nil
	}
	return fmt.Errorf("%w: %d repositories could not be compared, the first: %w", ErrIncomplete, r.failed, r.firstFailure)
}

func (r *round) report() {
	r.opts.Metrics.found(r.added, r.bumped)
	r.opts.Logger.Info("swept", "new_repositories", r.added, "compared", r.compared, "changed", r.bumped,
		"failed", r.failed, "seconds", time.Since(r.began).Seconds())
}
