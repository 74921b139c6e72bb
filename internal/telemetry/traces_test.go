package telemetry

import (
	"bytes"
	"context"
	"encoding/pem"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	collectorpb "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/antipode-registry/antipode/internal/telemetry/telemetrytest"
)

// sending opens traces to an endpoint that record everything that begins here.
func sending(t *testing.T, endpoint string, edit func(*TracesConfig)) (*Traces, *prometheus.Registry) {
	t.Helper()
	cfg := TracesConfig{
		Endpoint: endpoint, Protocol: "grpc", SampleRatio: 1, Component: "secondaryd", Version: "v1", Node: "eu-west",
		Logger: slog.New(slog.DiscardHandler),
	}
	if edit != nil {
		edit(&cfg)
	}
	metrics := prometheus.NewRegistry()
	traces, err := OpenTraces(t.Context(), cfg, metrics)
	if err != nil {
		t.Fatal(err)
	}
	return traces, metrics
}

// counted compares the spans that were "exported", or dropped for the reason "queue" or "failed".
func counted(t *testing.T, metrics *prometheus.Registry, what string, want float64) {
	t.Helper()
	families, err := metrics.Gather()
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]float64{}
	for _, family := range families {
		for _, metric := range family.GetMetric() {
			key := "exported"
			for _, label := range metric.GetLabel() {
				key = label.GetValue()
			}
			got[key] = metric.GetCounter().GetValue()
		}
	}
	if n, known := got[what]; !known || n != want {
		t.Errorf("%s: %v, want %v; all: %v", what, n, want, got)
	}
}

func named(t *testing.T, spans []telemetrytest.Span, name string) telemetrytest.Span {
	t.Helper()
	at := slices.IndexFunc(spans, func(s telemetrytest.Span) bool { return s.Name == name })
	if at < 0 {
		t.Fatalf("no span %s among %+v", name, spans)
	}
	return spans[at]
}

// work makes a small trace: a root, two spans below it, and one that was done for both.
func work(tracer *Tracer) {
	ctx, root := tracer.Start(context.Background(), "root", About{Role: Carrying, Repository: "team/app", Revision: 7})
	below, first := tracer.Within(ctx, "first", About{Reference: "v1", Digest: "sha256:1", Node: "other"})
	_, second := tracer.Within(ctx, "second", About{})
	_, both := tracer.Together(context.Background(), "both", []Span{first, second}, About{})
	both.Number("changes", 2)
	both.End()
	second.Fail("source", errors.New("it is not there"))
	second.Join(below)
	first.End()
	second.End()
	root.End()
}

func TestTracesAreExported(t *testing.T) {
	t.Parallel()
	collector := telemetrytest.New(t)
	traces, metrics := sending(t, "http://"+collector.Address(), nil)
	work(traces.Tracer())
	if err := traces.Close(); err != nil {
		t.Fatal(err)
	}
	spans := collector.Spans()
	root, first, second, both := named(t, spans, "root"), named(t, spans, "first"), named(t, spans, "second"), named(t, spans, "both")
	for _, span := range spans {
		if span.Trace != root.Trace || span.Resource["service.name"] != "secondaryd" || span.Resource["node"] != "eu-west" {
			t.Errorf("of another trace or process: %+v", span)
		}
	}
	if root.Parent != "" || first.Parent != root.ID || second.Parent != root.ID || both.Parent != first.ID {
		t.Errorf("parents: %+v", spans)
	}
	if !slices.Equal(both.Links, []string{second.ID}) || !slices.Equal(first.Links, []string{second.ID}) {
		t.Errorf("links: %v, %v; second is %s", both.Links, first.Links, second.ID)
	}
	if root.Kind != "CONSUMER" || root.Attributes["repository"] != "team/app" || root.Attributes["revision"] != "7" ||
		root.Attributes["node"] != "eu-west" || first.Attributes["reference"] != "v1" ||
		first.Attributes["digest"] != "sha256:1" || first.Attributes["node"] != "other" || both.Attributes["changes"] != "2" {
		t.Errorf("attributes: %+v", spans)
	}
	if second.Error != "it is not there" || second.Attributes["side"] != "source" || second.Attributes["error"] != second.Error {
		t.Errorf("the failed one: %+v", second)
	}
	counted(t, metrics, "exported", 4)
	counted(t, metrics, "failed", 0)
}

