package registrytest

import (
	"errors"
	"io"
	"maps"
	"net/http"
)

// Fault is what a [Proxy] does to one request. The zero Fault does nothing; set fields add up.
type Fault struct {
	// Status answers in the registry's place, with Header and Body; the registry does not see the request. 0 forwards.
	Status int
	Header http.Header
	Body   string
	// Cut ends the connection after that many bytes of the response's body, if it has more. A negative Cut resets it
	// before any answer, and the registry does not see the request. Go's transport repeats some requests by itself when
	// a connection that it has used before breaks without an answer: count on seeing those twice.
	Cut int64
	// CutRequest ends both connections after that many bytes of the request's body, if it has more: an upload that
	// breaks off. Negative cuts before the first byte.
	CutRequest int64
	// Delay holds the request until the channel is closed or gives a value, before anything else is done with it.
	Delay <-chan struct{}
}

// answer writes the made-up response.
func (f Fault) answer(w *writer) {
	maps.Copy(w.Header(), f.Header)
	w.WriteHeader(f.Status)
	if _, err := io.WriteString(w, f.Body); errors.Is(err, errCut) {
		panic(http.ErrAbortHandler)
	}
}

// errCut is what a fault makes of a read or write; the connections are broken because of it.
var errCut = errors.New("cut by the proxy")

// writer counts and cuts the response.
type writer struct {
	http.ResponseWriter
	proxy *Proxy
	entry *Request
	cut   int64 // 0 = never
	sent  int64
}

// Unwrap lets http.ResponseController flush and hijack.
func (w *writer) Unwrap() http.ResponseWriter { return w.ResponseWriter }

func (w *writer) WriteHeader(status int) {
	if status >= http.StatusOK {
		w.proxy.update(func() { w.entry.Status = status })
	}
	w.ResponseWriter.WriteHeader(status)
}

func (w *writer) Write(body []byte) (int, error) {
	breaks := w.cut > 0 && w.sent+int64(len(body)) > w.cut
	if breaks {
		body = body[:w.cut-w.sent]
	}
	// Counted before it is sent: a test that has the answer finds it counted.
	w.sent += int64(len(body))
	w.proxy.update(func() {
		w.entry.ResponseBytes += int64(len(body))
		if w.entry.Status == 0 {
			w.entry.Status = http.StatusOK
		}
	})
	n, err := w.ResponseWriter.Write(body)
	if breaks && err == nil {
		// What was allowed must leave before the connection ends.
		_ = http.NewResponseController(w.ResponseWriter).Flush()
		err = errCut
	}
	return n, err
}

// reader counts and cuts the request.
type reader struct {
	io.ReadCloser
	proxy *Proxy
	entry *Request
	cut   int64 // 0 = never
	read  int64
}

func (r *reader) Read(into []byte) (int, error) {
	if r.cut != 0 {
		left := max(r.cut, 0) - r.read
		if left <= 0 {
			return r.broken(into)
		}
		into = into[:min(int64(len(into)), left)]
	}
	n, err := r.ReadCloser.Read(into)
	r.count(n)
	return n, err
}

// broken is reached when all allowed bytes are through: a body that ends here ends in peace, a longer one is cut.
func (r *reader) broken(into []byte) (int, error) {
	n, err := r.ReadCloser.Read(into[:min(1, len(into))])
	if n == 0 && errors.Is(err, io.EOF) {
		return 0, io.EOF
	}
	return 0, errCut
}

func (r *reader) count(n int) {
	r.read += int64(n)
	r.proxy.update(func() { r.entry.RequestBytes += int64(n) })
}
