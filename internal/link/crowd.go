package link

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"
)

// crowd bounds how many RPCs of one identity run at once, so that one peer cannot take what is there for all.
type crowd struct {
	mu      sync.Mutex
	running map[Identity]int
}

func newCrowd() *crowd { return &crowd{running: map[Identity]int{}} }

// enter counts one more of the caller's, until leave is called.
func (c *crowd) enter(ctx context.Context) (leave func(), err error) {
	id, _ := IdentityFrom(ctx)
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.running[id] >= maxRunning {
		return nil, status.Errorf(codes.ResourceExhausted, "%d RPCs of %s run already", maxRunning, id)
	}
	c.running[id]++
	return func() { c.leave(id) }, nil
}

func (c *crowd) leave(id Identity) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.running[id]--; c.running[id] == 0 {
		delete(c.running, id)
	}
}

func (c *crowd) unary(
	ctx context.Context, request any, _ *grpc.UnaryServerInfo, handler grpc.UnaryHandler,
) (any, error) {
	leave, err := c.enter(ctx)
	if err != nil {
		return nil, err
	}
	defer leave()
	return handler(ctx, request)
}

func (c *crowd) stream(
	server any, stream grpc.ServerStream, _ *grpc.StreamServerInfo, handler grpc.StreamHandler,
) error {
	leave, err := c.enter(stream.Context())
	if err != nil {
		return err
	}
	defer leave()
	return handler(server, stream)
}

// stall closes the connection of a peer that takes no message of a stream for too long. Flow control keeps what waits for
// it small, but only the end of its connection sets the handler free: keepalive is answered by a program that has stopped
// reading its streams, too.
type stall struct {
	timeout time.Duration
	logger  *slog.Logger
}

func (s stall) stream(
	server any, stream grpc.ServerStream, info *grpc.StreamServerInfo, handler grpc.StreamHandler,
) error {
	return handler(server, &watchedStream{ServerStream: stream, stall: s, method: info.FullMethod})
}

// watchedStream is a stream whose sending is bounded.
type watchedStream struct {
	grpc.ServerStream
	stall

	method string
}

// SendMsg implements grpc.ServerStream.
func (s *watchedStream) SendMsg(message any) error {
	timer := time.AfterFunc(s.timeout, s.hangUp)
	defer timer.Stop()
	return s.ServerStream.SendMsg(message)
}

func (s *watchedStream) hangUp() {
	ctx := s.Context()
	from, ok := peer.FromContext(ctx)
	if !ok {
		return
	}
	info, ok := from.AuthInfo.(authInfo)
	if !ok || info.hangUp == nil {
		return
	}
	s.logger.WarnContext(ctx, "a peer reads its stream no more; closing its connection",
		"peer", info.identity.String(), "remote", from.Addr.String(), "method", s.method, "timeout", s.timeout)
	if err := info.hangUp(); err != nil {
		s.logger.DebugContext(ctx, "closing a connection", "error", err)
	}
}
