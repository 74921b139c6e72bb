package replicate_test

import (
	"context"
	"fmt"
	"net/http"
	"testing"

	"github.com/antipode-registry/antipode/internal/registrytest"
	"github.com/antipode-registry/antipode/internal/telemetry"
	"github.com/antipode-registry/antipode/internal/telemetry/telemetrytest"
	"github.com/antipode-registry/antipode/secondaryd/internal/replicate"
	"github.com/antipode-registry/antipode/secondaryd/internal/tracking"
)

// A sync goes on with the trace of the change that it is for, through every try, and says what came of it.
func TestSyncsAreTraced(t *testing.T) {
	t.Parallel()
	recorder := telemetrytest.NewRecorder()
	s := memoryStage(t, func(o *replicate.Options) { o.Tracer = telemetry.NewTracer(recorder, "eu-west") })
	// A span ends after all else does.
	syncs := func(n int) (spans []telemetrytest.Span) {
		registrytest.Eventually(t, enough, func(context.Context) error {
			if spans = recorder.Named("sync repository"); len(spans) != n {
				return fmt.Errorf("%d syncs were traced, not %d", len(spans), n)
			}
			return nil
		})
		return spans
	}
	push := func() {
		change := s.primary.announce("team/app", tracking.Live)
		change.TraceParent = telemetrytest.TraceParent
		s.deliver(change)
		s.settle()
	}
	s.push("team/app", "v1", "v2")
	faultOn(s.to, http.MethodPut, "/manifests/v1", denied())
	push()
	failed := syncs(1)[0]
	failed.Has(t, "node", "eu-west", "repository", "team/app", "revision", "1", "reference", "v1", "side", "destination")
	if failed.Error == "" || failed.Trace != telemetrytest.Trace || failed.Parent != telemetrytest.Parent {
		t.Errorf("the sync that failed: %+v", failed)
	}

	s.to.Fault(nil)
	s.untag("team/app", "v2")
	push()
	second := syncs(2)[1]
	if second.Error != "" || second.Trace != telemetrytest.Trace {
		t.Errorf("the sync that succeeded: %+v", second)
	}
	removed := recorder.One(t, "remove tag")
	removed.Has(t, "repository", "team/app", "reference", "v2", "digest", imageOf("v2").Digest)
	if removed.Parent != second.ID {
		t.Errorf("the removal is below %s, want %s", removed.Parent, second.ID)
	}

	s.resync("team/app") // no part of the push any more
	if third := syncs(3)[2]; third.Parent != "" {
		t.Errorf("the sync that an operator asked for: %+v", third)
	}
}
