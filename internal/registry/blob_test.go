package registry

import (
	"context"
	"errors"
	"io"
	"net/http"
	"testing"
	"time"

	"github.com/antipode-registry/antipode/internal/registrytest"
)

var fileTime = time.Date(2020, 1, 1, 0, 0, 0, 0, time.UTC)

func TestRangeAnswers(t *testing.T) {
	t.Parallel()
	body := "0123456789"
	cases := map[string]struct {
		status int
		body   string
		span   string // Content-Range
		want   error
	}{
		"right":        {206, body[4:], "bytes 4-9/10", nil},
		"unknown size": {206, body[4:], "bytes 4-9/*", nil},
		"whole":        {200, body, "", ErrRangeIgnored},
		"other start":  {206, body[3:], "bytes 3-9/10", ErrRangeIgnored},
		"other end":    {206, body[4:8], "bytes 4-7/10", ErrRangeIgnored},
		"other size":   {206, body[4:], "bytes 4-9/11", ErrRangeIgnored},
		"no range":     {206, body[4:], "", ErrRangeIgnored},
		"refused":      {416, "", "", ErrRangeIgnored},
		"short":        {206, body[4:8], "bytes 4-9/10", ErrMalformed},
		"gone":         {404, `{"errors":[{"code":"BLOB_UNKNOWN"}]}`, "", ErrNotFound},
	}
	for name, c := range cases {
		r := carried(t, func(req *http.Request) (*http.Response, error) {
			if got := req.Header.Get("Range"); got != "bytes=4-" {
				t.Errorf("%s: asked for %q", name, got)
			}
			resp := respond(c.status, c.body)
			if c.span != "" {
				resp.Header.Set("Content-Range", c.span)
			}
			return resp, nil
		})
		reader, err := r.Blob(t.Context(), repo, blobOf([]byte(body)), 4)
		if !errors.Is(err, c.want) {
			t.Errorf("%s: %v", name, err)
		}
		if err == nil {
			if got, err := io.ReadAll(reader); string(got) != body[4:] || err != nil {
				t.Errorf("%s: %q, %v", name, got, err)
			}
			_ = reader.Close()
		}
	}
	r := carried(t, func(*http.Request) (*http.Response, error) {
		return respond(206, body, "Content-Range", "bytes 0-9/10"), nil
	})
	if _, err := r.Blob(t.Context(), repo, blobOf([]byte(body)), 0); !errors.Is(err, ErrMalformed) {
		t.Errorf("206 for a whole blob: %v", err)
	}
}

func TestBlobOfUnknownLength(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]error{"0123456789": nil, "01234": ErrUnavailable, "0123456789more": ErrMalformed} {
		r := carried(t, func(*http.Request) (*http.Response, error) {
			resp := respond(200, text)
			resp.ContentLength = -1
			return resp, nil
		})
		reader, err := r.Blob(t.Context(), repo, blobOf([]byte("0123456789")), 0)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadAll(reader); !errors.Is(err, want) {
			t.Errorf("%q: %v", text, err)
		}
		_ = reader.Close()
	}
}

func TestDownloadBreaksOff(t *testing.T) {
	t.Parallel()
	url := registrytest.InMemory(t, false).URL()
	body := registrytest.Bytes(1, 0, 16<<20) // more than connections buffer
	registrytest.Push(t, url, repo, "v1", registrytest.NewImage(1, 0, 0, registrytest.WithLayers(body)))
	proxy := registrytest.NewProxy(t, url)
	proxy.Fault(func(*http.Request) registrytest.Fault { return registrytest.Fault{Cut: 40_000} })
	reader, err := open(t, proxy.URL()).Blob(t.Context(), repo, blobOf(body), 0)
	if err != nil {
		t.Fatal(err)
	}
	got, err := io.ReadAll(reader)
	var named *Error
	if !errors.Is(err, ErrUnavailable) || !errors.As(err, &named) || len(got) > 40_000 {
		t.Errorf("%d bytes, %v", len(got), err)
	}
	_ = reader.Close()
	ctx, cancel := context.WithCancel(t.Context())
	proxy.Fault(nil)
	reader, err = open(t, proxy.URL()).Blob(ctx, repo, blobOf(body), 0)
	if err != nil {
		t.Fatal(err)
	}
	cancel()
	if _, err := io.ReadAll(reader); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
	_ = reader.Close()
}
