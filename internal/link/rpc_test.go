package link_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	reflectionpb "google.golang.org/grpc/reflection/grpc_reflection_v1"
	"google.golang.org/grpc/status"

	antipodev1 "github.com/antipode-registry/antipode/gen/antipode/v1"
	"github.com/antipode-registry/antipode/internal/authority"
	"github.com/antipode-registry/antipode/internal/link"
)

var (
	errDomain = errors.New("row 7 of table secret is missing")
	errDenied = errors.New("no grant in the config")
)

// mapDomain is a map such as a daemon has.
func mapDomain(err error) error {
	switch {
	case errors.Is(err, errDomain):
		return status.Error(codes.NotFound, "no such node")
	case errors.Is(err, errDenied):
		return status.Error(codes.PermissionDenied, "not for you")
	default:
		return err
	}
}

// watchError runs the stream to its end.
func watchError(ctx context.Context, conn *grpc.ClientConn) error {
	stream, err := antipodev1.NewNodeServiceClient(conn).WatchNodes(ctx, &antipodev1.WatchNodesRequest{})
	if err != nil {
		return err
	}
	_, err = stream.Recv()
	return err
}

func TestErrorsBecomeCodes(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		err  error
		want *status.Status
	}{
		"domain":           {fmt.Errorf("get: %w", errDomain), status.New(codes.NotFound, "no such node")},
		"unknown":          {errors.New("dial 10.0.0.1: secret"), status.New(codes.Internal, "internal error")},
		"a status":         {status.Error(codes.OutOfRange, "start over"), status.New(codes.OutOfRange, "start over")},
		"own cancellation": {fmt.Errorf("sweep: %w", context.Canceled), status.FromContextError(context.Canceled)},
		"own deadline": {
			fmt.Errorf("query: %w", context.DeadlineExceeded), status.FromContextError(context.DeadlineExceeded),
		},
		"a status inside": {
			fmt.Errorf("upstream: %w", status.Error(codes.DataLoss, "secret")), status.New(codes.Internal, "internal error"),
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			metrics := prometheus.NewRegistry()
			f := serve(t, func(cfg *link.ServerConfig, s *service) {
				cfg.MapError, cfg.Metrics = mapDomain, link.NewMetrics(metrics)
				s.get = func(context.Context) error { return test.err }
				s.watch = func(grpc.ServerStreamingServer[antipodev1.WatchNodesResponse]) error { return test.err }
			})
			conn := f.dial(t, f.node(t, "eu-west"))
			_, unary := whoami(deadline(t), conn)
			for kind, err := range map[string]error{"unary": unary, "stream": watchError(deadline(t), conn)} {
				got := status.Convert(err)
				if got.Code() != test.want.Code() || got.Message() != test.want.Message() {
					t.Errorf("%s: %v", kind, err)
				}
			}
			// The log and the metrics see the code that the caller got; the log also what led to it.
			f.log.wait(t, "node=eu-west", "grpc.code="+test.want.Code().String(), test.err.Error())
			if n := handled(t, metrics, test.want.Code()); n != 2 {
				t.Errorf("%d of 2 RPCs counted under %s", n, test.want.Code())
			}
		})
	}
}

// handled returns how many RPCs of the NodeService ended with code.
func handled(t *testing.T, metrics prometheus.Gatherer, code codes.Code) int {
	t.Helper()
	families, err := metrics.Gather()
	if err != nil {
		t.Fatal(err)
	}
	sum := 0.0
	for _, family := range families {
		if family.GetName() != "antipode_grpc_server_handled_total" {
			continue
		}
		for _, metric := range family.GetMetric() {
			for _, label := range metric.GetLabel() {
				if label.GetName() == "grpc_code" && label.GetValue() == code.String() {
					sum += metric.GetCounter().GetValue()
				}
			}
		}
	}
	return int(sum)
}