// A daemon without an endpoint traces nothing, at no cost. That it runs nothing is TestMain's word. Not in parallel: what
// others allocate would count.
func TestTracesAreOff(t *testing.T) {
	traces, metrics := sending(t, "", nil)
	tracer := traces.Tracer()
	if tracer.Enabled() || traces.ServerHandler("m") != nil || traces.ClientHandler("m") != nil {
		t.Error("there is something")
	}
	ctx, failure := t.Context(), errors.New("no")
	allocated := testing.AllocsPerRun(100, func() {
		ctx, span := tracer.Start(WithTraceParent(ctx, ""), "root", About{Repository: "team/app", Revision: 7})
		ctx, below := tracer.Within(ctx, "below", About{Reference: "v1"})
		_, both := tracer.Together(ctx, "both", nil, About{})
		below.Fail("source", failure)
		below.Text("key", "value")
		if TraceParent(ctx) != "" || both.Recording() {
			t.Error("it is recorded")
		}
		below.End()
		both.End()
		span.End()
	})
	if allocated != 0 {
		t.Errorf("%v allocations", allocated)
	}
	counted(t, metrics, "queue", 0)
	if err := traces.Close(); err != nil {
		t.Error(err)
	}
}

func TestSampling(t *testing.T) {
	t.Parallel()
	const sampled, not = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00"
	for name, test := range map[string]struct {
		ratio  float64
		parent string
		want   bool
	}{
		"all": {1, "", true}, "none": {0, "", false},
		"none, but the caller's": {0, sampled, true}, "all, but not the caller's": {1, not, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			collector := telemetrytest.New(t)
			traces, _ := sending(t, "http://"+collector.Address(), func(c *TracesConfig) { c.SampleRatio = test.ratio })
			ctx, span := traces.Tracer().Start(WithTraceParent(t.Context(), test.parent), "root", About{})
			_, below := traces.Tracer().Within(ctx, "below", About{})
			if span.Recording() != test.want || below.Recording() != test.want || (TraceParent(ctx) != "") != test.want {
				t.Errorf("recorded: %v, below %v, traceparent %q", span.Recording(), below.Recording(), TraceParent(ctx))
			}
			below.End()
			span.End()
			if err := traces.Close(); err != nil {
				t.Error(err)
			}
			if spans := collector.Spans(); test.want && named(t, spans, "root").Parent != strings.Split(test.parent+"---", "-")[2] {
				t.Errorf("parent: %+v", spans)
			} else if !test.want && len(spans) != 0 {
				t.Errorf("sent: %+v", spans)
			}
		})
	}
}

func TestTraceParent(t *testing.T) {
	t.Parallel()
	const good = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
	if got := TraceParent(WithTraceParent(t.Context(), good)); got != good {
		t.Errorf("got %q", got)
	}
	for text, want := range map[string]string{
		good: good, "": "", "nonsense": "", good[:54]: "", good + "-more": "", good[:53] + "00": "",
		"cc" + good[2:]: good, "cc" + good[2:] + "-of-a-version-to-come": good, // its first four fields are as ever
		"00-00000000000000000000000000000000-b7ad6b7169203331-01": "", strings.Repeat(good, 1000): "",
	} {
		if got := SampledTraceParent(t.Context(), text); got != want {
			t.Errorf("SampledTraceParent(%.80q) = %q, want %q", text, got, want)
		}
	}
}

// The collector takes nothing and answers nothing. No span is waited for, the queue is as long as it is said to be, and
// the end comes when it should.
func TestTracesDoNotWait(t *testing.T) {
	t.Parallel()
	collector := telemetrytest.New(t)
	collector.Answer(func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() })
	traces, metrics := sending(t, "http://"+collector.Address(), nil)
	traces.flush = 10 * time.Millisecond
	for range queueSpans + 100 {
		_, span := traces.Tracer().Start(t.Context(), "root", About{})
		span.End()
	}
	counted(t, metrics, "queue", 100)
	if err := traces.Close(); err != nil {
		t.Error(err)
	}
	counted(t, metrics, "failed", 4096)
	counted(t, metrics, "exported", 0)
	if spans := collector.Spans(); len(spans) != 0 {
		t.Errorf("sent: %d", len(spans))
	}
}

