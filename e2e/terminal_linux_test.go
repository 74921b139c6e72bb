package e2e

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"
	"unsafe"

	"github.com/antipode-registry/antipode/internal/registrytest"
)

// terminal is a pseudo-terminal of 100 columns (pty(7)), and what was written to it.
type terminal struct {
	control, screen *os.File
	read            sync.WaitGroup
	mu              sync.Mutex
	text            strings.Builder
}

func newTerminal(t *testing.T) *terminal {
	t.Helper()
	control, err := os.OpenFile("/dev/ptmx", os.O_RDWR|syscall.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	var unlocked, number int32
	size := struct{ rows, columns, x, y uint16 }{rows: 24, columns: 100}
	for request, argument := range map[uintptr]unsafe.Pointer{
		0x40045431: unsafe.Pointer(&unlocked), 0x80045430: unsafe.Pointer(&number), syscall.TIOCSWINSZ: unsafe.Pointer(&size),
	} {
		if _, _, errno := syscall.Syscall(syscall.SYS_IOCTL, control.Fd(), request, uintptr(argument)); errno != 0 {
			t.Fatal(errno)
		}
	}
	screen, err := os.OpenFile(fmt.Sprintf("/dev/pts/%d", number), os.O_RDWR|syscall.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	s := &terminal{control: control, screen: screen}
	s.read.Go(func() { _, _ = io.Copy(s, control) }) // ends with EIO once nobody has the screen open
	return s
}

// Write notes what was written to the screen.
func (s *terminal) Write(text []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.text.Write(text)
}

// shown is everything that was written so far.
func (s *terminal) shown() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.text.String()
}

func (s *terminal) close() {
	_ = s.screen.Close()
	s.read.Wait()
	_ = s.control.Close()
}

// run begins one of the daemon's commands with its standard error on the terminal; end waits for it.
func (s *terminal) run(t *testing.T, d *daemon, args ...string) (end func() (stdout string, code int)) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	var out strings.Builder
	cmd := exec.CommandContext(ctx, binary(d.name), append(args, "--config", d.config)...)
	cmd.Dir, cmd.Stdout, cmd.Stderr = d.dir, &out, s.screen
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	return func() (string, int) {
		defer cancel()
		if err := cmd.Wait(); err != nil && cmd.ProcessState.ExitCode() < 0 {
			t.Fatalf("%v: %v\n%s", args, err, s.shown())
		}
		return out.String(), cmd.ProcessState.ExitCode()
	}
}

// Whoever waits at a terminal sees how far it is; whoever does not sees the answer alone, and exit codes are the same.
func TestProgressOnATerminal(t *testing.T) {
	t.Parallel()
	p := newPair(t, withSecondaryConfig("grpc.listen", reserve(t)),
		withSecondaryConfig("replication.bandwidth", map[string]any{"download": "256KiB"}))
	image := registrytest.NewImage(1, 1, 3<<20)
	push(t, p, "app", "v1", image)
	s := newTerminal(t)
	defer s.close()
	here := s.run(t, p.Secondary, "wait", "app:v1", "--timeout", "2m")
	everywhere := s.run(t, p.Primary, "wait", "app:v1", "--timeout", "2m")
	eventually(t, func(context.Context) error {
		return contains(s.shown(), "waiting for app:v1: the repository is syncing, ", " of 3.0 MiB, ", "waiting for app:v1: on 0 of 1 sites")
	})
	for _, end := range []func() (string, int){here, everywhere} {
		if out, code := end(); code != 0 || !strings.Contains(out, image.Digest) || strings.Contains(out, "\x1b") {
			t.Errorf("exit code %d: %q", code, out)
		}
	}
	p.Synced(t)

	whole := s.run(t, p.Secondary, "verify", "--all", "--deep", "--wait")
	if out, code := whole(); code != 0 || !strings.Contains(out, "1 repositories are verified") {
		t.Errorf("exit code %d: %q", code, out)
	}
	promoted := s.run(t, p.Secondary, "promote", "--planned", "--dry-run")
	if out, code := promoted(); code != 0 || !strings.Contains(out, "nothing is missing") {
		t.Errorf("exit code %d: %q", code, out)
	}
	// What a program wrote before its end is read off the terminal after it.
	eventually(t, func(context.Context) error {
		if !strings.HasSuffix(s.shown(), "\r\x1b[K") {
			return fmt.Errorf("the line was left: %q", s.shown())
		}
		return contains(s.shown(), "verifying: asked for", "comparing with the primary's registry: 1 of 1 repositories")
	})
	// Piped, and as JSON on a terminal, there is no line; and who asks for too little time is told so.
	if _, stderr, code := p.Secondary.Command("resync", "app", "--wait"); code != 0 || stderr != "" {
		t.Errorf("piped: exit code %d, %q", code, stderr)
	}
	before := s.shown()
	if out, code := s.run(t, p.Secondary, "resync", "--all", "--wait", "--output", "json")(); code != 0 || s.shown() != before {
		t.Errorf("as JSON: exit code %d, %q", code, out)
	}
	p.Registry.Kill()
	if _, stderr, code := p.Secondary.Command("resync", "app", "--wait", "--timeout", "1m"); code != 1 || contains(stderr, "app failed") != nil {
		t.Errorf("failing: exit code %d, %q", code, stderr)
	}
	succeeds(t, p.Secondary, "pause")
	if _, stderr, code := p.Secondary.Command("resync", "app", "--wait", "--timeout", "1m"); code != 3 || contains(stderr, "the site is paused") != nil {
		t.Errorf("paused: exit code %d, %q", code, stderr)
	}
}
