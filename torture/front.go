package main

import (
	"bytes"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"strconv"
	"strings"
	"sync"
)

// mood is how a registry answers wrongly.
type mood string

// The moods. Whatever is not possible for a request, such as a wrong body for one that is answered without, leaves it
// alone. None of them tells a well-formed lie: what a registry says plainly, nobody can know to be wrong.
const (
	sane         mood = ""
	serverError  mood = "answers 500"
	overloaded   mood = "answers 503 with Retry-After"
	tooMany      mood = "answers 429 with Retry-After"
	unauthorized mood = "answers 401"
	webPage      mood = "answers 200 with a web page"
	webNotFound  mood = "answers 404 with a web page"
	truncated    mood = "breaks off in the middle of bodies"
	corrupted    mood = "corrupts manifests and blobs"
	wrongLength  mood = "says a wrong Content-Length"
	answersLost  mood = "does what it is asked and does not answer"
)

func moods() []mood {
	return []mood{
		serverError, overloaded, tooMany, unauthorized, webPage, webNotFound, truncated, corrupted, wrongLength, answersLost,
	}
}

const page = "<!DOCTYPE html><html><body><h1>It works!</h1></body></html>"

// front stands before a registry and lends it moods. Half of the requests, by chance, are answered as they should be:
// work that never gets anywhere tests less than work that breaks off.
type front struct {
	listener net.Listener
	server   *http.Server
	forward  *httputil.ReverseProxy

	mu     sync.Mutex
	mood   mood
	random *rand.Rand
}

// newFront makes a front of the registry at an address.
func newFront(registry string, random *rand.Rand) (*front, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0") //nolint:noctx // nothing to wait for
	if err != nil {
		return nil, err
	}
	f := &front{listener: listener, random: random}
	f.forward = &httputil.ReverseProxy{
		Transport:      &http.Transport{MaxIdleConnsPerHost: 32, DisableCompression: true},
		Rewrite:        func(r *httputil.ProxyRequest) { r.SetURL(&url.URL{Scheme: "http", Host: registry}) },
		FlushInterval:  -1,
		ModifyResponse: f.spoil,
		ErrorLog:       slog.NewLogLogger(slog.DiscardHandler, slog.LevelError), // of what it is told to break
		ErrorHandler:   func(http.ResponseWriter, *http.Request, error) { panic(http.ErrAbortHandler) },
	}
	f.server = &http.Server{Handler: f, ReadHeaderTimeout: startPatience}
	go func() { _ = f.server.Serve(listener) }() // ends with Close
	return f, nil
}

// Address is where it listens.
func (f *front) Address() string { return f.listener.Addr().String() }

// Close ends it.
func (f *front) Close() {
	_ = f.server.Close()
	if transport, ok := f.forward.Transport.(*http.Transport); ok {
		transport.CloseIdleConnections()
	}
}

// Set changes the mood.
func (f *front) Set(m mood) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.mood = m
}

// moodHeader carries a request's mood to its response.
const moodHeader = "X-Torture-Mood"

// ServeHTTP answers in the registry's place or passes the request on.
func (f *front) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	f.mu.Lock()
	m := f.mood
	if f.random.IntN(2) == 0 {
		m = sane
	}
	f.mu.Unlock()
	status, body := 0, ""
	switch {
	case m == serverError:
		status = http.StatusInternalServerError
	case m == overloaded || m == tooMany:
		status = map[mood]int{overloaded: http.StatusServiceUnavailable, tooMany: http.StatusTooManyRequests}[m]
		w.Header().Set("Retry-After", "1")
	case m == unauthorized:
		status = http.StatusUnauthorized
		w.Header().Set("WWW-Authenticate", `Basic realm="torture"`)
	case m == webPage && r.Method == http.MethodGet:
		status, body = http.StatusOK, page
	case m == webNotFound && r.Method == http.MethodGet:
		// Not to a HEAD, whose 404 has no body that could give it away.
		status, body = http.StatusNotFound, page
	}
	if status != 0 {
		w.Header().Set("Content-Type", "text/html")
		w.WriteHeader(status)
		_, _ = io.WriteString(w, body) // a client that is gone does not mind
		return
	}
	r.Header.Set(moodHeader, string(m))
	f.forward.ServeHTTP(w, r)
}

// spoil changes the registry's own answer.
func (f *front) spoil(resp *http.Response) error {
	m := mood(resp.Request.Header.Get(moodHeader))
	get := resp.Request.Method == http.MethodGet && resp.StatusCode == http.StatusOK
	path := resp.Request.URL.Path
	content := strings.Contains(path, "/blobs/") || strings.Contains(path, "/manifests/")
	switch {
	case m == answersLost:
		_ = resp.Body.Close()
		panic(http.ErrAbortHandler)
	case m == truncated && get:
		resp.Body = &cutBody{ReadCloser: resp.Body, left: max(1, resp.ContentLength/2)}
	case m == corrupted && get && content:
		return replaceBody(resp, func(body []byte) {
			if len(body) > 0 {
				body[len(body)/2] ^= 1
			}
		})
	case m == wrongLength && get && resp.ContentLength > 1:
		f.misstate(resp)
	}
	return nil
}

// misstate says a length that is too long by some bytes, or too short, and then the body is as short.
func (f *front) misstate(resp *http.Response) {
	f.mu.Lock()
	by := int64(7)
	if f.random.IntN(2) == 0 {
		by = -min(by, resp.ContentLength-1)
	}
	f.mu.Unlock()
	resp.Header.Set("Content-Length", strconv.FormatInt(resp.ContentLength+by, 10))
	if by < 0 {
		resp.Body = &shortBody{ReadCloser: resp.Body, left: resp.ContentLength + by}
	}
}

// shortBody ends after some bytes, as if there were no more.
type shortBody struct {
	io.ReadCloser
	left int64
}

func (s *shortBody) Read(into []byte) (int, error) {
	n, err := io.LimitReader(s.ReadCloser, s.left).Read(into)
	s.left -= int64(n)
	return n, err
}

// replaceBody changes a body in memory; those of the torture are small.
func replaceBody(resp *http.Response, change func(body []byte)) error {
	body, err := io.ReadAll(resp.Body)
	_ = resp.Body.Close()
	if err != nil {
		return err
	}
	change(body)
	resp.Body = io.NopCloser(bytes.NewReader(body))
	return nil
}

// cutBody breaks off after some bytes.
type cutBody struct {
	io.ReadCloser
	left int64
}

func (c *cutBody) Read(into []byte) (int, error) {
	if c.left <= 0 {
		return 0, io.ErrUnexpectedEOF // the proxy breaks the connection
	}
	n, err := c.ReadCloser.Read(into[:min(int64(len(into)), c.left)])
	c.left -= int64(n)
	return n, err
}
