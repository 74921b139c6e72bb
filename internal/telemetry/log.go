package telemetry

import (
	"context"
	"log/slog"

	"go.opentelemetry.io/otel/trace"
)

// joined adds to each record the trace and the span that its context is of, so that logs and traces can be put together.
// What is not sampled cannot be looked up, and is not named.
type joined struct{ slog.Handler }

// Handle implements slog.Handler.
func (j joined) Handle(ctx context.Context, record slog.Record) error {
	if span := trace.SpanContextFromContext(ctx); span.IsSampled() {
		record.AddAttrs(slog.String("trace_id", span.TraceID().String()), slog.String("span_id", span.SpanID().String()))
	}
	return j.Handler.Handle(ctx, record)
}

// WithAttrs implements slog.Handler.
func (j joined) WithAttrs(attrs []slog.Attr) slog.Handler { return joined{j.Handler.WithAttrs(attrs)} }

// WithGroup implements slog.Handler.
func (j joined) WithGroup(name string) slog.Handler { return joined{j.Handler.WithGroup(name)} }
