package sweep_test

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/antipode-registry/antipode/primaryd/internal/feed"
	"github.com/antipode-registry/antipode/primaryd/internal/listing"
	"github.com/antipode-registry/antipode/primaryd/internal/sweep"
)

// rows is a feed of so many repositories.
type rows struct {
	empty
	count int
}

func (r rows) List(_ context.Context, after string, _ int) (list []feed.Row, err error) {
	for i := range r.count {
		if name := fmt.Sprintf("r%03d", i); name > after {
			list = append(list, feed.Row{Repository: name})
		}
	}
	return list, nil
}

func (r rows) Get(_ context.Context, name string) (feed.Row, bool, error) {
	return feed.Row{Repository: name, SweptAt: time.Now()}, true, nil
}

// The first round takes the time that it needs, and so does one that was asked for; one that is due by the clock is spread
// over a twentieth of the interval, until somebody is in a hurry.
func TestRoundsThatNobodyWaitsForAreSpread(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		const count = 10
		var mu sync.Mutex
		var compared []time.Duration
		began := time.Now()
		s := sweep.New(&catalog{}, walker(func(feed.Row) (listing.Listing, error) {
			mu.Lock()
			defer mu.Unlock()
			compared = append(compared, time.Since(began))
			return listing.Listing{Present: true}, nil
		}), rows{count: count}, sweep.Options{Interval: time.Hour, Logger: slog.New(slog.DiscardHandler)})
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- s.Run(ctx) }()
		look := func(what string, after time.Duration, first, last time.Duration) {
			t.Helper()
			<-time.After(after - time.Since(began))
			mu.Lock()
			defer mu.Unlock()
			if len(compared) != count || compared[0] != first || compared[count-1] != last {
				t.Errorf("%s: compared at %v", what, compared)
			}
			compared = nil
		}
		look("first", time.Minute, 0, 0)
		step := 3 * time.Minute / count
		ended := time.Hour + (count-1)*step
		look("due", ended+time.Minute, time.Hour, ended)
		s.Now()
		asked := ended + time.Minute
		look("asked for", asked+time.Minute, asked, asked)

		<-time.After(asked + time.Hour + step + time.Second - time.Since(began))
		s.Now() // two of the round that is due have begun
		mu.Lock()
		if len(compared) != 2 {
			t.Errorf("before the hurry: compared at %v", compared)
		}
		mu.Unlock()
		<-time.After(time.Second)
		mu.Lock()
		if len(compared) != 2*count {
			t.Errorf("in a hurry: compared at %v", compared)
		}
		mu.Unlock()
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}
