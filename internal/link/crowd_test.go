package link_test

import (
	"errors"
	"io"
	"net"
	"os"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	antipodev1 "github.com/antipode-registry/antipode/gen/antipode/v1"
	"github.com/antipode-registry/antipode/internal/link"
)

// heap is what is in use once everything that is not was collected.
func heap() int64 {
	runtime.GC()
	runtime.GC() // what finalizers set free
	var stats runtime.MemStats
	runtime.ReadMemStats(&stats)
	return int64(stats.HeapAlloc + stats.StackInuse)
}

// open says whether the other side has not hung up yet.
func open(t *testing.T, conn net.Conn) bool {
	t.Helper()
	if err := conn.SetReadDeadline(time.Now().Add(time.Millisecond)); err != nil {
		t.Fatal(err)
	}
	_, err := conn.Read(make([]byte, 1))
	return errors.Is(err, os.ErrDeadlineExceeded)
}

// TestAThousandIdleConnections: whoever connects and says nothing keeps nobody out, and costs little.
func TestAThousandIdleConnections(t *testing.T) { // not parallel: it measures the heap
	f := serve(t, func(cfg *link.ServerConfig, _ *service) { cfg.MaxConnections = 1024 })
	before := heap()
	const idle = 1100
	var conns []net.Conn
	for range idle {
		conn, err := (&net.Dialer{}).DialContext(deadline(t), "tcp", f.server.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = conn.Close() })
		conns = append(conns, conn)
	}
	if got, err := whoami(deadline(t), f.dial(t, f.node(t, "eu-west"))); err != nil || got != "node/eu-west" {
		t.Errorf("a site: %q, %v", got, err)
	}
	if grown := heap() - before; grown > 64<<20 {
		t.Errorf("%d connections hold %d MiB", idle, grown>>20)
	}
	if open(t, conns[0]) {
		t.Error("the first one is open still")
	}
	f.log.wait(t, "too many connections", "most=1024")
}

// A name has so many connections; the next is refused, and others are not.
func TestConnectionsOfOneName(t *testing.T) {
	t.Parallel()
	f := serve(t)
	site := f.node(t, "eu-west")
	for range 32 {
		if _, err := whoami(deadline(t), f.dial(t, site)); err != nil {
			t.Fatal(err)
		}
	}
	_, err := whoami(deadline(t), f.dial(t, site))
	if status.Code(err) != codes.Unavailable || strings.Contains(err.Error(), "already") {
		t.Errorf("one more: %v", err)
	}
	f.log.wait(t, "node/eu-west has 32 connections already")
	if got, err := whoami(deadline(t), f.dial(t, f.node(t, "asia"))); err != nil || got != "node/asia" {
		t.Errorf("another site: %q, %v", got, err)
	}
}

// A name has so many RPCs running; the next is refused, and others are not.
func TestRunningRPCsOfOneName(t *testing.T) {
	t.Parallel()
	f := serve(t, func(_ *link.ServerConfig, s *service) {
		s.watch = func(stream grpc.ServerStreamingServer[antipodev1.WatchNodesResponse]) error {
			if err := stream.Send(&antipodev1.WatchNodesResponse{}); err != nil {
				return err
			}
			<-stream.Context().Done()
			return stream.Context().Err()
		}
	})
	site, ctx := f.node(t, "eu-west"), deadline(t)
	var last antipodev1.NodeServiceClient
	for i := range 256 {
		if i%100 == 0 {
			last = antipodev1.NewNodeServiceClient(f.dial(t, site))
		}
		stream, err := last.WatchNodes(ctx, &antipodev1.WatchNodesRequest{})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := stream.Recv(); err != nil {
			t.Fatal(err)
		}
	}
	_, err := last.GetNode(ctx, &antipodev1.GetNodeRequest{})
	if status.Code(err) != codes.ResourceExhausted {
		t.Errorf("one more: %v", err)
	}
	if got, err := whoami(ctx, f.dial(t, f.node(t, "asia"))); err != nil || got != "node/asia" {
		t.Errorf("another site: %q, %v", got, err)
	}
}

// A peer that opens a stream and reads nothing of it costs one handler that waits, until its connection is closed.
func TestAPeerThatReadsNothing(t *testing.T) {
	t.Parallel()
	var sent atomic.Int64
	ended := make(chan error, 1)
	f := serve(t, func(cfg *link.ServerConfig, s *service) {
		cfg.StallTimeout = 200 * time.Millisecond
		s.watch = func(stream grpc.ServerStreamingServer[antipodev1.WatchNodesResponse]) error {
			message := &antipodev1.WatchNodesResponse{Node: &antipodev1.Node{Name: strings.Repeat("x", 1000)}}
			for {
				if err := stream.Send(message); err != nil {
					ended <- err
					return err
				}
				sent.Add(1)
			}
		}
	})
	ctx := deadline(t)
	stream, err := antipodev1.NewNodeServiceClient(f.dial(t, f.node(t, "eu-west"))).WatchNodes(ctx, &antipodev1.WatchNodesRequest{})
	if err != nil {
		t.Fatal(err)
	}
	if got, err := whoami(ctx, f.dial(t, f.node(t, "asia"))); err != nil || got != "node/asia" {
		t.Errorf("another site: %q, %v", got, err)
	}
	select {
	case err := <-ended:
		if err == nil {
			t.Error("it ended by itself")
		}
	case <-ctx.Done():
		t.Fatal("the handler is not set free")
	}
	if sent.Load() > 10_000 {
		t.Errorf("%d messages were taken from the handler, and by nobody", sent.Load())
	}
	f.log.wait(t, "a peer reads its stream no more", "peer=node/eu-west", "method=/antipode.v1.NodeService/WatchNodes")
	for err == nil { // what had arrived
		_, err = stream.Recv()
	}
	if errors.Is(err, io.EOF) || status.Code(err) != codes.Unavailable {
		t.Errorf("the peer reads %v", err)
	}
}
