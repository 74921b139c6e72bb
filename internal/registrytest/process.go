package registrytest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"
)

// startTimeout bounds the wait for a registry's first answer. It is generous because the machine that runs the tests
// may be busy with others; a registry that exits early is noticed at once.
const startTimeout = 60 * time.Second

// Process is a registry that runs as a child process on a loopback port. Kill and Start are for the goroutine of the
// test; the other methods may be called from any.
type Process struct {
	t       testing.TB
	name    string
	binary  string
	port    int
	dir     string
	config  string
	log     string
	running *child
}

// child is one life of a Process.
type child struct {
	process *os.Process
	exited  chan struct{}
	err     error // why it exited; valid once exited is closed
}

// Distribution starts CNCF distribution v3 from the module's .tools/bin, with deletes enabled and its storage in a
// folder of the test unless [WithStorage] says otherwise. It fails the test if the registry is not installed or does
// not answer.
func Distribution(t testing.TB, opts ...Option) *Process {
	t.Helper()
	root, err := moduleRoot()
	if err != nil {
		t.Fatalf("registrytest: %v", err)
	}
	binary := filepath.Join(root, ".tools", "bin", "registry")
	if _, err := os.Stat(binary); err != nil {
		t.Fatalf("registrytest: CNCF distribution is not installed: %v; run `make tools`", err)
	}
	return launch(t, "distribution", binary, opts)
}

// Debian starts Debian's docker-registry 2.8: no delete of a tag alone, events v1, tag lists in one page. Otherwise it
// is like [Distribution].
func Debian(t testing.TB, opts ...Option) *Process {
	t.Helper()
	binary, err := exec.LookPath("docker-registry")
	if err != nil {
		t.Fatalf("registrytest: Debian's docker-registry is not installed: %v; run `make tools` or "+
			"`apt-get install docker-registry`", err)
	}
	return launch(t, "docker-registry", binary, opts)
}

// launch writes the configuration, reserves a port and starts the registry for the first time.
func launch(t testing.TB, name, binary string, opts []Option) *Process {
	t.Helper()
	folder := t.TempDir()
	s := settings{storage: filepath.Join(folder, "storage")}
	for _, opt := range opts {
		opt(&s)
	}
	p := &Process{
		t: t, name: name, binary: binary, dir: s.storage, port: ReservePort(t),
		config: filepath.Join(folder, "config.json"), log: filepath.Join(folder, "registry.log"),
	}
	// JSON is YAML, so the registries read it, and no YAML library is needed to write it.
	body, err := json.MarshalIndent(s.config(p.Host()), "", "  ")
	if err != nil {
		t.Fatalf("registrytest: configuration of %s: %v", name, err)
	}
	if err := os.WriteFile(p.config, body, 0o600); err != nil {
		t.Fatalf("registrytest: configuration of %s: %v", name, err)
	}
	t.Cleanup(p.cleanup)
	p.Start()
	return p
}

// URL is the registry's base URL, without a path; it does not change over Kill and Start.
func (p *Process) URL() string { return "http://" + p.Host() }

// Host is the registry's host and port.
func (p *Process) Host() string { return fmt.Sprintf("127.0.0.1:%d", p.port) }

// Dir is the root of the registry's storage.
func (p *Process) Dir() string { return p.dir }

// Log is what the registry has written to its standard output and error so far, all lives together.
func (p *Process) Log() string {
	body, err := os.ReadFile(p.log)
	if err != nil {
		return ""
	}
	return string(body)
}

// Kill ends the registry with SIGKILL and waits until it is gone. A registry that is not running is left alone.
func (p *Process) Kill() {
	p.t.Helper()
	if p.running == nil {
		return
	}
	// The only error is that it has exited already, which is what is wanted.
	_ = p.running.process.Kill()
	<-p.running.exited
	p.running = nil
}

// Start starts a killed registry again, on the same port and storage, and returns when it answers.
func (p *Process) Start() {
	p.t.Helper()
	if p.running != nil {
		p.t.Fatalf("registrytest: %s is running already", p.name)
	}
	c, err := spawn(p.binary, p.config, p.log)
	if err != nil {
		p.t.Fatalf("registrytest: start %s: %v", p.name, err)
	}
	p.running = c
	if err := awaitAnswer(p.URL(), c); err != nil {
		p.t.Fatalf("registrytest: %s at %s: %v\n%s", p.name, p.URL(), err, p.Log())
	}
}