// The caller's own end comes before the map: the domain error is only its echo.
func TestCallersEndIsNotMapped(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	f := serve(t, func(cfg *link.ServerConfig, s *service) {
		cfg.MapError = func(error) error { return status.Error(codes.DataLoss, "wrong") }
		s.get = func(ctx context.Context) error {
			cancel()
			<-ctx.Done()
			return fmt.Errorf("waiting: %w", ctx.Err())
		}
	})
	if _, err := whoami(ctx, f.dial(t, f.node(t, "eu-west"))); status.Code(err) != codes.Canceled {
		t.Errorf("got %v", err)
	}
	f.log.wait(t, "grpc.code=Canceled", "waiting: context canceled")
}

func TestPanicDoesNotLeak(t *testing.T) {
	t.Parallel()
	metrics := prometheus.NewRegistry()
	f := serve(t, func(cfg *link.ServerConfig, s *service) {
		cfg.Metrics = link.NewMetrics(metrics)
		s.get = func(context.Context) error { panic("secret in a unary call") }
		s.watch = func(grpc.ServerStreamingServer[antipodev1.WatchNodesResponse]) error {
			panic(errors.New("secret in a stream"))
		}
	})
	conn := f.dial(t, f.node(t, "eu-west"))
	_, unary := whoami(deadline(t), conn)
	for _, err := range []error{unary, watchError(deadline(t), conn)} {
		got := status.Convert(err)
		if got.Code() != codes.Internal || got.Message() != "internal error" || len(got.Details()) > 0 {
			t.Errorf("got %v", err)
		}
	}
	f.log.wait(t, "secret in a unary call", "secret in a stream", "rpc_test.go", "level=ERROR", "grpc.code=Internal")
	const want = "# HELP antipode_link_panics_total Panics recovered in RPC handlers. Each is a bug.\n" +
		"# TYPE antipode_link_panics_total counter\nantipode_link_panics_total 2\n"
	if err := testutil.GatherAndCompare(metrics, strings.NewReader(want), "antipode_link_panics_total"); err != nil {
		t.Error(err)
	}
}

func TestAuthorizationComesBeforeEveryCall(t *testing.T) {
	t.Parallel()
	var mu sync.Mutex
	var asked []string
	f := serve(t, func(cfg *link.ServerConfig, s *service) {
		cfg.MapError = mapDomain
		cfg.Authorize = func(_ context.Context, method string, id link.Identity) error {
			mu.Lock()
			defer mu.Unlock()
			asked = append(asked, method+" "+id.String())
			if id.Name == "guest" {
				panic("secret policy")
			}
			return fmt.Errorf("node %s: %w", id.Name, errDenied)
		}
		s.watch = func(grpc.ServerStreamingServer[antipodev1.WatchNodesResponse]) error { return nil }
	})
	conn := f.dial(t, f.node(t, "eu-west"))
	_, unary := whoami(deadline(t), conn)
	for _, err := range []error{unary, watchError(deadline(t), conn)} {
		if got := status.Convert(err); got.Code() != codes.PermissionDenied || got.Message() != "not for you" {
			t.Errorf("got %v", err)
		}
	}
	f.log.wait(t, "level=WARN", "grpc.code=PermissionDenied", "no grant in the config")
	if _, err := whoami(deadline(t), f.dial(t, f.node(t, "guest"))); status.Code(err) != codes.Internal {
		t.Errorf("a panic in the authorization: %v", err)
	}
	if calls := f.service.calls.Load(); calls != 0 {
		t.Errorf("%d calls reached the handler", calls)
	}
	mu.Lock()
	defer mu.Unlock()
	want := []string{
		"/antipode.v1.NodeService/GetNode node/eu-west", "/antipode.v1.NodeService/WatchNodes node/eu-west",
		"/antipode.v1.NodeService/GetNode node/guest",
	}
	if diff := cmp.Diff(want, asked); diff != "" {
		t.Error(diff)
	}
}

