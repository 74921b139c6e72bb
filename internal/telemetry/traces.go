package telemetry

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"log/slog"
	"net/url"
	"os"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/prometheus/client_golang/prometheus"
	"go.opentelemetry.io/contrib/instrumentation/google.golang.org/grpc/otelgrpc"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracegrpc"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracehttp"
	metricnoop "go.opentelemetry.io/otel/metric/noop"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/sdk/resource"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/stats"
)

// Bounds of the export, each set on purpose.
const (
	// queueSpans is how many spans wait for the collector at most: about 4 MiB.
	queueSpans = 4096
	batchSpans = 512
	// batchAfter is how long a span waits for others at most.
	batchAfter = time.Second
	// exportWithin bounds one batch with all its tries.
	exportWithin = 15 * time.Second
	// flushWithin is how long the end of the daemon waits for the collector.
	flushWithin = 3 * time.Second
	// textBytes bounds each attribute of a span.
	textBytes = 1024
)

// TracesConfig says where spans go.
type TracesConfig struct {
	// Endpoint is the collector's, "http://host:port" or "https://host:port". Empty: there are no traces.
	Endpoint string
	// Protocol is grpc or http, for OTLP over either.
	Protocol string
	// CAFile holds roots to trust besides the system's; empty: none.
	CAFile string
	// SampleRatio is the share of traces that begin here which are recorded, 0 to 1. One that began elsewhere is recorded
	// if it is there.
	SampleRatio float64
	// Component and Version are the program's, Node the site's name on a site.
	Component, Version, Node string
	// Logger hears now and then of a collector that takes nothing.
	Logger *slog.Logger
}

// Traces sends the spans of a process to a collector. One without an endpoint has no tracer and runs nothing.
type Traces struct {
	tracer   *Tracer
	provider *sdktrace.TracerProvider
	giveUp   context.CancelFunc
	flush    time.Duration
}

// OpenTraces makes what traces need and registers its metrics. It does not wait for the collector, and neither does
// anything that is traced: what cannot be sent in time is counted and dropped. Close ends it, and the end of ctx does not.
func OpenTraces(ctx context.Context, cfg TracesConfig, metrics prometheus.Registerer) (*Traces, error) {
	sent, dropped := traceMetrics(metrics)
	if cfg.Endpoint == "" {
		return &Traces{}, nil
	}
	ctx = context.WithoutCancel(ctx)
	next, err := openExporter(ctx, cfg)
	if err != nil {
		return nil, fmt.Errorf("traces: %w", err)
	}
	ending, giveUp := context.WithCancel(ctx)
	out := &exporter{next: next, logger: cfg.Logger, sent: sent, dropped: dropped, ending: ending}
	batches := sdktrace.NewBatchSpanProcessor(out, sdktrace.WithMaxQueueSize(queueSpans),
		sdktrace.WithMaxExportBatchSize(batchSpans), sdktrace.WithBatchTimeout(batchAfter),
		sdktrace.WithExportTimeout(exportWithin))
	limits := sdktrace.NewSpanLimits()
	limits.AttributeValueLengthLimit = textBytes
	provider := sdktrace.NewTracerProvider(
		sdktrace.WithSpanProcessor(&gate{SpanProcessor: batches, exporter: out, room: queueSpans}),
		sdktrace.WithSampler(sdktrace.ParentBased(sdktrace.TraceIDRatioBased(cfg.SampleRatio))),
		sdktrace.WithRawSpanLimits(limits),
		sdktrace.WithResource(described(cfg)),
	)
	return &Traces{
		tracer: NewTracer(provider, cfg.Node), provider: provider, giveUp: giveUp, flush: flushWithin,
	}, nil
}

func described(cfg TracesConfig) *resource.Resource {
	attributes := []attribute.KeyValue{
		attribute.String("service.name", cfg.Component), attribute.String("service.version", cfg.Version),
	}
	if host, err := os.Hostname(); err == nil {
		attributes = append(attributes, attribute.String("service.instance.id", fmt.Sprintf("%s/%d", host, os.Getpid())))
	}
	if cfg.Node != "" {
		attributes = append(attributes, attribute.String("node", cfg.Node))
	}
	return resource.NewSchemaless(attributes...)
}

func traceMetrics(metrics prometheus.Registerer) (sent prometheus.Counter, dropped *prometheus.CounterVec) {
	sent = prometheus.NewCounter(prometheus.CounterOpts{
		Name: "antipode_trace_spans_exported_total",
		Help: "Spans that the collector of `traces.endpoint` took. Stays 0 without one.",
	})
	dropped = prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "antipode_trace_spans_dropped_total",
		Help: "Spans that were lost. `reason` is `queue` (4096 waited already) or `failed` (the collector did not take " +
			"all of the batch that they were in). Replication does not wait for either.",
	}, []string{"reason"})
	for _, reason := range []string{"queue", "failed"} {
		dropped.WithLabelValues(reason)
	}
	metrics.MustRegister(sent, dropped)
	return sent, dropped
}

