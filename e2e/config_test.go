package e2e

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

const badPrimary = `database: mysql://somewhere/db
registry: {url: "127.0.0.1:5000", colour: red}
notifications:
  secret_file: /no/such/file
grpc:
  listen: nope
  cert_fil: primary.crt
  heartbeat: 5
sweep: {interval: 1ms}
nodes:
  - {name: "Not A Name", repositories: []}
  - {name: site, repositories: ["[x"]}
operators: [site]
nodez: []
log: {level: loud}
`

const badSecondary = `node: "../../etc"
database: sqlite
primary:
  address: nowhere
  registry_url: ftp://registry
registry:
  url: http://user:hunter2@127.0.0.1:5001
replication: {workers: 0, include: [], exclude: ["[x"]}
deletions: {enabled: perhaps, brake: {share: 2}}
http: {listen: 8081}
sweeps: {interval: 1h}
`

// TestBadConfiguration: every mistake is named at once with its key and line, and nothing is started.
func TestBadConfiguration(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		text string
		want []string // LINE: KEY
		hide string
	}{
		"primaryd": {badPrimary, []string{
			"1: database", "2: registry.url", "2: registry.colour", "4: notifications.secret_file", "6: grpc.listen",
			"7: grpc.cert_fil", "8: grpc.heartbeat", "9: sweep.interval", "11: nodes[0].name", "11: nodes[0].repositories",
			"12: nodes[1].repositories[0]", "13: operators[0]", "14: nodez", "15: log.level", "5: grpc.cert_file",
			"5: grpc.key_file", "5: grpc.client_ca_file",
		}, "goroutine"},
		"secondaryd": {badSecondary, []string{
			"1: node", "2: database", "4: primary.address", "5: primary.registry_url", "3: primary.cert_file",
			"3: primary.key_file", "3: primary.ca_file", "7: registry.url", "8: replication.workers",
			"8: replication.include", "8: replication.exclude[0]", "9: deletions.enabled", "9: deletions.brake.share",
			"10: http.listen", "11: sweeps", "1: grpc.cert_file", "1: grpc.key_file", "1: grpc.client_ca_file",
		}, "hunter2"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			if err := os.WriteFile(filepath.Join(dir, "bad.yaml"), []byte(c.text), 0o600); err != nil {
				t.Fatal(err)
			}
			stdout, stderr, code := command(t, dir, binary(name), "serve", "--config", "bad.yaml")
			if code != 1 || stdout != "" {
				t.Errorf("exit code %d, output %q", code, stdout)
			}
			for _, place := range c.want {
				if !strings.Contains(stderr, "bad.yaml:"+place+": ") {
					t.Errorf("%s is not named", place)
				}
			}
			if lines := strings.Count(strings.TrimSpace(stderr), "\n") + 1; lines != len(c.want) {
				t.Errorf("%d lines for %d mistakes", lines, len(c.want))
			}
			if strings.Contains(stderr, c.hide) || strings.Contains(stderr, "settings") {
				t.Error("it says what it should keep to itself")
			}
			if files, err := filepath.Glob(filepath.Join(dir, "*")); err != nil || len(files) != 1 {
				t.Errorf("files were made: %v %v", files, err)
			}
			if t.Failed() {
				t.Log(stderr)
			}
		})
	}
}
