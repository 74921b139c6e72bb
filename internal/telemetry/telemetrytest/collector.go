// Package telemetrytest is a collector of traces for tests: a real OTLP/gRPC server, on loopback.
package telemetrytest

import (
	"context"
	"encoding/hex"
	"fmt"
	"net"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	collectorpb "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	commonpb "go.opentelemetry.io/proto/otlp/common/v1"
	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/grpc"
)

// Span is one that was collected.
type Span struct {
	Name, Trace, ID, Parent string // ids in hex; a root has no parent
	Kind                    string // such as SERVER
	Error                   string // what the status says; empty when the span did not fail
	Attributes              map[string]string
	Resource                map[string]string // whose span it is
	Links                   []string          // ids of spans
	Start, End              time.Time
}

// Collector keeps what it is sent. It is safe for concurrent use.
type Collector struct {
	collectorpb.UnimplementedTraceServiceServer
	listener *countingListener

	mu     sync.Mutex
	spans  []Span
	answer func(context.Context) error
}

// New starts a collector for the length of the test.
func New(t testing.TB, opts ...grpc.ServerOption) *Collector {
	t.Helper()
	listener, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	c := &Collector{listener: &countingListener{Listener: listener}}
	server := grpc.NewServer(opts...)
	collectorpb.RegisterTraceServiceServer(server, c)
	served := make(chan error, 1)
	go func() { served <- server.Serve(c.listener) }()
	t.Cleanup(func() {
		server.Stop()
		if err := <-served; err != nil {
			t.Errorf("the collector: %v", err)
		}
	})
	return c
}

// Address is host:port.
func (c *Collector) Address() string { return c.listener.Addr().String() }

// Connections is how many were made so far.
func (c *Collector) Connections() int { return c.listener.count() }

// Answer has what is sent from now on answered by fn instead of being kept; nil keeps it again.
func (c *Collector) Answer(fn func(context.Context) error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.answer = fn
}

// Export implements the service.
func (c *Collector) Export(
	ctx context.Context, req *collectorpb.ExportTraceServiceRequest,
) (*collectorpb.ExportTraceServiceResponse, error) {
	c.mu.Lock()
	answer := c.answer
	c.mu.Unlock()
	if answer != nil {
		if err := answer(ctx); err != nil {
			return nil, err
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, resource := range req.GetResourceSpans() {
		of := texts(resource.GetResource().GetAttributes())
		for _, scope := range resource.GetScopeSpans() {
			for _, span := range scope.GetSpans() {
				c.spans = append(c.spans, spanOf(span, of))
			}
		}
	}
	return &collectorpb.ExportTraceServiceResponse{}, nil
}

func spanOf(span *tracepb.Span, resource map[string]string) Span {
	s := Span{
		Name: span.GetName(), Trace: hex.EncodeToString(span.GetTraceId()), ID: hex.EncodeToString(span.GetSpanId()),
		Parent: hex.EncodeToString(span.GetParentSpanId()), Kind: strings.TrimPrefix(span.GetKind().String(), "SPAN_KIND_"),
		Attributes: texts(span.GetAttributes()), Resource: resource,
		Start: unixNano(span.GetStartTimeUnixNano()), End: unixNano(span.GetEndTimeUnixNano()),
	}
	if span.GetStatus().GetCode() == tracepb.Status_STATUS_CODE_ERROR {
		s.Error = span.GetStatus().GetMessage()
	}
	for _, link := range span.GetLinks() {
		s.Links = append(s.Links, hex.EncodeToString(link.GetSpanId()))
	}
	return s
}

func unixNano(n uint64) time.Time { return time.Unix(0, int64(n)) } //nolint:gosec // G115: until the year 2262

func texts(attributes []*commonpb.KeyValue) map[string]string {
	all := make(map[string]string, len(attributes))
	for _, attribute := range attributes {
		switch value := attribute.GetValue().GetValue().(type) {
		case *commonpb.AnyValue_StringValue:
			all[attribute.GetKey()] = value.StringValue
		case *commonpb.AnyValue_IntValue:
			all[attribute.GetKey()] = strconv.FormatInt(value.IntValue, 10)
		default:
			all[attribute.GetKey()] = fmt.Sprint(value)
		}
	}
	return all
}

// Spans returns what came so far.
func (c *Collector) Spans() []Span {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.spans)
}

// Text is all that was said in spans.
func (c *Collector) Text() string {
	var all strings.Builder
	for _, span := range c.Spans() {
		fmt.Fprintf(&all, "%+v\n", span)
	}
	return all.String()
}

// countingListener counts connections.
type countingListener struct {
	net.Listener
	mu    sync.Mutex
	conns int
}

// Accept implements net.Listener.
func (l *countingListener) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	if err == nil {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.conns++
	}
	return conn, err
}

func (l *countingListener) count() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.conns
}
