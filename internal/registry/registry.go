// Package registry speaks the OCI distribution protocol to one registry of the pair.
//
// It guarantees that an answer is either complete or an error. A listing is returned whole or not at all; "not there"
// is believed only when the registry says so in a well-formed OCI error body; a digest is compared wherever one is
// known. All requests of a handle share one budget: a number of requests in flight that shrinks when the registry
// answers 429 or 503 and grows back, and a pause for as long as Retry-After asks. Bytes per second can be capped, by the
// time of day. Blobs are streamed, but for small ones, which are in memory before they are uploaded.
//
// It refuses Docker schema 1 manifests, digests other than sha256 and sha512, upload locations and page links on
// another origin, redirects of anything but reads, and names outside the grammar of the distribution specification.
// It never deletes a tag's siblings.
//
// It is the only importer of oras-go, of which it uses the authorization client, the credential stores and the error
// codes. The requests themselves are made here, because oras reads some damaged answers as empty ones, abandons
// uploads that a refused mount has opened, clamps Retry-After and cannot delete a tag.
package registry

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"os"
	"strings"
	"sync/atomic"
	"time"

	"oras.land/oras-go/v2/registry/remote/auth"

	"github.com/antipode-registry/antipode/internal/telemetry"
)

// Side says which registry of the pair a handle is; errors and metrics carry it.
type Side string

const (
	// Source is the primary's registry, the one that is pushed to.
	Source Side = "source"
	// Destination is a site's registry, the one that is kept equal.
	Destination Side = "destination"
)

const (
	defaultUserAgent   = "antipode"
	defaultConcurrency = 16
)

// Config describes one registry.
type Config struct {
	// URL is "http://host[:port]" (plain) or "https://host[:port]", without a path. Required.
	URL string
	// Side is carried by errors and metrics. Required.
	Side Side
	// UserAgent is sent with every request; "" means "antipode".
	UserAgent string
	// Concurrency is how many requests may be in flight at most; 0 means 16. What counts as in flight is said at
	// Registry.
	Concurrency int
	// CAFile names a PEM file with roots that are trusted besides the system's; "" means the system's alone.
	CAFile string
	// Download caps the bodies of answers, Upload those of requests, blobs and all else alike; nil caps nothing. Handles
	// that share a Bandwidth share its cap.
	Download, Upload *Bandwidth
	// Metrics counts requests and bytes; nil counts nothing.
	Metrics *Metrics
	// Tracer makes a span of each request that is part of a trace; nil makes none. The registry is told nothing of it.
	Tracer *telemetry.Tracer
	// Transport carries the requests; nil means a transport of the handle's own. Tests inject.
	Transport http.RoundTripper
}

// Registry is a handle on one registry. It is safe for concurrent use, and meant to be shared: the budget is the
// handle's.
//
// A request counts against Config.Concurrency until its answer is read, with two exceptions that keep long transfers
// from blocking short requests: a blob download counts until its headers are there, and a blob upload for its first
// 4 MiB or five seconds. Who waits for a turn is passed by urgent requests; see WithUrgency.
type Registry struct {
	base        *url.URL
	side        Side
	concurrency int
	most        int // entries of one listing
	client      *auth.Client
	userAgent   string
	idle        func()

	challenged       atomic.Bool // the registry has asked who we are
	referrersSeen    atomic.Bool // the referrers API has answered on this host
	tagDeleteRefused atomic.Bool // this host does not delete by tag
	digestDeleteSeen atomic.Bool // this host has deleted by digest
	selfMounts       selfMounts
}

// Open makes a handle; it sends nothing. Credentials are those of the docker configuration ($DOCKER_CONFIG/config.json
// or ~/.docker/config.json), read again whenever the registry asks for them, so a new login needs no restart.
func Open(cfg Config) (*Registry, error) {
	base, err := parseBase(cfg.URL)
	if err != nil {
		return nil, err
	}
	if cfg.Concurrency < 0 {
		return nil, fmt.Errorf("registry %s: concurrency %d is negative", base.Host, cfg.Concurrency)
	}
	if cfg.Concurrency == 0 {
		cfg.Concurrency = defaultConcurrency
	}
	if cfg.UserAgent == "" {
		cfg.UserAgent = defaultUserAgent
	}
	if err := checkCredentials(); err != nil {
		return nil, fmt.Errorf("registry %s: %w", base.Host, err)
	}
	next, err := baseTransport(cfg)
	if err != nil {
		return nil, fmt.Errorf("registry %s: %w", base.Host, err)
	}
	counts := cfg.Metrics.handle(cfg.Side, base.Host)
	r := &Registry{
		base: base, side: cfg.Side, concurrency: cfg.Concurrency, most: mostEntries, userAgent: cfg.UserAgent,
	}
	r.client = &auth.Client{
		Client: &http.Client{
			Transport: &transport{
				next: next, budget: newBudget(cfg.Concurrency, counts), counts: counts,
				download: cfg.Download, upload: cfg.Upload, side: cfg.Side, tracer: cfg.Tracer,
			},
			CheckRedirect: checkRedirect,
		},
		Header:     http.Header{"User-Agent": {cfg.UserAgent}},
		Credential: credential,
		Cache:      newTokenCache(),
		ClientID:   defaultUserAgent,
	}
	r.idle = r.client.Client.CloseIdleConnections
	return r, nil
}

