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
	"github.com/antipode-registry/antipode/internal/registry"
)

// FuzzSettings: a file is refused with the place and the reason of each mistake, or taken; what was taken, written out and
// read again, is the same; and no two repositories land on one name.
func FuzzSettings(f *testing.F) {
	for _, text := range []string{
		least, least + "replication: {workers: 4, include: ['prod/**'], exclude: ['prod/tmp/**'], rename: [{from: prod/, to: eu/}]}\n",
		least + "replication: {exclude: ['eu/**'], rename: [{from: prod/, to: eu/}, {from: a/, to: ''}]}\n",
		least + "replication: {bandwidth: {down: 10MB}}\ndeletions: {enabled: true, brake: {share: 0.5, count: 10}, protected: [v*]}\n",
		least + "sweep: {interval: 1h}\nhttp: {listen: ':0', hosts: [a.b]}\nlog: {format: json}\n", "node: [a]\n", "a: &a [*a]\n",
	} {
		f.Add(text, "prod/app")
	}
	path := filepath.Join(f.TempDir(), "secondary.yaml")
	read := func(t *testing.T, text string) (*settings, error) {
		t.Helper()
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return loadSettings(path)
	}
	f.Fuzz(func(t *testing.T, text, name string) {
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
		target := s.target(name)
		if registry.ValidRepository(name) == nil && registry.ValidRepository(target) != nil && len(target) <= 255 {
			t.Fatalf("%q lands on no name: %q", name, target)
		}
		for _, rule := range s.Replication.Rename {
			other := rule.To + name // by its own name, or by a rule
			if other != name && s.wants(name) && s.wants(other) && s.target(other) == target {
				t.Fatalf("%q and %q both land on %q", name, other, target)
			}
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