// A verified certificate without a name may ask for health and reflection, as a monitor does, and for nothing else.
func TestHealthAndReflectionNeedOnlyACertificate(t *testing.T) {
	t.Parallel()
	f := serve(t, func(cfg *link.ServerConfig, _ *service) {
		cfg.Authorize = func(context.Context, string, link.Identity) error {
			return status.Error(codes.PermissionDenied, "no")
		}
	})
	ctx := deadline(t)
	conn := f.dial(t, newFiles(t, f.ca, f.ca, authority.Leaf{Name: "monitor"}))
	health := healthpb.NewHealthClient(conn)
	answer, err := health.Check(ctx, &healthpb.HealthCheckRequest{})
	if err != nil || answer.GetStatus() != healthpb.HealthCheckResponse_SERVING {
		t.Errorf("health: %v, %v", answer, err)
	}
	f.server.SetServing(false)
	answer, err = health.Check(ctx, &healthpb.HealthCheckRequest{})
	if err != nil || answer.GetStatus() != healthpb.HealthCheckResponse_NOT_SERVING {
		t.Errorf("health after SetServing(false): %v, %v", answer, err)
	}
	if names := reflected(ctx, t, conn); !slices.Contains(names, "antipode.v1.NodeService") {
		t.Errorf("reflection: %v", names)
	}
	if _, err := whoami(ctx, conn); status.Code(err) != codes.PermissionDenied {
		t.Errorf("a domain call: %v", err)
	}
}

func reflected(ctx context.Context, t *testing.T, conn *grpc.ClientConn) (names []string) {
	t.Helper()
	stream, err := reflectionpb.NewServerReflectionClient(conn).ServerReflectionInfo(ctx)
	if err != nil {
		t.Fatal(err)
	}
	ask := &reflectionpb.ServerReflectionRequest{
		MessageRequest: &reflectionpb.ServerReflectionRequest_ListServices{},
	}
	if err := stream.Send(ask); err != nil {
		t.Fatal(err)
	}
	answer, err := stream.Recv()
	if err != nil {
		t.Fatal(err)
	}
	for _, service := range answer.GetListServicesResponse().GetService() {
		names = append(names, service.GetName())
	}
	if err := stream.CloseSend(); err != nil {
		t.Error(err)
	}
	return names
}

func TestMessagesAreBounded(t *testing.T) {
	t.Parallel()
	f := serve(t, func(_ *link.ServerConfig, s *service) {
		s.watch = func(stream grpc.ServerStreamingServer[antipodev1.WatchNodesResponse]) error {
			return stream.Send(&antipodev1.WatchNodesResponse{Node: &antipodev1.Node{Name: strings.Repeat("x", 5<<20)}})
		}
	})
	conn := f.dial(t, f.node(t, "eu-west"))
	if err := watchError(deadline(t), conn); status.Code(err) != codes.ResourceExhausted {
		t.Errorf("an answer of 5 MiB: %v", err)
	}
	large := &antipodev1.GetNodeRequest{Name: strings.Repeat("x", 2<<20)}
	_, err := antipodev1.NewNodeServiceClient(conn).GetNode(deadline(t), large, grpc.MaxCallSendMsgSize(8<<20))
	if status.Code(err) != codes.ResourceExhausted {
		t.Errorf("a request of 2 MiB: %v", err)
	}
	if calls := f.service.calls.Load(); calls != 1 {
		t.Errorf("%d calls reached a handler; the large request should not", calls)
	}
}

func TestMetricsAreWellFormed(t *testing.T) {
	t.Parallel()
	metrics := prometheus.NewRegistry()
	f := serve(t, func(cfg *link.ServerConfig, _ *service) { cfg.Metrics = link.NewMetrics(metrics) })
	if _, err := whoami(deadline(t), f.dial(t, f.node(t, "eu-west"))); err != nil {
		t.Fatal(err)
	}
	problems, err := testutil.GatherAndLint(metrics)
	if err != nil || len(problems) > 0 {
		t.Errorf("%v, %v", problems, err)
	}
	n, err := testutil.GatherAndCount(metrics, "antipode_link_certificate_expiry_timestamp_seconds")
	if n != 1 || err != nil {
		t.Errorf("expiry: %d, %v", n, err)
	}
}
