package main

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"sync"
	"time"
)

// delivery is what becomes of notifications.
type delivery string

// The deliveries.
const (
	delivered  delivery = ""
	lost       delivery = "lost"       // the registry is told that they arrived
	refused    delivery = "refused"    // with 503; the registry repeats them
	duplicated delivery = "duplicated" // each comes twice
	delayed    delivery = "delayed"    // by up to two seconds; above one the registry repeats them
	reordered  delivery = "reordered"  // the registry is told that they arrived; they come later, in any order
)

func deliveries() []delivery { return []delivery{lost, refused, duplicated, delayed, reordered} }

// laterAtMost is how long a delayed or reordered notification takes.
const laterAtMost = 2 * time.Second

// event is what the torture reads of a notification.
type event struct {
	Action    string    `json:"action"`
	Timestamp time.Time `json:"timestamp"`
	Target    struct {
		Repository string `json:"repository"`
		Tag        string `json:"tag"`
		Digest     string `json:"digest"`
	} `json:"target"`
}

// hook stands between the registry's notifications and primaryd, and tells what primaryd has acknowledged.
type hook struct {
	target       string
	listener     net.Listener
	server       *http.Server
	client       *http.Client
	acknowledged func(e event, asked time.Time)
	ctx          context.Context // of the whole run; ends what is on its way
	later        sync.WaitGroup

	mu       sync.Mutex
	delivery delivery
	random   *rand.Rand
}

// newHook passes notifications on to the HTTP server at target until ctx ends.
func newHook(ctx context.Context, target string, random *rand.Rand, acknowledged func(event, time.Time)) (*hook, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0") //nolint:noctx // nothing to wait for
	if err != nil {
		return nil, err
	}
	h := &hook{
		target: target, listener: listener, acknowledged: acknowledged, ctx: ctx, random: random,
		client: &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 8}, Timeout: 10 * time.Second},
	}
	h.server = &http.Server{Handler: h, ReadHeaderTimeout: startPatience}
	go func() { _ = h.server.Serve(listener) }() // ends with Close
	return h, nil
}

// Address is where it listens.
func (h *hook) Address() string { return h.listener.Addr().String() }

// Set changes what becomes of notifications.
func (h *hook) Set(d delivery) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.delivery = d
}

// Drain waits until nothing is on its way any more.
func (h *hook) Drain() { h.later.Wait() }

// Close ends it.
func (h *hook) Close() {
	_ = h.server.Close()
	h.client.CloseIdleConnections()
}

// ServeHTTP takes one notification.
func (h *hook) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(io.LimitReader(r.Body, 1<<20))
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	h.mu.Lock()
	d, wait := h.delivery, time.Duration(h.random.Int64N(int64(laterAtMost)))
	h.mu.Unlock()
	status := http.StatusOK
	switch d {
	case lost:
	case refused:
		status = http.StatusServiceUnavailable
	case duplicated:
		h.pass(r.Header, body)
		status = h.pass(r.Header, body)
	case delayed:
		h.wait(wait)
		status = h.pass(r.Header, body)
	case reordered:
		h.later.Go(func() {
			h.wait(wait)
			h.pass(r.Header, body)
		})
	case delivered:
		status = h.pass(r.Header, body)
	}
	w.WriteHeader(status)
}

func (h *hook) wait(d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-h.ctx.Done():
	}
}

// pass sends a notification on and returns what primaryd answers.
func (h *hook) pass(header http.Header, body []byte) int {
	req, err := http.NewRequestWithContext(h.ctx, http.MethodPost, "http://"+h.target+"/notifications", bytes.NewReader(body))
	if err != nil {
		return http.StatusBadGateway
	}
	req.Header = header.Clone()
	asked := time.Now()
	resp, err := h.client.Do(req)
	if err != nil {
		return http.StatusBadGateway
	}
	defer resp.Body.Close()
	_, _ = io.Copy(io.Discard, resp.Body) // for the connection's sake
	if resp.StatusCode/100 != 2 {
		return resp.StatusCode
	}
	var envelope struct {
		Events []event `json:"events"`
	}
	if json.Unmarshal(body, &envelope) == nil {
		for _, e := range envelope.Events {
			h.acknowledged(e, asked)
		}
	}
	return resp.StatusCode
}
