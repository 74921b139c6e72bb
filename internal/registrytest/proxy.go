package registrytest

import (
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"strings"
	"sync"
	"testing"
)

// Proxy stands between a client and a registry, records what passes and breaks what it is told to. It streams: nothing
// is held back in it. Where the registry itself does not answer, it closes the client's connection, as the registry
// would. Safe for concurrent use.
type Proxy struct {
	server *httptest.Server
	target *url.URL
	closed chan struct{}

	mu          sync.Mutex
	requests    []*Request
	connections int
	fault       func(*http.Request) Fault
	ended       func(Request)
}

// Request is one request that passed, in the order in which they came. Counters grow while the exchange lasts; what a
// client has read is counted before the client has it.
type Request struct {
	Method, Path, Query string
	Kind                string // manifest blob upload tags catalog referrers base token other
	Repository          string // "" where the path names none
	Reference           string // tag, digest or upload session, as in the path
	Header              http.Header
	Status              int   // 0 = no answer was sent
	RequestBytes        int64 // of the body
	ResponseBytes       int64 // of the body
}

// NewProxy starts a proxy in front of the registry at target, transparent until [Proxy.Fault] is called.
func NewProxy(t testing.TB, target string) *Proxy {
	t.Helper()
	to, err := url.Parse(target)
	if err != nil {
		t.Fatalf("registrytest: proxy target: %v", err)
	}
	p := &Proxy{
		target: to, closed: make(chan struct{}), fault: func(*http.Request) Fault { return Fault{} }, ended: func(Request) {},
	}
	transport := &http.Transport{MaxIdleConnsPerHost: 64, DisableCompression: true}
	// Started after the assignment: the handler reads the server's address.
	p.server = httptest.NewUnstartedServer(p.handler(transport))
	p.server.Config.ConnState = p.connected
	p.server.Start()
	t.Cleanup(func() {
		close(p.closed) // frees the requests that a Delay holds
		p.server.CloseClientConnections()
		p.server.Close()
		transport.CloseIdleConnections()
	})
	return p
}

// URL is the proxy's base URL, without a path.
func (p *Proxy) URL() string { return p.server.URL }

// Host is the proxy's host and port.
func (p *Proxy) Host() string { return p.server.Listener.Addr().String() }

// Requests returns copies of what was recorded since the start or the last Reset.
func (p *Proxy) Requests() []Request {
	p.mu.Lock()
	defer p.mu.Unlock()
	all := make([]Request, 0, len(p.requests))
	for _, r := range p.requests {
		all = append(all, *r)
	}
	return all
}

// Connections is how many connections clients opened since the start or the last Reset.
func (p *Proxy) Connections() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.connections
}

// connected counts a connection that begins.
func (p *Proxy) connected(_ net.Conn, state http.ConnState) {
	if state == http.StateNew {
		p.update(func() { p.connections++ })
	}
}

// Reset forgets what was recorded; the fault stays.
func (p *Proxy) Reset() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.requests, p.connections = nil, 0
}

