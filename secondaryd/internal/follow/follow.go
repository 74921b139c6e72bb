// Package follow keeps the subscription to the primary: it turns batches of changes into tracking rows and moves the
// cursor in the same transaction.
//
// A change is never acknowledged before it is stored: reconnecting with the stored cursor is the acknowledgement. When
// the cursor does not fit the primary's feed, everything is read and compared again from the beginning; nothing is
// deleted because of it.
package follow

import (
	"context"
	"errors"
	"iter"
	"log/slog"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/antipode-registry/antipode/client"
	"github.com/antipode-registry/antipode/internal/telemetry"
	"github.com/antipode-registry/antipode/secondaryd/internal/tracking"
)

// Back-off between streams, doubling with jitter.
const (
	leastWait = 250 * time.Millisecond
	mostWait  = 10 * time.Second
)

// Feed is the primary's feed; *client.Client implements it.
type Feed interface {
	Subscribe(ctx context.Context, node string, from client.Position) iter.Seq2[client.Event, error]
}

// Tracking is where changes and the cursor go; *tracking.Store implements it.
type Tracking interface {
	Cursor(ctx context.Context) (tracking.Cursor, error)
	Apply(ctx context.Context, batch tracking.Batch) error
	Heard(ctx context.Context, head int64, changedAt time.Time) error
	StartOver(ctx context.Context) error
	Promoted(ctx context.Context) (time.Time, error)
	Watch() (wake <-chan struct{}, stop func())
}

// Options of a Follower.
type Options struct {
	// Node is the site's own name.
	Node string
	// Wants says whether the site replicates a repository; nil means all of them.
	Wants func(repository string) bool
	// Asked takes events that carry a request to the site; it must not block. nil ignores them.
	Asked  func(event client.Event)
	Logger *slog.Logger
	Tracer *telemetry.Tracer
}

// Follower follows the feed. Its accessors are safe for concurrent use with Run.
type Follower struct {
	feed     Feed
	tracking Tracking
	opts     Options

	mu        sync.Mutex
	connected bool
	lastErr   error
}

// New returns a Follower; Run starts it.
func New(f Feed, t Tracking, opts Options) *Follower {
	return &Follower{feed: f, tracking: t, opts: opts}
}

// Connected says whether a subscription is up and, if not, why the last one ended.
func (f *Follower) Connected() (bool, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.connected, f.lastErr
}

func (f *Follower) set(connected bool, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.connected, f.lastErr = connected, err
}

// Run follows until ctx ends, whatever happens to the link or to the database meanwhile.
func (f *Follower) Run(ctx context.Context) error {
	for failures := 0; ctx.Err() == nil; {
		f.rest(ctx)
		if f.once(ctx) {
			failures = 0
		}
		pause(ctx, failures)
		failures++
	}
	return nil
}

// rest returns when the site is not promoted, or that cannot be found out.
func (f *Follower) rest(ctx context.Context) {
	wake, stop := f.tracking.Watch()
	defer stop()
	for told := false; ; told = true {
		at, err := f.tracking.Promoted(ctx)
		if err != nil || at.IsZero() {
			return
		}
		f.set(false, tracking.ErrPromoted)
		if !told {
			f.opts.Logger.Info("the site is promoted; it follows the primary no more", "since", at)
		}
		select {
		case <-wake:
		case <-ctx.Done():
			return
		}
	}
}

// once follows one stream to its end, and says whether it began at all.
func (f *Follower) once(ctx context.Context) (began bool) {
	began, err := f.Stream(ctx)
	f.set(false, err)
	if ctx.Err() != nil || errors.Is(err, tracking.ErrPromoted) {
		return began
	}
	f.opts.Logger.Warn("the subscription ended; reconnecting", "side", "primary", "error", err)
	if errors.Is(err, client.ErrStartOver) {
		if err := f.tracking.StartOver(ctx); err != nil {
			f.opts.Logger.Error("could not begin to start over", "side", "local", "error", err)
		}
	}
	return began
}

