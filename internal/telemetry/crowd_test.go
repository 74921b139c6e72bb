package telemetry

import (
	"bufio"
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"runtime"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// heap is what is in use once everything that is not was collected.
func heap() int64 {
	runtime.GC()
	runtime.GC() // what finalizers set free
	var stats runtime.MemStats
	runtime.ReadMemStats(&stats)
	return int64(stats.HeapAlloc + stats.StackInuse)
}

// TestAThousandIdleConnections: connections that were used once and are kept open keep nobody out, and cost little.
func TestAThousandIdleConnections(t *testing.T) { // not parallel: it measures the heap
	ctx, cancel := context.WithCancel(t.Context())
	listener, done := listen(t), make(chan error, 1)
	log := &strings.Builder{}
	handler := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "done") })
	go func() { done <- ServeHTTP(ctx, listener, handler, slog.New(slog.NewTextHandler(log, nil))) }()
	before := heap()
	const idle = maxConnections + 76
	var conns []net.Conn
	for range idle {
		conn, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", listener.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		conns = append(conns, conn)
		if _, err := io.WriteString(conn, "GET / HTTP/1.1\r\nHost: x\r\n\r\n"); err != nil {
			t.Fatal(err)
		}
		response, err := http.ReadResponse(bufio.NewReader(conn), nil)
		if err != nil {
			t.Fatal(err)
		}
		if err := response.Body.Close(); err != nil {
			t.Error(err)
		}
	}
	if body, err := get(t.Context(), listener.Addr().String()); err != nil || body != "done" {
		t.Errorf("one more: %q, %v", body, err)
	}
	if grown := heap() - before; grown > 64<<20 {
		t.Errorf("%d connections hold %d MiB", idle, grown>>20)
	}
	for i, want := range map[int]bool{0: false, idle - 1: true} {
		if err := conns[i].SetReadDeadline(time.Now().Add(time.Millisecond)); err != nil {
			t.Fatal(err)
		}
		_, err := conns[i].Read(make([]byte, 1))
		if open := errors.Is(err, os.ErrDeadlineExceeded); open != want {
			t.Errorf("connection %d: %v", i, err)
		}
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
	if strings.Count(log.String(), "too many connections") != 1 {
		t.Errorf("log: %s", log)
	}
}

// A body that trickles in does not outlive the time that a request has, however steadily it comes.
func TestServeHTTPCutsOffSlowBodies(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		client, server := net.Pipe()
		read := make(chan error, 1)
		handler := http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
			_, err := io.ReadAll(r.Body)
			read <- err
		})
		done := make(chan error, 1)
		go func() { done <- ServeHTTP(ctx, newPipeListener(server), handler, slog.New(slog.DiscardHandler)) }()
		began := time.Now()
		go func() { _, _ = io.Copy(io.Discard, client) }()
		if _, err := io.WriteString(client, "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\n"); err != nil {
			t.Fatal(err)
		}
		var err error
		for err == nil {
			<-time.After(time.Second)
			_, err = io.WriteString(client, "x")
		}
		if took := time.Since(began); took < readTimeout-2*time.Second || took > readTimeout+5*time.Second {
			t.Errorf("it was cut off after %v", took)
		}
		if err := <-read; err == nil {
			t.Error("the handler got a whole body")
		}
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		_ = client.Close()
	})
}