func TestCollectorsTroubleIsToldOnce(t *testing.T) {
	t.Parallel()
	collector := telemetrytest.New(t)
	collector.Answer(func(context.Context) error { return status.Error(codes.PermissionDenied, "not for you") })
	var log bytes.Buffer
	traces, metrics := sending(t, "http://"+collector.Address(), func(c *TracesConfig) {
		c.Logger = slog.New(slog.NewTextHandler(&log, nil))
	})
	for range 3 {
		_, span := traces.Tracer().Start(t.Context(), "root", About{})
		span.End()
		if err := traces.provider.ForceFlush(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if err := traces.Close(); err != nil {
		t.Error(err)
	}
	counted(t, metrics, "failed", 3)
	if text := log.String(); strings.Count(text, "\n") != 1 || !strings.Contains(text, "not for you") {
		t.Errorf("log: %s", text)
	}
}

// One certificate serves both protocols; without the file that names it nobody is sent anything.
func TestTracesOverTLS(t *testing.T) {
	t.Parallel()
	bodies := make(chan []byte, 1)
	web := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil || r.URL.Path != "/v1/traces" {
			t.Errorf("%s: %v", r.URL.Path, err)
		}
		bodies <- body
		w.Header().Set("Content-Type", "application/x-protobuf")
	}))
	defer web.Close()
	collector := telemetrytest.New(t, grpc.Creds(credentials.NewServerTLSFromCert(&web.TLS.Certificates[0])))
	ca := filepath.Join(t.TempDir(), "ca.crt")
	text := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: web.Certificate().Raw})
	if err := os.WriteFile(ca, text, 0o600); err != nil {
		t.Fatal(err)
	}
	for protocol, endpoint := range map[string]string{"http": web.URL, "grpc": "https://" + collector.Address()} {
		for file, want := range map[string]string{ca: "exported", "": "failed"} {
			traces, metrics := sending(t, endpoint, func(c *TracesConfig) { c.Protocol, c.CAFile = protocol, file })
			if file == "" {
				traces.flush = 10 * time.Millisecond
			}
			work(traces.Tracer())
			if err := traces.Close(); err != nil {
				t.Error(err)
			}
			counted(t, metrics, want, 4)
		}
	}
	var request collectorpb.ExportTraceServiceRequest
	if err := proto.Unmarshal(<-bodies, &request); err != nil || len(request.GetResourceSpans()) != 1 {
		t.Errorf("sent over HTTP: %v, %v", err, &request)
	}
	if n := len(collector.Spans()); n != 4 {
		t.Errorf("%d spans over gRPC", n)
	}
}

func TestOpenTracesRefuses(t *testing.T) {
	t.Parallel()
	empty := filepath.Join(t.TempDir(), "ca.crt")
	if err := os.WriteFile(empty, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for name, cfg := range map[string]TracesConfig{
		"protocol": {Endpoint: "http://127.0.0.1:1", Protocol: "smoke"},
		"no file":  {Endpoint: "https://127.0.0.1:1", Protocol: "grpc", CAFile: empty + "x"},
		"no roots": {Endpoint: "https://127.0.0.1:1", Protocol: "grpc", CAFile: empty},
	} {
		if _, err := OpenTraces(t.Context(), cfg, prometheus.NewRegistry()); err == nil || !strings.HasPrefix(err.Error(), "traces: ") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestLogNamesTheTrace(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	logger, err := NewLogger(&out, "info", "text")
	if err != nil {
		t.Fatal(err)
	}
	const trace, span = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
	logger = logger.With("repository", "team/app")
	logger.InfoContext(WithTraceParent(t.Context(), "00-"+trace+"-"+span+"-01"), "sampled")
	logger.InfoContext(WithTraceParent(t.Context(), "00-"+trace+"-"+span+"-00"), "not sampled")
	logger.InfoContext(t.Context(), "none")
	lines := strings.Split(out.String(), "\n")
	if !strings.HasSuffix(lines[0], "msg=sampled repository=team/app trace_id="+trace+" span_id="+span) {
		t.Errorf("sampled: %s", lines[0])
	}
	for _, line := range lines[1:] {
		if strings.Contains(line, "trace_id") {
			t.Errorf("names a trace: %s", line)
		}
	}
}
