package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"time"

	toxiproxy "github.com/Shopify/toxiproxy/v2"
	"github.com/rs/zerolog"
)

// mendPatience bounds how long a link may take to get rid of a fault.
const mendPatience = 10 * time.Second

// wire is a TCP connection between two parts of the pair, in the hands of a toxiproxy.
type wire struct {
	name  string
	proxy *toxiproxy.Proxy
}

// newWire listens on a port and passes everything on to an address.
func newWire(name string, port int, to string) (*wire, error) {
	zerolog.SetGlobalLevel(zerolog.Disabled) // its toxics log on their own, around the logger that they are given
	server := toxiproxy.NewServer(toxiproxy.NewMetricsContainer(nil), zerolog.Nop())
	l := &wire{name: name, proxy: toxiproxy.NewProxy(server, name, loopback(port), to)}
	if err := l.proxy.Start(); err != nil {
		return nil, fmt.Errorf("link %s: %w", name, err)
	}
	return l, nil
}

// Cut breaks all connections and refuses new ones until Join.
func (l *wire) Cut() { l.proxy.Stop() }

// Join undoes Cut.
func (l *wire) Join() error { return l.proxy.Start() }

// Poison lets one of toxiproxy's toxics work on all connections in one direction until Cure.
func (l *wire) Poison(toxic, stream string, attributes map[string]any) error {
	text, err := json.Marshal(map[string]any{
		"name": "fault", "type": toxic, "stream": stream, "attributes": attributes,
	})
	if err != nil {
		return err
	}
	_, err = l.proxy.Toxics.AddToxicJson(strings.NewReader(string(text)))
	return err
}

// Cure undoes Poison.
func (l *wire) Cure() error {
	ctx, cancel := context.WithTimeout(context.Background(), mendPatience)
	defer cancel()
	return l.proxy.Toxics.RemoveToxic(ctx, "fault")
}

// Close ends the link.
func (l *wire) Close() { l.proxy.Stop() }

// balancer passes TCP connections to several servers in turn, as a load balancer without health checks does: one that
// refuses is passed over, one that accepts and is silent is not.
type balancer struct {
	listener net.Listener
	targets  []string

	mu          sync.Mutex
	next        int
	connections map[net.Conn]bool
}

func newBalancer(targets []string) (*balancer, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0") //nolint:noctx // nothing to wait for
	if err != nil {
		return nil, err
	}
	b := &balancer{listener: listener, targets: targets, connections: map[net.Conn]bool{}}
	go b.accept()
	return b, nil
}

// Address is where it listens.
func (b *balancer) Address() string { return b.listener.Addr().String() }

// Close ends it and its connections.
func (b *balancer) Close() {
	_ = b.listener.Close()
	b.mu.Lock()
	defer b.mu.Unlock()
	for conn := range b.connections {
		_ = conn.Close()
	}
}

func (b *balancer) accept() {
	for {
		conn, err := b.listener.Accept()
		if err != nil {
			return // closed
		}
		go b.serve(conn)
	}
}

func (b *balancer) serve(client net.Conn) {
	defer client.Close()
	server := b.dial()
	if server == nil {
		return
	}
	defer server.Close()
	b.mu.Lock()
	b.connections[client], b.connections[server] = true, true
	b.mu.Unlock()
	defer func() {
		b.mu.Lock()
		defer b.mu.Unlock()
		delete(b.connections, client)
		delete(b.connections, server)
	}()
	done := make(chan struct{}, 2)
	for _, way := range [][2]net.Conn{{client, server}, {server, client}} {
		go func() {
			_, _ = io.Copy(way[1], way[0]) // whichever end breaks it, both ends are closed
			done <- struct{}{}
		}()
	}
	<-done
}

// dial tries each server once, beginning with the one whose turn it is.
func (b *balancer) dial() net.Conn {
	b.mu.Lock()
	b.next++
	first := b.next
	b.mu.Unlock()
	for i := range b.targets {
		dialer := net.Dialer{Timeout: time.Second}
		conn, err := dialer.Dial("tcp", b.targets[(first+i)%len(b.targets)])
		if err == nil {
			return conn
		}
	}
	return nil
}

func loopback(port int) string { return fmt.Sprintf("127.0.0.1:%d", port) }