// Stream follows one stream from the stored cursor until it ends, and says whether it began at all.
func (f *Follower) Stream(ctx context.Context) (began bool, err error) {
	cursor, err := f.tracking.Cursor(ctx)
	if err != nil {
		return false, err
	}
	from := client.Position{FeedID: cursor.FeedID, Revision: cursor.Revision, Incarnation: cursor.Incarnation}
	for event, err := range f.feed.Subscribe(ctx, f.opts.Node, from) {
		if err != nil {
			return began, err
		}
		if !began {
			f.opts.Logger.Info("following the primary's feed", "feed", event.FeedID,
				"revision", from.Revision, "head", event.Head)
		}
		began = true
		f.set(true, nil)
		if err := f.take(ctx, event, &cursor); err != nil {
			return began, err
		}
	}
	return began, ctx.Err()
}

// take stores what an event says. A heartbeat that moves nothing writes no row.
func (f *Follower) take(ctx context.Context, event client.Event, cursor *tracking.Cursor) error {
	if event.Request != nil && f.opts.Asked != nil {
		f.opts.Asked(event)
	}
	// The incarnation moves with a restart of primaryd alone: to keep the old one would work until that is forgotten.
	moved := event.Cursor != cursor.Revision || event.FeedID != cursor.FeedID || event.Incarnation != cursor.Incarnation
	if len(event.Changes) == 0 && !moved {
		return f.tracking.Heard(ctx, event.Head, event.HeadChangedAt)
	}
	changes := make([]tracking.Change, 0, len(event.Changes))
	for _, change := range event.Changes {
		if f.opts.Wants != nil && !f.opts.Wants(change.Repository) {
			continue
		}
		class := tracking.Live
		if change.Revision <= event.BackfillTo {
			class = tracking.Backfill
		}
		changes = append(changes, tracking.Change{
			Repository: change.Repository, Revision: change.Revision, ChangedAt: change.ChangedAt, Class: class,
			Hint: hintOf(change.Hint), TraceParent: f.traceParent(ctx, change),
		})
	}
	spans := f.received(ctx, changes)
	err := f.tracking.Apply(ctx, tracking.Batch{
		FeedID: event.FeedID, Incarnation: event.Incarnation, Changes: changes, Cursor: event.Cursor, Head: event.Head,
		ChangedAt: changedAt(event), HeadChangedAt: event.HeadChangedAt,
	})
	for _, span := range spans {
		span.Fail("local", err)
		span.End()
	}
	if err != nil {
		return err
	}
	cursor.FeedID, cursor.Revision, cursor.Incarnation = event.FeedID, event.Cursor, event.Incarnation
	return nil
}

// mostTouches bounds what is stored of one change, whatever a primary sends.
const mostTouches = 64

func hintOf(said *client.Hint) (h tracking.Hint) {
	if said == nil || len(said.Tags) > mostTouches {
		return tracking.Hint{}
	}
	h.Base = said.BaseRevision
	for _, t := range said.Tags {
		h.Touches = append(h.Touches, tracking.Touch{
			Tag: t.Tag, Digest: t.Digest, Deleted: t.Deleted, At: t.At, Revision: t.Revision,
		})
	}
	return h
}

// traceParent is the trace that the sync of a change goes on with: where it is traced here too, and the primary named one.
func (f *Follower) traceParent(ctx context.Context, change client.Change) string {
	if !f.opts.Tracer.Enabled() {
		return ""
	}
	return telemetry.SampledTraceParent(ctx, change.TraceParent)
}

// received begins a span for each change that is traced, so that its trace says when it was stored here.
func (f *Follower) received(ctx context.Context, changes []tracking.Change) (spans []telemetry.Span) {
	for _, change := range changes {
		if change.TraceParent == "" {
			continue
		}
		_, span := f.opts.Tracer.Start(telemetry.WithTraceParent(ctx, change.TraceParent), "receive change",
			telemetry.About{Role: telemetry.Carrying, Repository: change.Repository, Revision: change.Revision})
		spans = append(spans, span)
	}
	return spans
}

// changedAt is when the change at the event's cursor happened, as far as the event tells; zero where it does not.
func changedAt(event client.Event) time.Time {
	if event.Cursor == event.Head && !event.HeadChangedAt.IsZero() {
		return event.HeadChangedAt
	}
	if last := len(event.Changes) - 1; last >= 0 {
		return event.Changes[last].ChangedAt
	}
	return time.Time{}
}

func pause(ctx context.Context, failures int) {
	wait := min(leastWait<<min(failures, 8), mostWait)
	timer := time.NewTimer(wait/2 + rand.N(wait/2))
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}
