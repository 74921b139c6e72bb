package databasetest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// Cluster is a Postgres server of the test's own, on a Unix socket in a temporary folder. It ends with the test binary,
// however that ends.
type Cluster struct {
	dir    string
	bin    string
	remove string // what the leash removes at the end: the folder, unless the server may be started again

	mu      sync.Mutex
	running *exec.Cmd
	leash   io.Closer
}

// shared is the cluster of the test binary, made by the first test that needs it.
var shared struct {
	once    sync.Once
	cluster *Cluster
	err     error
}

func sharedCluster(t testing.TB) *Cluster {
	t.Helper()
	shared.once.Do(func() { shared.cluster, shared.err = newCluster(true) })
	if shared.err != nil {
		t.Fatalf("databasetest: no Postgres: %v", shared.err)
	}
	return shared.cluster
}

// NewCluster starts a cluster for one test, which may stop it and start it again. Where DATABASE_URL says that there is
// a server already, and no Postgres is installed to start one with, it skips the test: that server is not ours to stop.
func NewCluster(t testing.TB) *Cluster {
	t.Helper()
	if _, err := FindPostgres(); err != nil && os.Getenv("DATABASE_URL") != "" {
		t.Skip("the server of DATABASE_URL cannot be stopped, and no other is installed")
	}
	cluster, err := newCluster(false)
	if err != nil {
		t.Fatalf("databasetest: no Postgres: %v", err)
	}
	t.Cleanup(func() {
		if err := errors.Join(cluster.stop(), os.RemoveAll(cluster.dir)); err != nil {
			t.Errorf("databasetest: stop Postgres: %v", err)
		}
	})
	return cluster
}

// URL names a database of the cluster.
func (c *Cluster) URL(name string) string {
	query := url.Values{"host": {c.dir}, "user": {"antipode"}, "sslmode": {"disable"}}
	return (&url.URL{Scheme: "postgres", Path: "/" + name, RawQuery: query.Encode()}).String()
}

// Stop ends the server as an operator would for a restart: connections are cut, commits are kept.
func (c *Cluster) Stop(t testing.TB) {
	t.Helper()
	if err := c.stop(); err != nil {
		t.Fatalf("databasetest: stop Postgres: %v", err)
	}
}

// Start starts the server again after Stop and waits until it answers.
func (c *Cluster) Start(t testing.TB) {
	t.Helper()
	if err := c.start(); err != nil {
		t.Fatalf("databasetest: start Postgres: %v", err)
	}
}

// Freeze stops every process of the server where it is, as a machine does that hangs: connections stand, and nothing
// answers. Thaw lets them go on. It skips the test where processes cannot be told apart.
func (c *Cluster) Freeze(t testing.TB) {
	t.Helper()
	c.signal(t, syscall.SIGSTOP)
	t.Cleanup(func() { c.Thaw(t) })
}

// Thaw is the end of Freeze; once more does nothing.
func (c *Cluster) Thaw(t testing.TB) {
	t.Helper()
	c.signal(t, syscall.SIGCONT)
}

// signal sends to the server's first process and to its children.
func (c *Cluster) signal(t testing.TB, s syscall.Signal) {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(c.dir, "data", "postmaster.pid"))
	if err != nil {
		t.Fatalf("databasetest: %v", err)
	}
	first, _, _ := strings.Cut(string(text), "\n")
	children, err := os.ReadFile(fmt.Sprintf("/proc/%s/task/%s/children", first, first))
	if err != nil {
		t.Skipf("databasetest: the server's processes are not to be found: %v", err)
	}
	for field := range strings.FieldsSeq(first + " " + string(children)) {
		pid, err := strconv.Atoi(field)
		if err != nil {
			t.Fatalf("databasetest: %v", err)
		}
		if err := syscall.Kill(pid, s); err != nil && !errors.Is(err, syscall.ESRCH) {
			t.Fatalf("databasetest: %v to %d: %v", s, pid, err)
		}
	}
}

func newCluster(once bool) (*Cluster, error) {
	bin, err := FindPostgres()
	if err != nil {
		return nil, err
	}
	// Not t.TempDir: a socket's path may have 107 bytes at most, and the shared cluster outlives its first test.
	dir, err := os.MkdirTemp("", "antipode-pg-")
	if err != nil {
		return nil, fmt.Errorf("make the cluster's folder: %w", err)
	}
	c := &Cluster{dir: dir, bin: bin}
	if once {
		c.remove = dir
	}
	if err := c.initialize(); err != nil {
		return nil, errors.Join(err, os.RemoveAll(dir))
	}
	return c, c.start()
}

