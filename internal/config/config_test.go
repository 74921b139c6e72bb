package config_test

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/antipode-registry/antipode/internal/config"
)

type sample struct {
	Database string `yaml:"database"`
	Registry struct {
		URL         string `yaml:"url"`
		Concurrency int    `yaml:"concurrency"`
	} `yaml:"registry"`
	GRPC      *endpoint `yaml:"grpc"`
	Deletions struct {
		Enabled bool    `yaml:"enabled"`
		Share   float64 `yaml:"share"`
		Count   uint8   `yaml:"count"`
	} `yaml:"deletions"`
	Sweep struct {
		Interval config.Duration `yaml:"interval"`
	} `yaml:"sweep"`
	Nodes     []sampleNode      `yaml:"nodes"`
	Operators []string          `yaml:"operators"`
	Labels    map[string]string `yaml:"labels"`
	Shared    `yaml:",inline"`
	Hidden    string `yaml:"-"`
	Untagged  string
}

type endpoint struct {
	Listen   string `yaml:"listen"`
	CertFile string `yaml:"cert_file"`
}

type sampleNode struct {
	Name         string   `yaml:"name"`
	Repositories []string `yaml:"repositories"`
}

// Shared is exported because the loader, like yaml, sees exported fields only.
type Shared struct {
	LogLevel string `yaml:"log_level"`
}

func write(t *testing.T, content string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "primary.yaml")
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// problems loads content and returns what is wrong with it, without the directory.
func problems(t *testing.T, content string, check func(*config.Problems)) []string {
	t.Helper()
	path := write(t, content)
	err := config.Load(path, &sample{}, check)
	if err == nil {
		return nil
	}
	if _, ok := errors.AsType[*config.Error](err); !ok {
		t.Fatalf("error is a %T: %v", err, err)
	}
	return strings.Split(strings.ReplaceAll(err.Error(), filepath.Dir(path)+"/", ""), "\n")
}

