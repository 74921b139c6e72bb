package main

import (
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"go.yaml.in/yaml/v3"

	"github.com/antipode-registry/antipode/internal/config"
)

const smallest = `
registry: {url: "http://127.0.0.1:5000"}
notifications: {secret_file: FILE}
grpc: {cert_file: FILE, key_file: FILE, client_ca_file: FILE}
`

// FuzzSettings: a file is refused with the place and the reason of each mistake, or taken; what was taken, written out and
// read again, is the same.
func FuzzSettings(f *testing.F) {
	for _, text := range []string{
		smallest, smallest + "nodes: [{name: eu-west, repositories: ['**']}]\noperators: [ops]\nsweep: {interval: 10m}\n",
		smallest + "http: {listen: ':0', proxy: {header: X-User, trusted: [10.0.0.0/8], controllers: [a]}, hosts: [a.b]}\nlog: {level: debug}\n",
		smallest + "database: 'postgres://user@db/antipode'\nnodes: [{name: a}, {name: a, repositories: ['[']}]\n",
		"notifications: {rate: 0, burst: -1}\n", "nodes: 5\n", "a: &a [*a]\n",
	} {
		f.Add(text)
	}
	path := filepath.Join(f.TempDir(), "primary.yaml")
	read := func(t *testing.T, text string) (*settings, error) {
		t.Helper()
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return loadSettings(path)
	}
	f.Fuzz(func(t *testing.T, text string) {
		s, err := read(t, strings.ReplaceAll(text, "FILE", strconv.Quote(path)))
		if err != nil {
			explained(t, err)
			return
		}
		written, err := yaml.Marshal(s)
		if err != nil {
			t.Fatal(err)
		}
		again, err := read(t, string(written))
		if diff := cmp.Diff(s, again, cmpopts.EquateEmpty()); err != nil || diff != "" {
			t.Fatalf("%v, %s\n%s", err, diff, written)
		}
		if n := s.Notifications; n.Rate < 1 || n.Burst < 1 {
			t.Fatalf("%+v", n)
		}
	})
}

func explained(t *testing.T, err error) {
	t.Helper()
	found, ok := errors.AsType[*config.Error](err)
	if !ok || len(found.Problems) == 0 {
		t.Fatalf("a readable file gave %v", err)
	}
	for _, problem := range found.Problems {
		if problem.Line < 1 || problem.Message == "" {
			t.Errorf("not for people: %q", problem)
		}
	}
}
