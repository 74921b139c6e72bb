package client

import (
	"context"
	"errors"
	"iter"
	"math/rand/v2"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// Back-off between streams: doubling from the least to the most, with jitter.
const (
	leastWait = 200 * time.Millisecond
	mostWait  = 10 * time.Second
)

// Changes follows the feed from a position and resumes by itself, from where it was, when a stream breaks: almost at once
// after a stream that had begun, and with a back-off of up to 10 s while none begins. It yields events that carry changes,
// in revision order, each change at least once; store an event's FeedID, Cursor and Incarnation once its changes are dealt with, to go
// on from there another day.
//
// When the position does not fit the feed it yields ErrStartOver and goes on from the beginning. It ends when ctx does,
// when the caller stops, and with the error when the primary refuses the caller or the request. What else breaks a stream
// is told to Config.Logger alone.
func (c *Client) Changes(ctx context.Context, from Position) iter.Seq2[Event, error] {
	return func(yield func(Event, error) bool) {
		for failures := 0; ctx.Err() == nil; failures++ {
			began, goOn := c.follow(ctx, &from, yield)
			if !goOn {
				return
			}
			if began {
				failures = 0
			}
			if !pause(ctx, failures) {
				return
			}
		}
	}
}

// follow yields from one stream and moves the position on. It says whether the stream began, and whether there should be
// another.
func (c *Client) follow(ctx context.Context, from *Position, yield func(Event, error) bool) (began, goOn bool) {
	for event, err := range c.Subscribe(ctx, "", *from) {
		if err != nil {
			return began, ctx.Err() == nil && c.broken(ctx, err, from, yield)
		}
		began = true
		if len(event.Changes) > 0 && !yield(event, nil) {
			return began, false
		}
		*from = Position{FeedID: event.FeedID, Revision: event.Cursor, Incarnation: event.Incarnation}
	}
	return began, false
}

// broken decides whether to go on after a stream ended with err.
func (c *Client) broken(ctx context.Context, err error, from *Position, yield func(Event, error) bool) bool {
	if errors.Is(err, ErrStartOver) {
		*from = Position{}
		return yield(Event{}, err)
	}
	switch status.Code(err) {
	case codes.Unauthenticated, codes.PermissionDenied, codes.InvalidArgument, codes.Unimplemented:
		yield(Event{}, err)
		return false
	default:
		c.logger.WarnContext(ctx, "the change feed broke off; following it again", "side", "primary", "error", err)
		return true
	}
}

// pause waits before another stream; false when ctx ended meanwhile.
func pause(ctx context.Context, failures int) bool {
	wait := min(leastWait<<min(failures, 8), mostWait)
	timer := time.NewTimer(wait/2 + rand.N(wait/2))
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}
