package telemetry

import (
	"context"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/trace"
)

// Tracer starts spans. A nil Tracer starts none and costs nothing: that is how a daemon runs without traces.
type Tracer struct {
	tracer trace.Tracer
	node   string // the site's name, on every span of a site
}

// NewTracer returns a tracer over a provider; node is the site's name, on a site.
func NewTracer(provider trace.TracerProvider, node string) *Tracer {
	return &Tracer{tracer: provider.Tracer("github.com/antipode-registry/antipode"), node: node}
}

// Role is what a span is among those around it; the zero value is work within the process.
type Role = trace.SpanKind

// The roles that differ from work within the process.
const (
	Serving  Role = trace.SpanKindServer   // an answer to somebody else's request
	Asking   Role = trace.SpanKindClient   // a request to somebody else
	Handing  Role = trace.SpanKindProducer // something that others go on with later
	Carrying Role = trace.SpanKindConsumer // what was handed over before
)

// About says what a span is about; what is empty is left out. The attributes have the names of the log's keys.
type About struct {
	Role       Role
	Node       string // the site's, where a span of the primary is about one
	Repository string
	Reference  string
	Digest     string
	Revision   int64
}

// Enabled says whether there are traces at all.
func (t *Tracer) Enabled() bool { return t != nil }

// Start begins a span below that of ctx or, where ctx has none, a trace, if it is among those that are sampled.
func (t *Tracer) Start(ctx context.Context, name string, about About) (context.Context, Span) {
	if t == nil {
		return ctx, Span{}
	}
	return t.start(ctx, name, about)
}

// Within begins a span below that of ctx. Where ctx is of no trace that is recorded, nothing begins.
func (t *Tracer) Within(ctx context.Context, name string, about About) (context.Context, Span) {
	if t == nil || !trace.SpanContextFromContext(ctx).IsSampled() {
		return ctx, Span{}
	}
	return t.start(ctx, name, about)
}

// Together begins one span for work that is done for several at once: below the first of the spans that is recorded, and
// linked with the others. Where none of them is recorded, nothing begins.
func (t *Tracer) Together(ctx context.Context, name string, spans []Span, about About) (context.Context, Span) {
	if t == nil || len(spans) == 0 {
		return ctx, Span{}
	}
	ctx, span := t.start(trace.ContextWithSpan(ctx, spans[0].span), name, about)
	for _, other := range spans[1:] {
		span.span.AddLink(trace.Link{SpanContext: other.span.SpanContext()})
	}
	return ctx, span
}

func (t *Tracer) start(ctx context.Context, name string, about About) (context.Context, Span) {
	ctx, span := t.tracer.Start(ctx, name, trace.WithSpanKind(about.Role))
	if !span.IsRecording() {
		return ctx, Span{}
	}
	if about.Node == "" {
		about.Node = t.node
	}
	started := Span{span: span}
	started.Text("node", about.Node)
	started.Text("repository", about.Repository)
	started.Text("reference", about.Reference)
	started.Text("digest", about.Digest)
	if about.Revision != 0 {
		started.Number("revision", about.Revision)
	}
	return ctx, started
}

// Span is one piece of work in a trace. The zero Span is of none: whatever is said to it is not recorded.
type Span struct{ span trace.Span }

// Recording says whether what is said to the span goes anywhere.
func (s Span) Recording() bool { return s.span != nil }

// Text adds an attribute, if the value is not empty.
func (s Span) Text(key, value string) {
	if s.span != nil && value != "" {
		s.span.SetAttributes(attribute.String(key, value))
	}
}

// Number adds an attribute.
func (s Span) Number(key string, value int64) {
	if s.span != nil {
		s.span.SetAttributes(attribute.Int64(key, value))
	}
}

// Fail records that the work failed, and on which side; nil records nothing.
func (s Span) Fail(side string, err error) {
	if s.span == nil || err == nil {
		return
	}
	message := shorten(err.Error())
	s.span.SetStatus(codes.Error, message)
	s.Text("side", side)
	s.Text("error", message)
}

// Join links the span of ctx, if it has one that is recorded, with this one: it is answered by this one's work.
func (s Span) Join(ctx context.Context) {
	if s.span != nil {
		trace.SpanFromContext(ctx).AddLink(trace.Link{SpanContext: s.span.SpanContext()})
	}
}

// End ends the span. It must be called once.
func (s Span) End() {
	if s.span != nil {
		s.span.End()
	}
}
