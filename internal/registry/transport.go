package registry

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"strconv"
	"time"

	"github.com/antipode-registry/antipode/internal/telemetry"
)

const (
	maxTries  = 4
	firstWait = 200 * time.Millisecond // doubles with each try
	// heldUpload is how much of an upload is sent under a slot of the budget: small blobs entirely, large ones not for
	// the hours that they may take.
	heldUpload = 4 << 20
	// atOnce is the size of a body up to which it is written to the connection in one piece with its headers.
	atOnce = 8 << 10
	// heldFor is how long an upload keeps its slot at most: one that waits for its source, or for the cap, is no load,
	// and a few of them must not make all other requests wait.
	heldFor = 5 * time.Second
)

// transport sends requests under the budget, counts them, watches over their progress, and tries again what can be
// tried again without doing harm: reads, deletes and writes of a manifest after no answer, a broken one, 408, 429 or
// 5xx; anything but a blob's bytes after 429, 503 or a failed connection, for then the registry has not begun. The
// guard of WithGuard is asked last of all.
// Answers are read whole under the slot, but for the body of a successful blob download.
type transport struct {
	next             http.RoundTripper
	budget           *budget
	counts           *counts
	download, upload *Bandwidth
	side             Side
	tracer           *telemetry.Tracer
}

// CloseIdleConnections is what http.Client.CloseIdleConnections looks for.
func (t *transport) CloseIdleConnections() {
	if closer, ok := t.next.(interface{ CloseIdleConnections() }); ok {
		closer.CloseIdleConnections()
	}
}

// RoundTrip implements http.RoundTripper.
func (t *transport) RoundTrip(req *http.Request) (*http.Response, error) {
	c := callFrom(req.Context())
	if answered := c.alreadyAnswered(); answered != nil {
		closeBody(req.Body)
		answered.Request = req
		return answered, nil
	}
	if req.Response == nil && req.URL.Path != c.path {
		c.kind, c.limit = kindToken, maxErrorBody*2
	}
	for try := 1; ; try++ {
		resp, err := t.traced(req, c, try)
		if try == maxTries || !again(req, c, resp, err) {
			return resp, err
		}
		if waitErr := backOff(req.Context(), try); waitErr != nil {
			return resp, err
		}
	}
}

// again reports whether the try has failed in a way that another may mend.
func again(req *http.Request, c call, resp *http.Response, err error) bool {
	if req.Context().Err() != nil {
		return false
	}
	if c.kind == kindUpload && req.Method == http.MethodPut { // what it completes may be complete, or over
		return false
	}
	if req.Body != nil && req.Body != http.NoBody && req.GetBody == nil {
		return false
	}
	if _, untrusted := errors.AsType[*tls.CertificateVerificationError](err); untrusted || errors.Is(err, ErrFenced) {
		return false
	}
	if notBegun(resp, err) {
		return true
	}
	switch req.Method {
	case http.MethodGet, http.MethodHead, http.MethodDelete, http.MethodPut:
		return err != nil || retryableStatus(resp.StatusCode)
	}
	return false
}

// notBegun reports whether the registry certainly has not acted on the request.
func notBegun(resp *http.Response, err error) bool {
	if err != nil {
		connecting, ok := errors.AsType[*net.OpError](err)
		return ok && connecting.Op == "dial"
	}
	return overloaded(resp.StatusCode)
}

func overloaded(status int) bool {
	return status == http.StatusTooManyRequests || status == http.StatusServiceUnavailable
}

func retryableStatus(status int) bool {
	switch status {
	case http.StatusRequestTimeout, http.StatusTooManyRequests, http.StatusInternalServerError, http.StatusBadGateway,
		http.StatusServiceUnavailable, http.StatusGatewayTimeout:
		return true
	}
	return false
}

// backOff waits before the try after try: twice as long each time, spread by half so that requests which failed
// together do not come back together.
func backOff(ctx context.Context, try int) error {
	wait := firstWait << (try - 1)
	return pause(ctx, wait/2+rand.N(wait))
}

// traced tries within a span, which has the names of the call and of the host alone: addresses may hold signatures. It
// begins when the try begins to wait for its turn, and ends when the answer is read or, for a blob, begins.
func (t *transport) traced(req *http.Request, c call, number int) (*http.Response, error) {
	ctx := req.Context()
	_, span := t.tracer.Within(ctx, "request", telemetry.About{
		Role: telemetry.Asking, Repository: c.repository, Reference: c.reference,
	})
	if !span.Recording() {
		return t.try(req, c, number)
	}
	defer span.End()
	span.Text("side", string(t.side))
	span.Text("host", req.URL.Host)
	span.Text("method", req.Method)
	span.Text("kind", c.kind)
	span.Number("try", int64(number))
	resp, err := t.try(req, c, number)
	if err != nil {
		span.Fail(string(t.side), err)
		return resp, err
	}
	span.Number("status", int64(resp.StatusCode))
	if resp.StatusCode >= http.StatusInternalServerError || resp.StatusCode == http.StatusTooManyRequests {
		span.Fail(string(t.side), errors.New("HTTP "+strconv.Itoa(resp.StatusCode)))
	}
	return resp, err
}

