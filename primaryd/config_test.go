package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/antipode-registry/antipode/internal/config"
	"github.com/antipode-registry/antipode/primaryd/internal/node"
)

// load reads a file of that text, in which FILE stands for one that can be read.
func load(t *testing.T, text string) (*settings, error) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "primary.yaml")
	if err := os.WriteFile(path, []byte(strings.ReplaceAll(text, "FILE", path)), 0o600); err != nil {
		t.Fatal(err)
	}
	return loadSettings(path)
}

const least = `
registry: {url: "http://127.0.0.1:5000"}
notifications: {secret_file: FILE}
grpc: {cert_file: FILE, key_file: FILE, client_ca_file: FILE}
`

func TestSettingsHaveDefaults(t *testing.T) {
	t.Parallel()
	got, err := load(t, least)
	if err != nil {
		t.Fatal(err)
	}
	if got.Database != "sqlite:primary.db" || got.HTTP.Listen != "127.0.0.1:8080" || got.GRPC.Listen != "127.0.0.1:7443" ||
		time.Duration(got.GRPC.Heartbeat) != 10*time.Second || time.Duration(got.Sweep.Interval) != time.Hour ||
		got.Registry.Concurrency != 16 || got.Log.Level != "info" || got.Log.Format != "text" {
		t.Errorf("%+v", got)
	}
	if got.advertised() != "http://127.0.0.1:5000" || len(got.nodes()) != 0 || len(got.Operators) != 0 {
		t.Errorf("%+v", got)
	}
}

func TestSettingsAreRead(t *testing.T) {
	t.Parallel()
	got, err := load(t, least+`
nodes: [{name: eu-west, repositories: ["**"]}, {name: asia, repositories: [team/*, "{a,b}/**"]}]
operators: [ops, oncall]
`)
	if err != nil {
		t.Fatal(err)
	}
	want := []node.Config{
		{Name: "eu-west", Repositories: []string{"**"}}, {Name: "asia", Repositories: []string{"team/*", "{a,b}/**"}},
	}
	if diff := cmp.Diff(want, got.nodes()) + cmp.Diff([]string{"ops", "oncall"}, got.Operators); diff != "" {
		t.Error(diff)
	}
}

func TestEveryMistakeIsNamedAtOnce(t *testing.T) {
	t.Parallel()
	_, err := load(t, `database: mysql://x
registry:
  url: "127.0.0.1:5000"
  advertise_url: "https://user:hidden@registry"
  ca_file: /does/not/exist
  concurrency: 0
notifications:
  secret_fil: secret
http: {listen: "8080"}
grpc:
  listen: ":99999"
  cert_file: FILE
  key_file: /does/not/exist
  heartbeat: 1ms
sweep: {interval: soon}
nodes:
  - {name: eu-west, repositories: ["[a"]}
  - {name: eu-west, repositories: []}
  - {name: Bad_Name, repositories: ["**"]}
  - {repositories: ["**"]}
operators: [eu-west, ""]
log: {level: loud, format: xml}
`)
	loaded, ok := err.(*config.Error) //nolint:errorlint // it is this very type
	if !ok {
		t.Fatal(err)
	}
	got := map[string]int{}
	for _, problem := range loaded.Problems {
		got[problem.Key] = problem.Line
	}
	want := map[string]int{
		"database": 1, "registry.url": 3, "registry.advertise_url": 4, "registry.ca_file": 5, "registry.concurrency": 6,
		"notifications.secret_fil": 8, "notifications.secret_file": 7, "http.listen": 9, "grpc.listen": 11,
		"grpc.key_file": 13, "grpc.client_ca_file": 10, "grpc.heartbeat": 14, "sweep.interval": 15,
		"nodes[0].repositories[0]": 17, "nodes[1].name": 18, "nodes[1].repositories": 18, "nodes[2].name": 19,
		"nodes[3].name": 20, "operators[0]": 21, "operators[1]": 21, "log.level": 22, "log.format": 22,
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("%s\n%v", diff, err)
	}
	if text := err.Error(); strings.Contains(text, "hidden") || strings.Contains(text, "main.settings") {
		t.Error(text)
	}
}