// openExporter says everything itself that the exporters would otherwise take from the environment.
func openExporter(ctx context.Context, cfg TracesConfig) (sdktrace.SpanExporter, error) {
	endpoint, err := url.Parse(cfg.Endpoint)
	if err != nil {
		return nil, err
	}
	secure := &tls.Config{MinVersion: tls.VersionTLS12}
	if secure.RootCAs, err = roots(cfg.CAFile); err != nil {
		return nil, err
	}
	plain := endpoint.Scheme == "http"
	switch cfg.Protocol {
	case "grpc":
		return overGRPC(ctx, withPort(endpoint, "4317"), plain, secure)
	case "http":
		return overHTTP(ctx, withPort(endpoint, "4318"), plain, secure)
	default:
		return nil, fmt.Errorf("protocol %q: use grpc or http", cfg.Protocol)
	}
}

func overGRPC(ctx context.Context, address string, plain bool, secure *tls.Config) (sdktrace.SpanExporter, error) {
	transport := otlptracegrpc.WithTLSCredentials(credentials.NewTLS(secure))
	if plain {
		transport = otlptracegrpc.WithInsecure()
	}
	return otlptracegrpc.New(ctx, otlptracegrpc.WithEndpoint(address), transport,
		otlptracegrpc.WithHeaders(map[string]string{}),
		otlptracegrpc.WithTimeout(exportWithin), otlptracegrpc.WithRetry(otlptracegrpc.RetryConfig{
			Enabled: true, InitialInterval: time.Second, MaxInterval: 5 * time.Second, MaxElapsedTime: exportWithin,
		}))
}

func overHTTP(ctx context.Context, address string, plain bool, secure *tls.Config) (sdktrace.SpanExporter, error) {
	transport := otlptracehttp.WithTLSClientConfig(secure)
	if plain {
		transport = otlptracehttp.WithInsecure()
	}
	return otlptracehttp.New(ctx, otlptracehttp.WithEndpoint(address), transport,
		otlptracehttp.WithURLPath("/v1/traces"), otlptracehttp.WithHeaders(map[string]string{}),
		otlptracehttp.WithCompression(otlptracehttp.NoCompression), otlptracehttp.WithTimeout(exportWithin),
		otlptracehttp.WithRetry(otlptracehttp.RetryConfig{
			Enabled: true, InitialInterval: time.Second, MaxInterval: 5 * time.Second, MaxElapsedTime: exportWithin,
		}))
}

// withPort adds the port that OTLP has where none is said.
func withPort(endpoint *url.URL, port string) string {
	if endpoint.Port() != "" {
		return endpoint.Host
	}
	return endpoint.Host + ":" + port
}

// roots are the system's and those in the file; nil, for the system's, without one.
func roots(file string) (*x509.CertPool, error) {
	if file == "" {
		return nil, nil
	}
	pem, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("read CA file: %w", err)
	}
	pool, err := x509.SystemCertPool()
	if err != nil {
		pool = x509.NewCertPool()
	}
	if !pool.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("CA file %s: no PEM certificate in it", file)
	}
	return pool, nil
}

// Tracer is nil without an endpoint.
func (t *Traces) Tracer() *Tracer { return t.tracer }

// ServerHandler makes spans of those RPCs that are served, below the caller's; nil without an endpoint.
func (t *Traces) ServerHandler(methods ...string) stats.Handler {
	if t.provider == nil {
		return nil
	}
	return otelgrpc.NewServerHandler(t.rpcs(methods)...)
}

// ClientHandler makes spans of those RPCs that are called, and tells the server of them; nil without an endpoint.
func (t *Traces) ClientHandler(methods ...string) stats.Handler {
	if t.provider == nil {
		return nil
	}
	return otelgrpc.NewClientHandler(t.rpcs(methods)...)
}

// rpcs leaves nothing to what is global.
func (t *Traces) rpcs(methods []string) []otelgrpc.Option {
	return []otelgrpc.Option{
		otelgrpc.WithTracerProvider(t.provider), otelgrpc.WithMeterProvider(metricnoop.NewMeterProvider()),
		otelgrpc.WithPropagators(propagation.TraceContext{}),
		otelgrpc.WithFilter(func(rpc *stats.RPCTagInfo) bool { return slices.Contains(methods, rpc.FullMethodName) }),
	}
}

// Close sends what waits, for three seconds at most, and ends the export.
func (t *Traces) Close() error {
	if t.provider == nil {
		return nil
	}
	defer t.giveUp()
	defer time.AfterFunc(t.flush, t.giveUp).Stop()
	if err := t.provider.Shutdown(context.Background()); err != nil {
		return fmt.Errorf("traces: %w", err)
	}
	return nil
}

// shorten keeps a text within what an attribute may have.
func shorten(text string) string {
	if len(text) <= textBytes {
		return text
	}
	end := textBytes
	for end > 0 && !utf8.RuneStart(text[end]) {
		end--
	}
	return strings.ToValidUTF8(text[:end], "")
}
