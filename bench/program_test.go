package bench

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/antipode-registry/antipode/internal/registrytest"
)

// program copies a whole registry to another.
type program interface {
	// prepare finds out what the program is told beforehand; that is not measured.
	prepare(t testing.TB, run run) error
	// copy copies everything and says what that took.
	copy(t testing.TB, run run) ([]usage, error)
}

// run is what a program is given.
type run struct {
	source, destination string // URLs of the proxies before the registries
	direct              string // URL of the source's registry, for what a program may know beforehand
	dir                 string // of its own, kept over the phases of a run
	rtt                 time.Duration
	referrersAPI        bool
}

// atOnce is how many processes of a program that copies one repository at a time run side by side, and how much of a
// program that can be told does at once: the floor and the pair have as much under way.
const (
	atOnce    = 8
	inProcess = 16
)

// floorProgram is the floor: see floor_test.go. With a repository and a tag it copies that alone.
type floorProgram struct {
	repository, tag string
	byTag           bool
	path            string
}

func (f *floorProgram) prepare(t testing.TB, run run) error {
	t.Helper()
	way := survey(t, run, f.repository, f.tag)
	way.ByTag = f.byTag
	text, err := json.Marshal(way)
	if err != nil {
		return err
	}
	f.path = filepath.Join(run.dir, "route.json")
	return os.WriteFile(f.path, text, 0o600)
}

func (f *floorProgram) copy(t testing.TB, run run) ([]usage, error) {
	t.Helper()
	return commands(t, run.dir, "floor", launch{
		Lines: [][]string{{os.Args[0]}}, AtOnce: 1,
		Env: []string{
			"ANTIPODE_BENCH_FLOOR=" + f.path, "ANTIPODE_BENCH_FROM=" + run.source, "ANTIPODE_BENCH_TO=" + run.destination,
		},
	})
}

// peer is another program, which is run for each repository, or for each tag.
type peer struct {
	label string
	lines func(source, destination, repository string, tags []string, repositories int) [][]string
	todo  [][]string
}

func (p *peer) prepare(t testing.TB, run run) error {
	t.Helper()
	from := registrytest.NewClient(run.direct)
	defer from.Close()
	repositories, err := from.Repositories(t.Context())
	if err != nil {
		return err
	}
	p.todo = nil
	for _, repository := range repositories {
		tags, err := from.TagNames(t.Context(), repository)
		if err != nil {
			return err
		}
		p.todo = append(p.todo, p.lines(strings.TrimPrefix(run.source, "http://"),
			strings.TrimPrefix(run.destination, "http://"), repository, tags, len(repositories))...)
	}
	return nil
}

func (p *peer) copy(t testing.TB, run run) ([]usage, error) {
	t.Helper()
	return commands(t, run.dir, p.label, launch{Lines: p.todo, AtOnce: atOnce})
}

func crane() program {
	return &peer{label: "crane", lines: func(source, destination, repository string, _ []string, repositories int) [][]string {
		jobs := "2"
		if repositories == 1 {
			jobs = "16"
		}
		return [][]string{{
			tool("crane"), "copy", "--all-tags", "--jobs", jobs, source + "/" + repository, destination + "/" + repository,
		}}
	}}
}

// oras takes one manifest at a time as its source.
func oras() program {
	return &peer{label: "oras", lines: func(source, destination, repository string, tags []string, _ int) [][]string {
		var lines [][]string
		for _, tag := range tags {
			lines = append(lines, []string{
				tool("oras"), "copy", "--recursive", "--from-plain-http", "--to-plain-http",
				source + "/" + repository + ":" + tag, destination + "/" + repository + ":" + tag,
			})
		}
		return lines
	}}
}

func skopeo() program {
	return &peer{label: "skopeo", lines: func(source, destination, repository string, _ []string, _ int) [][]string {
		namespace := ""
		if at := strings.LastIndex(repository, "/"); at >= 0 {
			namespace = "/" + repository[:at]
		}
		return [][]string{{
			"skopeo", "sync", "--all", "--preserve-digests", "--src", "docker", "--dest", "docker", "--src-tls-verify=false",
			"--dest-tls-verify=false", source + "/" + repository, destination + namespace,
		}}
	}}
}

// regsync takes all repositories in one process.
type regsync struct{ path string }

func (r *regsync) prepare(t testing.TB, run run) error {
	t.Helper()
	from := registrytest.NewClient(run.direct)
	defer from.Close()
	repositories, err := from.Repositories(t.Context())
	if err != nil {
		return err
	}
	source, destination := strings.TrimPrefix(run.source, "http://"), strings.TrimPrefix(run.destination, "http://")
	var syncs []any
	for _, repository := range repositories {
		syncs = append(syncs, map[string]any{
			"source": source + "/" + repository, "target": destination + "/" + repository, "type": "repository",
			"referrers": run.referrersAPI,
		})
	}
	host := func(name string) map[string]any {
		return map[string]any{"registry": name, "tls": "disabled", "reqConcurrent": inProcess}
	}
	text, err := yaml.Marshal(map[string]any{
		"version": 1, "creds": []any{host(source), host(destination)},
		"defaults": map[string]any{"parallel": inProcess}, "sync": syncs,
	})
	if err != nil {
		return err
	}
	r.path = filepath.Join(run.dir, "regsync.yaml")
	return os.WriteFile(r.path, text, 0o600)
}

func (r *regsync) copy(t testing.TB, run run) ([]usage, error) {
	t.Helper()
	return commands(t, run.dir, "regsync", launch{Lines: [][]string{{tool("regsync"), "once", "--config", r.path}}, AtOnce: 1})
}

// tool is the path of a pinned program.
func tool(name string) string { return filepath.Join("..", ".tools", "bin", name) }
