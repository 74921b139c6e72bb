package tracking_test

import (
	"strings"
	"testing"
	"time"

	"github.com/antipode-registry/antipode/secondaryd/internal/tracking"
)

// A traceparent has 55 characters.
var firstTrace, secondTrace = strings.Repeat("1", 55), strings.Repeat("2", 55)

func (s *site) traced(revision int64, traceParents ...string) {
	s.Helper()
	batch := tracking.Batch{FeedID: feedID}
	for i, traceParent := range traceParents {
		batch.Cursor = revision + int64(i)
		batch.Changes = append(batch.Changes, tracking.Change{Repository: "a", Revision: batch.Cursor, TraceParent: traceParent})
	}
	batch.Head = batch.Cursor
	s.must(s.Apply(s.Context(), batch))
}

func (s *site) takeTraced(want string) *tracking.Lease {
	s.Helper()
	lease := s.take("a")
	if lease.TraceParent != want {
		s.Errorf("the lease has the traceparent %.10q, want %.10q", lease.TraceParent, want)
	}
	return lease
}

// A lease has the trace of the newest change, over every retry, until that change is on the site.
func TestLeasesHaveTheTraceOfTheNewestChange(t *testing.T) {
	each(t, tracking.Options{}, func(_ *testing.T, s *site) {
		s.traced(1, firstTrace)
		s.finish(s.takeTraced(firstTrace), failed())
		s.backOffIsOver("a")
		s.finish(s.takeTraced(firstTrace), tracking.Outcome{Retry: time.Millisecond})
		s.backOffIsOver("a")
		lease := s.takeTraced(firstTrace)
		s.traced(2, secondTrace) // meanwhile
		s.finish(lease, synced())
		s.finish(s.takeTraced(secondTrace), synced())

		_, err := s.Resync(s.Context(), "a") // no part of any push
		s.must(err)
		s.finish(s.takeTraced(""), synced())
		s.traced(3, firstTrace, "")
		s.finish(s.takeTraced(""), synced())
		s.traced(5, "", firstTrace, secondTrace)
		old := tracking.Change{Repository: "a", Revision: 5, TraceParent: firstTrace} // is told again
		s.must(s.Apply(s.Context(), tracking.Batch{FeedID: feedID, Cursor: 7, Head: 7, Changes: []tracking.Change{old}}))
		s.takeTraced(secondTrace)
		s.must(s.StartOver(s.Context()))
		s.takeTraced("")
	})
}

func TestApplyRefusesALongTraceParent(t *testing.T) {
	each(t, tracking.Options{}, func(t *testing.T, s *site) {
		err := s.Apply(t.Context(), tracking.Batch{FeedID: feedID, Cursor: 1, Head: 1, Changes: []tracking.Change{
			{Repository: "a", Revision: 1, TraceParent: firstTrace + "1"},
		}})
		if err == nil || !strings.Contains(err.Error(), "56 bytes") {
			t.Errorf("got %v", err)
		}
	})
}
