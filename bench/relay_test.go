package bench

import (
	"context"
	"errors"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/time/rate"
)

// relay stands for a long line: what either side sends arrives half a round trip later, a new connection is good for
// use one round trip after it was made, and all connections share one bandwidth in each direction. It counts bytes.
type relay struct {
	listener net.Listener
	target   string
	rtt      time.Duration
	up, down *rate.Limiter // nil = no cap
	passed   atomic.Int64
	ctx      context.Context //nolint:containedctx // its connections end with it
}

const (
	relayChunk  = 32 << 10
	relayWindow = 512 // chunks under way on one connection, each way
)

// newRelay listens on loopback and passes on to target until the test ends. bandwidth is in bytes a second; 0 = no cap.
func newRelay(t testing.TB, target string, rtt time.Duration, bandwidth int) *relay {
	t.Helper()
	listener, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	r := &relay{listener: listener, target: target, rtt: rtt, ctx: ctx}
	if bandwidth > 0 {
		r.up = rate.NewLimiter(rate.Limit(bandwidth), relayChunk)
		r.down = rate.NewLimiter(rate.Limit(bandwidth), relayChunk)
	}
	var serving sync.WaitGroup
	serving.Go(func() { r.accept(&serving) })
	t.Cleanup(func() {
		cancel()
		_ = listener.Close()
		serving.Wait()
	})
	return r
}

func (r *relay) address() string { return r.listener.Addr().String() }

func (r *relay) accept(serving *sync.WaitGroup) {
	for {
		conn, err := r.listener.Accept()
		if err != nil {
			return // closed
		}
		serving.Go(func() { r.serve(conn) })
	}
}

// serve passes on in both directions until both have ended, or the relay has.
func (r *relay) serve(client net.Conn) {
	defer client.Close()
	server, err := (&net.Dialer{}).DialContext(r.ctx, "tcp", r.target)
	if err != nil {
		return // the client sees its connection end, as it would at a port where nobody listens
	}
	defer server.Close()
	stop := context.AfterFunc(r.ctx, func() {
		_ = client.Close()
		_ = server.Close()
	})
	defer stop()
	opened := time.Now().Add(r.rtt)
	var ways sync.WaitGroup
	ways.Go(func() { r.pass(server, client, opened, r.up) })
	ways.Go(func() { r.pass(client, server, opened, r.down) })
	ways.Wait()
}

// parcel is bytes on their way; none ends the stream.
type parcel struct {
	bytes []byte
	due   time.Time
}

func (r *relay) pass(to, from net.Conn, opened time.Time, limit *rate.Limiter) {
	line := make(chan parcel, relayWindow)
	var sending sync.WaitGroup
	sending.Go(func() { r.deliver(to, line, limit) })
	defer sending.Wait()
	defer close(line)
	for {
		buffer := make([]byte, relayChunk)
		n, err := from.Read(buffer)
		r.passed.Add(int64(n))
		sent := time.Now()
		if sent.Before(opened) {
			sent = opened
		}
		select {
		case line <- parcel{bytes: buffer[:n], due: sent.Add(r.rtt / 2)}:
		case <-r.ctx.Done():
			return
		}
		if err != nil {
			if !errors.Is(err, io.EOF) {
				_ = to.Close()
			}
			return
		}
	}
}

func (r *relay) deliver(to net.Conn, line <-chan parcel, limit *rate.Limiter) {
	for p := range line {
		if !r.await(p.due) {
			continue
		}
		if limit != nil && limit.WaitN(r.ctx, len(p.bytes)) != nil {
			continue
		}
		if _, err := to.Write(p.bytes); err != nil {
			_ = to.Close() // the reader of the other way sees it; what is left is dropped
		}
	}
	if half, ok := to.(*net.TCPConn); ok {
		_ = half.CloseWrite()
	}
}

// await waits for a time, and says whether the relay still lives then.
func (r *relay) await(due time.Time) bool {
	left := time.Until(due)
	if left <= 0 {
		return r.ctx.Err() == nil
	}
	timer := time.NewTimer(left)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-r.ctx.Done():
		return false
	}
}

func TestRelayDelaysAndCounts(t *testing.T) {
	t.Parallel()
	listener, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	go func() {
		conn, err := listener.Accept()
		if err != nil {
			return
		}
		defer conn.Close()
		_, _ = io.Copy(conn, conn)
	}()
	const rtt = 40 * time.Millisecond
	r := newRelay(t, listener.Addr().String(), rtt, 1<<20)
	began := time.Now()
	conn, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", r.address())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	for round := range 3 {
		if _, err := conn.Write([]byte("ping")); err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(conn, make([]byte, 4)); err != nil {
			t.Fatal(err)
		}
		// One round trip for the connection itself, and one for each exchange.
		if least := time.Duration(round+2) * rtt; time.Since(began) < least {
			t.Errorf("exchange %d came back after %s, before %s", round, time.Since(began), least)
		}
	}
	if n := r.passed.Load(); n != 24 {
		t.Errorf("%d bytes counted", n)
	}
}
