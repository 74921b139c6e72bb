package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"
)

// Exit codes.
const (
	exitFound  = 1
	exitFailed = 2
)

func main() {
	if len(os.Args) == 3 && os.Args[1] == memoryCommand {
		if err := serveMemory(os.Args[2]); err != nil {
			fmt.Fprintln(os.Stderr, "torture:", err)
			os.Exit(exitFailed)
		}
		return
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := start(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}

// start reads the flags, makes the run and writes the log and the summary.
func start(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	var o options
	var summaryFile string
	flags := flag.NewFlagSet("torture", flag.ContinueOnError)
	flags.SetOutput(stderr)
	flags.Uint64Var(&o.Seed, "seed", 1, "what the work and the faults follow from")
	flags.DurationVar(&o.Duration, "duration", 2*time.Minute, "how long to work and break")
	flags.StringVar(&o.Database, "database", "sqlite", "sqlite, or postgres for two replicas of each daemon")
	flags.StringVar(&o.Programs, "programs", "", "folder of primaryd and secondaryd; built when left out")
	flags.StringVar(&o.Registry, "registry", "", "CNCF distribution's program; .tools/bin/registry when left out")
	flags.BoolVar(&o.Keep, "keep", false, "leave the folder of the run even when nothing was found")
	flags.StringVar(&summaryFile, "summary", "", "file to append the summary to, as a line of JSON")
	if flags.Parse(args) != nil {
		return exitFailed
	}
	s, err := prepared(ctx, o, stdout)
	if err == nil {
		err = report(s, summaryFile, stdout)
	}
	switch {
	case err != nil:
		fmt.Fprintln(stderr, "torture:", err)
		return exitFailed
	case len(s.Violations) > 0:
		return exitFound
	}
	return 0
}

// prepared builds what was not given, runs, and removes what it built.
func prepared(ctx context.Context, o options, out io.Writer) (summary, error) {
	if err := o.programs("."); err != nil {
		return summary{}, err
	}
	registry, err := filepath.Abs(o.Registry)
	if err != nil {
		return summary{}, err
	}
	o.Registry = registry
	if o.Programs == "" {
		if o.Programs, err = build(ctx, "."); err != nil {
			return summary{}, err
		}
		defer func() { _ = os.RemoveAll(o.Programs) }()
	}
	return run(ctx, o, out)
}

// build builds the daemons of the module at root into a folder of its own.
func build(ctx context.Context, root string) (string, error) {
	dir, err := os.MkdirTemp("", "antipode-programs-")
	if err != nil {
		return "", err
	}
	cmd := exec.CommandContext(ctx, "go", "build", "-o", dir, "./primaryd", "./secondaryd")
	cmd.Dir = root
	if output, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build the daemons: %w: %s", err, output)
	}
	return dir, nil
}

// report writes the summary for people, and for machines where a file is given.
func report(s summary, file string, out io.Writer) error {
	readable, err := json.MarshalIndent(s, "", "  ")
	if err != nil {
		return err
	}
	if _, err := fmt.Fprintf(out, "%s\n", readable); err != nil || file == "" {
		return err
	}
	line, err := json.Marshal(s)
	if err != nil {
		return err
	}
	to, err := os.OpenFile(file, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	if _, err := fmt.Fprintf(to, "%s\n", line); err != nil {
		_ = to.Close()
		return err
	}
	return to.Close()
}