// logTail is how much of a registry's log a failed test shows, in bytes: it logs each 404 as an error.
const logTail = 16 << 10

func (p *Process) cleanup() {
	p.Kill()
	if p.t.Failed() {
		log := p.Log()
		p.t.Logf("end of the log of %s at %s:\n%s", p.name, p.URL(), log[max(0, len(log)-logTail):])
	}
}

// spawn starts one life of the registry and watches for its end.
//
// On Linux a child gets its death signal when the *thread* that made it ends, so the goroutine that starts it keeps
// its thread to itself until the child is gone.
func spawn(binary, config, log string) (*child, error) {
	c := &child{exited: make(chan struct{})}
	started := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		defer close(c.exited)
		cmd, err := startCommand(binary, config, log)
		if err == nil {
			c.process = cmd.Process
		}
		started <- err
		if err == nil {
			c.err = cmd.Wait()
		}
	}()
	return c, <-started
}

func startCommand(binary, config, log string) (*exec.Cmd, error) {
	out, err := os.OpenFile(log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, err
	}
	defer out.Close() // the child has its own
	// The life of the child is bounded by Kill and by its death signal, not by a context.
	cmd := exec.CommandContext(context.Background(), binary, "serve", config)
	cmd.Stdout, cmd.Stderr = out, out
	// An environment of its own: REGISTRY_* variables would override the configuration, and a set OTEL exporter makes
	// distribution v3 retry against a collector that is not there.
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + filepath.Dir(config), "OTEL_TRACES_EXPORTER=none"}
	cmd.SysProcAttr = dieWithParent()
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	return cmd, nil
}

// awaitAnswer returns when the registry answers its base endpoint, with or without asking for credentials.
func awaitAnswer(url string, c *child) error {
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: 5 * time.Second}
	ctx, cancel := context.WithTimeout(context.Background(), startTimeout)
	defer cancel()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	var last error
	for {
		if last = ping(ctx, client, url); last == nil {
			return nil
		}
		select {
		case <-tick.C:
		case <-c.exited:
			return fmt.Errorf("exited at once: %w", c.err)
		case <-ctx.Done():
			return fmt.Errorf("does not answer after %s: %w", startTimeout, last)
		}
	}
}

func ping(ctx context.Context, client *http.Client, url string) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url+"/v2/", http.NoBody)
	if err != nil {
		return err
	}
	resp, err := client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK && resp.StatusCode != http.StatusUnauthorized {
		return fmt.Errorf("answered %s", resp.Status)
	}
	return nil
}

// ReservePort picks a TCP port on loopback that stays the test's own while the registry on it is dead; see [Reserve].
func ReservePort(t testing.TB) int {
	t.Helper()
	port, release, err := Reserve()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(release)
	return port
}

// Reserve picks a TCP port on loopback that stays the caller's own until release, also while nobody listens on it.
//
// It is taken below the ephemeral range: a port from there could, while the registry is down, become the local end of
// somebody's outgoing connection. The UDP socket of the same number is held until release, as a lock between processes
// that vanishes with its holder.
func Reserve() (port int, release func(), err error) {
	const first, last = 20000, 32000
	start := time.Now().Nanosecond() + os.Getpid()*131
	for i := range last - first {
		port := first + (start+i)%(last-first)
		lock, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1), Port: port})
		if err != nil {
			continue
		}
		listener, err := net.ListenTCP("tcp4", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: port})
		if err != nil {
			_ = lock.Close()
			continue
		}
		_ = listener.Close()
		return port, func() { _ = lock.Close() }, nil
	}
	return 0, nil, errors.New("registrytest: no free port on loopback")
}

// moduleRoot is the folder of the go.mod above the test's working directory.
func moduleRoot() (string, error) {
	start, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for dir := start; ; dir = filepath.Dir(dir) {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return dir, nil
		}
		if strings.HasSuffix(dir, string(filepath.Separator)) {
			return "", fmt.Errorf("no go.mod above %s", start)
		}
	}
}
