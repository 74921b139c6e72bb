package bench

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.yaml.in/yaml/v3"
	"golang.org/x/sync/errgroup"

	"github.com/antipode-registry/antipode/internal/registrytest"
)

// program copies a whole registry to another once.
type program interface {
	name() string
	// copy copies everything; source and destination are proxies before the registries, direct is the source itself.
	copy(t testing.TB, run run) (usage, error)
}

// run is what a program is given.
type run struct {
	source, destination string // URLs of the proxies
	direct              string // URL of the source's registry, for what a program may know beforehand
	dir                 string // of its own, kept over the runs of one workload
}

// usage is what processes took.
type usage struct {
	cpu time.Duration
	rss int64 // KiB, of the largest process
}

func (u usage) add(state *os.ProcessState) usage {
	u.cpu += state.UserTime() + state.SystemTime()
	if r, ok := state.SysUsage().(*syscall.Rusage); ok {
		u.rss = max(u.rss, r.Maxrss)
	}
	return u
}

// atOnce is how many processes of a program that copies one repository at a time run side by side.
const atOnce = 8

// commands runs commands side by side and adds up what they took.
func commands(ctx context.Context, lines [][]string) (usage, error) {
	states := make([]*os.ProcessState, len(lines))
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(atOnce)
	for i, line := range lines {
		group.Go(func() error {
			cmd := exec.CommandContext(ctx, line[0], line[1:]...)
			output, err := cmd.CombinedOutput()
			states[i] = cmd.ProcessState
			if err != nil {
				return fmt.Errorf("%s: %w: %.2000s", strings.Join(line, " "), err, output)
			}
			return nil
		})
	}
	err := group.Wait()
	var total usage
	for _, state := range states {
		if state != nil {
			total = total.add(state)
		}
	}
	return total, err
}

// floorProgram is the floor: see floor_test.go.
type floorProgram struct{}

func (floorProgram) name() string { return "floor" }

func (floorProgram) copy(t testing.TB, run run) (usage, error) {
	t.Helper()
	text, err := json.Marshal(survey(t, run.direct))
	if err != nil {
		return usage{}, err
	}
	path := filepath.Join(run.dir, "route.json")
	if err := os.WriteFile(path, text, 0o600); err != nil {
		return usage{}, err
	}
	cmd := exec.CommandContext(t.Context(), os.Args[0])
	cmd.Env = append(os.Environ(), "ANTIPODE_BENCH_FLOOR="+path, "ANTIPODE_BENCH_FROM="+run.source,
		"ANTIPODE_BENCH_TO="+run.destination)
	output, err := cmd.CombinedOutput()
	if err != nil {
		return usage{}, fmt.Errorf("floor: %w: %s", err, output)
	}
	return usage{}.add(cmd.ProcessState), nil
}

// peer is another program, which copies repository by repository.
type peer struct {
	label string
	line  func(run run, source, destination, repository string, tags map[string]string) []string
}

func (p peer) name() string { return p.label }

func (p peer) copy(t testing.TB, run run) (usage, error) {
	t.Helper()
	from := registrytest.NewClient(run.direct)
	defer from.Close()
	repositories, err := from.Repositories(t.Context())
	if err != nil {
		return usage{}, err
	}
	var lines [][]string
	for _, repository := range repositories {
		tags, err := from.Tags(t.Context(), repository)
		if err != nil {
			return usage{}, err
		}
		line := p.line(run, strings.TrimPrefix(run.source, "http://"), strings.TrimPrefix(run.destination, "http://"),
			repository, tags)
		lines = append(lines, line)
	}
	return commands(t.Context(), lines)
}

func crane() program {
	return peer{"crane", func(_ run, source, destination, repository string, _ map[string]string) []string {
		return []string{tool("crane"), "copy", "--all-tags", source + "/" + repository, destination + "/" + repository}
	}}
}

func oras() program {
	return peer{"oras", func(_ run, source, destination, repository string, tags map[string]string) []string {
		var names []string
		for tag := range tags {
			names = append(names, tag)
		}
		// One manifest at a time is all that it can name as its source; a shell goes through them.
		script := ""
		for _, tag := range names {
			script += fmt.Sprintf("%s copy --recursive --from-plain-http --to-plain-http %s/%s:%s %s/%s:%s || exit 1\n",
				tool("oras"), source, repository, tag, destination, repository, tag)
		}
		return []string{"sh", "-c", script}
	}}
}

func skopeo() program {
	return peer{"skopeo", func(_ run, source, destination, repository string, _ map[string]string) []string {
		namespace := ""
		if at := strings.LastIndex(repository, "/"); at >= 0 {
			namespace = "/" + repository[:at]
		}
		return []string{
			"skopeo", "sync", "--all", "--src", "docker", "--dest", "docker", "--src-tls-verify=false",
			"--dest-tls-verify=false", source + "/" + repository, destination + namespace,
		}
	}}
}

// regsync takes all repositories in one process.
type regsync struct{}

func (regsync) name() string { return "regsync" }

func (regsync) copy(t testing.TB, run run) (usage, error) {
	t.Helper()
	from := registrytest.NewClient(run.direct)
	defer from.Close()
	repositories, err := from.Repositories(t.Context())
	if err != nil {
		return usage{}, err
	}
	source, destination := strings.TrimPrefix(run.source, "http://"), strings.TrimPrefix(run.destination, "http://")
	var syncs []any
	for _, repository := range repositories {
		syncs = append(syncs, map[string]any{
			"source": source + "/" + repository, "target": destination + "/" + repository, "type": "repository",
			"referrers": true, "digestTags": true,
		})
	}
	insecure := func(host string) map[string]any { return map[string]any{"registry": host, "tls": "disabled"} }
	text, err := yaml.Marshal(map[string]any{
		"version": 1, "creds": []any{insecure(source), insecure(destination)},
		"defaults": map[string]any{"parallel": atOnce}, "sync": syncs,
	})
	if err != nil {
		return usage{}, err
	}
	path := filepath.Join(run.dir, "regsync.yaml")
	if err := errors.Join(os.WriteFile(path, text, 0o600)); err != nil {
		return usage{}, err
	}
	return commands(t.Context(), [][]string{{tool("regsync"), "once", "--config", path}})
}

// tool is the path of a pinned program.
func tool(name string) string { return filepath.Join("..", ".tools", "bin", name) }
