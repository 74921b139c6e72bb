package service_test

import (
	"context"
	"database/sql"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	antipodev1 "github.com/antipode-registry/antipode/gen/antipode/v1"
	"github.com/antipode-registry/antipode/internal/database"
	"github.com/antipode-registry/antipode/internal/database/databasetest"
	"github.com/antipode-registry/antipode/internal/link"
	"github.com/antipode-registry/antipode/internal/registrytest"
	"github.com/antipode-registry/antipode/internal/telemetry"
	"github.com/antipode-registry/antipode/internal/telemetry/telemetrytest"
	"github.com/antipode-registry/antipode/primaryd/internal/feed"
)

// told is a message in short: "hello 3", "a:1 b:2 cursor 2 head 3", "heartbeat cursor 3 head 3".
func told(message *antipodev1.SubscribeResponse) string {
	switch kind := message.GetKind().(type) {
	case *antipodev1.SubscribeResponse_Hello:
		return fmt.Sprintf("hello %d", kind.Hello.GetHeadRevision())
	case *antipodev1.SubscribeResponse_Changes:
		var text strings.Builder
		for _, change := range kind.Changes.GetChanges() {
			fmt.Fprintf(&text, "%s:%d ", change.GetRepository(), change.GetRevision())
		}
		return fmt.Sprintf("%scursor %d head %d", &text, kind.Changes.GetCursorRevision(), kind.Changes.GetHeadRevision())
	default:
		beat := message.GetHeartbeat()
		return fmt.Sprintf("heartbeat cursor %d head %d", beat.GetCursorRevision(), beat.GetHeadRevision())
	}
}

type subscriber struct {
	grpc.ServerStreamingClient[antipodev1.SubscribeResponse]
}

func subscribe(ctx context.Context, t *testing.T, c api, identity string, req *antipodev1.SubscribeRequest) subscriber {
	t.Helper()
	stream, err := c.feed.Subscribe(as(ctx, identity), req)
	if err != nil {
		t.Fatal(err)
	}
	return subscriber{stream}
}

// expect reads the next messages.
func (s subscriber) expect(t *testing.T, want ...string) {
	t.Helper()
	for _, want := range want {
		message, err := s.Recv()
		if err != nil {
			t.Fatalf("want %q, got %v", want, err)
		}
		if diff := cmp.Diff(want, told(message)); diff != "" {
			t.Error(diff)
		}
	}
}

func TestSubscribeFromTheBeginningAndOn(t *testing.T) {
	t.Parallel()
	p := sqlite(t)
	p.push(t, "a", "b", "a", "c", "b", "a") // a:6 b:5 c:4, each once
	s := subscribe(deadline(t), t, p.run(t), "node/eu", &antipodev1.SubscribeRequest{Node: "eu"})
	s.expect(t, "hello 6", "c:4 b:5 a:6 cursor 6 head 6")
	p.push(t, "c")
	s.expect(t, "c:7 cursor 7 head 7")
	p.push(t, "new")
	s.expect(t, "new:8 cursor 8 head 8")
}

// A change carries its trace for a day.
func TestSubscribeTellsTheTrace(t *testing.T) {
	t.Parallel()
	p := sqlite(t)
	ctx := telemetry.WithTraceParent(t.Context(), telemetrytest.TraceParent)
	for _, change := range []feed.Change{
		{Repository: "a", Unknown: true}, {Repository: "old", Unknown: true, At: time.Now().Add(-25 * time.Hour)},
	} {
		if _, err := p.feed.Append(ctx, change); err != nil {
			t.Fatal(err)
		}
	}
	p.push(t, "untraced")
	s := subscribe(deadline(t), t, p.run(t), "node/eu", &antipodev1.SubscribeRequest{Node: "eu"})
	s.expect(t, "hello 3")
	message, err := s.Recv()
	if err != nil {
		t.Fatal(err)
	}
	for i, want := range []string{telemetrytest.TraceParent, "", ""} {
		if got := message.GetChanges().GetChanges()[i]; got.GetTraceparent() != want {
			t.Errorf("%v, want the traceparent %q", got, want)
		}
	}
	p.push(t, "untraced")
	s.expect(t, "untraced:4 cursor 4 head 4") // so that the send before is over
	span := p.spans.One(t, "send change")
	span.Has(t, "node", "eu", "repository", "a", "revision", "1")
	if span.Trace != telemetrytest.Trace || span.Parent != telemetrytest.Parent {
		t.Errorf("span: %+v", span)
	}
}

