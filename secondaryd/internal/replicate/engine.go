// Package replicate does the site's work: it claims repositories that are due, lists both sides, makes the plan, applies
// it and records what came of it.
//
// It guarantees that a repository is called synced only when every tag of the listing is on the site with the same
// digest and every removal was made or kept by policy; that removals follow only from a listing with its summary, read
// after the change; and that nothing is written without a living lease. What one tag's failure does to its repository,
// it does not do to the tag's siblings.
package replicate

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/antipode-registry/antipode/client"
	"github.com/antipode-registry/antipode/internal/registry"
	"github.com/antipode-registry/antipode/internal/telemetry"
	"github.com/antipode-registry/antipode/internal/transfer"
	"github.com/antipode-registry/antipode/secondaryd/internal/plan"
	"github.com/antipode-registry/antipode/secondaryd/internal/tracking"
)

// Primary lists repositories; *client.Client implements it.
type Primary interface {
	Tags(ctx context.Context, repository string, since client.Position) (client.Listing, error)
}

// Options of an Engine; all but Metrics and Tracer are required.
type Options struct {
	// Owner names this process in the leases that it holds.
	Owner string
	// Workers is how many repositories are synced at once.
	Workers int
	// Lease is how long a claim lasts without being renewed.
	Lease time.Duration
	// Policy decides about removals from one repository, SiteBrake about those from all together.
	Policy    plan.Policy
	SiteBrake tracking.SiteBrake
	// Target maps a repository's name at the primary to its name on the site. No two may have the same.
	Target func(repository string) string
	// OpenSource returns the handle of the primary's registry at a URL; called once for each URL.
	OpenSource func(url string) (*registry.Registry, error)
	// SourceURL overrides where the primary says that its registry is; optional.
	SourceURL string
	Logger    *slog.Logger
	Metrics   *Metrics
	Tracer    *telemetry.Tracer
}

// Parts are what an Engine works with.
type Parts struct {
	Tracking *tracking.Store
	Primary  Primary
	Site     *registry.Registry
	Copier   *transfer.Copier
}

// Engine syncs repositories. It is safe for concurrent use.
type Engine struct {
	Parts
	opts    Options
	sources sources
	active  active
	siteAPI siteAPI
	bytes   atomic.Int64
}

// New returns an Engine; Run starts it.
func New(parts Parts, opts Options) *Engine {
	return &Engine{Parts: parts, opts: opts, sources: sources{open: opts.OpenSource}}
}

// Bytes returns how many bytes of blobs were copied to the site since the process started.
func (e *Engine) Bytes() int64 { return e.bytes.Load() }

// idle bounds how long the engine waits without looking for due work: it covers a wake-up that got lost.
const idle = 30 * time.Second

// Run works until ctx ends, then waits for what it began to let go.
func (e *Engine) Run(ctx context.Context) error {
	wake, stop := e.Tracking.Watch()
	defer stop()
	slots := newSlots(e.opts.Workers)
	var running sync.WaitGroup
	defer running.Wait()
	for claims := 0; slots.acquire(ctx); {
		pick, asked := slots.pick(claims), time.Now()
		lease, err := e.Tracking.Claim(ctx, e.opts.Owner, pick)
		if err != nil && ctx.Err() == nil {
			e.opts.Logger.Error("could not claim work", "side", "local", "error", err)
		}
		if lease == nil {
			slots.putBack()
			e.wait(ctx, wake, slots.freed, pick, err)
			continue
		}
		claims++
		slots.occupy(lease.Class)
		running.Go(func() {
			defer slots.release(lease.Class)
			e.run(ctx, lease, asked)
		})
	}
	return nil
}

// wait returns when there may be work for such a pick, or a slot for another.
func (e *Engine) wait(ctx context.Context, wake, freed <-chan struct{}, pick tracking.Pick, claimErr error) {
	pause := idle
	if claimErr != nil {
		pause = time.Second
	} else if due, ok, err := e.Tracking.NextDue(ctx, pick); err == nil && ok {
		pause = min(idle, max(time.Until(due), 5*time.Millisecond))
	}
	timer := time.NewTimer(pause)
	defer timer.Stop()
	select {
	case <-wake:
	case <-freed:
	case <-timer.C:
	case <-ctx.Done():
	}
}

// run syncs one claimed repository and records the outcome. asked is when the lease was asked for.
func (e *Engine) run(ctx context.Context, lease *tracking.Lease, asked time.Time) {
	log := e.opts.Logger.With("repository", lease.Repository, "revision", lease.Wanted)
	began := time.Now()
	ctx, span := e.opts.Tracer.Start(telemetry.WithTraceParent(ctx, lease.TraceParent), "sync repository", telemetry.About{
		Role: telemetry.Carrying, Repository: lease.Repository, Revision: lease.Wanted,
	})
	defer span.End()
	work, end := e.active.begin(lease.Repository)
	defer end()
	leased, held := hold(ctx, e.Tracking, lease, asked, e.opts.Lease)
	outcome := e.sync(leased, lease, work)
	held.end()
	if ctx.Err() != nil && outcome.Failure != nil {
		outcome = interrupted(outcome)
	}
	// The outcome is worth recording although the process is being stopped.
	record, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
	defer cancel()
	if err := e.Tracking.Finish(record, lease, outcome); err != nil {
		span.Fail(sideLocal, err)
		log.ErrorContext(ctx, "could not record the outcome; the repository becomes due again when its lease runs out",
			"side", "local", "error", err)
		e.opts.Metrics.synced("lost", "", time.Since(began))
		return
	}
	if outcome.Synced {
		e.opts.Metrics.arrived(lease, time.Now())
	}
	e.report(ctx, log, outcome, time.Since(began))
	describe(span, outcome)
}

// describe says on the span what came of the sync.
func describe(span telemetry.Span, outcome tracking.Outcome) {
	if f := outcome.Failure; f != nil {
		span.Text("reference", f.Reference)
		span.Fail(f.Side, errors.New(f.Message))
	}
	span.Text("held", outcome.Held)
	if outcome.Retry > 0 {
		span.Number("retry_ms", outcome.Retry.Milliseconds())
	}
}

func (e *Engine) report(ctx context.Context, log *slog.Logger, outcome tracking.Outcome, took time.Duration) {
	switch {
	case outcome.Failure != nil:
		f := outcome.Failure
		log.WarnContext(ctx, "sync failed", "side", f.Side, "reference", f.Reference, "error", f.Message, "seconds", took.Seconds())
		e.opts.Metrics.synced("failed", f.Side, took)
	case outcome.Held != "":
		log.WarnContext(ctx, "removals withheld", "reason", outcome.Held, "seconds", took.Seconds())
		e.opts.Metrics.synced("held", "", took)
	case outcome.Synced:
		log.InfoContext(ctx, "synced", "seconds", took.Seconds())
		e.opts.Metrics.synced("synced", "", took)
	default:
		log.InfoContext(ctx, "not settled yet; looking again soon", "seconds", took.Seconds())
		e.opts.Metrics.synced("unsettled", "", took)
	}
}
