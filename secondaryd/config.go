package main

import (
	"fmt"
	"log/slog"
	"time"

	"github.com/bmatcuk/doublestar/v4"

	"github.com/antipode-registry/antipode/internal/config"
	"github.com/antipode-registry/antipode/internal/httpaccess"
	"github.com/antipode-registry/antipode/internal/telemetry"
	"github.com/antipode-registry/antipode/secondaryd/internal/plan"
	"github.com/antipode-registry/antipode/secondaryd/internal/service"
	"github.com/antipode-registry/antipode/secondaryd/internal/tracking"
)

// settings is the configuration file of secondaryd; docs/configuration.md describes every key.
type settings struct {
	// The site's name, as in its certificate and in primaryd's `nodes`.
	Node string `yaml:"node"`
	// Where the tracking table, the cursor, the journal and the content index are kept.
	Database    string              `yaml:"database"`
	Primary     primarySettings     `yaml:"primary"`
	Registry    registrySettings    `yaml:"registry"`
	Replication replicationSettings `yaml:"replication"`
	Deletions   deletionsSettings   `yaml:"deletions"`
	HTTP        httpSettings        `yaml:"http"`
	GRPC        grpcSettings        `yaml:"grpc"`
	Sweep       sweepSettings       `yaml:"sweep"`
	// Whose certificates may query and control. Empty: every certificate of the authority whose role is operator.
	// Type: list of names.
	Operators []string       `yaml:"operators"`
	Doctor    doctorSettings `yaml:"doctor"`
	Log       logSettings    `yaml:"log"`
	Traces    tracesSettings `yaml:"traces"`
}

type primarySettings struct {
	// primaryd's `grpc.listen`, as reached from here. The host must be in primaryd's certificate.
	Address string `yaml:"address"`
	// The site's certificate, PEM.
	CertFile string `yaml:"cert_file"`
	// Its key, PEM.
	KeyFile string `yaml:"key_file"`
	// The authorities that primaryd's certificate must come from.
	// Limits: a readable file of PEM certificates and nothing else.
	CAFile string `yaml:"ca_file"`
	// Where the primary's registry is reached from here; what primaryd says when left out.
	RegistryURL string `yaml:"registry_url"`
	// Authorities to trust for that registry besides the system's.
	// Limits: a readable file of PEM certificates.
	RegistryCAFile string `yaml:"registry_ca_file"`
	// Requests in flight to the primary's registry at most.
	RegistryConcurrency int `yaml:"registry_concurrency"`
	// What the primary's operators may ask of this site by way of its subscription; `[]` lets them ask nothing. See
	// [security](security.md#what-a-compromised-part-can-do).
	// Limits: `pause`, `resume`, `resync`, `release`, `inspect`.
	Requests []string `yaml:"requests"`
}

type registrySettings struct {
	// The site's own registry.
	URL string `yaml:"url"`
	// Authorities to trust for it besides the system's.
	// Limits: a readable file of PEM certificates.
	CAFile string `yaml:"ca_file"`
	// Requests in flight to it at most.
	Concurrency int `yaml:"concurrency"`
}

type replicationSettings struct {
	// Repositories synced at once. With two or more, one is kept free for live changes.
	Workers int `yaml:"workers"`
	// Blobs copied at once, over all repositories. More than may be in flight to one registry: a blob is at one of the two at a
	// time.
	Blobs     int               `yaml:"blobs"`
	Bandwidth bandwidthSettings `yaml:"bandwidth"`
	// What this site replicates of what the primary grants it.
	// Type: list of globs.
	// Limits: at least one.
	Include []string `yaml:"include"`
	// What it does not replicate although it is included.
	// Type: list of globs.
	Exclude []string `yaml:"exclude"`
	// Other names on the site: the first rule whose `from` begins a repository's name applies, one that no rule fits keeps
	// its name. [More](operations.md#other-names-on-the-site).
	// Limits: rules that could put two repositories into one are refused.
	Rename []renameSettings `yaml:"rename"`
}

type deletionsSettings struct {
	// Whether tags that the primary does not have are removed from the site at all.
	Enabled bool `yaml:"enabled"`
	// Keep tags that were pushed to the site itself. See [stray tags](operations.md#tags-that-only-the-site-has).
	KeepStray bool `yaml:"keep_stray"`
	// Tags that are never removed from the site. They are still moved when they move at the primary.
	// Type: list of globs.
	Protected []string      `yaml:"protected"`
	Brake     brakeSettings `yaml:"brake"`
}

