package main

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/antipode-registry/antipode/internal/authority"
	"github.com/antipode-registry/antipode/internal/link"
	"github.com/antipode-registry/antipode/internal/reference"
	"github.com/antipode-registry/antipode/internal/telemetry"
)

// TestMetricsAreDocumented opens the daemon, which registers all metrics, and says whether the reference is what they
// give; make docs writes it.
func TestMetricsAreDocumented(t *testing.T) {
	t.Parallel()
	metrics, err := reference.Metrics(opened(t).metrics)
	if err != nil {
		t.Fatal(err)
	}
	for name, shared := range map[string]bool{"metrics of both daemons": true, "secondaryd metrics": false} {
		if err := reference.Current("../docs/metrics.md", name, reference.MetricTable(metrics, shared)); err != nil {
			t.Error(err)
		}
	}
}

// opened returns a daemon with all its parts, none of which runs.
func opened(t *testing.T, changes ...func(*settings)) *daemon {
	t.Helper()
	cfg, err := loadSettings(configuration(t))
	if err != nil {
		t.Fatal(err)
	}
	for _, change := range changes {
		change(cfg)
	}
	d := &daemon{
		cfg: cfg, logger: slog.New(slog.DiscardHandler), started: time.Now(),
		metrics: telemetry.NewRegistry("secondaryd", "test"),
	}
	if err := d.open(t.Context()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ended, cancel := context.WithCancel(context.Background())
		cancel()
		for _, err := range []error{d.server.Run(ended), d.http.Close(), d.close()} {
			if err != nil {
				t.Error(err)
			}
		}
	})
	return d
}

// configuration writes a file that the daemon starts with.
func configuration(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	if err := authority.Init(dir); err != nil {
		t.Fatal(err)
	}
	if err := authority.Issue(dir, "eu-west", link.RoleNode, nil); err != nil {
		t.Fatal(err)
	}
	in := func(name string) string { return filepath.Join(dir, name) }
	text := fmt.Sprintf(`
node: eu-west
database: "sqlite:%s"
primary: {address: "127.0.0.1:1", cert_file: "%s", key_file: "%s", ca_file: "%s"}
registry: {url: "http://127.0.0.1:1"}
http: {listen: "127.0.0.1:0"}
grpc: {listen: "127.0.0.1:0", cert_file: "%s", key_file: "%s", client_ca_file: "%s"}
`, in("secondary.db"), in("eu-west.crt"), in("eu-west.key"), in("ca.crt"), in("eu-west.crt"), in("eu-west.key"), in("ca.crt"))
	path := in("secondary.yaml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}
