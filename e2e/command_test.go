package e2e

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus/testutil/promlint"

	antipodev1 "github.com/antipode-registry/antipode/gen/antipode/v1"
	"github.com/antipode-registry/antipode/internal/registrytest"
)

// The site's registry takes no part in what follows, so one kind of it is enough.

// newSeenPair is a pair with something to see: two synced repositories and one that fails, because the image behind its
// tag is not there. Both daemons listen where their configuration says, as their own commands expect.
func newSeenPair(t *testing.T) *pair {
	t.Helper()
	listen := fmt.Sprintf("127.0.0.1:%d", registrytest.ReservePort(t))
	p := newPair(t, withSecondaryConfig("grpc.listen", listen))
	push(t, p, "seen/app", "v1", image(1))
	push(t, p, "seen/app", "v2", image(2))
	push(t, p, "seen/other", "v1", image(3))
	p.Converges(t)
	broken := image(4)
	push(t, p, "seen/broken", "v1", broken)
	arrives(t, p, "seen/broken", "v1", broken.Digest)
	broken = image(5)
	layer := broken.Layers()[0]
	if _, err := p.Replication().Pause(t.Context(), &antipodev1.PauseRequest{}); err != nil {
		t.Fatal(err)
	}
	push(t, p, "seen/broken", "v2", broken)
	registrytest.DeleteDigest(t, p.Registry.URL(), "seen/broken", "blobs/"+layer)
	if _, err := p.Replication().Resume(t.Context(), &antipodev1.ResumeRequest{}); err != nil {
		t.Fatal(err)
	}
	eventually(t, func(context.Context) error {
		if s := p.Status(t); s.GetRepositories().GetFailed() != 1 || s.GetRepositories().GetSynced() != 2 {
			return fmt.Errorf("repositories %v", s.GetRepositories())
		}
		return nil
	})
	nodeIs(t, p, antipodev1.NodeState_NODE_STATE_DEGRADED)
	return p
}

// TestCommands runs every query against the running daemons, as a table and as JSON, and then the controls.
func TestCommands(t *testing.T) {
	t.Parallel()
	p := newSeenPair(t)
	queries := []struct {
		daemon *daemon
		args   string
		table  []string // in the table
		json   []string // keys of the JSON
	}{
		{p.Primary, "nodes", []string{"NODE", siteName, "degraded", "2/3"}, []string{"nodes", "headRevision"}},
		{p.Primary, "nodes " + siteName, []string{"degraded", "seen/broken", "**"}, []string{"name", "state", "status"}},
		{p.Primary, "repositories", []string{"REPOSITORY", "seen/app", "seen/broken"}, []string{"repositories"}},
		{p.Secondary, "status", []string{siteName, "degraded", "2 synced", "1 failed", "seen/broken"}, []string{"node", "status"}},
		{p.Secondary, "repositories", []string{"seen/app", "synced", "failed"}, []string{"repositories"}},
		{p.Secondary, "repositories --state failed", []string{"seen/broken"}, []string{"repositories"}},
		{p.Secondary, "diff seen/app", []string{"2 tags are equal"}, []string{"steps", "equalTags"}},
		{p.Secondary, "diff seen/broken", []string{"copy", "v2", image(5).Digest}, []string{"steps", "equalTags"}},
		{p.Secondary, "explain seen/app", []string{"seen/app", "v1", "v2", image(1).Digest[:19]}, []string{"repository", "journal"}},
		{p.Secondary, "explain seen/broken:v2", []string{"failed", "v2"}, []string{"repository", "journal"}},
		{p.Secondary, "resync seen/app", []string{"1"}, []string{"repositories"}},
		{p.Secondary, "resync --all", []string{"3"}, []string{"repositories"}},
	}
	for _, q := range queries {
		t.Run(q.daemon.name+" "+q.args, func(t *testing.T) {
			args := strings.Fields(q.args)
			// What failed is tried again now and then, and syncing meanwhile.
			eventually(t, func(context.Context) error { return contains(succeeds(t, q.daemon, args...), q.table...) })
			var value map[string]any
			if err := json.Unmarshal([]byte(succeeds(t, q.daemon, append(args, "--output", "json")...)), &value); err != nil {
				t.Fatal(err)
			}
			for _, key := range q.json {
				if _, ok := value[key]; !ok {
					t.Errorf("no %q in %v", key, value)
				}
			}
		})
	}
	t.Run("only the failed", func(t *testing.T) {
		if out := succeeds(t, p.Secondary, "repositories", "--state", "failed"); strings.Contains(out, "seen/app") {
			t.Errorf("seen/app did not fail:\n%s", out)
		}
	})
	t.Run("completion", func(t *testing.T) {
		for d, words := range map[*daemon][]string{p.Primary: {"nodes", siteName}, p.Secondary: {"diff", "seen/app"}} {
			out, stderr, code := command(t, d.dir, binary(d.name), "__complete", words[0], "--config", d.config, words[1][:3])
			if code != 0 || !strings.HasPrefix(out, words[1]+"\n") {
				t.Errorf("%s completes %s to %q, exit code %d, %s", d.name, words[0], out, code, stderr)
			}
		}
	})
	t.Run("pause and resume", func(t *testing.T) { pausesByCommand(t, p) })
	t.Run("mistakes", func(t *testing.T) { mistakes(t, p) })
}

