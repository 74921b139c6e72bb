package client

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/timestamppb"

	antipodev1 "github.com/antipode-registry/antipode/gen/antipode/v1"
)

const (
	// firstMessage bounds the wait for the hello: connecting, TLS and one read of the primary's database.
	firstMessage = 30 * time.Second
	// Bounds of what a primary may ask a subscriber to be patient for.
	leastSilence = time.Second
	mostSilence  = time.Hour
)

// errSilent ends a stream whose other end has gone without a word.
var errSilent = status.Error(codes.DeadlineExceeded, "the primary has been silent for too long")

// Subscribe follows the feed from a position, on one stream: the iteration ends with the error that ended the stream,
// which wraps ErrStartOver when the position does not fit the feed, or without one when the caller stops. The first event
// comes at once, without changes; silence for three of the primary's heartbeats ends the stream with DeadlineExceeded.
// The time that the caller takes for an event does not count as silence. node is the caller's own name, if it is one.
func (c *Client) Subscribe(ctx context.Context, node string, from Position) iter.Seq2[Event, error] {
	return func(yield func(Event, error) bool) {
		ctx, cancel := context.WithCancelCause(ctx)
		defer cancel(nil) // frees the stream
		s := subscription{
			open: func() (stream, error) {
				return c.feed.Subscribe(ctx, &antipodev1.SubscribeRequest{
					Node: node, FeedId: from.FeedID, AfterRevision: from.Revision, Incarnation: from.Incarnation,
				})
			},
			event: Event{Cursor: from.Revision}, silence: firstMessage, cancel: cancel,
		}
		for {
			event, err := s.next()
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

func subscribeError(ctx context.Context, err error) error {
	switch cause := context.Cause(ctx); {
	case errors.Is(cause, errSilent):
		err = cause
	case errors.Is(err, io.EOF):
		err = status.Error(codes.Unavailable, "the primary ended the stream")
	case status.Code(err) == codes.OutOfRange:
		err = fmt.Errorf("%w: %w", ErrStartOver, err)
	}
	return fmt.Errorf("follow the primary's feed: %w", err)
}

type stream = grpc.ServerStreamingClient[antipodev1.SubscribeResponse]

// subscription turns messages into events.
type subscription struct {
	open    func() (stream, error)
	stream  stream // nil before the first message
	event   Event
	silence time.Duration
	cancel  context.CancelCauseFunc
}

func (s *subscription) next() (Event, error) {
	message, err := s.receive()
	if err != nil {
		return Event{}, err
	}
	return s.take(message)
}

// receive bounds the wait for a message, and for the stream itself, which may have to wait for a connection.
func (s *subscription) receive() (message *antipodev1.SubscribeResponse, err error) {
	timer := time.AfterFunc(s.silence, func() { s.cancel(errSilent) })
	defer timer.Stop()
	if s.stream == nil {
		if s.stream, err = s.open(); err != nil {
			return nil, err
		}
	}
	return s.stream.Recv()
}

// take makes an event of a message. A kind that this version does not know is a sign of life.
func (s *subscription) take(message *antipodev1.SubscribeResponse) (Event, error) {
	s.event.Changes, s.event.Request = nil, nil
	hello := message.GetHello()
	if first := s.event.FeedID == ""; first != (hello != nil) || first && hello.GetFeedId() == "" {
		return Event{}, status.Error(codes.Internal, "the primary's stream does not begin with one hello")
	}
	switch kind := message.GetKind().(type) {
	case *antipodev1.SubscribeResponse_Hello:
		s.event.FeedID, s.event.Head = hello.GetFeedId(), hello.GetHeadRevision()
		s.event.BackfillTo, s.event.Incarnation = s.event.Head, hello.GetIncarnation()
		s.silence = patience(hello.GetHeartbeatInterval().AsDuration())
	case *antipodev1.SubscribeResponse_Changes:
		s.event.Head, s.event.Cursor = kind.Changes.GetHeadRevision(), kind.Changes.GetCursorRevision()
		s.event.Incarnation = kind.Changes.GetIncarnation()
		for _, change := range kind.Changes.GetChanges() {
			s.event.Changes = append(s.event.Changes, Change{
				Repository: change.GetRepository(), Revision: change.GetRevision(), ChangedAt: change.GetChangedAt().AsTime(),
				Hint: hint(change.GetHint()), TraceParent: change.GetTraceparent(),
			})
			if change.GetRevision() == s.event.Head {
				s.changedAt(change.GetChangedAt())
			}
		}
	case *antipodev1.SubscribeResponse_Request:
		s.event.Request = kind.Request
	case *antipodev1.SubscribeResponse_Heartbeat:
		s.event.Head, s.event.Cursor = kind.Heartbeat.GetHeadRevision(), kind.Heartbeat.GetCursorRevision()
		s.event.Incarnation = kind.Heartbeat.GetIncarnation()
		s.changedAt(kind.Heartbeat.GetHeadChangedAt())
	}
	return s.event, nil
}

// hint is what a change says of its tags. A primary that is older than that field does not say.
func hint(said *antipodev1.TagHint) *Hint {
	if said == nil {
		return nil
	}
	h := &Hint{BaseRevision: said.GetBaseRevision()}
	for _, t := range said.GetTags() {
		h.Tags = append(h.Tags, TouchedTag{
			Tag: t.GetTag(), Digest: t.GetDigest(), Deleted: t.GetDeleted(), At: t.GetTouchedAt().AsTime(), Revision: t.GetRevision(),
		})
	}
	return h
}

// changedAt notes when the head changed. A primary that is older than that field does not say.
func (s *subscription) changedAt(at *timestamppb.Timestamp) {
	if at != nil {
		s.event.HeadChangedAt = at.AsTime()
	}
}

// patience is how long a stream may be silent. A primary that does not say how often it beats gets what its first
// message got.
func patience(heartbeat time.Duration) time.Duration {
	if heartbeat <= 0 {
		return firstMessage
	}
	return max(leastSilence, 3*min(heartbeat, mostSilence/3))
}
