package link_test

import (
	"context"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"

	antipodev1 "github.com/antipode-registry/antipode/gen/antipode/v1"
	"github.com/antipode-registry/antipode/internal/link"
)

// watching starts a stream whose handler is known to run.
func watching(
	t *testing.T, conn *grpc.ClientConn, entered <-chan struct{},
) grpc.ServerStreamingClient[antipodev1.WatchNodesResponse] {
	t.Helper()
	ctx := deadline(t)
	stream, err := antipodev1.NewNodeServiceClient(conn).WatchNodes(ctx, &antipodev1.WatchNodesRequest{})
	if err != nil {
		t.Fatal(err)
	}
	select {
	case <-entered:
	case <-ctx.Done():
		t.Fatal("the handler was never called")
	}
	return stream
}

func TestStopTellsTheStreams(t *testing.T) {
	t.Parallel()
	var f *fixture
	entered := make(chan struct{})
	f = serve(t, func(cfg *link.ServerConfig, s *service) {
		cfg.StopTimeout = time.Hour // a stop that waits for it would fail the test
		s.watch = func(grpc.ServerStreamingServer[antipodev1.WatchNodesResponse]) error {
			close(entered)
			<-f.server.Stopping()
			return status.Error(codes.Unavailable, "stopping")
		}
	})
	stream := watching(t, f.dial(t, f.node(t, "eu-west")), entered)
	if err := f.stop(); err != nil {
		t.Error(err)
	}
	if _, err := stream.Recv(); status.Code(err) != codes.Unavailable {
		t.Errorf("got %v", err)
	}
}

func TestStopCutsOffAnIdleStream(t *testing.T) {
	t.Parallel()
	entered, left := make(chan struct{}), make(chan struct{})
	f := serve(t, func(cfg *link.ServerConfig, s *service) {
		cfg.StopTimeout = 20 * time.Millisecond
		s.watch = func(stream grpc.ServerStreamingServer[antipodev1.WatchNodesResponse]) error {
			defer close(left)
			close(entered)
			<-stream.Context().Done()
			return stream.Context().Err()
		}
	})
	stream := watching(t, f.dial(t, f.node(t, "eu-west")), entered)
	if err := f.stop(); err != nil {
		t.Error(err)
	}
	select {
	case <-left:
	default:
		t.Error("the stop did not wait for a handler that was about to return")
	}
	if _, err := stream.Recv(); status.Code(err) != codes.Unavailable {
		t.Errorf("got %v", err)
	}
	f.log.wait(t, "RPCs did not end in time")
}

func TestStopIsBoundedByNoHandler(t *testing.T) {
	t.Parallel()
	entered, release := make(chan struct{}), make(chan struct{})
	f := serve(t, func(cfg *link.ServerConfig, s *service) {
		cfg.StopTimeout = 20 * time.Millisecond
		s.watch = func(grpc.ServerStreamingServer[antipodev1.WatchNodesResponse]) error {
			close(entered)
			<-release // deaf to everything
			return nil
		}
	})
	watching(t, f.dial(t, f.node(t, "eu-west")), entered)
	if err := f.stop(); err != nil {
		t.Error(err)
	}
	f.log.wait(t, "handlers still run")
	close(release)
}

func TestStopLetsACallFinish(t *testing.T) {
	t.Parallel()
	var f *fixture
	entered := make(chan struct{})
	f = serve(t, func(cfg *link.ServerConfig, s *service) {
		cfg.StopTimeout = time.Hour
		s.get = func(context.Context) error {
			close(entered)
			<-f.server.Stopping()
			return nil
		}
	})
	conn := f.dial(t, f.node(t, "eu-west"))
	result := make(chan error, 1)
	ctx := deadline(t)
	go func() {
		_, err := whoami(ctx, conn)
		result <- err
	}()
	<-entered
	if err := f.stop(); err != nil {
		t.Error(err)
	}
	if err := <-result; err != nil {
		t.Errorf("the running call: %v", err)
	}
	if _, err := whoami(deadline(t), conn); status.Code(err) != codes.Unavailable {
		t.Errorf("a call after the stop: %v", err)
	}
}

func TestStopTellsHealth(t *testing.T) {
	t.Parallel()
	f := serve(t, func(cfg *link.ServerConfig, _ *service) { cfg.StopTimeout = 100 * time.Millisecond })
	conn := f.dial(t, f.node(t, "eu-west"))
	watch, err := healthpb.NewHealthClient(conn).Watch(deadline(t), &healthpb.HealthCheckRequest{})
	if err != nil {
		t.Fatal(err)
	}
	want := []healthpb.HealthCheckResponse_ServingStatus{
		healthpb.HealthCheckResponse_SERVING, healthpb.HealthCheckResponse_NOT_SERVING,
	}
	for i, state := range want {
		answer, err := watch.Recv()
		if err != nil || answer.GetStatus() != state {
			t.Fatalf("answer %d: %v, %v", i, answer, err)
		}
		if i == 0 {
			go func() { _ = f.stop() }() // its error is seen by the cleanup
		}
	}
	if err := f.stop(); err != nil {
		t.Error(err)
	}
}

func TestRunAfterItsContextEnded(t *testing.T) {
	t.Parallel()
	ca := newAuthority(t)
	pair := newFiles(t, ca, ca, primaryLeaf())
	server, err := link.Listen(link.ServerConfig{
		Listen: "127.0.0.1:0", CertFile: pair.cert, KeyFile: pair.key, ClientCAFile: pair.ca,
		Authorize: func(context.Context, string, link.Identity) error { return nil },
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := server.Run(ctx); err != nil {
		t.Error(err)
	}
	if err := server.Run(t.Context()); err == nil {
		t.Error("a second Run was taken")
	}
}
