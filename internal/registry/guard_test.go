package registry

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/antipode-registry/antipode/internal/registrytest"
)

var errLost = errors.New("the lease is lost")

// leaseUntil guards requests until ended says so.
func leaseUntil(ctx context.Context, ended *atomic.Bool) context.Context {
	return WithGuard(ctx, func() error {
		if ended.Load() {
			return errLost
		}
		return nil
	})
}

func wantFenced(t *testing.T, err error) {
	t.Helper()
	if !errors.Is(err, ErrFenced) || !errors.Is(err, errLost) || errors.Is(err, ErrUnavailable) {
		t.Errorf("error %v, want the guard's refusal", err)
	}
}

func TestGuardIsAskedAgainForEachTry(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var ended atomic.Bool
		var sent []string
		r := carried(t, func(req *http.Request) (*http.Response, error) {
			sent = append(sent, req.Method)
			ended.Store(true)
			return respond(http.StatusServiceUnavailable, "", "Retry-After", "60"), nil
		})
		wantFenced(t, r.DeleteTag(leaseUntil(t.Context(), &ended), repo, "v1"))
		if len(sent) != 1 {
			t.Errorf("sent %v, want the first try alone", sent)
		}
	})
}

func TestGuardIsAskedAfterTheQueue(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var ended atomic.Bool
		free := make(chan struct{})
		r := carried(t, func(req *http.Request) (*http.Response, error) {
			if req.Method != http.MethodGet {
				t.Errorf("sent %s %s", req.Method, req.URL)
			}
			<-free
			return respond(http.StatusOK, "{}"), nil
		}, func(cfg *Config) { cfg.Concurrency = 1 })
		read, written := make(chan error), make(chan error)
		go func() { read <- r.Ping(leaseUntil(t.Context(), &ended)) }()
		synctest.Wait()
		m := manifestOf(registrytest.NewImage(1, 1, 64))
		go func() { written <- r.PutManifest(leaseUntil(t.Context(), &ended), repo, "v1", m) }()
		synctest.Wait()
		ended.Store(true)
		close(free)
		if err := <-read; err != nil {
			t.Errorf("a read: %v", err)
		}
		wantFenced(t, <-written)
	})
}

// A manifest whose last bytes waited for the cap is not sent to its end, and so not taken.
func TestGuardIsAskedAfterTheCap(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var ended atomic.Bool
		m := manifestOf(registrytest.NewImage(1, 100, 64))
		r := carried(t, func(req *http.Request) (*http.Response, error) {
			n, err := io.Copy(io.Discard, req.Body)
			if err == nil || n == m.Size {
				t.Errorf("all %d bytes were sent", n)
			}
			return nil, err
		}, func(cfg *Config) { cfg.Upload = NewBandwidth(1000, nil) })
		time.AfterFunc(time.Second, func() { ended.Store(true) })
		wantFenced(t, r.PutManifest(leaseUntil(t.Context(), &ended), repo, "v1", m))
	})
}

// Between the first look and the connection that a request is sent on, the time may have passed that dialling takes.
func TestGuardIsAskedWithTheConnectionInHand(t *testing.T) {
	t.Parallel()
	for name, http2 := range map[string]bool{"HTTP/1.1": false, "HTTP/2": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var deletes atomic.Int64
			server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if r.Method == http.MethodDelete {
					deletes.Add(1)
					w.WriteHeader(http.StatusAccepted)
				}
			}))
			server.EnableHTTP2 = http2
			server.StartTLS()
			t.Cleanup(server.Close)
			r := open(t, server.URL, func(cfg *Config) { cfg.Transport = server.Client().Transport })
			for _, kind := range []string{"new", "pooled"} {
				asked := 0
				fenced := WithGuard(t.Context(), func() error {
					if asked++; asked > 1 {
						return errLost
					}
					return nil
				})
				wantFenced(t, r.DeleteTag(fenced, repo, "v1"))
				if n := deletes.Load(); n != 0 || asked != 2 {
					t.Errorf("a %s connection: %d deletes were sent, the guard was asked %d times", kind, n, asked)
				}
				if err := r.Ping(fenced); err != nil { // leaves a connection in the pool
					t.Error(err)
				}
			}
			if err := r.DeleteTag(WithGuard(t.Context(), func() error { return nil }), repo, "v1"); err != nil {
				t.Errorf("a delete that the guard agrees to: %v", err)
			}
		})
	}
}

func TestGuardLeavesReadsAndBlobsAlone(t *testing.T) {
	t.Parallel()
	url := registrytest.InMemory(t, false).URL()
	img := registrytest.NewImage(1, 1, 64)
	registrytest.Push(t, url, repo, "v1", img)
	r := open(t, url)
	var ended atomic.Bool
	ended.Store(true)
	ctx := leaseUntil(t.Context(), &ended)
	if _, err := r.List(ctx, repo); err != nil {
		t.Error(err)
	}
	if _, err := r.PutBlob(ctx, repo, blobOf([]byte("x")), "", content([]byte("x"))); err != nil {
		t.Error(err)
	}
	wantFenced(t, r.PutManifest(ctx, repo, "v2", manifestOf(img)))
	wantFenced(t, r.DeleteTag(ctx, repo, "v1"))
	wantFenced(t, r.DeleteManifest(ctx, repo, img.Digest))
	if tags := registrytest.Tags(t, url, repo); len(tags) != 1 || tags["v1"] != img.Digest {
		t.Errorf("tags %v after refused writes", tags)
	}
}
