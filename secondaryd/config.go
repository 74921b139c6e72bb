package main

import (
	"fmt"
	"log/slog"
	"time"

	"github.com/bmatcuk/doublestar/v4"

	"github.com/antipode-registry/antipode/internal/config"
	"github.com/antipode-registry/antipode/internal/httpaccess"
	"github.com/antipode-registry/antipode/secondaryd/internal/plan"
	"github.com/antipode-registry/antipode/secondaryd/internal/service"
	"github.com/antipode-registry/antipode/secondaryd/internal/tracking"
)

// settings is the configuration file of secondaryd; docs/configuration.md describes every key.
type settings struct {
	Node        string              `yaml:"node"`
	Database    string              `yaml:"database"`
	Primary     primarySettings     `yaml:"primary"`
	Registry    registrySettings    `yaml:"registry"`
	Replication replicationSettings `yaml:"replication"`
	Deletions   deletionsSettings   `yaml:"deletions"`
	HTTP        httpSettings        `yaml:"http"`
	GRPC        grpcSettings        `yaml:"grpc"`
	Sweep       sweepSettings       `yaml:"sweep"`
	Operators   []string            `yaml:"operators"`
	Doctor      doctorSettings      `yaml:"doctor"`
	Log         logSettings         `yaml:"log"`
}

type primarySettings struct {
	Address             string `yaml:"address"`
	CertFile            string `yaml:"cert_file"`
	KeyFile             string `yaml:"key_file"`
	CAFile              string `yaml:"ca_file"`
	RegistryURL         string `yaml:"registry_url"`
	RegistryCAFile      string `yaml:"registry_ca_file"`
	RegistryConcurrency int    `yaml:"registry_concurrency"`
	// Requests are what the primary's operators may ask of this site.
	Requests []string `yaml:"requests"`
}

type registrySettings struct {
	URL         string `yaml:"url"`
	CAFile      string `yaml:"ca_file"`
	Concurrency int    `yaml:"concurrency"`
}

type replicationSettings struct {
	Workers   int               `yaml:"workers"`
	Blobs     int               `yaml:"blobs"`
	Bandwidth bandwidthSettings `yaml:"bandwidth"`
	Include   []string          `yaml:"include"`
	Exclude   []string          `yaml:"exclude"`
	Rename    []renameSettings  `yaml:"rename"`
}

type deletionsSettings struct {
	Enabled   bool          `yaml:"enabled"`
	KeepStray bool          `yaml:"keep_stray"`
	Protected []string      `yaml:"protected"`
	Brake     brakeSettings `yaml:"brake"`
}

type brakeSettings struct {
	Share     float64 `yaml:"share"`
	Count     int     `yaml:"count"`
	SiteShare float64 `yaml:"site_share"`
	SiteCount int     `yaml:"site_count"`
}

type httpSettings struct {
	Listen        string        `yaml:"listen"`
	ViewTokenFile string        `yaml:"view_token_file"`
	Hosts         []string      `yaml:"hosts"`
	Proxy         proxySettings `yaml:"proxy"`
}

type proxySettings struct {
	Header  string   `yaml:"header"`
	Trusted []string `yaml:"trusted"`
}

type grpcSettings struct {
	Listen       string `yaml:"listen"`
	CertFile     string `yaml:"cert_file"`
	KeyFile      string `yaml:"key_file"`
	ClientCAFile string `yaml:"client_ca_file"`
}

type sweepSettings struct {
	Interval    config.Duration `yaml:"interval"`
	VerifyAfter config.Duration `yaml:"verify_after"`
}

type doctorSettings struct {
	Repository string `yaml:"repository"`
}

type logSettings struct {
	Level  string `yaml:"level"`
	Format string `yaml:"format"`
}

// loadSettings reads the file and names every mistake in it at once.
func loadSettings(path string) (*settings, error) {
	s := &settings{
		Database:    "sqlite:secondary.db",
		Primary:     primarySettings{RegistryConcurrency: 16, Requests: service.RequestKinds()},
		Registry:    registrySettings{Concurrency: 16},
		Replication: replicationSettings{Workers: 8, Blobs: 8, Include: []string{"**"}},
		Deletions:   deletionsSettings{Enabled: true, Brake: brakeSettings{Share: 0.5, Count: 10, SiteShare: 0.2, SiteCount: 100}},
		HTTP:        httpSettings{Listen: "127.0.0.1:8081"},
		GRPC:        grpcSettings{Listen: "127.0.0.1:7444"},
		Sweep:       sweepSettings{Interval: config.Duration(time.Hour), VerifyAfter: config.Duration(7 * 24 * time.Hour)},
		Doctor:      doctorSettings{Repository: "antipode/doctor"},
		Log:         logSettings{Level: "info", Format: "text"},
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
	checkShare(p, "deletions.brake.share", s.Deletions.Brake.Share)
	p.CheckNumber("deletions.brake.count", s.Deletions.Brake.Count, 0, 1<<30)
	checkShare(p, "deletions.brake.site_share", s.Deletions.Brake.SiteShare)
	p.CheckNumber("deletions.brake.site_count", s.Deletions.Brake.SiteCount, 0, 1<<30)
	s.checkRename(p)
}

// checkShare refuses what is no number too.
func checkShare(p *config.Problems, key string, share float64) {
	if !(share >= 0 && share <= 1) {
		p.Add(key, "must be 0 to 1, not %v", share)
	}
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
