package bench

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.yaml.in/yaml/v3"
	"google.golang.org/grpc"

	"github.com/antipode-registry/antipode/client"
	antipodev1 "github.com/antipode-registry/antipode/gen/antipode/v1"
	"github.com/antipode-registry/antipode/internal/authority"
	"github.com/antipode-registry/antipode/internal/link"
	"github.com/antipode-registry/antipode/internal/registrytest"
)

const secret = "a shared secret of the benchmark"

// patience bounds every wait of a run.
const patience = 30 * time.Minute

// pair is primaryd and secondaryd. primaryd runs, and has found what the source holds, before a measurement begins, as
// it has where it is used; what it asked for that is counted apart.
type pair struct {
	own          string // URL of the proxy between primaryd and its registry
	httpAddress  string // of primaryd, which the source notifies
	grpcAddress  string
	repositories int

	primary, secondary *exec.Cmd
	site               string // address of secondaryd's gRPC
}

func (*pair) name() string { return "antipode" }

// prepare writes certificates and configuration and starts primaryd.
func (p *pair) prepare(t testing.TB, run run) {
	t.Helper()
	pki := filepath.Join(run.dir, "pki")
	if err := errors.Join(
		authority.Init(pki), authority.Issue(pki, "primary", link.RolePrimary, nil),
		authority.Issue(pki, "site", link.RoleNode, nil), authority.Issue(pki, "ops", link.RoleOperator, nil),
		os.WriteFile(filepath.Join(run.dir, "notify.secret"), []byte(secret), 0o600),
	); err != nil {
		t.Fatal(err)
	}
	server := func(name, listen string) map[string]any {
		return map[string]any{
			"listen": listen, "cert_file": filepath.Join(pki, name+".crt"), "key_file": filepath.Join(pki, name+".key"),
			"client_ca_file": filepath.Join(pki, "ca.crt"),
		}
	}
	p.write(t, run, "primary.yaml", map[string]any{
		"database": "sqlite:primary.db", "registry": map[string]any{"url": p.own, "advertise_url": run.source},
		"notifications": map[string]any{"secret_file": "notify.secret"}, "http": map[string]any{"listen": p.httpAddress},
		"grpc":  server("primary", p.grpcAddress),
		"nodes": []any{map[string]any{"name": "site", "repositories": []string{"**"}}}, "operators": []string{"ops"},
	})
	p.site = fmt.Sprintf("127.0.0.1:%d", registrytest.ReservePort(t))
	p.write(t, run, "secondary.yaml", map[string]any{
		"node": "site", "database": "sqlite:secondary.db", "registry": map[string]any{"url": run.destination},
		"primary": map[string]any{
			"address": p.grpcAddress, "cert_file": filepath.Join(pki, "site.crt"),
			"key_file": filepath.Join(pki, "site.key"), "ca_file": filepath.Join(pki, "ca.crt"),
		},
		"http": map[string]any{"listen": "127.0.0.1:0"}, "grpc": server("site", p.site),
	})
	p.primary = p.daemon(t, run, "primaryd", "primary.yaml")
	feed := antipodev1.NewFeedServiceClient(p.connect(t, run, p.grpcAddress))
	p.await(t, "primaryd knows all repositories", func(ctx context.Context) (bool, error) {
		resp, err := feed.ListRepositories(ctx, &antipodev1.ListRepositoriesRequest{PageSize: 1000}, grpc.WaitForReady(true))
		return len(resp.GetRepositories()) >= p.repositories, err
	})
}

