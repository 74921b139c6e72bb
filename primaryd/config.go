package main

import (
	"fmt"
	"log/slog"
	"time"

	"github.com/antipode-registry/antipode/internal/config"
	"github.com/antipode-registry/antipode/internal/httpaccess"
	"github.com/antipode-registry/antipode/internal/telemetry"
	"github.com/antipode-registry/antipode/primaryd/internal/node"
	"github.com/antipode-registry/antipode/primaryd/internal/notification"
)

// settings is the configuration file of primaryd; docs/configuration.md describes every key.
type settings struct {
	// Where the change feed and the last reports of the sites are kept. A SQLite file is created where it is missing,
	// readable by its owner alone; its folder is not.
	Database      string                `yaml:"database"`
	Registry      registrySettings      `yaml:"registry"`
	Notifications notificationsSettings `yaml:"notifications"`
	HTTP          httpSettings          `yaml:"http"`
	GRPC          grpcSettings          `yaml:"grpc"`
	Sweep         sweepSettings         `yaml:"sweep"`
	// The sites.
	Nodes []nodeSettings `yaml:"nodes"`
	// Whose certificates may query everything. primaryd's own certificate may always.
	// Type: list of names.
	// Limits: no two nodes or operators alike.
	Operators []string       `yaml:"operators"`
	Doctor    doctorSettings `yaml:"doctor"`
	Log       logSettings    `yaml:"log"`
	Traces    tracesSettings `yaml:"traces"`
}

type registrySettings struct {
	// The registry that people push to.
	URL string `yaml:"url"`
	// Where sites reach that registry; `registry.url` when left out.
	AdvertiseURL string `yaml:"advertise_url"`
	// Authorities to trust for `https` besides the system's.
	// Limits: a readable file of PEM certificates.
	CAFile string `yaml:"ca_file"`
	// Requests in flight to the registry at most. It halves at 429 and 503 answers and grows back.
	Concurrency int `yaml:"concurrency"`
}

type notificationsSettings struct {
	// The shared secret of the registry's notifications. White space around it does not count. Read at each notification.
	// Limits: a readable file with one line of text.
	SecretFile string `yaml:"secret_file"`
	// Events that are taken per second, in the long run. What is more is answered 429 with `Retry-After`, before anything
	// of it is recorded.
	Rate int `yaml:"rate"`
	// Events that are taken at once, after a pause, before `notifications.rate` holds.
	Burst int `yaml:"burst"`
}

type httpSettings struct {
	// `POST /notifications`, the status page at `/`, `/metrics`, `/healthz`, `/readyz`. Plain HTTP.
	Listen string `yaml:"listen"`
	// The token with which the status page and the JSON below `/api/` may be read, from anywhere. With neither this nor
	// `http.proxy` only this machine may read them. Read at each request; a changed token ends its sessions.
	// Limits: a readable file with one line of at least 16 characters.
	ViewTokenFile string `yaml:"view_token_file"`
	// The token with which sites may be paused, resumed, resynced and released on the status page, and everything be read.
	// Without it and `http.proxy.controllers` nobody can. Read at each request.
	// Limits: a readable file with one line of at least 16 characters.
	ControlTokenFile string `yaml:"control_token_file"`
	// The names, besides `localhost` and addresses, under which the page is reached where no token is asked for: by way of
	// the proxy, or from this machine.
	// Type: list of names.
	// Limits: names without scheme and port.
	Hosts []string      `yaml:"hosts"`
	Proxy proxySettings `yaml:"proxy"`
}

type proxySettings struct {
	// The header in which a reverse proxy names the user that it let in, such as `X-Forwarded-User`. The proxy must remove
	// it from what it is sent.
	// Limits: letters, digits and `-`.
	Header string `yaml:"header"`
	// The addresses of the proxy. From others the header does not count.
	// Type: list of prefixes.
	// Limits: such as `10.1.0.0/16`, with `http.proxy.header`.
	Trusted []string `yaml:"trusted"`
	// The users of the proxy who may control sites; the others may look.
	// Type: list of names.
	Controllers []string `yaml:"controllers"`
}

