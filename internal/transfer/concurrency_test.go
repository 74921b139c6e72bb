package transfer_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"testing"
	"testing/synctest"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/antipode-registry/antipode/internal/registry"
	"github.com/antipode-registry/antipode/internal/registrytest"
	"github.com/antipode-registry/antipode/internal/transfer"
)

// TestSecondCopyOfABlobWaits holds the first copy's download and lets others of the same blob come.
func TestSecondCopyOfABlobWaits(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		p := newPair()
		metrics := transfer.NewMetrics(prometheus.NewRegistry())
		p.copier = transfer.New(p.dst, p.index, transfer.Options{Metrics: metrics})
		layer := registrytest.Bytes(1, 0, 100)
		one := registrytest.NewImage(1, 0, 0, registrytest.WithLayers(layer))
		two := registrytest.NewImage(2, 1, 10, registrytest.WithLayers(layer))
		hold := make(chan struct{})
		p.src.onBlob = func(_ context.Context, desc registry.Descriptor, _ int64) (io.ReadCloser, error) {
			if desc.Digest == registrytest.Digest(layer) {
				<-hold
			}
			return nil, nil
		}
		var wg sync.WaitGroup
		begin := func(repository string, img registrytest.Image) {
			p.src.push(repository, img)
			wg.Go(func() {
				if _, err := p.copier.Copy(t.Context(), request(p.src, repository, img, "latest")); err != nil {
					t.Error(err)
				}
			})
			synctest.Wait()
		}
		begin("a", one)
		begin("a", two) // waits, and has it
		begin("b", one) // waits, and mounts
		begin("b", two) // waits, and waits for that mount or finds it
		close(hold)
		wg.Wait()

		downloads := 0
		for _, call := range p.src.calls() {
			if strings.HasPrefix(call, "GET blob") && strings.Contains(call, short(registrytest.Digest(layer))) {
				downloads++
			}
		}
		if downloads != 1 {
			t.Errorf("%d downloads of one blob", downloads)
		}
		for _, repository := range []string{"a", "b"} {
			if _, ok := p.dst.blob(repository, registrytest.Digest(layer)); !ok {
				t.Errorf("%s lacks the blob", repository)
			}
		}
	})
}

func TestWaiterTakesOverFromAFailedCopy(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		p := newPair()
		img := registrytest.NewImage(1, 1, 100)
		p.src.push("a", img)
		p.src.push("b", img)
		layer := img.Layers()[0]
		begun := 0
		p.src.onBlob = func(ctx context.Context, desc registry.Descriptor, _ int64) (io.ReadCloser, error) {
			if desc.Digest == layer {
				if begun++; begun == 1 {
					<-ctx.Done()
					return nil, ctx.Err()
				}
			}
			return nil, nil
		}
		first, cancel := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		wg.Go(func() {
			if _, err := p.copier.Copy(first, request(p.src, "a", img, "latest")); !errors.Is(err, context.Canceled) {
				t.Errorf("cancelled copy: %v", err)
			}
		})
		synctest.Wait()
		wg.Go(func() {
			if _, err := p.copier.Copy(t.Context(), request(p.src, "b", img, "latest")); err != nil {
				t.Errorf("waiting copy: %v", err)
			}
		})
		synctest.Wait()
		cancel()
		wg.Wait()
		if begun != 2 || p.dst.tagged("b", "latest") != img.Digest || p.dst.tagged("a", "latest") != "" {
			t.Errorf("%d downloads; b:latest on %q, a:latest on %q", begun,
				p.dst.tagged("b", "latest"), p.dst.tagged("a", "latest"))
		}
	})
}

func TestBlobsInFlightAreBoundedOverCopies(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		p := newPair()
		p.copier = transfer.New(p.dst, p.index, transfer.Options{Blobs: 3})
		hold := make(chan struct{})
		var mu sync.Mutex
		inFlight := 0
		p.dst.onPutBlob = func(context.Context, string, string, string) error {
			mu.Lock()
			inFlight++
			mu.Unlock()
			<-hold
			return nil
		}
		var wg sync.WaitGroup
		for i := range 4 {
			repository := fmt.Sprint("app", i)
			img := registrytest.NewImage(int64(i), 4, 10)
			p.src.push(repository, img)
			wg.Go(func() {
				if _, err := p.copier.Copy(t.Context(), request(p.src, repository, img, "latest")); err != nil {
					t.Error(err)
				}
			})
		}
		synctest.Wait()
		mu.Lock()
		if inFlight != 3 {
			t.Errorf("%d blobs in flight, want 3", inFlight)
		}
		mu.Unlock()
		close(hold)
		wg.Wait()
	})
}

// TestFailureLetsOthersFinish: what is under way when a blob fails is finished and remembered, nothing else is begun.
func TestFailureLetsOthersFinish(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		p := newPair()
		p.copier = transfer.New(p.dst, p.index, transfer.Options{Blobs: 2})
		img := registrytest.NewImage(1, 4, 10)
		p.src.push("app", img)
		failing, slow := img.Layers()[0], img.Layers()[1]
		begun, hold := make(chan struct{}), make(chan struct{})
		p.src.onBlob = func(_ context.Context, desc registry.Descriptor, _ int64) (io.ReadCloser, error) {
			switch desc.Digest {
			case failing:
				<-begun
				return nil, errTest
			case slow:
				close(begun)
				<-hold
			}
			return nil, nil
		}
		done := make(chan error, 1)
		go func() {
			_, err := p.copier.Copy(t.Context(), request(p.src, "app", img, "latest"))
			done <- err
		}()
		synctest.Wait()
		close(hold)
		if err := <-done; !errors.Is(err, errTest) {
			t.Errorf("error = %v, want the blob's", err)
		}
		if !p.index.knows(slow) || p.index.knows(img.Layers()[3]) {
			t.Error("want the blob under way finished, and the last not begun")
		}
	})
}
