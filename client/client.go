// Package client talks to primaryd from other Go services: it follows the change feed, lists tags with their digests and
// reads how the sites are. secondaryd is built on it.
//
// Identity is the client certificate's. A Client is safe for concurrent use. Errors are gRPC status errors, wrapped
// with what was asked; ErrStartOver and ErrIncomplete are the two that a caller must tell apart.
package client

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	antipodev1 "github.com/antipode-registry/antipode/gen/antipode/v1"
)

// ErrStartOver says that a cursor does not fit the feed: the primary was replaced, or restored to an older state. Read
// the feed again from its beginning, and conclude nothing else from it.
var ErrStartOver = errors.New("the cursor does not belong to the primary's feed")

// ErrIncomplete says that a listing ended without its summary, or with one that it does not match. It is no listing.
var ErrIncomplete = errors.New("the listing is not complete")

// Client calls the services of primaryd.
type Client struct {
	feed  antipodev1.FeedServiceClient
	nodes antipodev1.NodeServiceClient
	close func() error
}

// New returns a Client over a connection that the caller made and closes.
func New(conn grpc.ClientConnInterface) *Client {
	return &Client{
		feed: antipodev1.NewFeedServiceClient(conn), nodes: antipodev1.NewNodeServiceClient(conn),
		close: func() error { return nil },
	}
}

// Dial returns a Client over a connection of its own; Close ends it. It does not wait for the connection.
func Dial(cfg Config) (*Client, error) {
	conn, err := Connect(cfg)
	if err != nil {
		return nil, err
	}
	c := New(conn)
	c.close = conn.Close
	return c, nil
}

// Close ends the connection that Dial made.
func (c *Client) Close() error { return c.close() }

// Position is a place in a feed. The zero value is its beginning.
type Position struct {
	// FeedID is the feed's, as an Event told it.
	FeedID string
	// Revision is the newest that the caller has stored.
	Revision int64
}

// Change says that a repository may differ from what it was.
type Change struct {
	Repository string
	Revision   int64
	// ChangedAt is when it happened at the primary's registry, or when a sweep found it.
	ChangedAt time.Time
}

// Event is one message of a subscription.
type Event struct {
	// FeedID identifies the feed; the same in every event of a stream.
	FeedID string
	// Changes in revision order; empty in a sign of life.
	Changes []Change
	// Cursor is the position once the changes are stored.
	Cursor int64
	// Head is the newest revision of the feed.
	Head int64
	// BackfillTo is the head when the stream began: changes up to it are history, those above it live.
	BackfillTo int64
}

// Subscribe follows the feed from a position, on one stream: the iteration ends with the error that ended the stream,
// which wraps ErrStartOver when the position does not fit the feed. The first event comes at once, without changes;
// silence for three of the primary's heartbeats ends the stream with DeadlineExceeded. node is the caller's own name,
// if it is one.
func (c *Client) Subscribe(ctx context.Context, node string, from Position) iter.Seq2[Event, error] {
	return func(yield func(Event, error) bool) {
		ctx, cancel := context.WithCancelCause(ctx)
		defer cancel(nil)
		stream, err := c.feed.Subscribe(ctx, &antipodev1.SubscribeRequest{
			Node: node, FeedId: from.FeedID, AfterRevision: from.Revision,
		})
		if err != nil {
			yield(Event{}, fmt.Errorf("subscribe to the primary's feed: %w", err))
			return
		}
		reader := subscription{stream: stream, event: Event{Cursor: from.Revision}, silence: firstMessage, cancel: cancel}
		for {
			event, err := reader.next()
			if err != nil {
				yield(Event{}, subscribeError(ctx, err))
				return
			}
			if !yield(event, nil) {
				return
			}
		}
	}
}

// firstMessage bounds the wait for the hello: connecting, TLS and one read of the primary's database.
const firstMessage = 30 * time.Second

// errSilent ends a stream whose other end has gone without a word.
var errSilent = status.Error(codes.DeadlineExceeded, "the primary has been silent for three heartbeats")

func subscribeError(ctx context.Context, err error) error {
	if cause := context.Cause(ctx); errors.Is(cause, errSilent) {
		err = cause
	}
	if status.Code(err) == codes.OutOfRange {
		err = fmt.Errorf("%w: %w", ErrStartOver, err)
	}
	return fmt.Errorf("follow the primary's feed: %w", err)
}

// subscription turns messages into events.
type subscription struct {
	stream  grpc.ServerStreamingClient[antipodev1.SubscribeResponse]
	event   Event
	silence time.Duration
	cancel  context.CancelCauseFunc
}

func (s *subscription) next() (Event, error) {
	timer := time.AfterFunc(s.silence, func() { s.cancel(errSilent) })
	resp, err := s.stream.Recv()
	timer.Stop()
	if err != nil {
		return Event{}, err
	}
	s.event.Changes = nil
	switch kind := resp.GetKind().(type) {
	case *antipodev1.SubscribeResponse_Hello:
		s.event.FeedID, s.event.Head = kind.Hello.GetFeedId(), kind.Hello.GetHeadRevision()
		s.event.BackfillTo = s.event.Head
		s.silence = max(3*kind.Hello.GetHeartbeatInterval().AsDuration(), time.Second)
	case *antipodev1.SubscribeResponse_Changes:
		s.event.Head, s.event.Cursor = kind.Changes.GetHeadRevision(), kind.Changes.GetCursorRevision()
		for _, change := range kind.Changes.GetChanges() {
			s.event.Changes = append(s.event.Changes, Change{
				Repository: change.GetRepository(), Revision: change.GetRevision(), ChangedAt: change.GetChangedAt().AsTime(),
			})
		}
	case *antipodev1.SubscribeResponse_Heartbeat:
		s.event.Head, s.event.Cursor = kind.Heartbeat.GetHeadRevision(), kind.Heartbeat.GetCursorRevision()
	}
	return s.event, nil
}

// Nodes returns every node that the certificate may see, by name.
func (c *Client) Nodes(ctx context.Context) ([]*antipodev1.Node, error) {
	resp, err := c.nodes.ListNodes(ctx, &antipodev1.ListNodesRequest{})
	if err != nil {
		return nil, fmt.Errorf("list the primary's nodes: %w", err)
	}
	return resp.GetNodes(), nil
}

// Report stores the caller's own status at the primary. Only a node may.
func (c *Client) Report(ctx context.Context, node string, s *antipodev1.NodeStatus) error {
	if _, err := c.nodes.ReportStatus(ctx, &antipodev1.ReportStatusRequest{Node: node, Status: s}); err != nil {
		return fmt.Errorf("report the status to the primary: %w", err)
	}
	return nil
}