type grpcSettings struct {
	// The services for the sites and for operators, under mutual TLS.
	Listen string `yaml:"listen"`
	// primaryd's certificate, PEM, for the host name in the sites' `primary.address`.
	CertFile string `yaml:"cert_file"`
	// Its key, PEM.
	KeyFile string `yaml:"key_file"`
	// The authorities that the callers' certificates must come from.
	// Limits: a readable file of PEM certificates and nothing else.
	ClientCAFile string `yaml:"client_ca_file"`
	// How often a silent subscription shows a sign of life. A site reconnects after three without one.
	Heartbeat config.Duration `yaml:"heartbeat"`
}

type sweepSettings struct {
	// From the end of one round of the sweep to the start of the next. There is one at start, too.
	Interval config.Duration `yaml:"interval"`
}

type nodeSettings struct {
	// The site's name, as in its certificate.
	// Type: name.
	// Limits: no two nodes or operators alike.
	// Required.
	Name string `yaml:"name"`
	// What the site may know of and list. `["**"]` grants everything.
	// Type: list of globs.
	// Limits: at least one.
	Repositories []string `yaml:"repositories"`
}

type doctorSettings struct {
	// Where `primaryd doctor --probe` pushes its image, which it deletes again. Reserved: let nobody else push there.
	Repository string `yaml:"repository"`
}

type logSettings struct {
	// The least level that is logged.
	Level string `yaml:"level"`
	// The form of the log, which goes to standard error.
	Format string `yaml:"format"`
}

type tracesSettings struct {
	// The OpenTelemetry collector that spans are sent to; plain with `http`, TLS with `https`. Without a port it is 4317
	// for `grpc` and 4318 for `http`. Without an endpoint nothing is traced. See [traces](operations.md#traces).
	Endpoint string `yaml:"endpoint"`
	// What OTLP is spoken over.
	Protocol string `yaml:"protocol"`
	// Authorities to trust for the collector besides the system's.
	// Limits: a readable file of PEM certificates.
	CAFile string `yaml:"ca_file"`
	// The share of traces that begin here which are recorded. What goes on with a trace from elsewhere is recorded if that
	// is.
	// Limits: 0 to 1.
	SampleRatio float64 `yaml:"sample_ratio"`
}

// loadSettings reads the file and names every mistake in it at once.
func loadSettings(path string) (*settings, error) {
	s := &settings{
		Database:      "sqlite:primary.db",
		Registry:      registrySettings{Concurrency: 16},
		Notifications: notificationsSettings{Rate: notification.DefaultRate, Burst: notification.DefaultBurst},
		HTTP:          httpSettings{Listen: "127.0.0.1:8080"},
		GRPC:          grpcSettings{Listen: "127.0.0.1:7443", Heartbeat: config.Duration(10 * time.Second)},
		Sweep:         sweepSettings{Interval: config.Duration(time.Hour)},
		Doctor:        doctorSettings{Repository: "antipode/doctor"},
		Log:           logSettings{Level: "info", Format: "text"},
		Traces:        tracesSettings{Protocol: "grpc", SampleRatio: 1},
	}
	return s, config.Load(path, s, s.check)
}

func (s *settings) check(p *config.Problems) {
	p.CheckDatabase("database", s.Database)
	p.CheckURL("registry.url", s.Registry.URL)
	if s.Registry.AdvertiseURL != "" {
		p.CheckURL("registry.advertise_url", s.Registry.AdvertiseURL)
	}
	if s.Registry.CAFile != "" {
		p.CheckFile("registry.ca_file", s.Registry.CAFile)
	}
	p.CheckNumber("registry.concurrency", s.Registry.Concurrency, 1, 1024)
	p.CheckFile("notifications.secret_file", s.Notifications.SecretFile)
	p.CheckNumber("notifications.rate", s.Notifications.Rate, 1, 1_000_000)
	p.CheckNumber("notifications.burst", s.Notifications.Burst, 1, 10_000_000)
	s.HTTP.check(p)
	p.CheckListen("grpc.listen", s.GRPC.Listen)
	p.CheckFile("grpc.cert_file", s.GRPC.CertFile)
	p.CheckFile("grpc.key_file", s.GRPC.KeyFile)
	p.CheckFile("grpc.client_ca_file", s.GRPC.ClientCAFile)
	p.CheckBetween("grpc.heartbeat", s.GRPC.Heartbeat, time.Second, time.Minute)
	p.CheckBetween("sweep.interval", s.Sweep.Interval, time.Second, 7*24*time.Hour)
	p.CheckRepository("doctor.repository", s.Doctor.Repository)
	p.CheckOneOf("log.level", s.Log.Level, "debug", "info", "warn", "error")
	p.CheckOneOf("log.format", s.Log.Format, "text", "json")
	s.Traces.check(p)
	s.checkIdentities(p)
}

