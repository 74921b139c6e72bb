package telemetry

import (
	"context"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
)

// quiet is how long after a complaint about the collector there is no other.
const quiet = time.Minute

// exporter hands spans on to the collector and counts what becomes of them. Its errors stay here: the SDK would tell them
// to a handler that is global, and nothing else depends on whether a collector answers.
type exporter struct {
	next    sdktrace.SpanExporter
	logger  *slog.Logger
	pending atomic.Int64 // accepted, and not yet sent or lost
	sent    prometheus.Counter
	dropped *prometheus.CounterVec
	ending  context.Context // ends the sending when the daemon has waited for it long enough

	mu         sync.Mutex
	complained time.Time
	since      int64 // spans lost since then
}

// ExportSpans implements sdktrace.SpanExporter.
func (e *exporter) ExportSpans(ctx context.Context, spans []sdktrace.ReadOnlySpan) error {
	ctx, cancel := context.WithCancel(ctx)
	defer context.AfterFunc(e.ending, cancel)() //nolint:contextcheck // either of the two ends it
	defer cancel()
	err := e.ending.Err()
	if err == nil {
		err = e.next.ExportSpans(ctx, spans)
	}
	count := int64(len(spans))
	e.pending.Add(-count)
	if err == nil {
		e.sent.Add(float64(count))
		return nil
	}
	e.dropped.WithLabelValues("failed").Add(float64(count))
	e.complain(count, err)
	return nil
}

// Shutdown implements sdktrace.SpanExporter.
func (e *exporter) Shutdown(ctx context.Context) error { return e.next.Shutdown(ctx) }

func (e *exporter) complain(lost int64, err error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.since += lost
	if !e.complained.IsZero() && time.Since(e.complained) < quiet {
		return
	}
	e.logger.Warn("the collector does not take spans: see traces.endpoint; nothing else depends on it",
		"spans", e.since, "error", shorten(err.Error()))
	e.complained, e.since = time.Now(), 0
}

// gate lets only as many spans wait as the queue behind it holds, and counts the others: the SDK's queue drops without a
// word.
type gate struct {
	sdktrace.SpanProcessor
	exporter *exporter
	room     int64
}

// OnEnd implements sdktrace.SpanProcessor.
func (g *gate) OnEnd(span sdktrace.ReadOnlySpan) {
	if !span.SpanContext().IsSampled() {
		return
	}
	if g.exporter.pending.Add(1) > g.room {
		g.exporter.pending.Add(-1)
		g.exporter.dropped.WithLabelValues("queue").Inc()
		return
	}
	g.SpanProcessor.OnEnd(span)
}
