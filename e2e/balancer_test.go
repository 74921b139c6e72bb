package e2e

import (
	"context"
	"io"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// How the balancer finds out about a replica. A busy machine may answer one check late; not three in a row.
const (
	checkEvery   = 200 * time.Millisecond
	checkTimeout = time.Second
	checkFails   = 3
)

// balancer passes TCP connections on to the ready ones of several replicas, in turn, and cuts the connections of one that
// is ready no more, as the load balancers in deploy/ do. While none is ready it passes them to any, whose own answer is
// better than none.
type balancer struct {
	listener net.Listener
	backends []*backend
	turn     atomic.Uint32
	running  sync.WaitGroup
	stop     context.CancelFunc
}

// backend is one replica behind a balancer.
type backend struct {
	address, probe string // where it serves, and the URL that says whether it is ready

	mu          sync.Mutex
	ready       bool
	connections map[net.Conn]bool
}

// newBalancer starts one on the address, for the length of the test.
func newBalancer(t testing.TB, address string, backends ...*backend) *balancer {
	t.Helper()
	listener, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", address)
	if err != nil {
		t.Fatalf("balancer: %v", err)
	}
	ctx, stop := context.WithCancel(context.WithoutCancel(t.Context()))
	b := &balancer{listener: listener, backends: backends, stop: stop}
	for _, to := range backends {
		b.running.Go(func() { to.watch(ctx) })
	}
	b.running.Go(b.accept)
	t.Cleanup(func() {
		stop()
		_ = listener.Close()
		for _, to := range backends {
			to.cut()
		}
		b.running.Wait()
	})
	return b
}

// Address is host:port.
func (b *balancer) Address() string { return b.listener.Addr().String() }

func (b *balancer) accept() {
	for {
		conn, err := b.listener.Accept()
		if err != nil {
			return
		}
		b.running.Go(func() { b.pass(conn) })
	}
}

// pass joins a client to the first replica that takes the connection, the ready ones first.
func (b *balancer) pass(client net.Conn) {
	defer client.Close()
	turn, count := int(b.turn.Add(1)), len(b.backends)
	for _, ready := range []bool{true, false} {
		for i := range count {
			to := b.backends[(turn+i)%count]
			if to.isReady() != ready {
				continue
			}
			server, err := net.DialTimeout("tcp", to.address, checkTimeout) //nolint:noctx // bounded
			if err != nil {
				continue
			}
			to.join(client, server)
			return
		}
	}
}

// join copies both ways until one side ends; what the other has sent by then still arrives.
func (b *backend) join(client, server net.Conn) {
	b.keep(server, true)
	defer b.keep(server, false)
	defer server.Close()
	var both sync.WaitGroup
	for _, way := range [][2]net.Conn{{client, server}, {server, client}} {
		both.Go(func() {
			_, _ = io.Copy(way[1], way[0])
			_ = way[1].(*net.TCPConn).CloseWrite() //nolint:forcetypeassert // both are
			if way[0] == server {
				_ = client.Close()
			}
		})
	}
	both.Wait()
}

func (b *backend) keep(conn net.Conn, open bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.connections == nil {
		b.connections = map[net.Conn]bool{}
	}
	if open {
		b.connections[conn] = true
	} else {
		delete(b.connections, conn)
	}
}

func (b *backend) isReady() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.ready
}

// watch asks the replica again and again. A refused connection is a clear answer, silence is not.
func (b *backend) watch(ctx context.Context) {
	for fails := 0; ctx.Err() == nil; {
		switch status, err := b.check(ctx); {
		case err == nil && status == http.StatusOK:
			fails = 0
			b.set(true)
		case err == nil:
			b.set(false)
		default:
			if fails++; fails >= checkFails {
				b.set(false)
				b.cut()
			}
		}
		select {
		case <-ctx.Done():
		case <-time.After(checkEvery):
		}
	}
}

func (b *backend) check(ctx context.Context) (status int, err error) {
	ctx, cancel := context.WithTimeout(ctx, checkTimeout)
	defer cancel()
	status, _, err = httpGet(ctx, b.probe)
	return status, err
}

func (b *backend) set(ready bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.ready = ready
}

// cut breaks every connection to the replica.
func (b *backend) cut() {
	b.mu.Lock()
	defer b.mu.Unlock()
	for conn := range b.connections {
		_ = conn.Close()
	}
}
