package follow_test

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"github.com/antipode-registry/antipode/client"
	"github.com/antipode-registry/antipode/internal/database"
	"github.com/antipode-registry/antipode/internal/database/databasetest"
	"github.com/antipode-registry/antipode/internal/telemetry"
	"github.com/antipode-registry/antipode/internal/telemetry/telemetrytest"
	"github.com/antipode-registry/antipode/secondaryd/internal/follow"
	"github.com/antipode-registry/antipode/secondaryd/internal/tracking"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	node   = "eu-west"
	feedID = "feed-1"
)

var errCut = errors.New("the connection was cut")

// feed plays streams: the first subscription gets the first one, and so on; the last one is played again and again.
type feed struct {
	streams []stream

	mu    sync.Mutex
	asked []subscription
}

// subscription is one call of Subscribe.
type subscription struct {
	node string
	from client.Position
	at   time.Time
}

// stream is what one subscription yields. It then ends with err, or without one stays silent until it is cancelled.
type stream struct {
	events []client.Event
	err    error
}

func (f *feed) Subscribe(ctx context.Context, node string, from client.Position) iter.Seq2[client.Event, error] {
	f.mu.Lock()
	defer f.mu.Unlock()
	s := f.streams[min(len(f.asked), len(f.streams)-1)]
	f.asked = append(f.asked, subscription{node: node, from: from, at: time.Now()})
	return func(yield func(client.Event, error) bool) {
		for _, event := range s.events {
			if !yield(event, nil) {
				return
			}
		}
		err := s.err
		if err == nil {
			<-ctx.Done()
			err = ctx.Err()
		}
		yield(client.Event{}, err)
	}
}

func (f *feed) subscriptions() []subscription {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.asked)
}

// hello is the first event of a stream from the beginning; its cursor is the subscription's.
func hello(head int64) client.Event { return client.Event{FeedID: feedID, Head: head} }

func batch(cursor, head, backfillTo int64, changes ...client.Change) client.Event {
	return client.Event{FeedID: feedID, Cursor: cursor, Head: head, BackfillTo: backfillTo, Changes: changes}
}

func change(repository string, revision int64) client.Change {
	return client.Change{Repository: repository, Revision: revision, ChangedAt: time.UnixMilli(revision)}
}

// at is when the change of a revision happened.
func at(revision int64) time.Time { return time.UnixMilli(revision).UTC() }

func newStore(t testing.TB, db *database.DB) *tracking.Store {
	t.Helper()
	store, err := tracking.Open(t.Context(), db, tracking.Options{})
	if err != nil {
		t.Fatal(err)
	}
	return store
}

func newFollower(f follow.Feed, s follow.Tracking, wants func(string) bool) *follow.Follower {
	return follow.New(f, s, follow.Options{Node: node, Wants: wants, Logger: slog.New(slog.DiscardHandler)})
}

// run runs the follower within a bubble and returns what stops it.
func run(t *testing.T, f *follow.Follower) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- f.Run(ctx) }()
	return func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("a stop is no error: %v", err)
		}
	}
}

func rows(t *testing.T, s *tracking.Store) map[string]int64 {
	t.Helper()
	list, err := s.List(t.Context(), "", "", 100)
	if err != nil {
		t.Fatal(err)
	}
	wanted := map[string]int64{}
	for _, row := range list {
		wanted[row.Name] = row.Wanted
	}
	return wanted
}