func (c *Cluster) initialize() error {
	prefix, err := Unprivileged(c.dir)
	if err != nil {
		return err
	}
	args := append(prefix, filepath.Join(c.bin, "initdb"), "--pgdata", filepath.Join(c.dir, "data"),
		"--username=antipode", "--auth=trust", "--no-sync", "--locale=C", "--encoding=UTF8", "--no-instructions")
	cmd := exec.CommandContext(context.Background(), args[0], args[1:]...)
	cmd.Dir = c.dir
	if output, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("initdb: %w: %s", err, output)
	}
	return nil
}

// leashScript runs the server until its standard input closes, which also happens when the test binary is killed. Then
// it removes the folder that it was told to, if any.
const leashScript = `trap '' INT; remove=$1; shift
"$@" & server=$!; cat >/dev/null; kill -INT $server; wait $server; test -z "$remove" || rm -rf "$remove"`

// start runs the server without what makes a real one survive a power cut: tests do not need it and it is slow.
func (c *Cluster) start() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	prefix, err := Unprivileged("")
	if err != nil {
		return err
	}
	args := append([]string{"-c", leashScript, "sh", c.remove}, prefix...)
	args = append(args, filepath.Join(c.bin, "postgres"), "-D", filepath.Join(c.dir, "data"), "-k", c.dir,
		"-c", "listen_addresses=", "-c", "fsync=off", "-c", "full_page_writes=off", "-c", "synchronous_commit=off",
		"-c", "shared_buffers=32MB", "-c", "max_connections=400", "-c", "autovacuum=off")
	log, err := os.OpenFile(filepath.Join(c.dir, "log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return fmt.Errorf("open the server's log: %w", err)
	}
	defer log.Close()
	cmd := exec.CommandContext(context.Background(), "sh", args...)
	cmd.Dir, cmd.Stdout, cmd.Stderr = c.dir, log, log
	leash, err := cmd.StdinPipe()
	if err != nil {
		return fmt.Errorf("pipe to the server: %w", err)
	}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start the server: %w", err)
	}
	c.running, c.leash = cmd, leash
	return c.waitUntilReady()
}

func (c *Cluster) waitUntilReady() error {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	ticker := time.NewTicker(20 * time.Millisecond)
	defer ticker.Stop()
	for {
		err := tryExecute(ctx, c.URL("postgres"), "SELECT 1")
		if err == nil {
			return nil
		}
		select {
		case <-ticker.C:
		case <-ctx.Done():
			log, _ := os.ReadFile(filepath.Join(c.dir, "log"))
			return fmt.Errorf("the server does not answer: %w: %s", err, log)
		}
	}
}

func (c *Cluster) stop() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.running == nil {
		return nil
	}
	err := errors.Join(c.leash.Close(), c.running.Wait())
	c.running = nil
	return err
}

// FindPostgres finds the folder of the server's programs: on the PATH, or where Debian keeps the newest version.
func FindPostgres() (string, error) {
	if path, err := exec.LookPath("initdb"); err == nil {
		return filepath.Dir(path), nil
	}
	found, err := filepath.Glob("/usr/lib/postgresql/*/bin/initdb")
	if err != nil || len(found) == 0 {
		return "", errors.New("install Debian's package postgresql (initdb is neither on the PATH nor in " +
			"/usr/lib/postgresql), or set DATABASE_URL, or ANTIPODE_SKIP_POSTGRES=1 to go without")
	}
	newest := slices.MaxFunc(found, func(a, b string) int { return version(a) - version(b) })
	return filepath.Dir(newest), nil
}

func version(initdb string) int {
	number, _ := strconv.Atoi(strings.Split(initdb, "/")[4])
	return number
}

// Unprivileged returns the command prefix that runs a program as another user where we are root, as which Postgres
// refuses to run, and gives that user the folder.
func Unprivileged(dir string) ([]string, error) {
	if os.Geteuid() != 0 {
		return nil, nil
	}
	const nobody = 65534
	if dir != "" {
		if err := os.Chown(dir, nobody, nobody); err != nil {
			return nil, fmt.Errorf("give the cluster's folder away: %w", err)
		}
	}
	id := strconv.Itoa(nobody)
	return []string{"setpriv", "--reuid=" + id, "--regid=" + id, "--clear-groups", "--"}, nil
}
