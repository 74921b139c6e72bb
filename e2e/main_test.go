package e2e

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"go.uber.org/goleak"
)

// binaries is the folder of the daemons under test; TestMain sets it once, before any test.
var binaries string

func TestMain(m *testing.M) {
	os.Exit(run(m))
}

func run(m *testing.M) int {
	dir, err := os.MkdirTemp("", "antipode-e2e-")
	if err != nil {
		fmt.Fprintln(os.Stderr, "e2e:", err)
		return 1
	}
	defer func() { _ = os.RemoveAll(dir) }()
	// Not under the race detector, even when the tests are: these are the programs that ship, and their latency counts.
	build := exec.Command("go", "build", "-o", dir, "../primaryd", "../secondaryd") //nolint:noctx // the tests' own limit holds
	build.Stdout, build.Stderr = os.Stderr, os.Stderr
	if err := build.Run(); err != nil {
		fmt.Fprintln(os.Stderr, "e2e: build the daemons:", err)
		return 1
	}
	binaries = dir
	defer tabs.Stop()
	if code := m.Run(); code != 0 {
		return code
	}
	tabs.Stop()
	if err := goleak.Find(); err != nil {
		fmt.Fprintln(os.Stderr, "e2e: the tests left something running:", err)
		return 1
	}
	return 0
}

func binary(name string) string { return filepath.Join(binaries, name) }
