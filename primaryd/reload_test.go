package main

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/antipode-registry/antipode/client"
	"github.com/antipode-registry/antipode/internal/authority"
	"github.com/antipode-registry/antipode/internal/link"
	"github.com/antipode-registry/antipode/internal/registrytest"
)

// A site is added to a running daemon, and taken out again.
func TestSIGHUPTakesNodesAndOperators(t *testing.T) {
	t.Parallel()
	path := configuration(t)
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	p := startProcess(t, "serve", "--config", path)
	dir := filepath.Dir(path)
	if err := authority.Issue(dir, "eu-west", link.RoleNode, nil); err != nil {
		t.Fatal(err)
	}
	site, err := client.Dial(client.Config{
		Address: p.grpc, CertFile: filepath.Join(dir, "eu-west.crt"), KeyFile: filepath.Join(dir, "eu-west.key"),
		CAFile: filepath.Join(dir, "ca.crt"),
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = site.Close() })
	for _, step := range []struct {
		added string
		want  codes.Code
	}{
		{"nodes: [{name: eu-west, repositories: ['**']}]\n", codes.OK},
		{"", codes.Unauthenticated},
	} {
		write(t, path, string(text)+step.added)
		if err := p.cmd.Process.Signal(syscall.SIGHUP); err != nil {
			t.Fatal(err)
		}
		registrytest.Eventually(t, time.Minute, func(ctx context.Context) error {
			if _, err := site.Nodes(ctx); status.Code(err) != step.want {
				return fmt.Errorf("with %q: %w", step.added, err)
			}
			return nil
		})
	}
}

// A file with a mistake changes nothing, and what cannot change in a running daemon is said.
func TestReconfigure(t *testing.T) {
	t.Parallel()
	d := opened(t)
	d.path = filepath.Join(filepath.Dir(d.cfg.GRPC.CertFile), "primary.yaml")
	log := &bytes.Buffer{}
	d.logger = slog.New(slog.NewTextHandler(log, nil))
	text, err := os.ReadFile(d.path)
	if err != nil {
		t.Fatal(err)
	}
	for _, step := range []struct {
		text, logged string
		nodes        int
	}{
		{string(text) + "nodes: [{name: a, repositories: ['**']}, {name: b, repositories: ['**']}]\n", "nodes=2", 2},
		{string(text) + "nodes: [{name: a, repositories: ['**']}, {name: a, repositories: ['**']}]\n", "is named at nodes[0].name already", 2},
		{"nodes: [", "configuration not read again", 2},
		{string(text) + "sweep: {interval: 5m}\n", "they count from the next start", 0},
	} {
		write(t, d.path, step.text)
		log.Reset()
		d.reconfigure(t.Context())
		if got := d.nodes.Names(); len(got) != step.nodes || !strings.Contains(log.String(), step.logged) {
			t.Errorf("nodes %v, want %d; log, which should say %q:\n%s", got, step.nodes, step.logged, log)
		}
	}
}
