package e2e

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.yaml.in/yaml/v3"
)

// patience bounds every wait for something that should happen. It is generous: the machine may be busy with others.
const patience = 2 * time.Minute

// daemon is primaryd or secondaryd as a child process that can be killed and started again. Its methods are for the
// goroutine of the test.
type daemon struct {
	t       testing.TB
	name    string
	dir     string // its working directory, with its database
	config  string // path of its YAML file
	lives   int
	running *life
}

// life is one process of a daemon.
type life struct {
	process    *os.Process
	exited     chan struct{}
	err        error // valid once exited is closed
	log        string
	http, grpc string // host:port, once it listens
}

func newDaemon(t testing.TB, name, dir string, config map[string]any) *daemon {
	t.Helper()
	d := &daemon{t: t, name: name, dir: dir, config: filepath.Join(dir, name+".yaml")}
	d.Configure(config)
	t.Cleanup(d.cleanup)
	return d
}

// Configure writes the daemon's configuration file; it is read at the next Start.
func (d *daemon) Configure(config map[string]any) {
	d.t.Helper()
	text, err := yaml.Marshal(config)
	if err != nil {
		d.t.Fatal(err)
	}
	if err := os.WriteFile(d.config, text, 0o600); err != nil {
		d.t.Fatal(err)
	}
}

// Start runs the daemon and returns once it is ready.
func (d *daemon) Start() {
	d.t.Helper()
	if d.running != nil {
		d.t.Fatalf("%s is running already", d.name)
	}
	d.lives++
	l, err := spawn(binary(d.name), d.dir, filepath.Join(d.dir, fmt.Sprintf("%s.%d.log", d.name, d.lives)),
		"serve", "--config", d.config)
	if err != nil {
		d.t.Fatalf("start %s: %v", d.name, err)
	}
	d.running = l
	if err := l.awaitReady(d.t.Context()); err != nil {
		d.t.Fatalf("%s: %v", d.name, err)
	}
}

// Kill ends the daemon with SIGKILL and waits until it is gone. One that does not run is left alone.
func (d *daemon) Kill() {
	if d.running == nil {
		return
	}
	_ = d.running.process.Kill() // the only error is that it is gone already
	<-d.running.exited
	d.running = nil
}

// Freeze stops the daemon's process where it is, as a machine does that hangs or is moved; Thaw lets it go on.
func (d *daemon) Freeze() { d.signal(syscall.SIGSTOP) }

// Thaw lets a frozen daemon go on, with all that it had in hand.
func (d *daemon) Thaw() { d.signal(syscall.SIGCONT) }

func (d *daemon) signal(s syscall.Signal) {
	d.t.Helper()
	if err := d.running.process.Signal(s); err != nil {
		d.t.Fatalf("signal %s: %v", d.name, err)
	}
}

// Stop ends the daemon with SIGTERM, and fails the test if it does not end by itself, in time and with exit code 0.
func (d *daemon) Stop() {
	d.t.Helper()
	if d.running == nil {
		return
	}
	l := d.running
	_ = l.process.Signal(syscall.SIGTERM) // as above
	select {
	case <-l.exited:
		if l.err != nil {
			d.t.Errorf("%s was told to stop: %v", d.name, l.err)
		}
	case <-time.After(patience):
		d.t.Errorf("%s does not stop", d.name)
		d.Kill()
	}
	d.running = nil
}

// Restart stops and starts the daemon.
func (d *daemon) Restart() {
	d.t.Helper()
	d.Stop()
	d.Start()
}

// GRPC is the address of the daemon's services in its present life.
func (d *daemon) GRPC() string { return d.running.grpc }

// URL is the base of what the daemon serves over HTTP in its present life.
func (d *daemon) URL() string { return "http://" + d.running.http }

// Log is what the daemon has written, all lives together.
func (d *daemon) Log() string {
	var all []byte
	for i := range d.lives {
		text, _ := os.ReadFile(filepath.Join(d.dir, fmt.Sprintf("%s.%d.log", d.name, i+1))) // a missing one is empty
		all = append(all, text...)
	}
	return string(all)
}

// logTail is how much of a log a failed test shows.
const logTail = 24 << 10

