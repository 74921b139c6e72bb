package registry

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// arrivals notes when requests reach the registry.
type arrivals struct {
	mu    sync.Mutex
	start time.Time
	at    []time.Duration
	now   int
	most  int
}

func newArrivals() *arrivals { return &arrivals{start: time.Now()} }

func (a *arrivals) enter() (number int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.at = append(a.at, time.Since(a.start))
	a.now++
	a.most = max(a.most, a.now)
	return len(a.at)
}

func (a *arrivals) leave() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.now--
}

// peak returns how many requests were at the registry at the same time since the last call.
func (a *arrivals) peak() int {
	a.mu.Lock()
	defer a.mu.Unlock()
	most := a.most
	a.most = a.now
	return most
}

func TestRetryAfterPausesTheWholeHandle(t *testing.T) {
	t.Parallel()
	forms := map[string]struct {
		status int
		value  func() string
		pause  time.Duration
	}{
		"429 seconds": {http.StatusTooManyRequests, func() string { return "30" }, 30 * time.Second},
		"503 date": {
			http.StatusServiceUnavailable,
			func() string { return time.Now().Add(40 * time.Second).UTC().Format(http.TimeFormat) }, 40 * time.Second,
		},
		"bounded": {http.StatusTooManyRequests, func() string { return "86400" }, maxPause},
		"odd":     {http.StatusTooManyRequests, func() string { return "soon" }, 0},
	}
	for name, form := range forms {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				seen := newArrivals()
				r := carried(t, func(*http.Request) (*http.Response, error) {
					defer seen.leave()
					if seen.enter() == 1 {
						return respond(form.status, "", "Retry-After", form.value()), nil
					}
					return respond(http.StatusOK, "{}"), nil
				})
				var group sync.WaitGroup
				group.Go(func() { ping(t, r) })
				synctest.Wait() // the first is refused
				for range 20 {
					group.Go(func() { ping(t, r) })
				}
				group.Wait()
				if len(seen.at) != 22 {
					t.Errorf("%d requests for 21 calls, one of them repeated", len(seen.at))
				}
				for _, at := range seen.at[1:] {
					if at < form.pause || at > form.pause+time.Second {
						t.Errorf("a request after %s, in spite of a pause of %s", at, form.pause)
					}
				}
			})
		})
	}
}

func ping(t *testing.T, r *Registry) {
	t.Helper()
	if err := r.Ping(t.Context()); err != nil {
		t.Error(err)
	}
}

func TestConcurrencyFallsAndGrowsBack(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		seen := newArrivals()
		var overload atomic.Bool
		r := carried(t, func(*http.Request) (*http.Response, error) {
			defer seen.leave()
			seen.enter()
			refused := overload.Load()
			<-time.After(time.Second)
			if refused {
				return respond(http.StatusServiceUnavailable, ""), nil
			}
			return respond(http.StatusOK, "{}"), nil
		})
		burst := func(calls int) {
			var group sync.WaitGroup
			for range calls {
				group.Go(func() { ping(t, r) })
			}
			synctest.Wait()
			overload.Store(false)
			group.Wait()
		}
		burst(40)
		if got := seen.peak(); got != defaultConcurrency {
			t.Errorf("%d requests at a time at first", got)
		}
		overload.Store(true)
		burst(40)
		if got := seen.peak(); got != defaultConcurrency {
			t.Errorf("%d requests at a time when the overload began", got)
		}
		burst(4)
		if limit := r.transport().budget.limit; limit < 8 || limit > 12 {
			t.Errorf("limit %d after 16 requests were refused at a time: not one halving and some growth", limit)
		}
		burst(200)
		burst(40)
		if got := seen.peak(); got != defaultConcurrency {
			t.Errorf("%d requests at a time after it has recovered", got)
		}
	})
}

// transport returns the layer that holds the budget.
func (r *Registry) transport() *transport {
	t, _ := r.client.Client.Transport.(*transport)
	return t
}

func TestLimitNeverFallsToNothing(t *testing.T) {
	t.Parallel()
	b := newBudget(4, nil)
	for range 10 {
		b.throttle(time.Now(), 0)
	}
	if b.limit != 1 {
		t.Errorf("limit %d", b.limit)
	}
	if err := b.acquire(t.Context()); err != nil {
		t.Error(err)
	}
	b.release()
}

func TestWaitingRequestCanBeCancelled(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := carried(t, func(*http.Request) (*http.Response, error) {
			return respond(http.StatusTooManyRequests, "", "Retry-After", "120"), nil
		})
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		began := time.Now()
		err := r.Ping(ctx)
		if !errors.Is(err, ErrUnavailable) && !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("error %v", err)
		}
		if took := time.Since(began); took != 10*time.Second {
			t.Errorf("took %s", took)
		}
		budget := r.transport().budget
		if budget.inFlight != 0 || budget.waiting.Len() != 0 {
			t.Errorf("%d in flight and %d waiting are left", budget.inFlight, budget.waiting.Len())
		}
		ctx, cancel = context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := r.Ping(ctx); err == nil || !strings.Contains(err.Error(), "pause") {
			t.Errorf("the pause is not named: %v", err)
		}
	})
}
