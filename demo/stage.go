package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"sync"
	"syscall"
	"time"

	"github.com/antipode-registry/antipode/internal/authority"
	"github.com/antipode-registry/antipode/internal/link"
)

// stage is everything that runs: its folder, its ports, and its processes.
type stage struct {
	dir       string
	addresses map[string]string // by part
	secret    string
	processes []*exec.Cmd
	stopping  sync.Once
	ended     sync.WaitGroup
	quiet     chan struct{} // closed when processes are meant to end
}

// Parts that listen, and where they do if nobody else does.
var parts = []struct{ name, address string }{
	{"primary-registry", "127.0.0.1:5000"},
	{"site-registry", "127.0.0.1:5001"},
	{"primary-http", "127.0.0.1:8080"},
	{"primary-grpc", "127.0.0.1:7443"},
	{"site-http", "127.0.0.1:8081"},
	{"site-grpc", "127.0.0.1:7444"},
}

func (s *stage) primaryURL() string { return "http://" + s.addresses["primary-registry"] }
func (s *stage) siteURL() string    { return "http://" + s.addresses["site-registry"] }

// prepare makes a fresh folder with certificates and configuration files.
func prepare(ctx context.Context, dir string) (*stage, error) {
	s := &stage{dir: dir, addresses: map[string]string{}, secret: rand.Text(), quiet: make(chan struct{})}
	if err := os.RemoveAll(dir); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	for _, part := range parts {
		address, err := free(ctx, part.address)
		if err != nil {
			return nil, err
		}
		s.addresses[part.name] = address
	}
	if err := s.certificates(); err != nil {
		return nil, err
	}
	return s, s.configurations()
}

// free returns the address if nobody listens there, and else one with another port.
func free(ctx context.Context, address string) (string, error) {
	for _, candidate := range []string{address, "127.0.0.1:0"} {
		listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", candidate)
		if err == nil {
			return listener.Addr().String(), listener.Close()
		}
	}
	return "", errors.New("no free port on 127.0.0.1")
}

func (s *stage) certificates() error {
	pki := filepath.Join(s.dir, "pki")
	return errors.Join(
		authority.Init(pki),
		authority.Issue(pki, "primary", link.RolePrimary, nil),
		authority.Issue(pki, "eu-west", link.RoleNode, nil),
		authority.Issue(pki, "ops", link.RoleOperator, nil),
	)
}

func (s *stage) configurations() error {
	at := s.addresses
	return errors.Join(
		s.write("notify.secret", s.secret+"\n"),
		s.write("primary-registry.yaml", fmt.Sprintf(primaryRegistryYAML, at["primary-registry"], at["primary-http"], s.secret)),
		s.write("site-registry.yaml", fmt.Sprintf(siteRegistryYAML, at["site-registry"])),
		s.write("primary.yaml", fmt.Sprintf(primaryYAML, at["primary-registry"], at["primary-http"], at["primary-grpc"])),
		s.write("secondary.yaml", fmt.Sprintf(secondaryYAML, at["primary-grpc"], at["site-registry"], at["site-http"], at["site-grpc"])),
	)
}

func (s *stage) write(name, text string) error {
	return os.WriteFile(filepath.Join(s.dir, name), []byte(text), 0o600)
}

// start runs the registries and the pair, and waits until each answers. A process that ends by itself cancels.
func (s *stage) start(ctx context.Context, cancel context.CancelCauseFunc) error {
	tools, bin := filepath.Join(s.dir, "../.tools/bin"), filepath.Join(s.dir, "../bin")
	for _, p := range []struct{ name, program, verb, config, ready string }{
		{"primary-registry", filepath.Join(tools, "registry"), "serve", "primary-registry.yaml", s.primaryURL() + "/v2/"},
		{"site-registry", filepath.Join(tools, "registry"), "serve", "site-registry.yaml", s.siteURL() + "/v2/"},
		{"primaryd", filepath.Join(bin, "primaryd"), "serve", "primary.yaml", "http://" + s.addresses["primary-http"] + "/readyz"},
		{"secondaryd", filepath.Join(bin, "secondaryd"), "serve", "secondary.yaml", "http://" + s.addresses["site-http"] + "/readyz"},
	} {
		args := []string{p.verb, p.config}
		if p.name == "primaryd" || p.name == "secondaryd" {
			args = []string{p.verb, "--config", p.config}
		}
		if err := s.run(p.name, p.program, args, cancel); err != nil {
			return err
		}
		if err := answers(ctx, p.name, p.ready); err != nil {
			return err
		}
		fmt.Printf("  %-17s is up\n", p.name)
	}
	return nil
}

func (s *stage) run(name, program string, args []string, cancel context.CancelCauseFunc) error {
	log, err := os.Create(filepath.Join(s.dir, name+".log"))
	if err != nil {
		return err
	}
	cmd := exec.Command(program, args...) //nolint:noctx // it is told to stop, not killed: see stop
	cmd.Dir, cmd.Stdout, cmd.Stderr = s.dir, log, log
	cmd.Env = append(os.Environ(), "OTEL_TRACES_EXPORTER=none")
	// Ctrl-C reaches the terminal's whole process group; the processes are to outlive it until they are told in order.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := cmd.Start(); err != nil {
		return errors.Join(fmt.Errorf("start %s: %w", name, err), log.Close())
	}
	s.processes = append(s.processes, cmd)
	s.ended.Go(func() {
		err := cmd.Wait()
		_ = log.Close() // the process wrote it, not we
		select {
		case <-s.quiet:
		default:
			cancel(fmt.Errorf("%s ended by itself: %w", name, err))
		}
	})
	return nil
}

// answers waits until the URL answers 200.
func answers(ctx context.Context, name, url string) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	ticker := time.NewTicker(20 * time.Millisecond)
	defer ticker.Stop()
	probe := &http.Client{Timeout: time.Second}
	for {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
		if err != nil {
			return err
		}
		if resp, err := probe.Do(req); err == nil {
			_ = resp.Body.Close() // nothing of it is read
			if resp.StatusCode == http.StatusOK {
				return nil
			}
		}
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return fmt.Errorf("%s does not answer at %s: %w", name, url, context.Cause(ctx))
		}
	}
}

// stop ends the processes, the pair before the registries, and waits for them.
func (s *stage) stop() {
	s.stopping.Do(func() {
		close(s.quiet)
		for _, p := range slices.Backward(s.processes) {
			_ = p.Process.Signal(syscall.SIGTERM) // it may have ended already
		}
		timer := time.AfterFunc(10*time.Second, func() {
			for _, p := range s.processes {
				_ = p.Process.Kill() // it may have ended already
			}
		})
		s.ended.Wait()
		timer.Stop()
	})
}

func (s *stage) whereToLook() {
	fmt.Printf(lookText, s.addresses["primary-http"], s.addresses["primary-http"], s.addresses["site-http"],
		s.addresses["primary-grpc"], s.addresses["primary-registry"], s.addresses["primary-registry"],
		s.addresses["site-registry"])
}