func wantCursor(t *testing.T, s *tracking.Store, want tracking.Cursor) {
	t.Helper()
	got, err := s.Cursor(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	got.MovedAt, got.HeardAt = time.Time{}, time.Time{}
	if got != want {
		t.Errorf("cursor %+v, want %+v", got, want)
	}
}

// Changes become rows with the cursor; what was announced before the stream began is history; the subscription goes on
// from the stored cursor.
func TestFollow(t *testing.T) {
	t.Parallel()
	databasetest.Each(t, func(t *testing.T, open func(testing.TB) *database.DB) {
		s := newStore(t, open(t))
		f := &feed{streams: []stream{{
			events: []client.Event{
				hello(5),
				batch(4, 5, 5, change("old", 2), change("unwanted/x", 3), change("older", 4)),
				batch(7, 7, 5, change("live", 7)),
				batch(9, 9, 5, change("unwanted/y", 9)),
				batch(9, 11, 5),
			},
			err: errCut,
		}, {err: errCut}}}
		follower := newFollower(f, s, func(name string) bool { return !strings.HasPrefix(name, "unwanted/") })
		if began, err := follower.Stream(t.Context()); !began || !errors.Is(err, errCut) {
			t.Fatalf("the stream began %t and ended with %v", began, err)
		}
		if diff := cmp.Diff(map[string]int64{"old": 2, "older": 4, "live": 7}, rows(t, s)); diff != "" {
			t.Errorf("rows (-want +got):\n%s", diff)
		}
		wantCursor(t, s, tracking.Cursor{FeedID: feedID, Revision: 9, Head: 11, ChangedAt: at(9)})
		first, err := s.Claim(t.Context(), "w", tracking.LiveOnly)
		if err != nil || first == nil || first.Repository != "live" {
			t.Errorf("live work is %+v (%v)", first, err)
		}
		if second, err := s.Claim(t.Context(), "w", tracking.LiveOnly); second != nil || err != nil {
			t.Errorf("history is called live: %+v (%v)", second, err)
		}

		if _, err := follower.Stream(t.Context()); err == nil {
			t.Fatal("a second stream did not end")
		}
		asked := f.subscriptions()
		if asked[0].from != (client.Position{}) || asked[0].node != node {
			t.Errorf("the first subscription was %+v", asked[0])
		}
		if want := (client.Position{FeedID: feedID, Revision: 9}); asked[1].from != want {
			t.Errorf("the second subscription went on from %+v, want %+v", asked[1].from, want)
		}
	})
}

// A heartbeat without news writes no row, and moves the cursor only if it says so.
// What the primary says of a trace is stored if it is one, and if there are traces here at all; whatever it is, the change
// itself is stored.
func TestTracesAreGoneOnWith(t *testing.T) {
	t.Parallel()
	const junk = "00-not-a-trace"
	for name, test := range map[string]struct {
		said, want string
		off        bool
	}{
		"traced": {said: telemetrytest.TraceParent, want: telemetrytest.TraceParent}, "not traced": {}, "junk": {said: junk},
		"not sampled": {said: telemetrytest.TraceParent[:54] + "0"},
		"endless":     {said: telemetrytest.TraceParent + strings.Repeat("-", 1<<20)},
		"off":         {said: telemetrytest.TraceParent, off: true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			changed := change("a", 1)
			changed.TraceParent = test.said
			store, recorder := newStore(t, databasetest.OpenSQLite(t)), telemetrytest.NewRecorder()
			options := follow.Options{Node: node, Logger: slog.New(slog.DiscardHandler)}
			if !test.off {
				options.Tracer = telemetry.NewTracer(recorder, node)
			}
			f := follow.New(&feed{streams: []stream{{events: []client.Event{hello(0), batch(1, 1, 0, changed)}, err: errCut}}}, store, options)
			if _, err := f.Stream(t.Context()); !errors.Is(err, errCut) {
				t.Fatal(err)
			}
			lease, err := store.Claim(t.Context(), "worker", tracking.LiveFirst)
			if err != nil || lease == nil || lease.TraceParent != test.want {
				t.Errorf("claimed %+v, %v; want the traceparent %q", lease, err, test.want)
			}
			if test.want == "" {
				if spans := recorder.Spans(); len(spans) != 0 {
					t.Errorf("spans: %+v", spans)
				}
				return
			}
			span := recorder.One(t, "receive change")
			span.Has(t, "node", node, "repository", "a", "revision", "1")
			if span.Trace != telemetrytest.Trace || span.Parent != telemetrytest.Parent {
				t.Errorf("span: %+v", span)
			}
		})
	}
}

