package bench

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
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
	own          string              // URL of the proxy between primaryd and its registry
	after        *registrytest.Proxy // before the destination
	httpAddress  string              // of primaryd, which the source notifies
	grpcAddress  string
	siteAddress  string // of secondaryd's gRPC
	link         *relay // between the two
	repositories int

	primary, secondary *exec.Cmd
	nodes              antipodev1.NodeServiceClient
	site               antipodev1.ReplicationServiceClient
}

func newPair(t testing.TB) *pair {
	t.Helper()
	address := func() string { return fmt.Sprintf("127.0.0.1:%d", registrytest.ReservePort(t)) }
	return &pair{httpAddress: address(), grpcAddress: address(), siteAddress: address()}
}

// start writes certificates and configuration, starts primaryd and waits until it knows what the source holds.
func (p *pair) start(t testing.TB, run run) {
	t.Helper()
	p.link = newRelay(t, p.grpcAddress, run.rtt, 0)
	p.configure(t, run)
	from := registrytest.NewClient(run.direct)
	defer from.Close()
	all, err := from.Repositories(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	p.repositories = len(all)
	p.primary = p.daemon(t, run, "primaryd", "primary.yaml")
	primary := p.connect(t, run, p.grpcAddress)
	p.nodes = antipodev1.NewNodeServiceClient(primary)
	feed := antipodev1.NewFeedServiceClient(primary)
	p.await(t, "primaryd knows all repositories", 20*time.Millisecond, func(ctx context.Context) (bool, error) {
		resp, err := feed.ListRepositories(ctx, &antipodev1.ListRepositoriesRequest{PageSize: 1000}, grpc.WaitForReady(true))
		return len(resp.GetRepositories()) >= p.repositories, err
	})
	p.awaitSweeps(t, 1)
}

func (p *pair) configure(t testing.TB, run run) {
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
	p.write(t, run, "secondary.yaml", map[string]any{
		"node": "site", "database": "sqlite:secondary.db", "registry": map[string]any{"url": run.destination},
		"primary": map[string]any{
			"address": p.link.address(), "cert_file": filepath.Join(pki, "site.crt"),
			"key_file": filepath.Join(pki, "site.key"), "ca_file": filepath.Join(pki, "ca.crt"),
		},
		"http": map[string]any{"listen": "127.0.0.1:0"}, "grpc": server("site", p.siteAddress),
	})
}

// awaitSweeps waits until primaryd's log tells of that many rounds.
func (p *pair) awaitSweeps(t testing.TB, count int) {
	t.Helper()
	p.await(t, "primaryd has swept", 20*time.Millisecond, func(context.Context) (bool, error) {
		return p.sweeps(t) >= count, nil
	})
}

func (p *pair) sweeps(t testing.TB) int {
	t.Helper()
	log, err := os.ReadFile(filepath.Join(p.primary.Dir, "primaryd.log"))
	if err != nil {
		t.Fatal(err)
	}
	return strings.Count(string(log), "\"msg\":\"swept\"") + strings.Count(string(log), "msg=swept")
}

// prepare does nothing: what the pair knows beforehand it has found out itself.
func (p *pair) prepare(testing.TB, run) error { return nil }

// copy starts secondaryd and waits until it says that it has all. It is asked only once the last tag was written, so
// that it is not kept busy answering.
func (p *pair) copy(t testing.TB, run run) ([]usage, error) {
	t.Helper()
	from := registrytest.NewClient(run.direct)
	defer from.Close()
	missing := 0
	for _, repository := range must(from.Repositories(t.Context()))(t) {
		missing += len(must(from.TagNames(t.Context(), repository))(t))
	}
	all := p.arrivals(missing)
	before := p.used(t)
	began := time.Now()
	p.secondary = p.daemon(t, run, "secondaryd", "secondary.yaml")
	p.site = antipodev1.NewReplicationServiceClient(p.connect(t, run, p.siteAddress))
	select {
	case <-all:
	case <-time.After(patience):
		return nil, fmt.Errorf("the site lacks tags after %s", time.Since(began))
	}
	p.awaitSynced(t)
	used := less(p.used(t), before)
	p.profiled(t)
	return used, nil
}

// arrivals is closed when that many tags were written to the destination.
func (p *pair) arrivals(count int) <-chan struct{} {
	all, left := make(chan struct{}), atomic.Int64{}
	left.Store(int64(count))
	p.after.Ended(func(r registrytest.Request) {
		if isTagWrite(r) && left.Add(-1) == 0 {
			close(all)
		}
	})
	return all
}

func isTagWrite(r registrytest.Request) bool {
	return r.Method == http.MethodPut && r.Kind == "manifest" && r.Status == http.StatusCreated &&
		!strings.Contains(r.Reference, ":")
}

func must[T any](value T, err error) func(testing.TB) T {
	return func(t testing.TB) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return value
	}
}

// awaitSynced waits until the site has read the feed to its head and all repositories are synced.
func (p *pair) awaitSynced(t testing.TB) {
	t.Helper()
	p.await(t, "the site has all", 50*time.Millisecond, func(ctx context.Context) (bool, error) {
		list, err := p.nodes.ListNodes(ctx, &antipodev1.ListNodesRequest{}, grpc.WaitForReady(true))
		if err != nil {
			return false, err
		}
		resp, err := p.site.GetStatus(ctx, &antipodev1.GetStatusRequest{}, grpc.WaitForReady(true))
		counts := resp.GetStatus().GetRepositories()
		return resp.GetStatus().GetConnected() && resp.GetStatus().GetCursorRevision() >= list.GetHeadRevision() &&
			counts.GetSynced() == counts.GetTotal() && counts.GetTotal() >= int64(p.repositories), err
	})
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
	program, err := filepath.Abs(filepath.Join("..", value("ANTIPODE_BENCH_DAEMONS", "bin"), name))
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(program, "serve", "--config", config) //nolint:noctx // the cleanup ends it
	cmd.Dir, cmd.Stdout, cmd.Stderr = run.dir, log, log
	cmd.Env = append(os.Environ(), "DOCKER_CONFIG="+run.dir, profileVariable+"="+profileOf(t, name))
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

func (p *pair) await(t testing.TB, what string, every time.Duration, done func(context.Context) (bool, error)) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	tick := time.NewTicker(every)
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
func (p *pair) used(t testing.TB) []usage {
	t.Helper()
	all := []usage{{Name: "primaryd"}, {Name: "secondaryd"}}
	for i, cmd := range []*exec.Cmd{p.primary, p.secondary} {
		if cmd == nil {
			continue
		}
		one, err := processUsage(cmd.Process.Pid)
		if err != nil {
			t.Fatal(err)
		}
		all[i].CPU, all[i].RSS = one.CPU, one.RSS
	}
	return all
}

// less is what was taken since.
func less(now, before []usage) []usage {
	for i := range now {
		now[i].CPU -= before[i].CPU
	}
	return now
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
	u := usage{CPU: time.Duration(user+system) * 10 * time.Millisecond}
	_, after, _ := strings.Cut(string(status), "VmHWM:")
	_, err = fmt.Sscan(after, &u.RSS)
	return u, err
}
