package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/antipode-registry/antipode/internal/authority"
	"github.com/antipode-registry/antipode/internal/link"
	"github.com/antipode-registry/antipode/internal/registrytest"
)

// finding is one of a doctor's, as scripts read it.
type finding struct{ Level, Check, Found, Mend string }

// visit runs a daemon's doctor with its configuration, of which some keys are changed for the visit, and returns the
// findings and the exit code.
func visit(t *testing.T, d *daemon, changes map[string]any, args ...string) (findings []finding, code int) {
	t.Helper()
	text, err := os.ReadFile(d.config)
	if err != nil {
		t.Fatal(err)
	}
	config := map[string]any{}
	if err := yaml.Unmarshal(text, &config); err != nil {
		t.Fatal(err)
	}
	for key, value := range changes {
		set(config, key, value)
	}
	changed, err := yaml.Marshal(config)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "visit.yaml")
	if err := os.WriteFile(path, changed, 0o600); err != nil {
		t.Fatal(err)
	}
	args = append([]string{"doctor", "--config", path, "--output", "json"}, args...)
	stdout, stderr, code := command(t, d.dir, binary(d.name), args...)
	var report struct{ Findings []finding }
	if err := json.Unmarshal([]byte(stdout), &report); err != nil {
		t.Fatalf("%v\n%s%s", err, stdout, stderr)
	}
	return report.Findings, code
}

// says returns an error unless a finding has the level, is about check and holds all words.
func says(findings []finding, level, check string, words ...string) error {
	for _, f := range findings {
		if f.Level == level && f.Check == check && contains(f.Found+" "+f.Mend, words...) == nil {
			return nil
		}
	}
	return fmt.Errorf("no %s of %s says %q:\n%+v", level, check, words, findings)
}

// TestDoctors visits both ends of a good pair, and then of one in which something is wrong, one thing after the other.
func TestDoctors(t *testing.T) {
	t.Parallel()
	listen := fmt.Sprintf("127.0.0.1:%d", registrytest.ReservePort(t))
	p := newPair(t, withSecondaryConfig("grpc.listen", listen))
	push(t, p, "team/app", "v1", image(1))
	p.Converges(t)
	t.Run("a good primary", func(t *testing.T) {
		findings, code := visit(t, p.Primary, nil, "--probe")
		if err := says(findings, "ok", "notifications", "a probe's arrived"); err != nil || code != 0 {
			t.Errorf("exit code %d, %v", code, err)
		}
		eventually(t, func(context.Context) error { // the site takes the probe and its removal like anything else
			findings, _ := visit(t, p.Primary, nil)
			return says(findings, "ok", "node "+siteName, "healthy")
		})
	})
	t.Run("a good site", func(t *testing.T) {
		findings, code := visit(t, p.Secondary, nil)
		for _, want := range [][]string{
			{"primary.cert_file", "antipode://node/" + siteName},
			{"primary.ca_file"},
			{"grpc.cert_file"},
			{"grpc.client_ca_file"},
			{"database", "tracking"},
			{"registry", "can be written"},
			{"registry", "tags can be deleted"},
			{"clock"},
			{"primary", "takes this site for " + siteName},
			{"primary's registry", "manifests and blobs can be read"},
			{"daemon", "synced"},
		} {
			if err := says(findings, "ok", want[0], want[1:]...); err != nil {
				t.Error(err)
			}
		}
		if code != 0 || len(registrytest.Tags(t, p.Site.URL(), "antipode/doctor")) != 0 {
			t.Errorf("exit code %d, left behind: %v", code, registrytest.Tags(t, p.Site.URL(), "antipode/doctor"))
		}
	})
	t.Run("a wrong webhook secret", func(t *testing.T) {
		p.write("other.secret", "not what the daemon has")
		findings, code := visit(t, p.Primary, map[string]any{"notifications.secret_file": "other.secret"})
		if err := says(findings, "fail", "notifications", "takes another secret"); err != nil || code != 1 {
			t.Errorf("exit code %d, %v", code, err)
		}
	})
	t.Run("a site's troubles", func(t *testing.T) { siteTroubles(t, p) })
	p.Primary.Kill()
	findings, code := visit(t, p.Secondary, nil)
	if err := says(findings, "fail", "primary", "refused", "start primaryd"); err != nil || code != 1 {
		t.Errorf("primary down: exit code %d, %v", code, err)
	}
}

// siteTroubles breaks one thing at a time, for the visit alone: the daemons go on.
func siteTroubles(t *testing.T, p *pair) {
	t.Helper()
	noDeletes := registrytest.WithConfig(func(config map[string]any) {
		storage, _ := config["storage"].(map[string]any)
		storage["delete"] = map[string]any{"enabled": false}
	})
	locked := registrytest.NewProxy(t, p.Site.URL())
	locked.Fault(func(r *http.Request) registrytest.Fault {
		if r.Method == http.MethodGet || r.Method == http.MethodHead {
			return registrytest.Fault{}
		}
		return registrytest.Fault{Status: http.StatusForbidden, Body: `{"errors":[{"code":"DENIED"}]}`}
	})
	ca, err := authority.Open(p.pki)
	if err != nil {
		t.Fatal(err)
	}
	ended, err := ca.Issue(authority.Leaf{
		Role: link.RoleNode, Name: siteName, NotBefore: time.Now().Add(-2 * time.Hour), NotAfter: time.Now().Add(-time.Hour),
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := authority.Write(ended, p.cert("ended"), p.key("ended")); err != nil {
		t.Fatal(err)
	}
	p.write("dead.db", strings.Repeat("no database ", 1000))
	for name, trouble := range map[string]struct {
		changes map[string]any
		check   string
		words   []string
	}{
		"deletes disabled": {
			map[string]any{"registry.url": registrytest.Distribution(t, noDeletes).URL()},
			"registry",
			[]string{"cannot be deleted", "left behind", "allow deletes"},
		},
		"deletes disabled on 2.8": {
			map[string]any{"registry.url": registrytest.Debian(t, noDeletes).URL()},
			"registry",
			[]string{"cannot be deleted", "allow deletes"},
		},
		"credentials that may not write": {
			map[string]any{"registry.url": locked.URL()}, "registry", []string{"403", "docker login"},
		},
		"a certificate that ended": {
			map[string]any{"primary.cert_file": p.cert("ended"), "primary.key_file": p.key("ended")},
			"primary.cert_file",
			[]string{"ended at"},
		},
		"another node's name": {
			map[string]any{"node": "us-east"}, "primary.cert_file", []string{"us-east"},
		},
		"a dead database": {map[string]any{"database": "sqlite:dead.db"}, "database", []string{"not a database"}},
		"the primary's registry elsewhere": {
			map[string]any{"primary.registry_url": "http://127.0.0.1:1"}, "primary's registry", []string{"refused"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			findings, code := visit(t, p.Secondary, trouble.changes)
			if err := says(findings, "fail", trouble.check, trouble.words...); err != nil || code != 1 {
				t.Errorf("exit code %d, %v", code, err)
			}
		})
	}
}