func TestSubscribeResumes(t *testing.T) {
	t.Parallel()
	p := sqlite(t)
	p.push(t, "a", "b", "c", "a")
	c := p.run(t)
	for after, want := range map[int64]string{0: "b:2 c:3 a:4 cursor 4 head 4", 2: "c:3 a:4 cursor 4 head 4", 3: "a:4 cursor 4 head 4"} {
		s := subscribe(deadline(t), t, c, "operator/ops", &antipodev1.SubscribeRequest{FeedId: p.feed.ID(), AfterRevision: after})
		s.expect(t, "hello 4", want)
	}
}

func TestSubscribeHelloSaysWhatItIs(t *testing.T) {
	t.Parallel()
	p := sqlite(t)
	s := subscribe(deadline(t), t, p.run(t), "node/eu", &antipodev1.SubscribeRequest{})
	message, err := s.Recv()
	hello := message.GetHello()
	if err != nil || hello.GetFeedId() != p.feed.ID() || hello.GetVersion() != "v1" || hello.GetHeadRevision() != 0 ||
		hello.GetHeartbeatInterval().AsDuration() != interval {
		t.Errorf("%v, %v", message, err)
	}
}

func TestSubscribeSendsALongFeedInBatches(t *testing.T) {
	t.Parallel()
	p := sqlite(t)
	var names []string
	for i := range 1234 {
		names = append(names, fmt.Sprintf("repository/%04d", i))
	}
	if _, err := p.feed.AddMissing(t.Context(), names); err != nil {
		t.Fatal(err)
	}
	s := subscribe(deadline(t), t, p.run(t), "node/eu", &antipodev1.SubscribeRequest{})
	s.expect(t, "hello 1234")
	var cursor, batches int64
	for ; cursor < 1234; batches++ {
		message, err := s.Recv()
		if err != nil {
			t.Fatal(err)
		}
		batch := message.GetChanges()
		for _, change := range batch.GetChanges() {
			if change.GetRevision() <= cursor {
				t.Fatalf("revision %d after %d", change.GetRevision(), cursor)
			}
			cursor = change.GetRevision()
		}
		if cursor != batch.GetCursorRevision() || batch.GetHeadRevision() != 1234 {
			t.Errorf("cursor %d, batch %d of %d", cursor, batch.GetCursorRevision(), batch.GetHeadRevision())
		}
	}
	if batches != 3 {
		t.Errorf("%d batches", batches)
	}
}

func TestSubscribeRefusals(t *testing.T) {
	t.Parallel()
	p := sqlite(t)
	head := p.push(t, "a", "b")
	tests := map[string]struct {
		req  *antipodev1.SubscribeRequest
		want codes.Code
	}{
		"another feed":          {&antipodev1.SubscribeRequest{FeedId: "other", AfterRevision: 1}, codes.OutOfRange},
		"another feed, from 0":  {&antipodev1.SubscribeRequest{FeedId: "other"}, codes.OutOfRange},
		"above the head":        {&antipodev1.SubscribeRequest{FeedId: p.feed.ID(), AfterRevision: head + 1}, codes.OutOfRange},
		"negative":              {&antipodev1.SubscribeRequest{FeedId: p.feed.ID(), AfterRevision: -1}, codes.InvalidArgument},
		"a revision of no feed": {&antipodev1.SubscribeRequest{AfterRevision: 1}, codes.InvalidArgument},
		"another's name":        {&antipodev1.SubscribeRequest{Node: "team"}, codes.PermissionDenied},
	}
	c := p.run(t)
	for name, test := range tests {
		s := subscribe(deadline(t), t, c, "node/eu", test.req)
		if message, err := s.Recv(); status.Code(err) != test.want {
			t.Errorf("%s: %v, %v", name, message, err)
		}
	}
}