func TestHeartbeat(t *testing.T) {
	t.Parallel()
	calls := &calls{cursor: tracking.Cursor{FeedID: feedID, Revision: 5, Head: 5}}
	f := &feed{streams: []stream{{
		events: []client.Event{batch(5, 5, 5), batch(5, 6, 5), batch(6, 6, 5), batch(6, 6, 5)}, err: errCut,
	}}}
	if _, err := newFollower(f, calls, nil).Stream(t.Context()); !errors.Is(err, errCut) {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"heard 5", "heard 6", "apply feed-1 0 changes to 6", "heard 6"}, calls.made); diff != "" {
		t.Errorf("calls (-want +got):\n%s", diff)
	}
}

// calls records what is asked of the tracking table, and fails what it is told to.
type calls struct {
	cursor tracking.Cursor
	fail   error
	made   []string
}

func (c *calls) note(format string, args ...any) error {
	c.made = append(c.made, fmt.Sprintf(format, args...))
	return c.fail
}

func (c *calls) Cursor(context.Context) (tracking.Cursor, error) { return c.cursor, c.fail }
func (c *calls) Heard(_ context.Context, head int64, _ time.Time) error {
	return c.note("heard %d", head)
}
func (c *calls) StartOver(context.Context) error             { return c.note("start over") }
func (c *calls) Promoted(context.Context) (time.Time, error) { return time.Time{}, nil }
func (c *calls) Watch() (wake <-chan struct{}, stop func())  { return nil, func() {} }
func (c *calls) Apply(_ context.Context, b tracking.Batch) error {
	return c.note("apply %s %d changes to %d", b.FeedID, len(b.Changes), b.Cursor)
}

// A change that cannot be stored is not acknowledged: the stream ends, and is begun anew from the stored cursor.
func TestStoreFails(t *testing.T) {
	t.Parallel()
	f := &feed{streams: []stream{{events: []client.Event{hello(1), batch(1, 1, 0, change("a", 1)), batch(2, 2, 0, change("b", 2))}}}}
	broken := &brokenApply{Store: newStore(t, databasetest.OpenSQLite(t)), fails: 1}
	if began, err := newFollower(f, broken, nil).Stream(t.Context()); !began || !errors.Is(err, errCut) {
		t.Fatalf("the stream began %t and ended with %v", began, err)
	}
	wantCursor(t, broken.Store, tracking.Cursor{FeedID: feedID, Head: 1})
	if got := rows(t, broken.Store); len(got) > 0 {
		t.Errorf("rows %v without their cursor", got)
	}
}

// brokenApply fails to store changes a few times.
type brokenApply struct {
	*tracking.Store
	fails int
}

func (b *brokenApply) Apply(ctx context.Context, batch tracking.Batch) error {
	if len(batch.Changes) > 0 && b.fails > 0 {
		b.fails--
		return errCut
	}
	return b.Store.Apply(ctx, batch)
}