func (d *daemon) cleanup() {
	if d.running != nil {
		select {
		case <-d.running.exited:
			d.t.Errorf("%s ended by itself: %v", d.name, d.running.err)
		default:
		}
	}
	d.Kill()
	if d.t.Failed() {
		text := d.Log()
		d.t.Logf("end of the log of %s:\n%s", strings.TrimSuffix(d.config, ".yaml"), text[max(0, len(text)-logTail):])
	}
}

// Command runs one of the daemon's other subcommands with its configuration file, and returns what it wrote and its
// exit code.
func (d *daemon) Command(args ...string) (stdout, stderr string, code int) {
	d.t.Helper()
	return command(d.t, d.dir, binary(d.name), append(args, "--config", d.config)...)
}

// command runs a program to its end.
func command(t testing.TB, dir, program string, args ...string) (stdout, stderr string, code int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	var out, errs bytes.Buffer
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Dir, cmd.Stdout, cmd.Stderr = dir, &out, &errs
	err := cmd.Run()
	if cmd.ProcessState == nil || ctx.Err() != nil {
		t.Fatalf("%s %v: %v", filepath.Base(program), args, err)
	}
	return out.String(), errs.String(), cmd.ProcessState.ExitCode()
}

// spawn starts a process and watches for its end. On Linux a child gets its death signal when the thread that made it
// ends, so the goroutine that starts it keeps its thread to itself until the child is gone.
func spawn(program, dir, log string, args ...string) (*life, error) {
	l := &life{exited: make(chan struct{}), log: log}
	started := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		defer close(l.exited)
		cmd, err := l.start(program, dir, args)
		started <- err
		if err == nil {
			l.err = cmd.Wait()
		}
	}()
	return l, <-started
}

func (l *life) start(program, dir string, args []string) (*exec.Cmd, error) {
	out, err := os.Create(l.log)
	if err != nil {
		return nil, err
	}
	defer out.Close()                     // the child has its own
	cmd := exec.Command(program, args...) //nolint:noctx // Kill and Stop end it
	cmd.Dir, cmd.Stdout, cmd.Stderr, cmd.SysProcAttr = dir, out, out, dieWithParent()
	// No credentials of whoever runs the tests.
	cmd.Env = append(os.Environ(), "DOCKER_CONFIG="+dir)
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	l.process = cmd.Process
	return cmd, nil
}

// awaitReady reads the addresses off the log and waits until /readyz answers 200.
func (l *life) awaitReady(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for {
		if l.http == "" || l.grpc == "" {
			l.readAddresses()
		} else if status, _, err := httpGet(ctx, "http://"+l.http+"/readyz"); err == nil && status == http.StatusOK {
			return nil
		}
		select {
		case <-tick.C:
		case <-l.exited:
			return fmt.Errorf("ended at once: %w", l.err)
		case <-ctx.Done():
			return fmt.Errorf("not ready after %s", patience)
		}
	}
}

func (l *life) readAddresses() {
	text, _ := os.ReadFile(l.log) // not there yet: no address yet
	pattern := regexp.MustCompile(`msg=listening .*service=(http|grpc) address=(\S+)\s`)
	for _, match := range pattern.FindAllSubmatch(text, -1) {
		if string(match[1]) == "http" {
			l.http = string(match[2])
		} else {
			l.grpc = string(match[2])
		}
	}
}

// httpGet asks once, on a connection of its own.
func httpGet(ctx context.Context, url string) (status int, body string, err error) {
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: patience}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, http.NoBody)
	if err != nil {
		return 0, "", err
	}
	resp, err := client.Do(req)
	if err != nil {
		return 0, "", err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	return resp.StatusCode, string(text), err
}

// eventually asks check again until it returns nil. Some checks cost the daemons and registries much: between two there
// is time for them to do their work.
func eventually(t testing.TB, check func(ctx context.Context) error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	for {
		began := time.Now()
		err := check(ctx)
		if err == nil {
			return
		}
		timer := time.NewTimer(max(20*time.Millisecond, 2*time.Since(began)))
		select {
		case <-timer.C:
		case <-ctx.Done():
			t.Fatalf("not so after %s: %v", patience, err)
		}
	}
}
