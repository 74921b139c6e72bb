package main

import (
	"fmt"
	"log/slog"
	"time"

	"github.com/antipode-registry/antipode/internal/config"
	"github.com/antipode-registry/antipode/internal/httpaccess"
	"github.com/antipode-registry/antipode/primaryd/internal/node"
)

// settings is the configuration file of primaryd; docs/configuration.md describes every key.
type settings struct {
	Database      string                `yaml:"database"`
	Registry      registrySettings      `yaml:"registry"`
	Notifications notificationsSettings `yaml:"notifications"`
	HTTP          httpSettings          `yaml:"http"`
	GRPC          grpcSettings          `yaml:"grpc"`
	Sweep         sweepSettings         `yaml:"sweep"`
	Nodes         []nodeSettings        `yaml:"nodes"`
	Operators     []string              `yaml:"operators"`
	Doctor        doctorSettings        `yaml:"doctor"`
	Log           logSettings           `yaml:"log"`
}

type registrySettings struct {
	URL          string `yaml:"url"`
	AdvertiseURL string `yaml:"advertise_url"`
	CAFile       string `yaml:"ca_file"`
	Concurrency  int    `yaml:"concurrency"`
}

type notificationsSettings struct {
	SecretFile string `yaml:"secret_file"`
}

type httpSettings struct {
	Listen           string        `yaml:"listen"`
	ViewTokenFile    string        `yaml:"view_token_file"`
	ControlTokenFile string        `yaml:"control_token_file"`
	Hosts            []string      `yaml:"hosts"`
	Proxy            proxySettings `yaml:"proxy"`
}

type proxySettings struct {
	Header      string   `yaml:"header"`
	Trusted     []string `yaml:"trusted"`
	Controllers []string `yaml:"controllers"`
}

type grpcSettings struct {
	Listen       string          `yaml:"listen"`
	CertFile     string          `yaml:"cert_file"`
	KeyFile      string          `yaml:"key_file"`
	ClientCAFile string          `yaml:"client_ca_file"`
	Heartbeat    config.Duration `yaml:"heartbeat"`
}

type sweepSettings struct {
	Interval config.Duration `yaml:"interval"`
}

type nodeSettings struct {
	Name         string   `yaml:"name"`
	Repositories []string `yaml:"repositories"`
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
		Database: "sqlite:primary.db",
		Registry: registrySettings{Concurrency: 16},
		HTTP:     httpSettings{Listen: "127.0.0.1:8080"},
		GRPC:     grpcSettings{Listen: "127.0.0.1:7443", Heartbeat: config.Duration(10 * time.Second)},
		Sweep:    sweepSettings{Interval: config.Duration(time.Hour)},
		Doctor:   doctorSettings{Repository: "antipode/doctor"},
		Log:      logSettings{Level: "info", Format: "text"},
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
