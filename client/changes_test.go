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

// scripted is a primary whose streams follow one another; where it asks for each goes to asked.
func scripted(asked *[]client.Position, streams ...func(subscribeStream) error) *primary {
	return &primary{subscribe: func(req *antipodev1.SubscribeRequest, stream subscribeStream) error {
		*asked = append(*asked, client.Position{FeedID: req.GetFeedId(), Revision: req.GetAfterRevision()})
		return streams[min(len(*asked), len(streams))-1](stream)
	}}
}

func TestChangesResumeWhereTheyWere(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		broken := status.Error(codes.Unavailable, "restarting")
		var asked []client.Position
		c, stop := scripted(&asked,
			func(s subscribeStream) error { return broken },
			func(s subscribeStream) error {
				return send(s, broken, hello("f", 2, time.Minute), changes(2, 2, "a", "b"))
			},
			func(s subscribeStream) error { return send(s, nil, hello("f", 3, time.Minute), heartbeat(7, 7)) },
			func(s subscribeStream) error { return idle(s, hello("f", 8, time.Second)) }, // then silence
			func(s subscribeStream) error { return idle(s, hello("f", 8, time.Minute), changes(8, 8, "c")) },
		).start()
		defer stop()
		var got []string
		for event, err := range c.Changes(t.Context(), client.Position{}) {
			if err != nil {
				t.Fatal(err)
			}
			for _, change := range event.Changes {
				got = append(got, change.Repository)
			}
			if event.Cursor == 8 {
				break
			}
		}
		if diff := cmp.Diff([]string{"a", "b", "c"}, got); diff != "" {
			t.Error(diff)
		}
		want := []client.Position{
			{}, {}, {FeedID: "f", Revision: 2}, {FeedID: "f", Revision: 7}, {FeedID: "f", Revision: 7},
		}
		if diff := cmp.Diff(want, asked); diff != "" {
			t.Error(diff)
		}
	})
}

func TestChangesStartOver(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var asked []client.Position
		c, stop := scripted(&asked,
			func(subscribeStream) error { return status.Error(codes.OutOfRange, "another feed") },
			func(s subscribeStream) error { return idle(s, hello("new", 1, time.Minute), changes(1, 1, "a")) },
		).start()
		defer stop()
		var told bool
		for event, err := range c.Changes(t.Context(), client.Position{FeedID: "old", Revision: 9}) {
			switch {
			case errors.Is(err, client.ErrStartOver) && !told:
				told = true
				continue
			case err != nil || event.FeedID != "new" || !told:
				t.Errorf("%v, %v, told %t", event, err, told)
			}
			break
		}
		if diff := cmp.Diff([]client.Position{{FeedID: "old", Revision: 9}, {}}, asked); diff != "" {
			t.Error(diff)
		}
	})
}

func TestChangesEndWhereTryingAgainIsOfNoUse(t *testing.T) {
	t.Parallel()
	for _, code := range []codes.Code{
		codes.Unauthenticated, codes.PermissionDenied, codes.InvalidArgument, codes.Unimplemented,
	} {
		var asked []client.Position
		c := scripted(&asked, func(subscribeStream) error { return status.Error(code, "no") }).run(t)
		var errs []error
		for _, err := range c.Changes(deadline(t), client.Position{}) {
			errs = append(errs, err)
		}
		if len(errs) != 1 || status.Code(errs[0]) != code || len(asked) != 1 {
			t.Errorf("%v: %v after %d streams", code, errs, len(asked))
		}
	}
}

func TestChangesBackOff(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var at []time.Time
		p := &primary{subscribe: func(*antipodev1.SubscribeRequest, subscribeStream) error {
			at = append(at, time.Now())
			return status.Error(codes.Unavailable, "restarting")
		}}
		c, stop := p.start()
		defer stop()
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute)
		defer cancel()
		began := time.Now()
		for event, err := range c.Changes(ctx, client.Position{}) {
			t.Errorf("%v, %v", event, err)
		}
		if time.Since(began) != 10*time.Minute {
			t.Errorf("it ended after %v", time.Since(began))
		}
		wait := 200 * time.Millisecond
		for i := range len(at) - 1 {
			if gap := at[i+1].Sub(at[i]); gap < wait/2 || gap > wait {
				t.Errorf("pause %d of %v, want between %v and %v", i, gap, wait/2, wait)
			}
			wait = min(2*wait, 10*time.Second)
		}
		if len(at) < 60 {
			t.Errorf("only %d attempts", len(at))
		}
	})
}