// try sends the request once.
func (t *transport) try(req *http.Request, c call, number int) (*http.Response, error) {
	body, err := bodyOf(req, number)
	if err != nil {
		return nil, err
	}
	held, err := t.hold(req.Context())
	if err != nil {
		closeBody(body)
		return nil, err
	}
	defer held.release()
	if c.upload(req.Method) {
		defer time.AfterFunc(heldFor, held.release).Stop()
	}
	began := time.Now()
	watch := newWatchdog(req.Context(), guardOf(req.Context(), c, req.Method))
	attempt := t.attempt(req, c, body, watch, held)
	if err := watch.fence(); err != nil {
		closeBody(body)
		watch.done()
		return nil, err
	}
	watch.expect(headerTimeout + sending(attempt, c))
	resp, err := t.next.RoundTrip(attempt)
	if err != nil {
		defer watch.done()
		t.counts.answered(req.Method, c.kind, nil, time.Since(began))
		return nil, watch.explain(err)
	}
	resp.Request = req
	if c.stream && req.Method == http.MethodGet && resp.StatusCode/100 == 2 {
		t.settle(req.Method, c, resp, began)
		watch.rest()
		resp.Body = &watchedBody{ReadCloser: resp.Body, watch: watch, counts: t.counts, pace: t.download}
		return resp, nil
	}
	err = t.buffer(resp, c, watch)
	if err != nil {
		t.counts.answered(req.Method, c.kind, nil, time.Since(began))
		return nil, err
	}
	t.settle(req.Method, c, resp, began)
	return resp, nil
}

// attempt is the request as it is handed on: its context and its body are watched, and so is the body that the standard
// transport asks for when a connection from its pool turns out to be dead. A small body that no cap slows down is not: it
// leaves with its headers, in one system call, right after the guard was asked with the connection in hand.
func (t *transport) attempt(req *http.Request, c call, body io.ReadCloser, w *watchdog, held *slot) *http.Request {
	attempt := req.WithContext(w.ctx)
	if body == nil || body == http.NoBody {
		return attempt
	}
	if t.upload == nil && c.inMemory(req) {
		// The standard transport sends headers alone before a body that it does not know to be in memory.
		t.counts.sent(int(req.ContentLength))
		attempt.Body = body
		return attempt
	}
	watched := func(body io.ReadCloser) io.ReadCloser {
		return &watchedUpload{
			ReadCloser: body, watch: w, counts: t.counts, pace: t.upload, held: held, size: req.ContentLength,
		}
	}
	attempt.Body = watched(body)
	if req.GetBody != nil {
		attempt.GetBody = func() (io.ReadCloser, error) {
			again, err := req.GetBody()
			if err != nil {
				return nil, err
			}
			return watched(again), nil
		}
	}
	return attempt
}

// settle counts an answer and lets the budget learn from it.
func (t *transport) settle(method string, c call, resp *http.Response, began time.Time) {
	t.counts.answered(method, c.kind, resp, time.Since(began))
	switch {
	case overloaded(resp.StatusCode):
		t.budget.throttle(began, retryAfter(resp.Header, time.Now()))
	case resp.StatusCode < http.StatusInternalServerError:
		t.budget.succeeded()
	}
}

// buffer reads the body whole, one byte more than the limit at most: the reader of the answer sees by that byte that it
// was too long. It ends the watch.
func (t *transport) buffer(resp *http.Response, c call, watch *watchdog) error {
	defer watch.done()
	limit := c.limit
	if limit == 0 || resp.StatusCode/100 != 2 {
		limit = maxErrorBody
	}
	if resp.Body == http.NoBody {
		resp.Body = &buffered{}
		return nil
	}
	body := &watchedBody{ReadCloser: resp.Body, watch: watch, counts: t.counts, pace: t.download}
	content, err := readAll(io.LimitReader(body, limit+1), min(resp.ContentLength, limit+1))
	_ = resp.Body.Close() // whatever it may say, the body is here
	if err != nil {
		return watch.explain(err)
	}
	resp.Body = &buffered{content: content, Reader: *bytes.NewReader(content)}
	return nil
}

// readAll is io.ReadAll for a body of which the length was said; -1 = it was not.
func readAll(body io.Reader, length int64) ([]byte, error) {
	if length <= 0 {
		return io.ReadAll(body)
	}
	content := bytes.NewBuffer(make([]byte, 0, length+bytes.MinRead)) // with the room that ReadFrom wants to see the end
	_, err := content.ReadFrom(body)
	return content.Bytes(), err
}

// buffered is a body that is in memory.
type buffered struct {
	bytes.Reader
	content []byte
}

// Close implements io.Closer.
func (*buffered) Close() error { return nil }

// bodyOf is the request's body for the try of that number: the first is the request's own.
func bodyOf(req *http.Request, number int) (io.ReadCloser, error) {
	if number == 1 || req.Body == nil || req.Body == http.NoBody {
		return req.Body, nil
	}
	return req.GetBody()
}

func closeBody(body io.Closer) {
	if body != nil {
		_ = body.Close() // nothing was read from it
	}
}

// retryAfter reads the header's two forms (RFC 9110, section 10.2.3); without a usable one it is zero.
func retryAfter(header http.Header, now time.Time) time.Duration {
	value := header.Get("Retry-After")
	if value == "" {
		return 0
	}
	if seconds, err := strconv.ParseUint(value, 10, 31); err == nil {
		return time.Duration(seconds) * time.Second
	}
	if at, err := http.ParseTime(value); err == nil {
		return max(0, at.Sub(now))
	}
	return 0
}