type brakeSettings struct {
	// The brake: a sync that would remove more than this share of a repository's tags,
	// Limits: 0 to 1.
	Share float64 `yaml:"share"`
	// and more than this many of them, removes nothing and holds the repository. A share of 1 switches the brake off.
	Count int `yaml:"count"`
	// The site's brake: removals that would bring those of the last 24 hours above this share of all the site's tags,
	// Limits: 0 to 1.
	SiteShare float64 `yaml:"site_share"`
	// and above this many, are withheld too. A share of 1 switches it off.
	SiteCount int `yaml:"site_count"`
}

type httpSettings struct {
	// `/metrics`, `/healthz`, `/readyz` and the site's status as JSON below `/api/`. Plain HTTP.
	Listen string `yaml:"listen"`
	// The token with which the JSON may be read from anywhere. With neither this nor `http.proxy` only this machine may
	// read it. Read at each request.
	// Limits: a readable file with one line of at least 16 characters.
	ViewTokenFile string `yaml:"view_token_file"`
	// The names, besides `localhost` and addresses, under which the JSON is reached where no token is asked for.
	// Type: list of names.
	// Limits: names without scheme and port.
	Hosts []string      `yaml:"hosts"`
	Proxy proxySettings `yaml:"proxy"`
}

type proxySettings struct {
	// The header in which a reverse proxy names the user that it let in.
	// Limits: letters, digits and `-`.
	Header string `yaml:"header"`
	// The addresses of the proxy.
	// Type: list of prefixes.
	// Limits: such as `10.1.0.0/16`, with `http.proxy.header`.
	Trusted []string `yaml:"trusted"`
}

type grpcSettings struct {
	// The service for operators and for the command line, under mutual TLS.
	Listen string `yaml:"listen"`
	// The certificate that this service presents, PEM; most often the site's own.
	CertFile string `yaml:"cert_file"`
	// Its key, PEM.
	KeyFile string `yaml:"key_file"`
	// The authorities that the callers' certificates must come from.
	// Limits: a readable file of PEM certificates and nothing else.
	ClientCAFile string `yaml:"client_ca_file"`
}

type sweepSettings struct {
	// How often the site's registry is compared with what was synced; an interval after the last round ended, restarts or
	// not; the first time an interval after the first start.
	Interval config.Duration `yaml:"interval"`
	// How long after its last check the sweep has all manifests and blobs of a repository checked again. 0 switches it
	// off.
	VerifyAfter config.Duration `yaml:"verify_after"`
}

type doctorSettings struct {
	// Where `secondaryd doctor` pushes its image on the site, which it deletes again. Reserved: let nobody else push
	// there.
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
		Database:    "sqlite:secondary.db",
		Primary:     primarySettings{RegistryConcurrency: 16, Requests: service.RequestKinds()},
		Registry:    registrySettings{Concurrency: 16},
		Replication: replicationSettings{Workers: 8, Blobs: 32, Include: []string{"**"}},
		Deletions:   deletionsSettings{Enabled: true, Brake: brakeSettings{Share: 0.5, Count: 10, SiteShare: 0.2, SiteCount: 100}},
		HTTP:        httpSettings{Listen: "127.0.0.1:8081"},
		GRPC:        grpcSettings{Listen: "127.0.0.1:7444"},
		Sweep:       sweepSettings{Interval: config.Duration(time.Hour), VerifyAfter: config.Duration(7 * 24 * time.Hour)},
		Doctor:      doctorSettings{Repository: "antipode/doctor"},
		Log:         logSettings{Level: "info", Format: "text"},
		Traces:      tracesSettings{Protocol: "grpc", SampleRatio: 1},
	}
	return s, config.Load(path, s, s.check)
}

func (s *settings) check(p *config.Problems) {
	p.CheckName("node", s.Node)
	p.CheckDatabase("database", s.Database)
	p.CheckAddress("primary.address", s.Primary.Address)
	p.CheckFile("primary.cert_file", s.Primary.CertFile)
	p.CheckFile("primary.key_file", s.Primary.KeyFile)
	p.CheckFile("primary.ca_file", s.Primary.CAFile)
	if s.Primary.RegistryURL != "" {
		p.CheckURL("primary.registry_url", s.Primary.RegistryURL)
	}
	if s.Primary.RegistryCAFile != "" {
		p.CheckFile("primary.registry_ca_file", s.Primary.RegistryCAFile)
	}
	p.CheckNumber("primary.registry_concurrency", s.Primary.RegistryConcurrency, 1, 1024)
	for i, kind := range s.Primary.Requests {
		p.CheckOneOf(fmt.Sprintf("primary.requests[%d]", i), kind, service.RequestKinds()...)
	}
	p.CheckURL("registry.url", s.Registry.URL)
	if s.Registry.CAFile != "" {
		p.CheckFile("registry.ca_file", s.Registry.CAFile)
	}
	p.CheckNumber("registry.concurrency", s.Registry.Concurrency, 1, 1024)
	s.checkPolicy(p)
	s.HTTP.check(p)
	p.CheckListen("grpc.listen", s.GRPC.Listen)
	p.CheckFile("grpc.cert_file", s.GRPC.CertFile)
	p.CheckFile("grpc.key_file", s.GRPC.KeyFile)
	p.CheckFile("grpc.client_ca_file", s.GRPC.ClientCAFile)
	p.CheckBetween("sweep.interval", s.Sweep.Interval, time.Second, 7*24*time.Hour)
	p.CheckBetween("sweep.verify_after", s.Sweep.VerifyAfter, 0, 365*24*time.Hour)
	for i, name := range s.Operators {
		p.CheckName(fmt.Sprintf("operators[%d]", i), name)
	}
	p.CheckRepository("doctor.repository", s.Doctor.Repository)
	p.CheckOneOf("log.level", s.Log.Level, "debug", "info", "warn", "error")
	p.CheckOneOf("log.format", s.Log.Format, "text", "json")
	s.Traces.check(p)
}

