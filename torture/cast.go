package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"syscall"

	"github.com/antipode-registry/antipode/internal/registrytest"
)

// program is a registry's.
type program string

// The registries. The one in memory is a process like the others, has the referrers API, and tells nobody of changes.
const (
	distribution program = "CNCF distribution"
	debian       program = "Debian's docker-registry"
	inMemory     program = "a registry in memory with the referrers API"
)

// cast says who plays.
type cast struct {
	primary, site program
	alive         bool // no daemon is killed or stopped
}

func (c cast) String() string {
	text := fmt.Sprintf("from %s to %s", c.primary, c.site)
	if c.alive {
		text += ", daemons left alive"
	}
	return text
}

// cast follows from the seed, in pairs, so that each can be had on either database by the odd and the even.
func (o options) cast() cast {
	return []cast{
		{distribution, distribution, false},
		{distribution, distribution, false},
		{distribution, debian, false},
		{distribution, distribution, true},
		{inMemory, distribution, false},
		{distribution, debian, false},
		{distribution, inMemory, false},
		{inMemory, inMemory, false},
	}[o.Seed/2%8]
}

// command is how a registry is started, given its address and its configuration.
func (w *world) command(p program, address, config string) ([]string, error) {
	switch p {
	case distribution:
		return []string{w.Registry, "serve", config}, nil
	case debian:
		path, err := exec.LookPath("docker-registry")
		return []string{path, "serve", config}, err
	case inMemory:
		path, err := os.Executable()
		return []string{path, memoryCommand, address}, err
	}
	return nil, fmt.Errorf("no registry is called %s", p)
}

// memoryCommand makes this program a registry in memory at an address, and nothing else.
const memoryCommand = "registry-in-memory"

func serveMemory(address string) error {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", address)
	if err != nil {
		return err
	}
	server := &http.Server{Handler: registrytest.MemoryHandler(true), ReadHeaderTimeout: startPatience}
	context.AfterFunc(ctx, func() { _ = server.Close() })
	if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}
