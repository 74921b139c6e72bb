package telemetry

import (
	"bytes"
	"context"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func listen(t *testing.T) net.Listener {
	t.Helper()
	listener, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return listener
}

// get asks once, on a connection of its own.
func get(ctx context.Context, address string) (string, error) {
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+address+"/", http.NoBody)
	if err != nil {
		return "", err
	}
	response, err := client.Do(request)
	if err != nil {
		return "", err
	}
	body, err := io.ReadAll(response.Body)
	if err != nil {
		return "", err
	}
	return string(body), response.Body.Close()
}

// A request that runs when the stop begins is answered, and its context is not cancelled under it.
func TestServeHTTPFinishesWhatRuns(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	handler := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		cancel()
		<-ctx.Done()
		if r.Context().Err() != nil {
			t.Error("the request was cancelled by the stop")
		}
		_, _ = io.WriteString(w, "done")
	})
	listener := listen(t)
	done := make(chan error, 1)
	go func() { done <- ServeHTTP(ctx, listener, handler, slog.New(slog.DiscardHandler)) }()
	if body, err := get(t.Context(), listener.Addr().String()); err != nil || body != "done" {
		t.Errorf("got %q, %v", body, err)
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
	if _, err := get(t.Context(), listener.Addr().String()); err == nil {
		t.Error("still listening")
	}
}

// A handler that does not end holds the stop up for five seconds; its context ends then.
func TestServeHTTPStopIsBounded(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		entered := make(chan struct{})
		handler := http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
			close(entered)
			<-r.Context().Done()
		})
		client, server := net.Pipe()
		listener := newPipeListener(server)
		var log bytes.Buffer
		done := make(chan error, 1)
		go func() { done <- ServeHTTP(ctx, listener, handler, slog.New(slog.NewTextHandler(&log, nil))) }()
		if _, err := io.WriteString(client, "GET / HTTP/1.1\r\nHost: x\r\n\r\n"); err != nil {
			t.Fatal(err)
		}
		<-entered
		began := time.Now()
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		if took := time.Since(began); took < shutdownTimeout || took > shutdownTimeout+time.Second {
			t.Errorf("the stop took %v", took)
		}
		if !strings.Contains(log.String(), "did not end in time") {
			t.Errorf("log: %s", log.String())
		}
		if err := client.Close(); err != nil {
			t.Error(err)
		}
	})
}

func TestServeHTTPCutsOffSlowHeaders(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		client, server := net.Pipe()
		done := make(chan error, 1)
		go func() {
			done <- ServeHTTP(ctx, newPipeListener(server), http.NotFoundHandler(), slog.New(slog.DiscardHandler))
		}()
		began := time.Now()
		if _, err := io.WriteString(client, "GET / HTTP/1.1\r\n"); err != nil {
			t.Fatal(err)
		}
		_, _ = io.Copy(io.Discard, client) // until the server hangs up
		if took := time.Since(began); took > headerTimeout+time.Second {
			t.Errorf("it took %v", took)
		}
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

func TestServeHTTPSaysThatItCannot(t *testing.T) {
	t.Parallel()
	listener := listen(t)
	if err := listener.Close(); err != nil {
		t.Fatal(err)
	}
	err := ServeHTTP(t.Context(), listener, http.NotFoundHandler(), slog.New(slog.DiscardHandler))
	if err == nil || !strings.Contains(err.Error(), listener.Addr().String()) {
		t.Errorf("got %v", err)
	}
}

// pipeListener hands out one connection; in memory, so that synctest sees all that waits.
type pipeListener struct {
	conns  chan net.Conn
	closed chan struct{}
}

func newPipeListener(conn net.Conn) *pipeListener {
	l := &pipeListener{conns: make(chan net.Conn, 1), closed: make(chan struct{})}
	l.conns <- conn
	return l
}

func (l *pipeListener) Accept() (net.Conn, error) {
	select {
	case conn := <-l.conns:
		return conn, nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

func (l *pipeListener) Close() error {
	select {
	case <-l.closed:
	default:
		close(l.closed)
	}
	return nil
}

func (l *pipeListener) Addr() net.Addr { return &net.TCPAddr{} }