// Ended sets what is told of each exchange from now on that came to its end, once the client has the answer; nil tells
// nobody. The function is called from many goroutines.
func (p *Proxy) Ended(ended func(Request)) {
	if ended == nil {
		ended = func(Request) {}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.ended = ended
}

// tell passes on that an exchange came to its end.
func (p *Proxy) tell(entry *Request) {
	p.mu.Lock()
	ended, ending := p.ended, *entry
	p.mu.Unlock()
	ended(ending)
}

// Count is how many recorded requests have this method and kind; "" is any.
func (p *Proxy) Count(method, kind string) int {
	n := 0
	for _, r := range p.Requests() {
		if (method == "" || r.Method == method) && (kind == "" || r.Kind == kind) {
			n++
		}
	}
	return n
}

// Fault sets what happens to each request from now on; nil makes the proxy transparent again. The function is called
// from many goroutines and must not touch the request's body.
func (p *Proxy) Fault(fault func(r *http.Request) Fault) {
	if fault == nil {
		fault = func(*http.Request) Fault { return Fault{} }
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.fault = fault
}

// handler records, applies the fault and forwards. The reverse proxy is made once: it keeps no state of a request.
func (p *Proxy) handler(transport http.RoundTripper) http.Handler {
	forward := &httputil.ReverseProxy{
		Transport:     transport,
		Rewrite:       func(r *httputil.ProxyRequest) { r.SetURL(p.target) },
		FlushInterval: -1,
		ModifyResponse: func(resp *http.Response) error {
			p.pointBack(resp.Header)
			return nil
		},
		// The registry did not answer, or the request was cut: the client sees its connection break.
		ErrorHandler: func(w http.ResponseWriter, _ *http.Request, _ error) { reset(w) },
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		entry, fault := p.record(r)
		if fault.Delay != nil {
			select {
			case <-fault.Delay:
			case <-r.Context().Done():
				panic(http.ErrAbortHandler)
			case <-p.closed:
				panic(http.ErrAbortHandler)
			}
		}
		if fault.Cut < 0 {
			reset(w)
		}
		out := &writer{ResponseWriter: w, proxy: p, entry: entry, cut: fault.Cut}
		if fault.Status != 0 {
			fault.answer(out)
			return
		}
		if r.Body != http.NoBody {
			r.Body = &reader{ReadCloser: r.Body, proxy: p, entry: entry, cut: fault.CutRequest}
		}
		forward.ServeHTTP(out, r)
		p.tell(entry)
	})
}

func (p *Proxy) record(r *http.Request) (*Request, Fault) {
	entry := &Request{
		Method: r.Method, Path: r.URL.Path, Query: r.URL.RawQuery, Header: r.Header.Clone(),
	}
	entry.Kind, entry.Repository, entry.Reference = classify(r.URL.Path)
	p.mu.Lock()
	p.requests = append(p.requests, entry)
	fault := p.fault
	p.mu.Unlock()
	return entry, fault(r)
}

// update changes an entry under the lock that Requests takes.
func (p *Proxy) update(change func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	change()
}

// pointBack makes absolute addresses of the registry lead through the proxy again: where an upload goes on, and where
// the next page is.
func (p *Proxy) pointBack(header http.Header) {
	for _, name := range []string{"Location", "Link"} {
		for i, value := range header[name] {
			header[name][i] = strings.Replace(value, p.target.Scheme+"://"+p.target.Host, p.server.URL, 1)
		}
	}
}

// classify reads kind, repository and reference off a path of the distribution specification. Repository names may
// contain any of its words, so it is read from the end.
func classify(path string) (kind, repository, reference string) {
	rest, ok := strings.CutPrefix(path, "/v2/")
	switch {
	case path == "/v2" || path == "/v2/":
		return "base", "", ""
	case path == "/v2/_catalog":
		return "catalog", "", ""
	case !ok && (strings.Contains(path, "token") || strings.Contains(path, "auth")):
		return "token", "", ""
	case !ok:
		return "other", "", ""
	}
	if name, found := strings.CutSuffix(rest, "/tags/list"); found {
		return "tags", name, ""
	}
	// A name may not hold an underscore alone or end in a slash, so the last occurrence is the endpoint's own.
	if i := strings.LastIndex(rest, "/blobs/uploads/"); i >= 0 {
		return "upload", rest[:i], rest[i+len("/blobs/uploads/"):]
	}
	parts := strings.Split(rest, "/")
	kinds := map[string]string{"manifests": "manifest", "blobs": "blob", "referrers": "referrers"}
	if n := len(parts); n >= 3 && kinds[parts[n-2]] != "" {
		return kinds[parts[n-2]], strings.Join(parts[:n-2], "/"), parts[n-1]
	}
	return "other", "", ""
}

// reset breaks the client's connection so that the client sees a reset instead of an end, and does not return.
func reset(w http.ResponseWriter) {
	if conn, _, err := http.NewResponseController(w).Hijack(); err == nil {
		if tcp, ok := conn.(*net.TCPConn); ok {
			_ = tcp.SetLinger(0)
		}
		_ = conn.Close()
	}
	panic(http.ErrAbortHandler)
}
