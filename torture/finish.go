package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"regexp"
	"strconv"
	"time"

	"google.golang.org/grpc"

	antipodev1 "github.com/antipode-registry/antipode/gen/antipode/v1"
	"github.com/antipode-registry/antipode/internal/registrytest"
)

// convergence bounds how long the pair may take to be equal once the faults are gone. A site waits up to five minutes
// after many failures in a row.
const convergence = 6 * time.Minute

// Bounds of what a daemon may hold once there is nothing left to do. Idle, each has about 40 goroutines and 20
// descriptors; connections to registries that may be used again take two goroutines and a descriptor each.
const (
	mostGoroutines  = 250
	mostDescriptors = 150
	mostMemory      = 300 << 20
)

// finish waits until the pair is as it should be, without any help, and looks at what the daemons have left over.
func (w *world) finish(ctx context.Context) (took time.Duration) {
	began := time.Now()
	limited, cancel := context.WithTimeout(ctx, convergence)
	defer cancel()
	err := until(limited, time.Second, w.converged)
	took = time.Since(began)
	switch {
	case ctx.Err() != nil:
		return took // nobody wants to know any more
	case err != nil:
		w.diary.Violation("not equal %s after the last fault: %v", convergence, err)
	default:
		w.diary.Note("finish", "equal after %s", took.Round(10*time.Millisecond))
	}
	for _, name := range w.daemonNames() {
		w.leftover(ctx, name)
	}
	return took
}

// converged returns nil when the site says that it has all, nothing failed, and the registries agree.
func (w *world) converged(ctx context.Context) error {
	for _, name := range w.startOrder() {
		short, cancel := context.WithTimeout(ctx, answerPatience)
		err := w.processes[name].ready(short)
		cancel()
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	nodes, err := ask(ctx, w, "primaryd", func(ctx context.Context, conn *grpc.ClientConn) (*antipodev1.ListNodesResponse, error) {
		return antipodev1.NewNodeServiceClient(conn).ListNodes(ctx, &antipodev1.ListNodesRequest{})
	})
	if err != nil {
		return err
	}
	status, err := w.siteStatus(ctx)
	if err != nil {
		return err
	}
	counts := status.GetRepositories()
	if status.GetCursorRevision() != nodes.GetHeadRevision() || counts.GetSynced() != counts.GetTotal() {
		return fmt.Errorf("cursor %d of %d, repositories %v, last error %v",
			status.GetCursorRevision(), nodes.GetHeadRevision(), counts, status.GetLastError())
	}
	differences, err := registrytest.Differences(ctx, w.url(primaryRegistry), w.url(siteRegistry))
	if err != nil {
		return err
	}
	return errors.Join(differences...)
}

// leftover looks at what a daemon holds and at what it has written.
func (w *world) leftover(ctx context.Context, name string) {
	limited, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	var held usage
	err := until(limited, time.Second, func(ctx context.Context) error {
		var err error
		if held, err = w.usage(ctx, name); err != nil {
			return err
		}
		if held.above(usage{mostGoroutines, mostDescriptors, mostMemory}) {
			return errors.New("more than it may")
		}
		return nil
	})
	w.diary.Note("finish", "%s holds %s", name, held)
	if err != nil {
		w.diary.Violation("%s holds %s: %v", name, held, err)
	}
	log, err := os.ReadFile(w.processes[name].Log())
	if err != nil {
		w.harness(err)
	}
	for _, sign := range []string{"panic:", "fatal error:", "DATA RACE", "panic="} {
		if i := bytes.Index(log, []byte(sign)); i >= 0 {
			w.diary.Violation("the log of %s says %q", name, log[i:min(len(log), i+200)])
		}
	}
}

var samples = regexp.MustCompile(`(?m)^(go_goroutines|process_open_fds|process_resident_memory_bytes) (\S+)$`)

func (w *world) usage(ctx context.Context, name string) (usage, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, w.url(name+" http")+"/metrics", http.NoBody)
	if err != nil {
		return usage{}, err
	}
	resp, err := (&http.Client{Transport: &http.Transport{DisableKeepAlives: true}}).Do(req)
	if err != nil {
		return usage{}, err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		return usage{}, err
	}
	found := map[string]int64{}
	for _, match := range samples.FindAllSubmatch(text, -1) {
		value, err := strconv.ParseFloat(string(match[2]), 64)
		if err != nil {
			return usage{}, err
		}
		found[string(match[1])] = int64(value)
	}
	return usage{found["go_goroutines"], found["process_open_fds"], found["process_resident_memory_bytes"]}, nil
}