func TestSubscribeLeavesOutWhatIsNotGranted(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		p := sqlite(t)
		p.push(t, "team/a", "other/b", "team/c", "other/d")
		c, stop := p.serve()
		defer stop()
		s := subscribe(t.Context(), t, c, "node/team", &antipodev1.SubscribeRequest{})
		s.expect(t, "hello 4", "team/a:1 team/c:3 cursor 4 head 4")
		p.push(t, "other/b", "other/d")
		// Nothing to say but how far it is.
		s.expect(t, "heartbeat cursor 6 head 6")
		p.push(t, "team/a")
		s.expect(t, "team/a:7 cursor 7 head 7")
	})
}

func TestHeartbeats(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		p := sqlite(t)
		c, stop := p.serve()
		defer stop()
		began := time.Now()
		s := subscribe(t.Context(), t, c, "node/eu", &antipodev1.SubscribeRequest{})
		at := func(want time.Duration) {
			t.Helper()
			if got := time.Since(began); got != want {
				t.Errorf("at %v, want %v", got, want)
			}
		}
		s.expect(t, "hello 0", "heartbeat cursor 0 head 0")
		at(interval)
		s.expect(t, "heartbeat cursor 0 head 0")
		at(2 * interval)
		<-time.After(interval / 2)
		p.push(t, "a")
		s.expect(t, "a:1 cursor 1 head 1")
		at(2*interval + interval/2)
		s.expect(t, "heartbeat cursor 1 head 1") // counted from the last message
		at(3*interval + interval/2)
	})
}

// A primary whose database was put back to an older state while it runs must not leave sites waiting for revisions that
// they believe they have.
func TestSubscribeEndsWhenTheHeadGoesBack(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		p := sqlite(t)
		p.push(t, "a", "b", "c")
		c, stop := p.serve()
		defer stop()
		s := subscribe(t.Context(), t, c, "node/eu", &antipodev1.SubscribeRequest{})
		s.expect(t, "hello 3", "a:1 b:2 c:3 cursor 3 head 3")
		err := p.db.Write(t.Context(), func(ctx context.Context, tx *database.Tx) error {
			_, err := tx.ExecContext(ctx, "UPDATE feed SET head = 1")
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		for _, err = range received(s.ServerStreamingClient) {
		}
		if status.Code(err) != codes.OutOfRange {
			t.Errorf("got %v", err)
		}
	})
}