func pausesByCommand(t *testing.T, p *pair) {
	succeeds(t, p.Secondary, "pause")
	if !p.Status(t).GetPaused() {
		t.Error("not paused")
	}
	if out := succeeds(t, p.Secondary, "status"); !strings.Contains(out, "paused") {
		t.Errorf("the status does not say that it is paused:\n%s", out)
	}
	eventually(t, func(context.Context) error {
		if out := succeeds(t, p.Primary, "nodes"); !strings.Contains(out, "paused") {
			return fmt.Errorf("the primary does not say that it is paused:\n%s", out)
		}
		return nil
	})
	succeeds(t, p.Secondary, "resume", "--output", "json")
	if p.Status(t).GetPaused() {
		t.Error("still paused")
	}
}

// mistakes exit with 1 where the daemon refuses and with 2 where the command line is wrong; nothing is on standard output.
func mistakes(t *testing.T, p *pair) {
	for _, m := range []struct {
		daemon *daemon
		args   string
		code   int
		says   string
	}{
		{p.Primary, "nodes nowhere", 1, "nowhere"},
		{p.Primary, "nodes a b", 2, "arg"},
		{p.Primary, "nodes --output xml", 2, "xml"},
		{p.Primary, "nodes --addres here", 2, "addres"},
		{p.Secondary, "explain no/such", 1, "no/such"},
		{p.Secondary, "diff", 2, "arg"},
		{p.Secondary, "resync no/such", 1, "no/such"},
		{p.Secondary, "status --address 127.0.0.1:1", 1, "127.0.0.1:1"},
		{p.Secondary, "promenade", 2, "promenade"},
	} {
		stdout, stderr, code := m.daemon.Command(strings.Fields(m.args)...)
		if code != m.code || !strings.Contains(stderr, m.says) || stdout != "" {
			t.Errorf("%s %s: exit code %d instead of %d, or no %q in:\n%s\nor output:\n%s", m.daemon.name, m.args, code,
				m.code, m.says, stderr, stdout)
		}
	}
}

// contains returns an error that names what is missing in text.
func contains(text string, parts ...string) error {
	var missing []error
	for _, part := range parts {
		if !strings.Contains(text, part) {
			missing = append(missing, fmt.Errorf("%q is not in:\n%s", part, text))
		}
	}
	return errors.Join(missing...)
}

func succeeds(t testing.TB, d *daemon, args ...string) string {
	t.Helper()
	stdout, stderr, code := d.Command(args...)
	if code != 0 || stderr != "" {
		t.Errorf("%s %v: exit code %d\n%s%s", d.name, args, code, stdout, stderr)
	}
	return stdout
}

