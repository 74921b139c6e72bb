package service_test

import (
	"context"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	antipodev1 "github.com/antipode-registry/antipode/gen/antipode/v1"
	"github.com/antipode-registry/antipode/secondaryd/internal/service"
)

// desk takes reports.
type desk struct {
	mu    sync.Mutex
	at    []time.Time
	nodes []string
	take  func(ctx context.Context) error // nil takes every report at once
}

func (d *desk) Report(ctx context.Context, node string, st *antipodev1.NodeStatus) error {
	d.mu.Lock()
	d.at = append(d.at, time.Now())
	d.nodes = append(d.nodes, node+" "+st.GetVersion())
	take := d.take
	d.mu.Unlock()
	if take != nil {
		return take(ctx)
	}
	return nil
}

func (d *desk) count() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return len(d.at)
}

// report runs a reporter in a bubble; stop ends it.
func report(t *testing.T, p *place, d *desk, logs *strings.Builder) (wake func(), stop func()) {
	t.Helper()
	changed := make(chan struct{}, 1)
	released := false
	reporter := service.NewReporter("eu-west", p.status, d, func() (<-chan struct{}, func()) {
		return changed, func() { released = true }
	}, slog.New(slog.NewTextHandler(logs, nil)))
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- reporter.Run(ctx) }()
	wake = func() {
		select {
		case changed <- struct{}{}:
		default:
		}
	}
	return wake, func() {
		cancel()
		if err := <-done; err != nil || !released {
			t.Errorf("stopped with %v, wake released %t", err, released)
		}
	}
}

// One at the start and one every ten seconds; on change sooner, but no more than two a second.
func TestReports(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		p, d := newPlace(t), &desk{}
		var logs strings.Builder
		wake, stop := report(t, p, d, &logs)
		<-time.After(65 * time.Second)
		if n := d.count(); n != 7 {
			t.Errorf("%d reports in 65 s of silence, want 7", n)
		}
		if d.nodes[0] != "eu-west v1" {
			t.Errorf("reported as %q", d.nodes[0])
		}

		// A single change is told at once.
		before := d.count()
		changed := time.Now()
		wake()
		synctest.Wait()
		if d.count() != before+1 || !d.at[before].Equal(changed) {
			t.Errorf("a change was told after %v", time.Since(changed))
		}

		// A stream of changes is told twice a second.
		<-time.After(time.Second)
		before = d.count()
		for range 1000 {
			wake()
			<-time.After(10 * time.Millisecond)
		}
		if n := d.count() - before; n < 19 || n > 22 {
			t.Errorf("%d reports in 10 s of changes, want about 20", n)
		}
		for i := range d.at[1:] {
			if gap := d.at[i+1].Sub(d.at[i]); gap < 500*time.Millisecond {
				t.Errorf("two reports within %v", gap)
			}
		}
		stop()
		if logs.Len() > 0 {
			t.Errorf("logged:\n%s", logs.String())
		}
	})
}

// A primary that does not take reports is logged once, and so is its return.
func TestReportsFail(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		p, d := newPlace(t), &desk{take: func(context.Context) error { return errCut }}
		var logs strings.Builder
		_, stop := report(t, p, d, &logs)
		<-time.After(35 * time.Second)
		d.mu.Lock()
		d.take = nil
		d.mu.Unlock()
		<-time.After(30 * time.Second)
		stop()
		if n := d.count(); n != 7 {
			t.Errorf("%d reports, want 7", n)
		}
		if strings.Count(logs.String(), "could not report") != 1 || strings.Count(logs.String(), "again") != 1 {
			t.Errorf("logged:\n%s", logs.String())
		}
	})
}

// A primary that hangs is given up after a while, and a stop does not wait for it.
func TestReportsHang(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		p := newPlace(t)
		d := &desk{take: func(ctx context.Context) error {
			<-ctx.Done()
			return ctx.Err()
		}}
		var logs strings.Builder
		_, stop := report(t, p, d, &logs)
		<-time.After(time.Minute)
		if n := d.count(); n < 5 {
			t.Errorf("%d reports in a minute", n)
		}
		began := time.Now()
		stop()
		if took := time.Since(began); took > 0 {
			t.Errorf("the stop took %v", took)
		}
	})
}
