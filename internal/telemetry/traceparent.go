package telemetry

import (
	"context"

	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"
)

// traceParent is the header's name in the form that a propagation.MapCarrier has it.
const traceParent = "traceparent"

// TraceParent names the span of ctx as the traceparent of W3C Trace Context does, in 55 characters; "" where there is
// none that is sampled. It carries a trace over a gap that no context passes, such as a database.
func TraceParent(ctx context.Context) string {
	if !trace.SpanContextFromContext(ctx).IsSampled() {
		return ""
	}
	carrier := propagation.MapCarrier{}
	propagation.TraceContext{}.Inject(trace.ContextWithSpanContext(ctx, withoutState(ctx)), carrier)
	return carrier[traceParent]
}

// withoutState leaves out what other systems on the way have added.
func withoutState(ctx context.Context) trace.SpanContext {
	return trace.SpanContextFromContext(ctx).WithTraceState(trace.TraceState{})
}

// WithTraceParent returns a context whose spans continue the trace that the traceparent names, sampled or not as it says.
// ctx is returned as it is where the text is empty or no traceparent.
func WithTraceParent(ctx context.Context, text string) context.Context {
	if text == "" {
		return ctx
	}
	return propagation.TraceContext{}.Extract(ctx, propagation.MapCarrier{traceParent: text})
}

// SampledTraceParent returns the text as TraceParent would give it if it is the traceparent of a trace that is sampled,
// and "" if not: for what came from outside and is to be stored.
func SampledTraceParent(ctx context.Context, text string) string {
	if text == "" {
		return ""
	}
	return TraceParent(WithTraceParent(trace.ContextWithSpanContext(ctx, trace.SpanContext{}), text))
}