func TestStreamsEndWithTheServer(t *testing.T) {
	t.Parallel()
	p := sqlite(t)
	c := p.run(t)
	s := subscribe(deadline(t), t, c, "node/eu", &antipodev1.SubscribeRequest{})
	s.expect(t, "hello 0")
	watch, err := c.nodes.WatchNodes(as(deadline(t), "node/eu"), &antipodev1.WatchNodesRequest{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := watch.Recv(); err != nil {
		t.Fatal(err)
	}
	close(p.stopping)
	_, subscribed := s.Recv()
	_, watched := watch.Recv()
	for _, err := range []error{subscribed, watched} {
		if status.Code(err) != codes.Unavailable {
			t.Errorf("got %v", err)
		}
	}
}

func TestSubscriptionsAreCounted(t *testing.T) {
	t.Parallel()
	p := sqlite(t)
	c := p.run(t)
	ctx, cancel := context.WithCancel(deadline(t))
	defer cancel()
	for _, identity := range []string{"node/eu", "node/eu", "operator/ops"} {
		subscribe(ctx, t, c, identity, &antipodev1.SubscribeRequest{}).expect(t, "hello 0")
	}
	count := func() int32 {
		got, err := c.nodes.GetNode(as(deadline(t), "operator/ops"), &antipodev1.GetNodeRequest{Name: "eu"})
		if err != nil {
			t.Fatal(err)
		}
		return got.GetNode().GetSubscriptions()
	}
	if n := count(); n != 2 {
		t.Errorf("%d subscriptions", n)
	}
	wake, stop := p.nodes.Watch()
	defer stop()
	for cancel(); count() > 0; {
		<-wake
	}
}

// stuck is a subscriber that does not read: each Send waits until it is let go.
type stuck struct {
	grpc.ServerStream
	ctx           context.Context
	sent, release chan struct{}
}

func (s *stuck) Context() context.Context { return s.ctx }

func (s *stuck) Send(*antipodev1.SubscribeResponse) error {
	s.sent <- struct{}{}
	<-s.release
	return s.ctx.Err()
}

func TestNoTransactionIsHeldWhileASubscriberDoesNotRead(t *testing.T) {
	t.Parallel()
	databasetest.Each(t, func(t *testing.T, open func(testing.TB) *database.DB) {
		t.Parallel()
		p := newParts(t, open(t))
		p.push(t, "a", "b")
		ctx, cancel := context.WithCancel(link.ContextWithIdentity(t.Context(), link.Identity{Role: link.RoleNode, Name: "eu"}))
		s := &stuck{ctx: ctx, sent: make(chan struct{}), release: make(chan struct{})}
		done := make(chan error, 1)
		defer cancel()
		go func() { done <- p.feedService.Subscribe(&antipodev1.SubscribeRequest{}, s) }()
		for _, what := range []string{"hello", "batch"} {
			<-s.sent
			// Others read now and then; what the stuck one holds would stay.
			registrytest.Eventually(t, time.Minute, func(context.Context) error {
				if held := transactions(t, p.db); held != 0 {
					return fmt.Errorf("%d transactions are held by the %s", held, what)
				}
				return nil
			})
			p.push(t, "a") // and nobody waits for it
			if what == "batch" {
				cancel()
			}
			s.release <- struct{}{}
		}
		if err := <-done; err == nil {
			t.Error("it ended without an error")
		}
	})
}

// transactions counts what is open and idle.
func transactions(t *testing.T, db *database.DB) (held int) {
	t.Helper()
	if db.Dialect() == database.Postgres {
		err := db.Read(t.Context(), func(ctx context.Context, q database.Queryer) error {
			return q.QueryRowContext(ctx, "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() "+
				"AND state LIKE 'idle in transaction%'").Scan(&held)
		})
		if err != nil {
			t.Fatal(err)
		}
		return held
	}
	// A checkpoint of the whole log is busy while anybody reads from a snapshot.
	raw, err := sql.Open("sqlite", strings.TrimPrefix(databasetest.URL(t, db), "sqlite:"))
	if err != nil {
		t.Fatal(err)
	}
	defer raw.Close()
	var busy, pages, done int
	if err := raw.QueryRowContext(t.Context(), "PRAGMA wal_checkpoint(TRUNCATE)").Scan(&busy, &pages, &done); err != nil {
		t.Fatal(err)
	}
	return busy
}

// A cursor has passed by the rows that were not granted: when the grant changes, it must not be taken.
func TestACursorIsGoodForItsGrantAlone(t *testing.T) {
	t.Parallel()
	p := sqlite(t)
	head := p.push(t, "team/a", "b")
	all := &antipodev1.SubscribeRequest{FeedId: p.feed.ID(), AfterRevision: head}
	c := p.run(t)
	for as, want := range map[string]codes.Code{"node/eu": codes.OK, "operator/ops": codes.OK, "node/team": codes.OutOfRange} {
		if _, err := subscribe(deadline(t), t, c, as, all).Recv(); status.Code(err) != want {
			t.Errorf("the cursor of who sees all, from %s: %v", as, err)
		}
	}
	first, err := subscribe(deadline(t), t, c, "node/team", &antipodev1.SubscribeRequest{}).Recv()
	if err != nil {
		t.Fatal(err)
	}
	own := &antipodev1.SubscribeRequest{FeedId: first.GetHello().GetFeedId(), AfterRevision: head}
	if _, err := subscribe(deadline(t), t, c, "node/team", own).Recv(); err != nil {
		t.Errorf("its own cursor: %v", err)
	}
}
