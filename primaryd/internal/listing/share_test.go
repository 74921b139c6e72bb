package listing

import (
	"context"
	"errors"
	"slices"
	"sync"
	"testing"
	"testing/synctest"

	"github.com/antipode-registry/antipode/internal/registry"
	"github.com/antipode-registry/antipode/internal/telemetry"
	"github.com/antipode-registry/antipode/internal/telemetry/telemetrytest"
)

// call is one caller of do, and what it got.
type call struct {
	cancel context.CancelFunc
	got    Listing
	err    error
	done   chan struct{}
}

// begin starts n callers and returns once all of them wait.
func begin(t *testing.T, g *group, k key, n int, run func(context.Context) (Listing, error)) []*call {
	t.Helper()
	calls := make([]*call, n)
	for i := range calls {
		ctx, cancel := context.WithCancel(t.Context())
		c := &call{cancel: cancel, done: make(chan struct{})}
		go func() {
			defer close(c.done)
			c.got, c.err = g.do(ctx, k, run)
		}()
		calls[i] = c
	}
	synctest.Wait()
	return calls
}

// counted is a walk that counts how often it is begun and waits for release or for its context.
func counted(walks *int, release <-chan struct{}) func(context.Context) (Listing, error) {
	return func(ctx context.Context) (Listing, error) {
		*walks++
		select {
		case <-release:
			return Listing{Tags: []registry.Tag{{Name: "v1"}}, Revision: int64(*walks)}, nil
		case <-ctx.Done():
			return Listing{}, ctx.Err()
		}
	}
}

func newGroup() *group { return &group{walks: map[key]*walk{}} }

func TestCallersAtTheSameTimeShareAWalk(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		g, k, walks, release := newGroup(), key{repository: "a", revision: 1}, 0, make(chan struct{})
		calls := begin(t, g, k, 50, counted(&walks, release))
		close(release)
		for _, c := range calls {
			if <-c.done; c.err != nil || len(c.got.Tags) != 1 {
				t.Errorf("%+v, %v", c.got, c.err)
			}
			c.cancel()
		}
		if walks != 1 {
			t.Errorf("%d walks for 50 callers", walks)
		}
		// What is over is not kept: the next caller gets a walk of its own.
		if got, err := g.do(t.Context(), k, counted(&walks, release)); err != nil || got.Revision != 2 {
			t.Errorf("%+v, %v", got, err)
		}
		if len(g.walks) != 0 {
			t.Errorf("%d walks are kept", len(g.walks))
		}
	})
}

// A walk is part of the trace of who began it; the others who wait for it are linked with it.
func TestAWalkIsOneSpanForAllItsCallers(t *testing.T) {
	t.Parallel()
	recorder := telemetrytest.NewRecorder()
	first, firstSpan := recorder.Traced(t.Context())
	second, secondSpan := recorder.Traced(t.Context())
	synctest.Test(t, func(t *testing.T) {
		g, k, walks, release := newGroup(), key{repository: "a", revision: 7}, 0, make(chan struct{})
		g.tracer = telemetry.NewTracer(recorder, "")
		var waiting sync.WaitGroup
		for _, ctx := range []context.Context{first, second} {
			waiting.Go(func() {
				if _, err := g.do(context.WithoutCancel(ctx), k, counted(&walks, release)); err != nil {
					t.Error(err)
				}
			})
			synctest.Wait()
		}
		close(release)
		waiting.Wait()
		synctest.Wait()
	})
	firstSpan.End()
	secondSpan.End()
	walk := recorder.One(t, "walk registry")
	walk.Has(t, "repository", "a", "revision", "7", "tags", "1")
	if walk.Parent != firstSpan.SpanContext().SpanID().String() {
		t.Errorf("the walk is below %s", walk.Parent)
	}
	if callers := recorder.Named("test"); len(callers[0].Links) != 0 || !slices.Equal(callers[1].Links, []string{walk.ID}) {
		t.Errorf("the callers: %+v", callers)
	}
}

func TestOtherQuestionsAreOtherWalks(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		g, walks, release := newGroup(), 0, make(chan struct{})
		for _, k := range []key{
			{repository: "a", revision: 1},
			{repository: "a", revision: 2},
			{repository: "b", revision: 1},
			{repository: "a", revision: 2, since: 1},
		} {
			for _, c := range begin(t, g, k, 2, counted(&walks, release)) {
				defer c.cancel()
			}
		}
		if walks != 4 {
			t.Errorf("%d walks for 4 questions", walks)
		}
		close(release)
	})
}

func TestAWalkOutlivesACallerThatLeaves(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		g, walks, release := newGroup(), 0, make(chan struct{})
		calls := begin(t, g, key{repository: "a"}, 2, counted(&walks, release))
		calls[0].cancel() // whether or not it began the walk
		if <-calls[0].done; !errors.Is(calls[0].err, context.Canceled) {
			t.Errorf("the one that left: %v", calls[0].err)
		}
		late := begin(t, g, key{repository: "a"}, 1, counted(&walks, release))
		close(release)
		for _, c := range append(calls[1:], late...) {
			if <-c.done; c.err != nil || c.got.Revision != 1 {
				t.Errorf("one that stayed: %+v, %v", c.got, c.err)
			}
			c.cancel()
		}
	})
}

func TestAWalkEndsWithItsLastCaller(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		g, walks, ended := newGroup(), 0, make(chan struct{})
		run := counted(&walks, nil)
		calls := begin(t, g, key{repository: "a"}, 3, func(ctx context.Context) (Listing, error) {
			defer close(ended)
			return run(ctx)
		})
		for _, c := range calls {
			c.cancel()
			<-c.done
		}
		<-ended
		// Nobody joins the walk that is being given up.
		release := make(chan struct{})
		close(release)
		if got, err := g.do(t.Context(), key{repository: "a"}, counted(&walks, release)); err != nil || got.Revision != 2 {
			t.Errorf("%+v, %v", got, err)
		}
	})
}

func TestAnErrorIsSharedAndForgotten(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		g, failure, release := newGroup(), errors.New("no"), make(chan struct{})
		calls := begin(t, g, key{repository: "a"}, 2, func(context.Context) (Listing, error) {
			<-release
			return Listing{}, failure
		})
		close(release)
		for _, c := range calls {
			if <-c.done; !errors.Is(c.err, failure) {
				t.Errorf("got %v", c.err)
			}
			c.cancel()
		}
		walks := 0
		if _, err := g.do(t.Context(), key{repository: "a"}, counted(&walks, release)); err != nil {
			t.Error(err)
		}
	})
}

func TestAWalkIsBounded(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		walks := 0
		if _, err := newGroup().do(t.Context(), key{}, counted(&walks, nil)); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got %v", err)
		}
	})
}