func (s *settings) checkIdentities(p *config.Problems) {
	taken := map[string]string{}
	claim := func(key, name string) {
		p.CheckName(key, name)
		if other, ok := taken[name]; ok {
			p.Add(key, "%q is named at %s already", name, other)
		}
		taken[name] = key
	}
	for i, n := range s.Nodes {
		key := fmt.Sprintf("nodes[%d]", i)
		claim(key+".name", n.Name)
		if len(n.Repositories) == 0 {
			p.Add(key+".repositories", "grants nothing; list globs such as \"prod/**\", or \"**\" for all")
		}
		for j, glob := range n.Repositories {
			p.CheckGlob(fmt.Sprintf("%s.repositories[%d]", key, j), glob)
		}
	}
	for i, name := range s.Operators {
		claim(fmt.Sprintf("operators[%d]", i), name)
	}
}

func (s *settings) nodes() []node.Config {
	var nodes []node.Config
	for _, n := range s.Nodes {
		nodes = append(nodes, node.Config{Name: n.Name, Repositories: n.Repositories})
	}
	return nodes
}

// advertised is where sites reach the primary's registry.
func (s *settings) advertised() string {
	if s.Registry.AdvertiseURL != "" {
		return s.Registry.AdvertiseURL
	}
	return s.Registry.URL
}

func (s *tracesSettings) config(logger *slog.Logger) telemetry.TracesConfig {
	return telemetry.TracesConfig{
		Endpoint: s.Endpoint, Protocol: s.Protocol, CAFile: s.CAFile, SampleRatio: s.SampleRatio, Component: "primaryd",
		Version: telemetry.Version(), Logger: logger,
	}
}

func (s *tracesSettings) check(p *config.Problems) {
	if s.Endpoint != "" {
		p.CheckURL("traces.endpoint", s.Endpoint)
	}
	p.CheckOneOf("traces.protocol", s.Protocol, "grpc", "http")
	if s.CAFile != "" {
		p.CheckFile("traces.ca_file", s.CAFile)
	}
	p.CheckShare("traces.sample_ratio", s.SampleRatio)
}

func (s *httpSettings) check(p *config.Problems) {
	p.CheckListen("http.listen", s.Listen)
	if s.ViewTokenFile != "" {
		p.CheckFile("http.view_token_file", s.ViewTokenFile)
	}
	if s.ControlTokenFile != "" {
		p.CheckFile("http.control_token_file", s.ControlTokenFile)
	}
	for i, name := range s.Hosts {
		p.CheckHost(fmt.Sprintf("http.hosts[%d]", i), name)
	}
	p.CheckProxy("http.proxy", s.Proxy.Header, s.Proxy.Trusted)
	if s.Proxy.Header == "" && len(s.Proxy.Controllers) > 0 {
		p.Add("http.proxy.controllers", "needs http.proxy.header, which names the users")
	}
}

// access is who may look and control over HTTP.
func (s *httpSettings) access(logger *slog.Logger) httpaccess.Config {
	return httpaccess.Config{
		ViewTokenFile: s.ViewTokenFile, ControlTokenFile: s.ControlTokenFile, Hosts: s.Hosts, ProxyHeader: s.Proxy.Header,
		ProxyTrusted: config.Prefixes(s.Proxy.Trusted), Controllers: s.Proxy.Controllers, Logger: logger,
	}
}