// parseBase accepts the two forms that Config.URL documents. Of what it refuses it repeats no part that may be a secret: a
// site gets this address from its primary.
func parseBase(raw string) (*url.URL, error) {
	base, err := url.Parse(raw)
	if err != nil {
		return nil, errors.New("registry URL cannot be parsed (not shown, for it may hold a password)")
	}
	origin := &url.URL{Scheme: base.Scheme, Host: base.Host}
	switch {
	case base.Scheme != "http" && base.Scheme != "https":
		return nil, fmt.Errorf("registry URL %q: must begin with http:// or https://", origin)
	case base.Hostname() == "":
		return nil, fmt.Errorf("registry URL %q: has no host", origin)
	case base.User != nil:
		return nil, fmt.Errorf("registry URL %q: credentials belong into the docker configuration", origin)
	case strings.Trim(base.Path, "/") != "" || base.RawQuery != "" || base.Fragment != "":
		return nil, fmt.Errorf("registry URL %q: must not have a path, query or fragment", origin)
	}
	return origin, nil
}

// baseTransport is what connections are made with. Only connecting is bounded here: waiting for headers and for bytes
// is bounded by the watchdog of the layer above, which knows about progress.
func baseTransport(cfg Config) (http.RoundTripper, error) {
	if cfg.Transport != nil {
		return cfg.Transport, nil
	}
	roots, err := rootsWith(cfg.CAFile)
	if err != nil {
		return nil, err
	}
	dialer := &dialer{Dialer: net.Dialer{Timeout: 10 * time.Second, KeepAlive: 30 * time.Second}}
	return &http.Transport{
		Proxy:                 http.ProxyFromEnvironment,
		DialContext:           dialer.dial,
		TLSClientConfig:       &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12},
		TLSHandshakeTimeout:   10 * time.Second,
		ExpectContinueTimeout: time.Second,
		MaxIdleConnsPerHost:   2 * cfg.Concurrency, // downloads do not count once they have begun
		WriteBufferSize:       64 << 10,            // headers with a manifest or a small blob, or with most of it
		ReadBufferSize:        32 << 10,            // headers with a small blob
		IdleConnTimeout:       90 * time.Second,
		ForceAttemptHTTP2:     true,
		DisableCompression:    true, // digests and ranges are of the bytes as stored
	}, nil
}

// rootsWith returns the system's roots and those in file, or nil (the system's) without one.
func rootsWith(file string) (*x509.CertPool, error) {
	if file == "" {
		return nil, nil
	}
	pem, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("read CA file: %w", err)
	}
	roots, err := x509.SystemCertPool()
	if err != nil {
		roots = x509.NewCertPool()
	}
	if !roots.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("CA file %s: no PEM certificate in it", file)
	}
	return roots, nil
}

// checkRedirect follows redirects of reads alone. The standard client turns a redirected DELETE or PUT into a GET,
// whose 200 would then pass for success. Credentials never follow to another origin: the authorization client takes
// them off.
func checkRedirect(req *http.Request, via []*http.Request) error {
	first := via[0]
	switch {
	case first.Method != http.MethodGet && first.Method != http.MethodHead:
		return http.ErrUseLastResponse
	case first.URL.Scheme == "https" && req.URL.Scheme != "https":
		return errors.New("redirected from https to plain http")
	case len(via) >= 10:
		return errors.New("redirected more than 10 times")
	}
	return nil
}

// URL returns the registry's base URL, without a trailing slash.
func (r *Registry) URL() string { return r.base.String() }

// Close drops idle connections. Requests that are under way go on, and the handle stays usable.
func (r *Registry) Close() { r.idle() }

// Ping asks whether a registry answers at the URL and accepts the credentials.
// It follows "Determining Support" of the distribution specification.
func (r *Registry) Ping(ctx context.Context) error {
	c := call{op: "ping", kind: kindBase, path: "/v2/", limit: maxErrorBody}
	answer, err := r.get(ctx, c, nil)
	if err != nil {
		return err
	}
	if answer.status != http.StatusOK || isHTML(answer.header) {
		return r.unexpected(c, answer)
	}
	return nil
}
