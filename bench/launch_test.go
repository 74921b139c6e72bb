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

	"golang.org/x/sync/errgroup"
)

// launchVariable names the file that makes the test binary run what it says, and nothing else. What a process took is
// only known of a process whose parent is small: Linux gives a child its parent's highest resident set to begin with.
const launchVariable = "ANTIPODE_BENCH_LAUNCH"

// launch is what to run.
type launch struct {
	Lines  [][]string
	Env    []string
	AtOnce int
}

// launched is what it came to.
type launched struct {
	CPU    time.Duration
	RSS    int64
	Failed string
}

// commands runs commands side by side and says what they took together.
func commands(t testing.TB, dir, name string, l launch) ([]usage, error) {
	t.Helper()
	text, err := json.Marshal(l)
	if err != nil {
		return nil, err
	}
	path := filepath.Join(dir, "launch.json")
	if err := os.WriteFile(path, text, 0o600); err != nil {
		return nil, err
	}
	cmd := exec.CommandContext(t.Context(), os.Args[0])
	cmd.Env = append(os.Environ(), launchVariable+"="+path)
	cmd.Stderr = os.Stderr
	output, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("launch %s: %w", name, err)
	}
	var done launched
	if err := json.Unmarshal(output, &done); err != nil {
		return nil, err
	}
	if done.Failed != "" {
		err = errors.New(done.Failed)
	}
	return []usage{{Name: name, CPU: done.CPU, RSS: done.RSS}}, err
}

// runLaunch is the launched side.
func runLaunch(path string) error {
	text, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	var l launch
	if err := json.Unmarshal(text, &l); err != nil {
		return err
	}
	var env []string
	for _, setting := range os.Environ() {
		if !strings.HasPrefix(setting, launchVariable+"=") {
			env = append(env, setting)
		}
	}
	states := make([]*os.ProcessState, len(l.Lines))
	group, ctx := errgroup.WithContext(context.Background())
	group.SetLimit(l.AtOnce)
	for i, line := range l.Lines {
		group.Go(func() error {
			cmd := exec.CommandContext(ctx, line[0], line[1:]...)
			cmd.Env = append(env, l.Env...)
			output, err := cmd.CombinedOutput()
			states[i] = cmd.ProcessState
			if err != nil {
				return fmt.Errorf("%s: %w: %s", strings.Join(line, " "), err, output[max(0, len(output)-2000):])
			}
			return nil
		})
	}
	var done launched
	if err := group.Wait(); err != nil {
		done.Failed = err.Error()
	}
	for _, state := range states {
		if state == nil {
			continue
		}
		done.CPU += state.UserTime() + state.SystemTime()
		if r, ok := state.SysUsage().(*syscall.Rusage); ok {
			done.RSS = max(done.RSS, r.Maxrss)
		}
	}
	return json.NewEncoder(os.Stdout).Encode(done)
}