func TestLoadTakesValuesAndKeepsDefaults(t *testing.T) {
	t.Parallel()
	path := write(t, `
database: sqlite:primary.db
registry: {url: "http://127.0.0.1:5000"}
grpc: {listen: "127.0.0.1:7443", cert_file: }
deletions: {enabled: false, share: 1, count: 0x10}
sweep: {interval: 90m}
nodes: [{name: eu-west, repositories: ["**"]}, {name: 42}]
operators: [ops]
labels: {site: eu}
log_level: debug
untagged: seen
`)
	got := sample{GRPC: &endpoint{CertFile: "default.crt"}, Operators: []string{"a", "b"}}
	got.Registry.Concurrency = 16
	got.Deletions.Enabled = true
	if err := config.Load(path, &got, nil); err != nil {
		t.Fatal(err)
	}
	want := sample{
		Database:  "sqlite:primary.db",
		GRPC:      &endpoint{Listen: "127.0.0.1:7443", CertFile: "default.crt"},
		Nodes:     []sampleNode{{Name: "eu-west", Repositories: []string{"**"}}, {Name: "42"}},
		Operators: []string{"ops"},
		Labels:    map[string]string{"site": "eu"},
		Shared:    Shared{LogLevel: "debug"},
		Untagged:  "seen",
	}
	want.Registry.URL, want.Registry.Concurrency = "http://127.0.0.1:5000", 16
	want.Deletions.Share, want.Deletions.Count = 1, 16
	want.Sweep.Interval = config.Duration(90 * time.Minute)
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestLoadNamesEveryProblemAtOnce(t *testing.T) {
	t.Parallel()
	got := problems(t, `database: true
registry:
  url: [a]
  concurrency: many
  timeout: 3s
deletions:
  enabled: "yes"
  share: .nan
  count: 300
sweep:
  interval: 30
nodes:
  - name: eu-west
    repositorys: ["**"]
  - nonsense
  -
operators: ops
operators: [ops]
labels: {a: {b: c}}
hidden: x
`, nil)
	want := []string{
		`primary.yaml:1: database: expected text, got true`,
		`primary.yaml:3: registry.url: expected text, got a list`,
		`primary.yaml:4: registry.concurrency: expected a whole number, got "many"`,
		`primary.yaml:5: registry.timeout: unknown key; known here: concurrency, url`,
		`primary.yaml:7: deletions.enabled: expected true or false, got "yes"`,
		`primary.yaml:8: deletions.share: expected a number, got .nan`,
		`primary.yaml:9: deletions.count: expected a whole number, zero or more, got 300`,
		`primary.yaml:11: sweep.interval: expected a duration such as 30s, got "30"`,
		`primary.yaml:14: nodes[0].repositorys: unknown key; did you mean repositories?`,
		`primary.yaml:15: nodes[1]: expected keys with values, got "nonsense"`,
		`primary.yaml:16: nodes[2]: an entry of the list is empty`,
		`primary.yaml:17: operators: expected a list, got "ops"`,
		`primary.yaml:18: operators: given twice; it is on line 17 already`,
		`primary.yaml:19: labels.a: expected text, got keys with values`,
		`primary.yaml:20: hidden: unknown key; known here: ` +
			`database, deletions, grpc, labels, log_level, nodes, operators, registry, sweep, untagged`,
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestLoadRefusesWhatIsNotOneDocumentOfKeys(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		content string
		want    []string
	}{
		"empty":         {"", []string{`primary.yaml:1: the file is empty`}},
		"only comments": {"# nothing\n\n", []string{`primary.yaml:1: the file is empty`}},
		"null":          {"---\n", []string{`primary.yaml:1: the file is empty`}},
		"list":          {"\n- a\n", []string{`primary.yaml:2: expected keys with values, got a list`}},
		"text":          {"hello", []string{`primary.yaml:1: expected keys with values, got "hello"`}},
		"two documents": {"database: a\n---\ndatabase: b\n", []string{
			`primary.yaml:2: a second document begins here; put everything into one`,
		}},
		"broken second document": {"database: a\n---\ndatabase: [\n", []string{
			`primary.yaml:3: not valid YAML: did not find expected node content`,
		}},
		"tab": {"registry:\n\turl: x\n", []string{
			`primary.yaml:2: not valid YAML: found character that cannot start any token ` +
				`(YAML is indented with spaces, not tabs)`,
		}},
		"unclosed": {"database: \"x\nregistry: {\n", []string{
			`primary.yaml:3: not valid YAML: found unexpected end of stream`,
		}},
		"alias": {"database: &d x\nuntagged: *d\n", []string{
			`primary.yaml:2: untagged: aliases are not supported; write the value out`,
		}},
		"merge": {"registry: &r {url: x}\ngrpc: {<<: *r}\n", []string{
			`primary.yaml:2: grpc: merge keys are not supported; write the keys out`,
		}},
		"key that is a list": {"[a]: b\ndatabase: x\n", []string{
			`primary.yaml:1: a key must be a word, not a list`,
		}},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got := problems(t, test.content, func(p *config.Problems) {})
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestCheckFindsTheLine(t *testing.T) {
	t.Parallel()
	got := problems(t, `# comment
database: x
registry:
  url: nowhere
nodes:
  - name: a
  - name: a
sweep: {interval: soon}
`, func(p *config.Problems) {
		p.Add("grpc.listen", "is required")
		p.Add("nodes[1].name", "%q is taken", "a")
		p.Add("nodes[1].repositories", "is required")
		p.Add("registry.ca_file", "is required")
		p.Add("registry.url", "is wrong")
		p.Add("registry.url", "is wrong")
		p.Add("sweep.interval", "must not be zero")
	})
	want := []string{
		`primary.yaml:2: grpc.listen: is required`,
		`primary.yaml:3: registry.ca_file: is required`,
		`primary.yaml:4: registry.url: is wrong`,
		`primary.yaml:7: nodes[1].name: "a" is taken`,
		`primary.yaml:7: nodes[1].repositories: is required`,
		`primary.yaml:8: sweep.interval: expected a duration such as 30s, got "soon"`,
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestLoadCannotRead(t *testing.T) {
	t.Parallel()
	err := config.Load(filepath.Join(t.TempDir(), "missing.yaml"), &sample{}, nil)
	if !errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), "missing.yaml") {
		t.Errorf("missing file: %v", err)
	}
	if err := config.Load(t.TempDir(), &sample{}, nil); err == nil {
		t.Error("a directory was taken")
	}
	large := write(t, "database: "+strings.Repeat("x", 1<<20))
	if err := config.Load(large, &sample{}, nil); err == nil || !strings.Contains(err.Error(), "larger than") {
		t.Errorf("large file: %v", err)
	}
	if err := config.Load(large, sample{}, nil); err == nil {
		t.Error("loading into a struct value was taken")
	}
}

func TestDuration(t *testing.T) {
	t.Parallel()
	var d config.Duration
	for text, want := range map[string]time.Duration{"0": 0, "10s": 10 * time.Second, "1h30m": 90 * time.Minute} {
		if err := d.UnmarshalText([]byte(text)); err != nil || time.Duration(d) != want {
			t.Errorf("%s: %v, %v", text, d, err)
		}
		if text, err := d.MarshalText(); err != nil || string(text) != want.String() {
			t.Errorf("%s written as %s, %v", want, text, err)
		}
	}
	for _, text := range []string{"", "30", "-1s", "soon", "1 h", "9999999h"} {
		if err := d.UnmarshalText([]byte(text)); err == nil {
			t.Errorf("%q was taken as %v", text, d)
		}
	}
}

func FuzzLoad(f *testing.F) {
	for _, seed := range []string{
		"database: x\nnodes: [{name: a}]\n", "a: &a [*a]\n", "{", "? [a]\n: b\n", "<<: {a: b}\n", "--- \n...\n---\n",
		"sweep: {interval: 1h}\nlabels: {a: b}\n", "!!binary x: y\n", "registry: !!str {url: x}\n", "\xff\xfe",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, content string) {
		path := filepath.Join(t.TempDir(), "f.yaml")
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		var into sample
		err := config.Load(path, &into, func(p *config.Problems) { p.CheckName("nodes[0].name", "eu") })
		if err == nil {
			return
		}
		found, ok := errors.AsType[*config.Error](err)
		if !ok {
			t.Fatalf("a readable file gave %v", err)
		}
		for _, problem := range found.Problems {
			if problem.Line < 1 || problem.Message == "" || strings.Contains(problem.Message, "reflect") {
				t.Errorf("not for people: %q", problem)
			}
		}
	})
}
