package sweep_test

import (
	"context"
	"iter"
	"log/slog"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/antipode-registry/antipode/internal/registry"
	"github.com/antipode-registry/antipode/primaryd/internal/feed"
	"github.com/antipode-registry/antipode/primaryd/internal/listing"
	"github.com/antipode-registry/antipode/primaryd/internal/sweep"
)

// catalog is a registry's, which notes when it is walked.
type catalog struct {
	names []string
	fails int           // how many walks fail, from the first on
	takes time.Duration // how long a walk takes
	walks []time.Time
}

func (c *catalog) Repositories(ctx context.Context) iter.Seq2[string, error] {
	return func(yield func(string, error) bool) {
		c.walks = append(c.walks, time.Now())
		select {
		case <-time.After(c.takes):
		case <-ctx.Done():
			yield("", ctx.Err())
			return
		}
		if len(c.walks) <= c.fails {
			yield("", registry.ErrUnavailable)
			return
		}
		for _, name := range c.names {
			if !yield(name, nil) {
				return
			}
		}
	}
}

// empty is a feed without rows.
type empty struct{}

func (empty) Get(context.Context, string) (feed.Row, bool, error)       { return feed.Row{}, false, nil }
func (empty) List(context.Context, string, int) ([]feed.Row, error)     { return nil, nil }
func (empty) AddMissing(context.Context, []string) (added int, e error) { return 0, nil }
func (empty) RecordSweep(context.Context, string, int64, string, bool) (bool, error) {
	return false, nil
}

// running starts a sweeper over the catalog.
func running(t *testing.T, c *catalog, interval time.Duration) (s *sweep.Sweeper, stop func()) {
	t.Helper()
	s = sweep.New(c, walker(func(feed.Row) (listing.Listing, error) { return listing.Listing{}, nil }), empty{},
		sweep.Options{Interval: interval, Logger: slog.New(slog.DiscardHandler)})
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	return s, func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run = %v", err)
		}
	}
}

// since are the times of the walks, counted from the beginning.
func (c *catalog) since(began time.Time) (after []time.Duration) {
	for _, at := range c.walks {
		after = append(after, at.Sub(began))
	}
	return after
}

func TestRunSweepsAtEveryInterval(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		began, c := time.Now(), &catalog{takes: time.Minute}
		_, stop := running(t, c, time.Hour)
		<-time.After(3 * time.Hour)
		stop()
		want := []time.Duration{0, 61 * time.Minute, 122 * time.Minute} // the pause is between the rounds
		if diff := cmp.Diff(want, c.since(began)); diff != "" {
			t.Error(diff)
		}
	})
}

func TestRunBacksOffAfterFailures(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		began, c := time.Now(), &catalog{fails: 6}
		_, stop := running(t, c, 10*time.Second)
		<-time.After(46 * time.Second)
		stop()
		var want []time.Duration
		for _, seconds := range []int{0, 1, 3, 7, 15, 25, 35, 45} { // doubling up to the interval
			want = append(want, time.Duration(seconds)*time.Second)
		}
		if diff := cmp.Diff(want, c.since(began)); diff != "" {
			t.Error(diff)
		}
	})
}

func TestNowSweepsAtOnceOrRightAfterTheRunningRound(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		began, c := time.Now(), &catalog{takes: time.Minute}
		s, stop := running(t, c, time.Hour)
		<-time.After(10 * time.Second)
		for range 3 { // several wishes during a round are one more round
			s.Now()
		}
		<-time.After(10 * time.Minute)
		s.Now()
		<-time.After(10 * time.Minute)
		stop()
		want := []time.Duration{0, time.Minute, 10*time.Minute + 10*time.Second}
		if diff := cmp.Diff(want, c.since(began)); diff != "" {
			t.Error(diff)
		}
	})
}

func TestRunEndsInTheMiddleOfARound(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		began, c := time.Now(), &catalog{takes: 24 * time.Hour}
		_, stop := running(t, c, time.Hour)
		<-time.After(time.Minute)
		if stop(); time.Since(began) != time.Minute {
			t.Errorf("it took %v", time.Since(began))
		}
	})
}
