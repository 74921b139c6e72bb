package feed

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/antipode-registry/antipode/internal/database"
	"github.com/antipode-registry/antipode/internal/telemetry"
)

const (
	// batchChanges is how many changes a commit takes at least before it leaves the rest to the next one.
	batchChanges = 1000
	// commitTimeout bounds a commit against a database that does not answer, so that no caller waits for ever.
	commitTimeout = 10 * time.Second
	nameBytes     = 1024
)

// appending is a call of Append that waits for its commit.
type appending struct {
	changes     []Change
	traceParent string         // of what led to the changes; "" when that is not traced
	span        telemetry.Span // of the waiting
	done        chan outcome   // of one: the committer never waits for a caller that is gone
}

type outcome struct {
	head int64
	err  error
}

// Append records changes and returns, once they are durable, a head that is no older than they are. Calls at the same
// time share a transaction, made by Run: while none runs, Append waits for it; once it has ended, ErrStopped. Several
// changes of a repository in one transaction get one revision.
//
// When ctx ends first, its error is returned and the changes may be committed all the same; recording a change twice is
// harmless. When a commit fails, every call in it gets the error. A change that no database could store is refused
// before it is queued, so it spoils no other.
//
// If ctx is of a trace that is sampled, the rows name its span, for those who go on with the changes.
func (f *Feed) Append(ctx context.Context, changes ...Change) (head int64, err error) {
	if len(changes) == 0 {
		return f.Head(ctx)
	}
	for _, change := range changes {
		if err := change.validate(); err != nil {
			return 0, fmt.Errorf("feed: append: %w", err)
		}
	}
	call := &appending{changes: changes, done: make(chan outcome, 1)}
	if f.tracer.Enabled() {
		call.traceParent = telemetry.TraceParent(ctx)
		ctx, call.span = f.tracer.Within(ctx, "append changes", telemetry.About{})
		defer call.span.End()
	}
	head, err = f.await(ctx, call)
	call.span.Fail("local", err)
	return head, err
}

func (f *Feed) await(ctx context.Context, call *appending) (head int64, err error) {
	select {
	case f.queue <- call:
	case <-f.stopped:
		return 0, ErrStopped
	case <-ctx.Done():
		return 0, fmt.Errorf("feed: append: %w", ctx.Err())
	}
	select {
	case result := <-call.done:
		return result.head, result.err
	case <-ctx.Done():
		return 0, fmt.Errorf("feed: append: %w", ctx.Err())
	}
}

func (c Change) validate() error {
	if err := storable("repository", c.Repository); err != nil {
		return err
	}
	if len(c.Tags) == 0 && !c.Unknown {
		return fmt.Errorf("change of %s touches no tag", c.Repository)
	}
	for _, touch := range c.Tags {
		if err := errors.Join(storable("tag", touch.Tag), storable("digest", "-"+touch.Digest)); err != nil {
			return fmt.Errorf("change of %s: %w", c.Repository, err)
		}
	}
	return nil
}

// storable says whether both databases take the text: Postgres has no NUL and no invalid UTF-8.
func storable(what, text string) error {
	if text == "" || len(text) > nameBytes || !utf8.ValidString(text) || strings.ContainsRune(text, 0) {
		return fmt.Errorf("%s %.64q is empty, longer than %d bytes, or no text", what, text, nameBytes)
	}
	return nil
}

// Run commits what Append queues, and hears of other replicas' commits, until ctx ends; it then returns nil. A commit
// that is under way is finished first. It may be called once.
func (f *Feed) Run(ctx context.Context) error {
	first := false
	f.started.Do(func() { first = true })
	if !first {
		return errors.New("feed: Run was called twice")
	}
	followed := make(chan struct{})
	go func() {
		defer close(followed)
		f.follow(ctx)
	}()
	defer func() { <-followed }()
	defer close(f.stopped)
	for {
		select {
		case <-ctx.Done():
			return nil
		case call := <-f.queue:
			f.commit(ctx, f.collect(call))
		}
	}
}

// collect takes what else waits by now. It does not wait for more: the commit before was wait enough under load, and
// alone a change should not be late.
func (f *Feed) collect(first *appending) []*appending {
	batch, changes := []*appending{first}, len(first.changes)
	for changes < batchChanges {
		select {
		case call := <-f.queue:
			batch, changes = append(batch, call), changes+len(call.changes)
		default:
			return batch
		}
	}
	return batch
}

// commit writes a batch in one transaction and answers all its calls.
func (f *Feed) commit(ctx context.Context, batch []*appending) {
	began := time.Now()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), commitTimeout)
	defer cancel()
	changes := merge(batch, began)
	ctx, span := f.tracer.Together(ctx, "commit changes", spans(batch), telemetry.About{})
	defer span.End()
	span.Number("repositories", int64(len(changes)))
	var standing Standing
	err := f.db.Write(ctx, func(ctx context.Context, tx *database.Tx) (err error) {
		standing, err = f.write(ctx, tx, changes)
		return err
	})
	if err != nil {
		if ctx.Err() != nil {
			err = fmt.Errorf("%w: no commit within %v", database.ErrUnavailable, commitTimeout)
		}
		err = fmt.Errorf("feed: append: %w", err)
		f.logger.ErrorContext(ctx, "changes were not recorded", "side", "local", "calls", len(batch), "error", err)
		span.Fail("local", err)
	} else {
		f.advance(standing)
		f.metrics.committed(len(changes), time.Since(began))
	}
	for _, call := range batch {
		call.done <- outcome{head: standing.Head, err: err}
	}
}

// spans are those of the calls that are traced.
func spans(batch []*appending) (traced []telemetry.Span) {
	for _, call := range batch {
		if call.span.Recording() {
			traced = append(traced, call.span)
		}
	}
	return traced
}

// merged is what one commit changes in one repository.
type merged struct {
	repository  string
	unknown     bool
	touches     map[string]Touch
	at          time.Time // of the oldest change: the lag of who lacks it is that long
	traceParent string    // of the newest change that is traced
}

// merge makes one change per repository of all that a commit takes.
func merge(batch []*appending, now time.Time) map[string]merged {
	changes := make(map[string]merged)
	for _, call := range batch {
		for _, change := range call.changes {
			one := changes[change.Repository].with(change, now)
			if call.traceParent != "" {
				one.traceParent = call.traceParent
			}
			changes[change.Repository] = one
		}
	}
	return changes
}

func (m merged) with(change Change, now time.Time) merged {
	at := happened(change.At, now)
	if m.touches == nil {
		m = merged{repository: change.Repository, touches: make(map[string]Touch), at: at}
	}
	m.unknown = m.unknown || change.Unknown
	if at.Before(m.at) {
		m.at = at
	}
	for _, touch := range change.Tags {
		if touch.At.IsZero() {
			touch.At = at
		}
		touch.At = happened(touch.At, now)
		if have, found := m.touches[touch.Tag]; !found || !touch.At.Before(have.At) {
			m.touches[touch.Tag] = touch
		}
	}
	return m
}

// happened is the event's own time, as precise as it is stored. A time to come is a clock that is ahead: it would win
// over every later event and make the lag negative.
func happened(at, now time.Time) time.Time {
	if at.IsZero() || at.After(now) {
		at = now
	}
	return at.Truncate(time.Millisecond).UTC()
}
