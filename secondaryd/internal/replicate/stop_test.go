package replicate_test

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/antipode-registry/antipode/internal/registrytest"
	"github.com/antipode-registry/antipode/secondaryd/internal/replicate"
	"github.com/antipode-registry/antipode/secondaryd/internal/tracking"
)

// A process that is told to stop lets go of what it works on, without a failure; the next one goes on.
func TestStopInTheMiddle(t *testing.T) {
	t.Parallel()
	s := memoryStage(t)
	const repository = "team/app"
	s.push(repository, "v1", "v2", "v3")
	held := newGate(t)
	held.on(s.from, http.MethodGet, "/blobs/")
	s.deliver(s.primary.announce(repository, tracking.Live))
	s.wait(held.reached, "a download")
	s.stop()
	row := s.wantState(repository, tracking.Pending)
	if row.Failures != 0 || row.LastError != nil || time.Until(row.NextAttemptAt) > time.Second {
		t.Errorf("after a stop: %+v", row)
	}
	if story := s.story(repository); strings.Contains(story, "failed") || !strings.Contains(story, "interrupted") {
		t.Errorf("the journal of a stop:\n%s", story)
	}
	s.wantTags(repository)

	s.from.Fault(nil)
	held.open()
	s.engine = s.build()
	s.start()
	s.settle()
	s.wantEqual(repository)
}

// What was finished before the stop is recorded as finished.
func TestStopAfterTheWork(t *testing.T) {
	t.Parallel()
	s := memoryStage(t)
	const repository = "team/app"
	s.push(repository, "v1")
	held := newGate(t)
	held.on(s.to, http.MethodPut, "/manifests/v1")
	s.deliver(s.primary.announce(repository, tracking.Live))
	s.wait(held.reached, "the write of the tag")
	stopped := make(chan struct{})
	go func() {
		defer close(stopped)
		s.stop()
	}()
	held.open()
	s.wait(stopped, "the stop")
	// Either the write was cut off or it was made; the row says which.
	row := s.row(repository)
	if row.State != tracking.Synced && row.State != tracking.Pending || row.LastError != nil {
		t.Fatalf("after a stop: %+v", row)
	}
	s.to.Fault(nil)
	s.engine = s.build()
	s.start()
	s.settle()
	s.wantEqual(repository)
}

// A worker that lost its lease writes nothing more and records nothing.
func TestLostLease(t *testing.T) {
	t.Parallel()
	metrics := prometheus.NewRegistry()
	s := buildStage(t, registrytest.InMemory(t, false).URL(), registrytest.InMemory(t, false).URL())
	s.engine = s.build(func(o *replicate.Options) {
		o.Lease, o.Metrics = 300*time.Millisecond, replicate.NewMetrics(metrics)
	})
	s.start()
	const repository = "team/app"
	s.push(repository, "v1", "v2")
	held := newGate(t)
	held.on(s.from, http.MethodGet, "/blobs/")
	change := s.primary.announce(repository, tracking.Live)
	s.deliver(change)
	s.wait(held.reached, "a download")
	// Paused, so that nobody takes the row over before we have looked.
	s.must(s.store.SetPaused(t.Context(), true))
	s.must(s.store.StartOver(t.Context()))
	s.deliver(change)
	registrytest.Eventually(t, enough, func(context.Context) error {
		if counted(t, metrics, "antipode_syncs_total", "result", "lost") == 0 {
			return fmt.Errorf("the worker goes on")
		}
		return nil
	})
	s.from.Fault(nil)
	held.open()
	s.wantTags(repository)
	if n := s.to.Count(http.MethodPut, "manifest"); n > 0 {
		t.Errorf("%d manifests were written without a lease:%s", n, sent(s.to))
	}
	if row := s.wantState(repository, tracking.Pending); row.LastError != nil || s.story(repository) != "" {
		t.Errorf("a worker without a lease recorded %+v\n%s", row, s.story(repository))
	}
	s.must(s.store.SetPaused(t.Context(), false))
	s.settle()
	s.wantEqual(repository)
}