func (s *settings) checkPolicy(p *config.Problems) {
	p.CheckNumber("replication.workers", s.Replication.Workers, 1, 256)
	p.CheckNumber("replication.blobs", s.Replication.Blobs, 1, 256)
	s.Replication.Bandwidth.check(p)
	globs := map[string][]string{
		"replication.include": s.Replication.Include, "replication.exclude": s.Replication.Exclude,
		"deletions.protected": s.Deletions.Protected,
	}
	for key, list := range globs {
		for i, glob := range list {
			p.CheckGlob(fmt.Sprintf("%s[%d]", key, i), glob)
		}
	}
	if len(s.Replication.Include) == 0 {
		p.Add("replication.include", "includes nothing; leave it out to replicate all that the primary grants")
	}
	p.CheckShare("deletions.brake.share", s.Deletions.Brake.Share)
	p.CheckNumber("deletions.brake.count", s.Deletions.Brake.Count, 0, 1<<30)
	p.CheckShare("deletions.brake.site_share", s.Deletions.Brake.SiteShare)
	p.CheckNumber("deletions.brake.site_count", s.Deletions.Brake.SiteCount, 0, 1<<30)
	s.checkRename(p)
}

// wants says whether the site replicates a repository.
func (s *settings) wants(repository string) bool {
	return matches(s.Replication.Include, repository) && !matches(s.Replication.Exclude, repository)
}

// scope identifies what the site replicates, and under which names, for the tracking table to notice when it changes.
func (s *settings) scope() tracking.Scope {
	return tracking.Scope{
		Selection: fmt.Sprintf("include %q exclude %q", s.Replication.Include, s.Replication.Exclude),
		Names:     fmt.Sprintf("rename %q", s.Replication.Rename),
		Wants:     s.wants,
	}
}

func (s *settings) policy() plan.Policy {
	return plan.Policy{
		Deletions: s.Deletions.Enabled, KeepStray: s.Deletions.KeepStray,
		Protected:  func(tag string) bool { return matches(s.Deletions.Protected, tag) },
		BrakeShare: s.Deletions.Brake.Share, BrakeCount: int64(s.Deletions.Brake.Count),
	}
}

// siteBrake counts within the last 24 hours.
func (s *settings) siteBrake() tracking.SiteBrake {
	return tracking.SiteBrake{
		Share: s.Deletions.Brake.SiteShare, Count: int64(s.Deletions.Brake.SiteCount), Window: 24 * time.Hour,
	}
}

// matches says whether one of the globs, which were checked, matches name.
func matches(globs []string, name string) bool {
	for _, glob := range globs {
		if doublestar.MatchUnvalidated(glob, name) {
			return true
		}
	}
	return false
}

func (s *tracesSettings) config(node string, logger *slog.Logger) telemetry.TracesConfig {
	return telemetry.TracesConfig{
		Endpoint: s.Endpoint, Protocol: s.Protocol, CAFile: s.CAFile, SampleRatio: s.SampleRatio, Component: "secondaryd",
		Version: telemetry.Version(), Node: node, Logger: logger,
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
	for i, name := range s.Hosts {
		p.CheckHost(fmt.Sprintf("http.hosts[%d]", i), name)
	}
	p.CheckProxy("http.proxy", s.Proxy.Header, s.Proxy.Trusted)
}

// access is who may look over HTTP.
func (s *httpSettings) access(logger *slog.Logger) httpaccess.Config {
	return httpaccess.Config{
		ViewTokenFile: s.ViewTokenFile, Hosts: s.Hosts, ProxyHeader: s.Proxy.Header,
		ProxyTrusted: config.Prefixes(s.Proxy.Trusted), Logger: logger,
	}
}
