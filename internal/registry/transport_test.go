package registry

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/antipode-registry/antipode/internal/registrytest"
)

var errRefused = &net.OpError{Op: "dial", Net: "tcp", Err: syscall.ECONNREFUSED}

func TestWhatIsTriedAgain(t *testing.T) {
	t.Parallel()
	img := registrytest.NewImage(1, 1, 64)
	ops := map[string]func(context.Context, *Registry) error{
		"GET": func(ctx context.Context, r *Registry) error { return r.Ping(ctx) },
		"HEAD": func(ctx context.Context, r *Registry) error {
			_, _, err := r.Resolve(ctx, repo, []string{"v1"})
			return err
		},
		"DELETE": func(ctx context.Context, r *Registry) error { return r.DeleteManifest(ctx, repo, img.Digest) },
		"PUT":    func(ctx context.Context, r *Registry) error { return r.PutManifest(ctx, repo, "v1", manifestOf(img)) },
		"GET blob": func(ctx context.Context, r *Registry) error {
			_, err := r.Blob(ctx, repo, blobOf([]byte("x")), 0)
			return err
		},
		"POST": func(ctx context.Context, r *Registry) error {
			_, err := r.PutBlob(ctx, repo, blobOf([]byte("x")), "", content([]byte("x")))
			return err
		},
	}
	failures := map[string]func() (*http.Response, error){
		"500":     func() (*http.Response, error) { return respond(http.StatusInternalServerError, ""), nil },
		"503":     func() (*http.Response, error) { return respond(http.StatusServiceUnavailable, ""), nil },
		"429":     func() (*http.Response, error) { return respond(http.StatusTooManyRequests, ""), nil },
		"408":     func() (*http.Response, error) { return respond(http.StatusRequestTimeout, ""), nil },
		"refused": func() (*http.Response, error) { return nil, errRefused },
		"reset":   func() (*http.Response, error) { return nil, syscall.ECONNRESET },
	}
	once := map[string]bool{"POST 500": true, "POST 408": true, "POST reset": true}
	for op, run := range ops {
		for failure, answer := range failures {
			t.Run(op+" "+failure, func(t *testing.T) {
				t.Parallel()
				synctest.Test(t, func(t *testing.T) {
					tries := 0
					r := carried(t, func(*http.Request) (*http.Response, error) {
						tries++
						return answer()
					})
					err := run(t.Context(), r)
					if !errors.Is(err, ErrUnavailable) {
						t.Errorf("error %v", err)
					}
					want := maxTries
					if once[op+" "+failure] {
						want = 1
					}
					if tries != want {
						t.Errorf("%d tries, want %d", tries, want)
					}
				})
			})
		}
	}
}

func TestRefusalsAreNotTriedAgain(t *testing.T) {
	t.Parallel()
	for status, want := range map[int]error{
		http.StatusUnauthorized: ErrUnauthorized, http.StatusForbidden: ErrUnauthorized,
		http.StatusNotFound: ErrMalformed, http.StatusNoContent: ErrMalformed, http.StatusNotImplemented: ErrUnavailable,
	} {
		tries := 0
		r := carried(t, func(*http.Request) (*http.Response, error) {
			tries++
			return respond(status, ""), nil
		})
		if err := r.Ping(t.Context()); !errors.Is(err, want) || tries != 1 {
			t.Errorf("%d: %v after %d tries", status, err, tries)
		}
	}
}

func TestUploadIsNotTriedAgain(t *testing.T) {
	t.Parallel()
	var methods []string
	r := carried(t, func(req *http.Request) (*http.Response, error) {
		methods = append(methods, req.Method)
		switch req.Method {
		case http.MethodPost:
			return respond(http.StatusAccepted, "", "Location", "/v2/team/app/blobs/uploads/1"), nil
		case http.MethodPut:
			_, _ = io.Copy(io.Discard, req.Body)
			return respond(http.StatusServiceUnavailable, ""), nil
		}
		return respond(http.StatusNoContent, ""), nil
	})
	opened := 0
	_, err := r.PutBlob(t.Context(), repo, blobOf([]byte("x")), "", func() (io.ReadCloser, error) {
		opened++
		return content([]byte("x"))()
	})
	if got := strings.Join(methods, " "); got != "POST PUT DELETE" || !errors.Is(err, ErrUnavailable) || opened != 1 {
		t.Errorf("%s, %v, content opened %d times", got, err, opened)
	}
}

// stalling is a body that gives some bytes and then nothing until its request is given up.
type stalling struct {
	ctx  context.Context //nolint:containedctx // of the request it belongs to
	some io.Reader
}

func (s stalling) Read(p []byte) (int, error) {
	if n, err := s.some.Read(p); err == nil {
		return n, nil
	}
	<-s.ctx.Done()
	return 0, s.ctx.Err()
}