// A cursor that does not fit the feed is given up: everything is due again from the beginning, and nothing is lost.
func TestStartOver(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newStore(t, databasetest.OpenSQLite(t))
		if err := s.Apply(t.Context(), tracking.Batch{FeedID: "feed-0", Changes: []tracking.Change{{Repository: "a", Revision: 8}}, Cursor: 8, Head: 8}); err != nil {
			t.Fatal(err)
		}
		lease, err := s.Claim(t.Context(), "w", tracking.LiveFirst)
		if err != nil || lease == nil {
			t.Fatal(err)
		}
		if err := s.Finish(t.Context(), lease, tracking.Outcome{Synced: true}); err != nil {
			t.Fatal(err)
		}
		f := &feed{streams: []stream{
			{err: fmt.Errorf("subscribe: %w", client.ErrStartOver)},
			{events: []client.Event{hello(2), batch(2, 2, 2, change("a", 1), change("b", 2))}},
		}}
		follower := newFollower(f, s, nil)
		stop := run(t, follower)
		<-time.After(time.Minute)
		synctest.Wait()
		if connected, err := follower.Connected(); !connected || err != nil {
			t.Errorf("connected %t, %v", connected, err)
		}
		if diff := cmp.Diff(map[string]int64{"a": 1, "b": 2}, rows(t, s)); diff != "" {
			t.Errorf("rows (-want +got):\n%s", diff)
		}
		wantCursor(t, s, tracking.Cursor{FeedID: feedID, Revision: 2, Head: 2, ChangedAt: at(2)})
		row, _, err := s.Get(t.Context(), "a")
		if err != nil || row.State != tracking.Pending || row.Synced != -1 {
			t.Errorf("row of a: %+v (%v), want it due with a complete listing", row, err)
		}
		stop()
		asked := f.subscriptions()
		if len(asked) != 2 || asked[0].from != (client.Position{FeedID: "feed-0", Revision: 8}) || asked[1].from != (client.Position{}) {
			t.Errorf("subscriptions %+v", asked)
		}
		if connected, err := follower.Connected(); connected || !errors.Is(err, context.Canceled) {
			t.Errorf("after the stop: connected %t, %v", connected, err)
		}
	})
}

// While no stream begins, the wait between two doubles up to ten seconds, each by chance in the upper half; a stream that
// began lets it start small again.
func TestReconnect(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newStore(t, databasetest.OpenSQLite(t))
		var streams []stream
		const failures = 10
		for range failures {
			streams = append(streams, stream{err: errCut})
		}
		streams = append(streams, stream{events: []client.Event{hello(0)}, err: errCut}, stream{err: errCut}, stream{})
		f := &feed{streams: streams}
		follower := newFollower(f, s, nil)
		stop := run(t, follower)
		<-time.After(time.Second)
		synctest.Wait()
		if connected, err := follower.Connected(); connected || !errors.Is(err, errCut) {
			t.Errorf("without a stream: connected %t, %v", connected, err)
		}
		<-time.After(5 * time.Minute)
		synctest.Wait()
		stop()
		asked := f.subscriptions()
		if len(asked) != len(streams) {
			t.Fatalf("%d subscriptions, want %d", len(asked), len(streams))
		}
		want := []int64{250, 500, 1000, 2000, 4000, 8000, 10000, 10000, 10000, 10000, 250, 500}
		for i, most := range want {
			wait := asked[i+1].at.Sub(asked[i].at).Milliseconds()
			if wait < most/2-1 || wait > most {
				t.Errorf("wait %d was %d ms, want within %d and %d", i, wait, most/2, most)
			}
		}
	})
}

// A database that is away ends no subscription for good.
func TestDatabaseIsAway(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		broken := &brokenApply{Store: newStore(t, databasetest.OpenSQLite(t)), fails: 3}
		f := &feed{streams: []stream{{events: []client.Event{hello(1), batch(1, 1, 0, change("a", 1))}}}}
		stop := run(t, newFollower(f, broken, nil))
		<-time.After(time.Minute)
		synctest.Wait()
		stop()
		if diff := cmp.Diff(map[string]int64{"a": 1}, rows(t, broken.Store)); diff != "" {
			t.Errorf("rows (-want +got):\n%s", diff)
		}
		if n := len(f.subscriptions()); n != 4 {
			t.Errorf("%d subscriptions, want 4", n)
		}
	})
}

// A start over that cannot be stored is tried again.
func TestStartOverFails(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c := &calls{fail: nil}
		f := &feed{streams: []stream{{err: client.ErrStartOver}, {err: client.ErrStartOver}, {}}}
		stop := run(t, newFollower(f, c, nil))
		<-time.After(time.Minute)
		synctest.Wait()
		stop()
		if diff := cmp.Diff([]string{"start over", "start over"}, c.made); diff != "" {
			t.Errorf("calls (-want +got):\n%s", diff)
		}
	})
}