// copy starts secondaryd where it does not run, and waits until it has all.
func (p *pair) copy(t testing.TB, run run) (usage, error) {
	t.Helper()
	before := p.used(t)
	if p.secondary == nil {
		p.secondary = p.daemon(t, run, "secondaryd", "secondary.yaml")
	}
	nodes := antipodev1.NewNodeServiceClient(p.connect(t, run, p.grpcAddress))
	site := antipodev1.NewReplicationServiceClient(p.connect(t, run, p.site))
	p.await(t, "the site has all", func(ctx context.Context) (bool, error) {
		// Not GetStatus again and again: it asks the registry whether it answers.
		for _, state := range []antipodev1.RepositoryState{
			antipodev1.RepositoryState_REPOSITORY_STATE_PENDING, antipodev1.RepositoryState_REPOSITORY_STATE_SYNCING,
			antipodev1.RepositoryState_REPOSITORY_STATE_FAILED,
		} {
			resp, err := site.ListRepositories(ctx, &antipodev1.ReplicationServiceListRepositoriesRequest{
				State: state, PageSize: 1,
			}, grpc.WaitForReady(true))
			if err != nil || len(resp.GetRepositories()) > 0 {
				return false, err
			}
		}
		list, err := nodes.ListNodes(ctx, &antipodev1.ListNodesRequest{}, grpc.WaitForReady(true))
		if err != nil {
			return false, err
		}
		resp, err := site.GetStatus(ctx, &antipodev1.GetStatusRequest{}, grpc.WaitForReady(true))
		counts := resp.GetStatus().GetRepositories()
		return resp.GetStatus().GetConnected() && resp.GetStatus().GetCursorRevision() >= list.GetHeadRevision() &&
			counts.GetSynced() == counts.GetTotal() && counts.GetTotal() >= int64(p.repositories), err
	})
	after := p.used(t)
	return usage{cpu: after.cpu - before.cpu, rss: after.rss}, nil
}

func (p *pair) write(t testing.TB, run run, name string, config map[string]any) {
	t.Helper()
	text, err := yaml.Marshal(config)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(run.dir, name), text, 0o600); err != nil {
		t.Fatal(err)
	}
}

// daemon starts one; it ends with the test.
func (p *pair) daemon(t testing.TB, run run, name, config string) *exec.Cmd {
	t.Helper()
	log, err := os.Create(filepath.Join(run.dir, name+".log"))
	if err != nil {
		t.Fatal(err)
	}
	program, err := filepath.Abs(filepath.Join("..", "bin", name))
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(program, "serve", "--config", config) //nolint:noctx // the cleanup ends it
	cmd.Dir, cmd.Stdout, cmd.Stderr = run.dir, log, log
	cmd.Env = append(os.Environ(), "DOCKER_CONFIG="+run.dir)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		_ = cmd.Wait()
		_ = log.Close()
	})
	return cmd
}

func (p *pair) connect(t testing.TB, run run, address string) *grpc.ClientConn {
	t.Helper()
	pki := filepath.Join(run.dir, "pki")
	conn, err := client.Connect(client.Config{
		Address: address, CertFile: filepath.Join(pki, "ops.crt"), KeyFile: filepath.Join(pki, "ops.key"),
		CAFile: filepath.Join(pki, "ca.crt"),
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return conn
}

func (p *pair) await(t testing.TB, what string, done func(context.Context) (bool, error)) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		ok, err := done(ctx)
		if ok && err == nil {
			return
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatalf("%s: %v", what, err)
		}
	}
}

// used is what both daemons took so far.
func (p *pair) used(t testing.TB) usage {
	t.Helper()
	var u usage
	for _, cmd := range []*exec.Cmd{p.primary, p.secondary} {
		if cmd == nil {
			continue
		}
		one, err := processUsage(cmd.Process.Pid)
		if err != nil {
			t.Fatal(err)
		}
		u.cpu, u.rss = u.cpu+one.cpu, max(u.rss, one.rss)
	}
	return u
}

// processUsage reads what a running process took from /proc (proc(5): utime and stime are fields 14 and 15 of stat, in
// ticks of 10 ms; VmHWM is the highest resident set).
func processUsage(pid int) (usage, error) {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return usage{}, err
	}
	fields := strings.Fields(string(stat[strings.LastIndexByte(string(stat), ')')+1:]))
	user, err1 := strconv.ParseInt(fields[11], 10, 64)
	system, err2 := strconv.ParseInt(fields[12], 10, 64)
	status, err3 := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err := errors.Join(err1, err2, err3); err != nil {
		return usage{}, err
	}
	u := usage{cpu: time.Duration(user+system) * 10 * time.Millisecond}
	_, after, _ := strings.Cut(string(status), "VmHWM:")
	_, err = fmt.Sscan(after, &u.rss)
	return u, err
}
