package telemetrytest

import (
	"context"
	"slices"
	"testing"

	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"go.opentelemetry.io/otel/trace"
)

// TraceParent is of a trace that is sampled: Trace and Parent are its ids.
const (
	TraceParent = "00-" + Trace + "-" + Parent + "-01"
	Trace       = "0af7651916cd43dd8448eb211c80319c"
	Parent      = "b7ad6b7169203331"
)

// Recorder keeps the spans of a provider in memory, all of them. It is safe for concurrent use.
type Recorder struct {
	trace.TracerProvider
	spans *tracetest.SpanRecorder
}

// NewRecorder returns a Recorder, of which nothing runs.
func NewRecorder() *Recorder {
	spans := tracetest.NewSpanRecorder()
	return &Recorder{TracerProvider: sdktrace.NewTracerProvider(sdktrace.WithSpanProcessor(spans)), spans: spans}
}

// Traced returns a context within a trace of this provider, and its span, which the test need not end.
func (r *Recorder) Traced(ctx context.Context) (context.Context, trace.Span) {
	return r.Tracer("test").Start(ctx, "test")
}

// Spans returns those that ended so far, in that order.
func (r *Recorder) Spans() []Span {
	var all []Span
	for _, span := range r.spans.Ended() {
		s := Span{
			Name: span.Name(), Trace: span.SpanContext().TraceID().String(), ID: span.SpanContext().SpanID().String(),
			Attributes: map[string]string{}, Error: span.Status().Description, Start: span.StartTime(), End: span.EndTime(),
		}
		if span.Parent().SpanID().IsValid() {
			s.Parent = span.Parent().SpanID().String()
		}
		for _, attribute := range span.Attributes() {
			s.Attributes[string(attribute.Key)] = attribute.Value.String()
		}
		for _, link := range span.Links() {
			s.Links = append(s.Links, link.SpanContext.SpanID().String())
		}
		all = append(all, s)
	}
	return all
}

// Named returns those of a name.
func (r *Recorder) Named(name string) []Span {
	return slices.DeleteFunc(r.Spans(), func(s Span) bool { return s.Name != name })
}

// One returns the only span of a name, and fails the test when there is another number of them.
func (r *Recorder) One(t testing.TB, name string) Span {
	t.Helper()
	named := r.Named(name)
	if len(named) != 1 {
		t.Fatalf("%d spans named %s, want 1: %+v", len(named), name, r.Spans())
	}
	return named[0]
}

// Has compares some of a span's attributes, given in pairs.
func (s Span) Has(t testing.TB, pairs ...string) {
	t.Helper()
	for i := 0; i+1 < len(pairs); i += 2 {
		if got := s.Attributes[pairs[i]]; got != pairs[i+1] {
			t.Errorf("span %s: %s is %q, want %q", s.Name, pairs[i], got, pairs[i+1])
		}
	}
}
