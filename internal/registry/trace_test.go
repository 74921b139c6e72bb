package registry

import (
	"net/http"
	"slices"
	"sync/atomic"
	"testing"

	"github.com/antipode-registry/antipode/internal/telemetry"
	"github.com/antipode-registry/antipode/internal/telemetry/telemetrytest"
)

// Each try within a trace is a span, whose context stays here; a request outside of one is none.
func TestRequestsAreTraced(t *testing.T) {
	t.Parallel()
	var asked atomic.Int64
	var told []string
	recorder := telemetrytest.NewRecorder()
	r := carried(t, func(req *http.Request) (*http.Response, error) {
		told = append(told, req.Header.Get("Traceparent"))
		if asked.Add(1) == 1 {
			return respond(http.StatusBadGateway, ""), nil
		}
		return respond(http.StatusOK, `{"tags":["v1"]}`, "Content-Type", "application/json"), nil
	}, func(cfg *Config) { cfg.Tracer = telemetry.NewTracer(recorder, "eu-west") })
	ctx, _ := recorder.Traced(t.Context())
	if _, _, err := r.TagNames(ctx, "team/app"); err != nil {
		t.Fatal(err)
	}
	spans := recorder.Named("request")
	if len(spans) != 2 {
		t.Fatalf("spans: %+v", recorder.Spans())
	}
	for i, span := range spans {
		span.Has(t, "side", "source", "host", "registry.test", "method", "GET", "kind", "tags", "repository", "team/app",
			"node", "eu-west", "try", []string{"1", "2"}[i], "status", []string{"502", "200"}[i])
		if (span.Error == "") != (i == 1) {
			t.Errorf("try %d: %+v", i+1, span)
		}
	}
	if _, _, err := r.TagNames(t.Context(), "team/app"); err != nil {
		t.Fatal(err)
	}
	if n := len(recorder.Named("request")); n != 2 {
		t.Errorf("%d spans after a request outside of a trace", n)
	}
	if slices.ContainsFunc(told, func(header string) bool { return header != "" }) {
		t.Errorf("the registry was told %q", told)
	}
}