func (stalling) Close() error { return nil }

func TestStalledAnswers(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		silent := carried(t, func(req *http.Request) (*http.Response, error) {
			<-req.Context().Done()
			return nil, req.Context().Err()
		})
		began := time.Now()
		err := silent.Ping(t.Context())
		if !errors.Is(err, ErrUnavailable) || !strings.Contains(err.Error(), "no progress") {
			t.Errorf("no headers: %v", err)
		}
		if took := time.Since(began); took < maxTries*headerTimeout || took > maxTries*headerTimeout+10*time.Second {
			t.Errorf("no headers: took %s", took)
		}

		body := carried(t, func(req *http.Request) (*http.Response, error) {
			resp := respond(http.StatusOK, "")
			resp.ContentLength = 100
			resp.Body = stalling{req.Context(), strings.NewReader("some")}
			return resp, nil
		})
		if err := body.Ping(t.Context()); !errors.Is(err, ErrUnavailable) {
			t.Errorf("half an answer: %v", err)
		}
		desc := Descriptor{Digest: registrytest.Digest(nil), Size: 100}
		reader, err := body.Blob(t.Context(), repo, desc, 0)
		if err != nil {
			t.Fatal(err)
		}
		began = time.Now()
		got, err := io.ReadAll(reader)
		if string(got) != "some" || !errors.Is(err, ErrUnavailable) || time.Since(began) != idleTimeout {
			t.Errorf("half a blob: %q, %v after %s", got, err, time.Since(began))
		}
		if err := reader.Close(); err != nil {
			t.Error(err)
		}
	})
}

// slow is content that takes long for each piece, though the registry it goes to is quick.
type slow struct {
	io.Reader

	every time.Duration
}

func (s slow) Read(p []byte) (int, error) {
	<-time.After(s.every)
	return s.Reader.Read(p[:min(len(p), 10)])
}

func (slow) Close() error { return nil }

func TestUploadIsBoundedByProgress(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		desc := blobOf(make([]byte, 100))
		source := func() (io.ReadCloser, error) {
			return slow{strings.NewReader(string(make([]byte, 100))), 10 * time.Minute}, nil
		}
		r := carried(t, uploads(func(req *http.Request) (*http.Response, error) {
			n, err := io.Copy(io.Discard, req.Body)
			if n != 100 || err != nil {
				return nil, fmt.Errorf("%d bytes: %w", n, err)
			}
			return respond(http.StatusCreated, ""), nil
		}))
		if _, err := r.PutBlob(t.Context(), repo, desc, "", source); err != nil {
			t.Errorf("slow source: %v", err)
		}
		stuck := carried(t, uploads(func(req *http.Request) (*http.Response, error) {
			if _, err := req.Body.Read(make([]byte, 10)); err != nil {
				return nil, err
			}
			<-req.Context().Done()
			return nil, req.Context().Err()
		}))
		began := time.Now()
		_, err := stuck.PutBlob(t.Context(), repo, desc, "", content(make([]byte, 100)))
		if !errors.Is(err, ErrUnavailable) || time.Since(began) != idleTimeout {
			t.Errorf("registry that takes no more: %v after %s", err, time.Since(began))
		}
	})
}

// uploads answers everything about an upload but the PUT.
func uploads(put roundTripper) roundTripper {
	return func(req *http.Request) (*http.Response, error) {
		switch req.Method {
		case http.MethodPost:
			return respond(http.StatusAccepted, "", "Location", "/v2/team/app/blobs/uploads/1"), nil
		case http.MethodPut:
			return put(req)
		}
		return respond(http.StatusNoContent, ""), nil
	}
}

func TestLongTransfersHoldNoSlot(t *testing.T) {
	t.Parallel()
	body := registrytest.Bytes(1, 0, heldUpload+askFirst)
	url := registrytest.InMemory(t, false).URL()
	registrytest.Push(t, url, repo, "v1", registrytest.NewImage(1, 0, 0, registrytest.WithLayers(body)))
	r := open(t, url, func(cfg *Config) { cfg.Concurrency = 1 })
	reader, err := r.Blob(t.Context(), repo, blobOf(body), 0)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = reader.Close() }()
	if err := r.Ping(t.Context()); err != nil {
		t.Errorf("during a download: %v", err)
	}
	var asked atomic.Bool
	tail := readerFunc(func([]byte) (int, error) {
		if !asked.Swap(true) {
			if err := r.Ping(t.Context()); err != nil {
				t.Errorf("during an upload: %v", err)
			}
		}
		return 0, io.EOF
	})
	head := strings.NewReader(string(body))
	_, err = r.PutBlob(t.Context(), repo, blobOf(body), "", func() (io.ReadCloser, error) {
		return io.NopCloser(io.MultiReader(head, tail)), nil
	})
	if err != nil {
		t.Error(err)
	}
}

type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }
