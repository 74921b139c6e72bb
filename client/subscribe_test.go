package client_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/antipode-registry/antipode/client"
	antipodev1 "github.com/antipode-registry/antipode/gen/antipode/v1"
)

func TestSubscribeTurnsMessagesIntoEvents(t *testing.T) {
	t.Parallel()
	ended := make(chan struct{})
	p := &primary{subscribe: func(req *antipodev1.SubscribeRequest, stream subscribeStream) error {
		defer close(ended)
		want := &antipodev1.SubscribeRequest{Node: "eu", FeedId: "f", AfterRevision: 3}
		if req.GetNode() != want.GetNode() || req.GetFeedId() != want.GetFeedId() || req.GetAfterRevision() != 3 {
			t.Errorf("request %v", req)
		}
		// The last is of a kind that this client does not know.
		return idle(stream, hello("f", 5, time.Minute), changes(5, 5, "a", "b"), heartbeat(7, 6), &antipodev1.SubscribeResponse{})
	}}
	at := time.Unix(1000, 0).UTC()
	want := []client.Event{
		{FeedID: "f", Cursor: 3, Head: 5, BackfillTo: 5},
		{FeedID: "f", Cursor: 5, Head: 5, HeadChangedAt: at, BackfillTo: 5, Changes: []client.Change{
			{Repository: "a", Revision: 4, ChangedAt: at}, {Repository: "b", Revision: 5, ChangedAt: at},
		}},
		{FeedID: "f", Cursor: 6, Head: 7, HeadChangedAt: at, BackfillTo: 5},
		{FeedID: "f", Cursor: 6, Head: 7, HeadChangedAt: at, BackfillTo: 5},
	}
	var got []client.Event
	for event, err := range p.run(t).Subscribe(deadline(t), "eu", client.Position{FeedID: "f", Revision: 3}) {
		if err != nil {
			t.Fatal(err)
		}
		if got = append(got, event); len(got) == len(want) {
			break
		}
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	<-ended // who stops reading also ends the stream
}

// last returns the error that a subscription ends with.
func last(ctx context.Context, c *client.Client) (err error) {
	for _, err = range c.Subscribe(ctx, "", client.Position{}) {
	}
	return err
}

func TestSubscribeEnds(t *testing.T) {
	t.Parallel()
	beat := hello("f", 1, time.Minute)
	tests := map[string]struct {
		messages  []*antipodev1.SubscribeResponse
		end       error
		code      codes.Code
		startOver bool
	}{
		"start over":           {nil, status.Error(codes.OutOfRange, "no"), codes.OutOfRange, true},
		"start over, later":    {[]*antipodev1.SubscribeResponse{beat}, status.Error(codes.OutOfRange, "no"), codes.OutOfRange, true},
		"refused":              {nil, status.Error(codes.PermissionDenied, "no"), codes.PermissionDenied, false},
		"broken":               {[]*antipodev1.SubscribeResponse{beat}, status.Error(codes.Unavailable, "no"), codes.Unavailable, false},
		"ended without reason": {[]*antipodev1.SubscribeResponse{beat}, nil, codes.Unavailable, false},
		"no hello first":       {[]*antipodev1.SubscribeResponse{changes(1, 1, "a")}, nil, codes.Internal, false},
		"an unknown first":     {[]*antipodev1.SubscribeResponse{{}}, nil, codes.Internal, false},
		"hello without a feed": {[]*antipodev1.SubscribeResponse{hello("", 1, time.Minute)}, nil, codes.Internal, false},
		"two hellos":           {[]*antipodev1.SubscribeResponse{beat, hello("g", 1, time.Minute)}, nil, codes.Internal, false},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := &primary{subscribe: func(_ *antipodev1.SubscribeRequest, stream subscribeStream) error {
				return send(stream, test.end, test.messages...)
			}}
			err := last(deadline(t), p.run(t))
			if status.Code(err) != test.code || errors.Is(err, client.ErrStartOver) != test.startOver {
				t.Errorf("got %v", err)
			}
		})
	}
}

func TestSilenceEndsTheStream(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		messages []*antipodev1.SubscribeResponse
		after    time.Duration
	}{
		"no hello":              {nil, 30 * time.Second},
		"no heartbeat":          {[]*antipodev1.SubscribeResponse{hello("f", 1, 20*time.Second)}, time.Minute},
		"no more heartbeats":    {[]*antipodev1.SubscribeResponse{hello("f", 1, 20*time.Second), heartbeat(1, 1)}, time.Minute},
		"a hasty heartbeat":     {[]*antipodev1.SubscribeResponse{hello("f", 1, time.Nanosecond)}, time.Second},
		"none agreed":           {[]*antipodev1.SubscribeResponse{hello("f", 1, 0)}, 30 * time.Second},
		"a heartbeat for never": {[]*antipodev1.SubscribeResponse{hello("f", 1, 1<<62)}, time.Hour},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				left := make(chan struct{})
				p := &primary{subscribe: func(_ *antipodev1.SubscribeRequest, stream subscribeStream) error {
					defer close(left)
					return idle(stream, test.messages...)
				}}
				c, stop := p.start()
				defer stop()
				began := time.Now()
				err := last(t.Context(), c)
				if status.Code(err) != codes.DeadlineExceeded || time.Since(began) != test.after {
					t.Errorf("after %v: %v", time.Since(began), err)
				}
				<-left
			})
		})
	}
}

func TestASlowCallerIsNoSilence(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		p := &primary{subscribe: func(_ *antipodev1.SubscribeRequest, stream subscribeStream) error {
			return idle(stream, hello("f", 1, time.Second), heartbeat(1, 1), heartbeat(2, 2))
		}}
		c, stop := p.start()
		defer stop()
		events := 0
		for _, err := range c.Subscribe(t.Context(), "", client.Position{}) {
			if err != nil {
				break
			}
			events++
			<-time.After(time.Hour)
		}
		if events != 3 {
			t.Errorf("%d of 3 events", events)
		}
	})
}

func TestSubscribeEndsWithItsContext(t *testing.T) {
	t.Parallel()
	left := make(chan struct{})
	p := &primary{subscribe: func(_ *antipodev1.SubscribeRequest, stream subscribeStream) error {
		defer close(left)
		return idle(stream, hello("f", 1, time.Hour))
	}}
	ctx, cancel := context.WithCancel(deadline(t))
	defer cancel()
	var last error
	for _, err := range p.run(t).Subscribe(ctx, "", client.Position{}) {
		last = err
		cancel()
	}
	if status.Code(last) != codes.Canceled {
		t.Errorf("got %v", last)
	}
	<-left
}
