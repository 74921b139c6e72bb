package registry

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"net/http"
	"net/http/httptrace"
)

// ErrFenced: the guard of WithGuard did not let a request be sent. The registry has not seen it.
var ErrFenced = errors.New("not sent")

type guardKey struct{}

// WithGuard has guard asked before each request made with the returned context that writes or deletes a manifest, by tag
// or by digest. An error of guard's keeps the request from being sent, is not tried again, and is returned in one that
// matches ErrFenced and guard's too.
//
// It is asked for each try, after all waiting: for a turn, for Retry-After, for the cap on bytes per second and for a
// connection. Between its answer and the system call that sends the bytes lies no wait, only what the scheduler takes.
// Reads are not asked for, nor are blobs: those are named by their content, so that nobody can write a wrong one.
//
// guard is called from many goroutines, and must not block.
func WithGuard(ctx context.Context, guard func() error) context.Context {
	return context.WithValue(ctx, guardKey{}, guard)
}

// guardOf returns what is asked before a request of this method is sent; nil = nothing.
func guardOf(ctx context.Context, c call, method string) func() error {
	if c.kind != kindManifest || method == http.MethodGet || method == http.MethodHead {
		return nil
	}
	guard, _ := ctx.Value(guardKey{}).(func() error)
	return guard
}

// fencedError is the refusal of a guard.
type fencedError struct{ err error }

func (e fencedError) Error() string   { return ErrFenced.Error() + ": " + e.err.Error() }
func (e fencedError) Unwrap() []error { return []error{ErrFenced, e.err} }

// fence asks the request's guard, and ends the request when it refuses.
func (w *watchdog) fence() error {
	if w.guard == nil {
		return nil
	}
	if err := w.guard(); err != nil {
		w.cancel(fencedError{err})
	}
	return w.explain(context.Cause(w.ctx))
}

// connected asks the guard once more when there is a connection to write to: dialling takes its time. The standard
// transport looks at the context before it writes to a connection of HTTP/2, and not before it writes to another.
func (w *watchdog) connected(got httptrace.GotConnInfo) {
	if w.fence() != nil && !shared(got.Conn) {
		_ = got.Conn.Close() // so that nothing can be sent on it
	}
}

// shared reports whether others may have requests on the connection.
func shared(conn net.Conn) bool {
	secured, ok := conn.(*tls.Conn)
	return ok && secured.ConnectionState().NegotiatedProtocol == "h2"
}
