package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

// Waits of a process.
const (
	startPatience = 90 * time.Second       // the machine may be busy with others
	restartPause  = 500 * time.Millisecond // as a service manager would
	stopPatience  = 30 * time.Second
)

// process is a program that is kept running, as a service manager would: one that ends by itself is started again.
// Safe for concurrent use.
type process struct {
	name  string
	dir   string // its working directory; its log is NAME.log there
	argv  []string
	env   []string
	ready func(ctx context.Context) error // nil once it serves
	diary *diary

	mu     sync.Mutex
	life   *life // nil while it is meant to be down
	frozen bool
}

// life is one child.
type life struct {
	pid    int
	exited chan struct{}
	err    error // valid once exited is closed
}

// Start runs the program, unless it runs, and does not wait until it serves.
func (p *process) Start() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.life != nil {
		return nil
	}
	return p.start()
}

func (p *process) start() error {
	l, err := spawn(p.argv, p.env, p.dir, p.Log())
	if err != nil {
		return fmt.Errorf("start %s: %w", p.name, err)
	}
	p.life = l
	go p.keep(l)
	return nil
}

// keep starts the program again when this life of it ends although it was not told to.
func (p *process) keep(l *life) {
	<-l.exited
	p.mu.Lock()
	unasked := p.life == l
	p.mu.Unlock()
	if !unasked {
		return
	}
	p.diary.Note("process", "%s ended by itself (%v); it is started again", p.name, l.err)
	p.diary.Count("ended by itself: " + p.name)
	timer := time.NewTimer(restartPause)
	defer timer.Stop()
	<-timer.C
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.life != l {
		return
	}
	if err := p.start(); err != nil {
		p.diary.Note("process", "%v", err)
	}
}

// Kill ends the program and all that it started with SIGKILL, and waits until it is gone.
func (p *process) Kill() { p.end(syscall.SIGKILL) }

// Stop ends the program with SIGTERM, and with SIGKILL where that does not help in time, which is a violation.
func (p *process) Stop() { p.end(syscall.SIGTERM) }

func (p *process) end(signal syscall.Signal) {
	p.mu.Lock()
	l := p.life
	p.life, p.frozen = nil, false
	p.mu.Unlock()
	if l != nil {
		p.finish(l, signal)
	}
}

// finish signals one life of the program and waits until it is gone.
func (p *process) finish(l *life, signal syscall.Signal) {
	children := family(l.pid)
	if signal == syscall.SIGKILL {
		send(signal, children...) // before the parent: orphans are harder to find
	}
	send(signal, l.pid)
	timer := time.NewTimer(stopPatience)
	defer timer.Stop()
	select {
	case <-l.exited:
	case <-timer.C:
		p.diary.Violation("%s does not stop within %s of being told to", p.name, stopPatience)
		send(syscall.SIGKILL, append(children, l.pid)...)
		<-l.exited
	}
}

// Without ends the program with SIGKILL, does something while nobody can start it, and starts it.
func (p *process) Without(do func() error) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if l := p.life; l != nil {
		p.life, p.frozen = nil, false
		p.finish(l, syscall.SIGKILL)
	}
	return errors.Join(do(), p.start())
}

// without does something while none of the programs can be started. The last one is started first.
func without(all []*process, do func() error) error {
	if len(all) == 0 {
		return do()
	}
	return all[0].Without(func() error { return without(all[1:], do) })
}

// Freeze stops the program and all that it started in the middle of what they do, until Thaw.
func (p *process) Freeze() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.life != nil {
		p.frozen = true
		send(syscall.SIGSTOP, p.life.pid)
		send(syscall.SIGSTOP, family(p.life.pid)...)
	}
}

// Thaw lets a frozen program go on.
func (p *process) Thaw() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.life != nil && p.frozen {
		p.frozen = false
		send(syscall.SIGCONT, family(p.life.pid)...)
		send(syscall.SIGCONT, p.life.pid)
	}
}

// Await waits until the program serves, over as many lives as that takes.
func (p *process) Await(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, startPatience)
	defer cancel()
	return until(ctx, 20*time.Millisecond, func(ctx context.Context) error {
		if err := p.ready(ctx); err != nil {
			return fmt.Errorf("%s is not ready: %w", p.name, err)
		}
		return nil
	})
}

// PID is the program's process number, 0 while it is down.
func (p *process) PID() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.life == nil {
		return 0
	}
	return p.life.pid
}

// Log is the path of what the program writes, all lives together.
func (p *process) Log() string { return filepath.Join(p.dir, p.name+".log") }

// spawn starts a child and watches for its end. On Linux a child gets its death signal when the thread that made it
// ends, so the goroutine that starts it keeps its thread to itself until the child is gone.
func spawn(argv, env []string, dir, log string) (*life, error) {
	l := &life{exited: make(chan struct{})}
	started := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		defer close(l.exited)
		cmd, err := command(argv, env, dir, log)
		if err == nil {
			l.pid = cmd.Process.Pid
		}
		started <- err
		if err == nil {
			l.err = cmd.Wait()
		}
	}()
	return l, <-started
}

func command(argv, env []string, dir, log string) (*exec.Cmd, error) {
	out, err := os.OpenFile(log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, err
	}
	defer out.Close()                         // the child has its own
	cmd := exec.Command(argv[0], argv[1:]...) //nolint:noctx // Kill and Stop end it
	cmd.Dir, cmd.Stdout, cmd.Stderr = dir, out, out
	cmd.Env, cmd.SysProcAttr = env, dieWithParent()
	return cmd, cmd.Start()
}

// send signals processes; one that is gone already is as good as signalled.
func send(signal syscall.Signal, pids ...int) {
	for _, pid := range pids {
		_ = syscall.Kill(pid, signal)
	}
}

// family returns the descendants of a process, by the kernel's list of all. Where there is none, it has none.
func family(pid int) []int {
	entries, _ := filepath.Glob("/proc/[0-9]*/stat") // the pattern is well-formed
	children := map[int][]int{}
	for _, entry := range entries {
		text, err := os.ReadFile(entry)
		if err != nil {
			continue // gone meanwhile
		}
		// PID (NAME) STATE PARENT ...; a name may hold anything, so it is read from its end.
		fields := strings.Fields(string(text[strings.LastIndexByte(string(text), ')')+1:]))
		child, _ := strconv.Atoi(filepath.Base(filepath.Dir(entry)))
		if parent, err := strconv.Atoi(fields[1]); err == nil {
			children[parent] = append(children[parent], child)
		}
	}
	all := children[pid]
	for i := 0; i < len(all); i++ {
		all = append(all, children[all[i]]...)
	}
	return all
}

// answers is a readiness check: the URL answers 200.
func answers(url string) func(ctx context.Context) error {
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: 5 * time.Second}
	return func(ctx context.Context) error {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, http.NoBody)
		if err != nil {
			return err
		}
		resp, err := client.Do(req)
		if err != nil {
			return err
		}
		defer resp.Body.Close()
		if resp.StatusCode != http.StatusOK {
			return fmt.Errorf("%s answers %s", url, resp.Status)
		}
		return nil
	}
}

// until repeats do until it succeeds, and returns its last error when ctx ends first.
func until(ctx context.Context, pause time.Duration, do func(ctx context.Context) error) error {
	ticker := time.NewTicker(pause)
	defer ticker.Stop()
	var last error
	for {
		err := do(ctx)
		if err == nil {
			return nil
		}
		// The error that the deadline itself causes says nothing.
		if last == nil || ctx.Err() == nil {
			last = err
		}
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return errors.Join(last, ctx.Err())
		}
	}
}
