package transfer_test

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"

	"github.com/antipode-registry/antipode/internal/registry"
	"github.com/antipode-registry/antipode/internal/registrytest"
	"github.com/antipode-registry/antipode/internal/transfer"
)

// backfill is a pair with copies under way that do not end before release, each with one blob.
type backfill struct {
	*pair
	release chan struct{}
	group   sync.WaitGroup

	mu       sync.Mutex
	now, top int // uploads in flight, and the most at a time
}

// startBackfill begins n copies. Every upload into one of their repositories waits.
func startBackfill(t *testing.T, n int, opts transfer.Options) *backfill {
	t.Helper()
	b := &backfill{pair: newPair(), release: make(chan struct{})}
	b.copier = transfer.New(b.dst, b.index, opts)
	b.dst.onPutBlob = func(_ context.Context, repository, _, _ string) error {
		b.count(1)
		defer b.count(-1)
		if strings.HasPrefix(repository, "backfill") {
			<-b.release
		}
		return nil
	}
	for i := range n {
		b.start(t, fmt.Sprint("backfill", i), registrytest.NewImage(int64(i), 0, 0), false)
	}
	synctest.Wait()
	return b
}

func (b *backfill) count(by int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.now += by
	b.top = max(b.top, b.now)
}

func (b *backfill) start(t *testing.T, repository string, img registrytest.Image, urgent bool) {
	t.Helper()
	b.src.push(repository, img)
	req := request(b.src, repository, img, "latest")
	req.Urgent = urgent
	b.group.Go(func() {
		if _, err := b.copier.Copy(t.Context(), req); err != nil {
			t.Error(err)
		}
	})
}

// end lets all copies end, and checks that no more blobs were in flight than allowed.
func (b *backfill) end(t *testing.T, most int) {
	t.Helper()
	close(b.release)
	b.group.Wait()
	if b.top > most {
		t.Errorf("%d blobs in flight, at most %d allowed", b.top, most)
	}
}

func TestUrgentCopyPassesABackfillOfHugeBlobs(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := startBackfill(t, 20, transfer.Options{})
		b.start(t, "plain", registrytest.NewImage(100, 1, 10), false)
		b.start(t, "live", registrytest.NewImage(101, 12, 10), true)
		b.start(t, "live2", registrytest.NewImage(102, 12, 10), true)
		synctest.Wait() // the backfill's blobs are still held
		if b.dst.tagged("live", "latest") == "" || b.dst.tagged("live2", "latest") == "" {
			t.Error("a live copy waits for the backfill")
		}
		if b.dst.tagged("plain", "latest") != "" {
			t.Error("a copy that is not urgent passed the backfill: nothing is shown")
		}
		b.end(t, 8+2)
	})
}

func TestReserveIsBounded(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := startBackfill(t, 3, transfer.Options{Blobs: 2, UrgentBlobs: 1})
		b.start(t, "backfill-urgent", registrytest.NewImage(100, 5, 10), true) // held, too
		synctest.Wait()
		b.mu.Lock()
		if b.now != 3 {
			t.Errorf("%d blobs in flight", b.now)
		}
		b.mu.Unlock()
		b.end(t, 3)
	})
}

// TestUrgentCopyHurriesABlobThatABackfillIsToBring: the copy that brings the blob for both waits for a slot itself.
func TestUrgentCopyHurriesABlobThatABackfillIsToBring(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := startBackfill(t, 8, transfer.Options{})
		base := registrytest.Bytes(1, 0, 100)
		b.start(t, "waiting", registrytest.NewImage(100, 0, 0, registrytest.WithLayers(base)), false)
		synctest.Wait()
		b.start(t, "live", registrytest.NewImage(101, 0, 0, registrytest.WithLayers(base)), true)
		synctest.Wait()
		if b.dst.tagged("live", "latest") == "" {
			t.Error("a live copy waits for a blob that is not begun")
		}
		if b.dst.tagged("waiting", "latest") != "" {
			t.Error("all of the other copy became urgent, not the blob alone")
		}
		b.end(t, 8+2)
	})
}

// TestUrgentCopyIsUrgentAtTheRegistry: its requests pass those that wait for their turn at a handle.
func TestUrgentCopyIsUrgentAtTheRegistry(t *testing.T) {
	t.Parallel()
	for _, urgent := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			gate := make(chan struct{})
			var mu sync.Mutex
			var seen []string
			source, err := registry.Open(registry.Config{
				URL: "http://registry.test", Side: registry.Source, Concurrency: 1,
				Transport: carrier(func(req *http.Request) (*http.Response, error) {
					mu.Lock()
					seen = append(seen, req.URL.Path)
					mu.Unlock()
					<-gate
					body := io.NopCloser(strings.NewReader("{}"))
					return &http.Response{StatusCode: http.StatusOK, Header: http.Header{}, Body: body}, nil
				}),
			})
			if err != nil {
				t.Fatal(err)
			}
			var group sync.WaitGroup
			for range 5 {
				group.Go(func() { _ = source.Ping(t.Context()) }) // for the queue
			}
			synctest.Wait()
			p := newPair()
			req := request(source, "app", registrytest.NewImage(1, 1, 10), "latest")
			req.Urgent = urgent
			group.Go(func() { _, _ = p.copier.Copy(t.Context(), req) }) // the answer is no manifest
			synctest.Wait()
			close(gate)
			group.Wait()
			second := strings.Contains(seen[1], "/manifests/")
			if second != urgent {
				t.Errorf("urgent %v: %q", urgent, seen)
			}
		})
	}
}

type carrier func(*http.Request) (*http.Response, error)

func (c carrier) RoundTrip(req *http.Request) (*http.Response, error) { return c(req) }