// TestGRPCurl is an operator without our programs: reflection tells the tool what there is.
func TestGRPCurl(t *testing.T) {
	t.Parallel()
	p := newSeenPair(t)
	tool, err := filepath.Abs("../.tools/bin/grpcurl")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(tool); err != nil {
		t.Fatalf("grpcurl is not installed: %v; run `make tools`", err)
	}
	ask := func(address string, args ...string) string {
		t.Helper()
		credentials := []string{"-cacert", p.ca(), "-cert", p.cert(operatorName), "-key", p.key(operatorName), "-emit-defaults"}
		if len(args) > 1 {
			credentials = append(credentials, "-d", args[1])
		}
		out, stderr, code := command(t, p.dir, tool, append(credentials, address, args[0])...)
		if code != 0 {
			t.Fatalf("grpcurl %v: exit code %d\n%s", args, code, stderr)
		}
		return out
	}
	for address, services := range map[string][]string{
		p.Primary.GRPC():   {"antipode.v1.FeedService", "antipode.v1.NodeService", "grpc.health.v1.Health"},
		p.Secondary.GRPC(): {"antipode.v1.ReplicationService", "grpc.health.v1.Health"},
	} {
		list := ask(address, "list")
		for _, service := range services {
			if !strings.Contains(list, service) {
				t.Errorf("%s is not in %s", service, list)
			}
		}
		if health := ask(address, "grpc.health.v1.Health/Check"); !strings.Contains(health, `"SERVING"`) {
			t.Errorf("health: %s", health)
		}
	}
	for _, args := range [][]string{
		{"antipode.v1.NodeService/ListNodes"}, {"antipode.v1.NodeService/GetNode", `{"name": "` + siteName + `"}`},
	} {
		eventually(t, func(context.Context) error {
			return contains(ask(p.Primary.GRPC(), args...), `"name": "eu-west"`, `"state": "NODE_STATE_DEGRADED"`,
				`"headRevision"`, `"cursorRevision"`, `"lagRevisions"`, `"lag"`, `"synced": "2"`, `"failed": "1"`,
				`"lastError"`, `"version"`, `"uptime"`, `"registryReachable": true`, `"databaseReachable": true`)
		})
	}
	if status := ask(p.Secondary.GRPC(), "antipode.v1.ReplicationService/GetStatus"); !strings.Contains(status, "seen/broken") {
		t.Errorf("no reason in %s", status)
	}
}

// TestHTTP asks both daemons for what monitoring asks.
func TestHTTP(t *testing.T) {
	t.Parallel()
	p := newSeenPair(t)
	for d, names := range map[*daemon][]string{
		p.Primary: {
			"antipode_build_info", "antipode_feed_head_revision", "antipode_notifications_total", "antipode_sweep_rounds_total",
			"antipode_registry_requests_total", "antipode_listings_total", "antipode_grpc_server_handled_total",
			`antipode_node_lag_seconds{node="eu-west"}`, `antipode_node_state{node="eu-west",state="degraded"} 1`,
		},
		p.Secondary: {
			"antipode_build_info", "antipode_lag_seconds", "antipode_lag_revisions", "antipode_copied_bytes_total",
			`antipode_repositories{state="synced"} 2`, `antipode_repositories{state="failed"} 1`,
			`antipode_repositories{state="pending"} 0`, `antipode_syncs_total{result="failed"`, "antipode_connected 1",
			"antipode_grpc_server_handled_total", "antipode_registry_request_seconds_bucket",
		},
	} {
		t.Run(d.name, func(t *testing.T) {
			for _, path := range []string{"/healthz", "/readyz"} {
				if status, body, err := httpGet(t.Context(), d.URL()+path); err != nil || status != http.StatusOK {
					t.Errorf("%s: %d %s %v", path, status, body, err)
				}
			}
			var text string
			eventually(t, func(ctx context.Context) error {
				status, body, err := httpGet(ctx, d.URL()+"/metrics")
				if err != nil || status != http.StatusOK {
					return fmt.Errorf("/metrics: %d %w", status, err)
				}
				text = body
				return contains(body, names...)
			})
			problems, err := promlint.New(strings.NewReader(text)).Lint()
			if err != nil {
				t.Fatal(err)
			}
			for _, problem := range problems {
				t.Errorf("%s: %s", problem.Metric, problem.Text)
			}
		})
	}
}
