package telemetry

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"time"

	"github.com/antipode-registry/antipode/internal/connections"
)

// Bounds of the HTTP server, each set on purpose.
const (
	// headerTimeout is short: it is what a slow-loris client gets.
	headerTimeout = 5 * time.Second
	// readTimeout is for a whole request; the largest is a notification of about a mebibyte.
	readTimeout = 30 * time.Second
	// writeTimeout is for a whole answer, from the end of the request's header. A handler that streams lifts it with
	// http.ResponseController.SetWriteDeadline.
	writeTimeout = time.Minute
	// idleTimeout is longer than the pause between two notifications or scrapes, so that their connections are reused.
	idleTimeout    = 2 * time.Minute
	maxHeaderBytes = 64 << 10
	// maxConnections is a thousand for registries, scrapes and people together. Idle ones make room for new ones.
	maxConnections = 1024
	// shutdownTimeout is how long requests may go on after the stop.
	shutdownTimeout = 5 * time.Second
)

// ServeHTTP serves handler on listener until ctx is done, then lets running requests finish for five seconds and closes
// what is left. It closes the listener in every case. It returns nil after such a stop, and the error when serving
// fails before it.
//
// The context of a request is not cancelled by the start of the stop, so that a notification that was taken is also
// committed, but by its end. A handler that streams without end must watch the daemon's own context.
func ServeHTTP(ctx context.Context, listener net.Listener, handler http.Handler, logger *slog.Logger) error {
	base, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	limited := connections.Limit(listener, maxConnections, logger)
	server := &http.Server{
		Handler:           handler,
		ReadHeaderTimeout: headerTimeout,
		ReadTimeout:       readTimeout,
		WriteTimeout:      writeTimeout,
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    maxHeaderBytes,
		BaseContext:       func(net.Listener) context.Context { return base },
		ConnState: func(conn net.Conn, state http.ConnState) {
			switch state {
			case http.StateActive:
				limited.Busy(conn)
			case http.StateIdle:
				limited.Rest(conn)
			case http.StateNew, http.StateHijacked, http.StateClosed: // at rest from the beginning; its own Close tells
			}
		},
		ErrorLog: slog.NewLogLogger(logger.Handler(), slog.LevelWarn),
	}
	var failure error
	served := make(chan struct{})
	go func() {
		defer close(served)
		failure = server.Serve(limited)
	}()
	select {
	case <-served:
		return fmt.Errorf("serving HTTP on %s: %w", listener.Addr(), errors.Join(failure, server.Close()))
	case <-ctx.Done():
	}
	shutdown(base, server, logger)
	<-served
	return nil
}

func shutdown(ctx context.Context, server *http.Server, logger *slog.Logger) {
	ctx, cancel := context.WithTimeout(ctx, shutdownTimeout)
	defer cancel()
	if err := server.Shutdown(ctx); err == nil {
		return
	}
	logger.Warn("HTTP requests did not end in time; closing their connections", "timeout", shutdownTimeout)
	if err := server.Close(); err != nil {
		logger.Warn("closing HTTP connections", "error", err)
	}
}
