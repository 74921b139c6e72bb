package registry

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"

	"github.com/opencontainers/go-digest"

	"github.com/antipode-registry/antipode/internal/registrytest"
)

func TestMount(t *testing.T) {
	t.Parallel()
	eachRegistry(t, func(t *testing.T, kind registryKind, url string) {
		body := registrytest.Bytes(1, 0, 5000)
		proxy := registrytest.NewProxy(t, url)
		r := open(t, proxy.URL())
		if _, err := r.PutBlob(t.Context(), "team/first", blobOf(body), "", content(body)); err != nil {
			t.Fatal(err)
		}
		proxy.Reset()
		for _, from := range []string{"team/first", "team/second"} {
			mounted, err := r.PutBlob(t.Context(), "team/second", blobOf(body), from, noContent(t))
			if err != nil || !mounted {
				t.Errorf("from %s: %t, %v", from, mounted, err)
			}
		}
		if n := len(proxy.Requests()); n != 2 {
			t.Errorf("two mounts took %d requests", n)
		}
		proxy.Reset()
		other := registrytest.Bytes(2, 0, 5000)
		mounted, err := r.PutBlob(t.Context(), "team/second", blobOf(other), "team/first", content(other))
		if err != nil || mounted {
			t.Errorf("blob that is not there: %t, %v", mounted, err)
		}
		limit := 2
		if !kind.mountsOrOpens {
			limit = 3
		}
		if n := len(proxy.Requests()); n != limit {
			t.Errorf("a refused mount took %d requests: %+v", n, proxy.Requests())
		}
		reader, err := r.Blob(t.Context(), "team/second", blobOf(other), 0)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = reader.Close() }()
		if got, err := io.ReadAll(reader); err != nil || !bytes.Equal(got, other) {
			t.Errorf("read back %d bytes, %v", len(got), err)
		}
	})
}

func TestPutBlobSizes(t *testing.T) {
	t.Parallel()
	eachRegistry(t, func(t *testing.T, _ registryKind, url string) {
		r := open(t, url)
		for _, size := range []int{0, 1, askFirst - 1, askFirst, heldUpload + askFirst} {
			body := registrytest.Bytes(int64(size), 0, size)
			if _, err := r.PutBlob(t.Context(), repo, blobOf(body), "", content(body)); err != nil {
				t.Errorf("%d bytes: %v", size, err)
			}
		}
		body := []byte("not what the digest says")
		desc := blobOf([]byte("NOT WHAT THE DIGEST SAYS"))
		if _, err := r.PutBlob(t.Context(), repo, desc, "", content(body)); err == nil {
			t.Error("a blob with another digest was taken")
		}
	})
}

func TestSha512Blob(t *testing.T) {
	t.Parallel()
	eachRegistry(t, func(t *testing.T, kind registryKind, url string) {
		if !kind.sha512 {
			t.Skip("this registry knows sha256 alone")
		}
		body := registrytest.Bytes(1, 0, 5000)
		desc := Descriptor{Digest: digest.SHA512.FromBytes(body).String(), Size: int64(len(body))}
		r := open(t, url)
		if _, err := r.PutBlob(t.Context(), repo, desc, "", content(body)); err != nil {
			t.Fatal(err)
		}
		if _, err := r.PutBlob(t.Context(), "team/second", desc, repo, content(body)); err != nil {
			t.Errorf("mount: %v", err)
		}
		for _, repository := range []string{repo, "team/second"} {
			reader, err := r.Blob(t.Context(), repository, desc, 0)
			if err != nil {
				t.Fatal(err)
			}
			if got, err := io.ReadAll(reader); err != nil || !bytes.Equal(got, body) {
				t.Errorf("%s: %d bytes, %v", repository, len(got), err)
			}
			_ = reader.Close()
		}
	})
}

// endless is content that never ends by itself; it tells when it has begun and when it was closed.
type endless struct {
	began  chan struct{}
	closed chan struct{}
}

func (e *endless) Read(p []byte) (int, error) {
	select {
	case e.began <- struct{}{}:
	default:
	}
	return len(p), nil
}

func (e *endless) Close() error {
	close(e.closed)
	return nil
}

func TestCancelledUploadIsDropped(t *testing.T) {
	t.Parallel()
	eachRegistry(t, func(t *testing.T, _ registryKind, url string) {
		proxy := registrytest.NewProxy(t, url)
		r := open(t, proxy.URL())
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		body := &endless{began: make(chan struct{}), closed: make(chan struct{})}
		go func() {
			<-body.began
			cancel()
		}()
		desc := Descriptor{Digest: registrytest.Digest(nil), Size: 1 << 40}
		_, err := r.PutBlob(ctx, repo, desc, "", func() (io.ReadCloser, error) { return body, nil })
		if !errors.Is(err, context.Canceled) {
			t.Errorf("error %v", err)
		}
		<-body.closed
		assertDropped(t, proxy)
	})
}

func TestFailingContentDropsUpload(t *testing.T) {
	t.Parallel()
	eachRegistry(t, func(t *testing.T, _ registryKind, url string) {
		proxy := registrytest.NewProxy(t, url)
		r := open(t, proxy.URL(), func(cfg *Config) { cfg.Side = Destination })
		fromSource := &Error{Side: Source, Host: "elsewhere", Op: "read blob", Err: ErrUnavailable}
		desc := Descriptor{Digest: registrytest.Digest(nil), Size: 100}
		for _, source := range []func() (io.ReadCloser, error){
			func() (io.ReadCloser, error) { return nil, fromSource },
			func() (io.ReadCloser, error) {
				return io.NopCloser(io.MultiReader(strings.NewReader("some"), failing{fromSource})), nil
			},
		} {
			proxy.Reset()
			_, err := r.PutBlob(t.Context(), repo, desc, "", source)
			var named *Error
			if !errors.As(err, &named) || named.Side != Source {
				t.Errorf("the source's failure is reported as %v", err)
			}
			assertDropped(t, proxy)
		}
		for _, length := range []int{99, 101} {
			_, err := r.PutBlob(t.Context(), repo, desc, "", content(make([]byte, length)))
			if err == nil || errors.Is(err, ErrUnavailable) {
				t.Errorf("content of %d bytes for 100: %v", length, err)
			}
		}
	})
}

type failing struct{ err error }

func (f failing) Read([]byte) (int, error) { return 0, f.err }

// TestEarlyAnswerIsNotTheContentsFailure: the registry refuses an upload while its source gives nothing. Closing the
// source ends its read with an error, which must not stand for the registry's answer.
func TestEarlyAnswerIsNotTheContentsFailure(t *testing.T) {
	t.Parallel()
	reading := make(chan struct{})
	r := carried(t, uploads(func(req *http.Request) (*http.Response, error) {
		done := make(chan struct{})
		go func() {
			defer close(done)
			_, _ = io.Copy(io.Discard, req.Body)
		}()
		<-reading
		_ = req.Body.Close()
		<-done
		return respond(503, ""), nil
	}))
	source, feed := io.Pipe()
	defer func() { _ = feed.Close() }()
	_, err := r.PutBlob(t.Context(), repo, blobOf(make([]byte, smallBlob+1)), "", func() (io.ReadCloser, error) {
		return &announced{ReadCloser: source, reading: reading}, nil
	})
	var named *Error
	if !errors.As(err, &named) || named.Status != 503 {
		t.Errorf("error %v", err)
	}
}

// announced tells when it is read first.
type announced struct {
	io.ReadCloser

	reading chan struct{}
	once    sync.Once
}

func (a *announced) Read(p []byte) (int, error) {
	a.once.Do(func() { close(a.reading) })
	return a.ReadCloser.Read(p)
}

// assertDropped checks that the upload that was opened was deleted.
func assertDropped(t *testing.T, proxy *registrytest.Proxy) {
	t.Helper()
	var put, dropped string
	for _, req := range proxy.Requests() {
		if req.Kind != "upload" {
			continue
		}
		switch req.Method {
		case http.MethodPut:
			put = req.Path
		case http.MethodDelete:
			dropped = req.Path
		}
	}
	if dropped == "" || (put != "" && put != dropped) {
		t.Errorf("upload %q was not dropped: %+v", put, proxy.Requests())
	}
}

//nolint:bodyclose // they are in memory
func TestUploadAnswers(t *testing.T) {
	t.Parallel()
	desc := blobOf([]byte("x"))
	other := registrytest.Digest([]byte("y"))
	accepted := func(location string) func() *http.Response {
		return func() *http.Response { return respond(202, "", "Location", location) }
	}
	created := func() *http.Response { return respond(201, "") }
	cases := map[string]struct {
		post, put func() *http.Response
		mount     bool
		want      error
		url       string // of the PUT
	}{
		"state kept": {
			post: accepted("/v2/team/app/blobs/uploads/1?_state=a%2Bb%3D"), put: created,
			url: "http://registry.test/v2/team/app/blobs/uploads/1?_state=a%2Bb%3D&digest=sha256%3A" + desc.Digest[7:],
		},
		"absolute":            {post: accepted("http://registry.test:80/up/1"), put: created},
		"relative":            {post: accepted("1"), put: created, url: "http://registry.test/v2/team/app/blobs/uploads/1?digest=sha256%3A" + desc.Digest[7:]},
		"no place":            {post: func() *http.Response { return respond(202, "") }, want: ErrMalformed},
		"other host":          {post: accepted("http://elsewhere.test/up/1"), want: ErrMalformed},
		"other port":          {post: accepted("http://registry.test:81/up/1"), want: ErrMalformed},
		"other scheme":        {post: accepted("https://registry.test/up/1"), want: ErrMalformed},
		"created, no mount":   {post: created, want: ErrMalformed},
		"mounted":             {post: created, mount: true},
		"mounted another":     {post: func() *http.Response { return respond(201, "", headerDigest, other) }, mount: true, want: ErrMalformed},
		"stored another":      {post: accepted("1"), put: func() *http.Response { return respond(201, "", headerDigest, other) }, want: ErrMalformed},
		"accepted only":       {post: accepted("1"), put: func() *http.Response { return respond(202, "") }, want: ErrMalformed},
		"not authorized":      {post: accepted("1"), put: func() *http.Response { return respond(403, "") }, want: ErrUnauthorized},
		"upload open, refuse": {post: func() *http.Response { return respond(403, "") }, want: ErrUnauthorized},
	}
	for name, c := range cases {
		var sent []string
		r := carried(t, func(req *http.Request) (*http.Response, error) {
			sent = append(sent, req.Method+" "+req.URL.String())
			switch req.Method {
			case http.MethodPost:
				return c.post(), nil
			case http.MethodPut:
				_, err := io.Copy(io.Discard, req.Body)
				return c.put(), err
			}
			return respond(204, ""), nil
		})
		from := ""
		if c.mount {
			from = "team/other"
		}
		mounted, err := r.PutBlob(t.Context(), repo, desc, from, content([]byte("x")))
		if !errors.Is(err, c.want) || mounted != (c.mount && c.want == nil) {
			t.Errorf("%s: %t, %v", name, mounted, err)
		}
		last := sent[len(sent)-1]
		if c.url != "" && last != "PUT "+c.url {
			t.Errorf("%s: %s", name, last)
		}
		if c.put != nil && c.want != nil && !strings.HasPrefix(last, "DELETE ") {
			t.Errorf("%s: the upload was not dropped: %v", name, sent)
		}
	}
}

func TestRefusedMountBecomesAnUpload(t *testing.T) {
	t.Parallel()
	for _, status := range []int{400, 401, 403, 404, 405} {
		r := carried(t, uploads(func(*http.Request) (*http.Response, error) { return respond(201, ""), nil }))
		plain := r.transport().next
		r.transport().next = roundTripper(func(req *http.Request) (*http.Response, error) {
			if req.URL.Query().Has("mount") {
				return respond(status, ""), nil
			}
			return plain.RoundTrip(req)
		})
		mounted, err := r.PutBlob(t.Context(), repo, blobOf(nil), "team/other", content(nil))
		if mounted || err != nil {
			t.Errorf("%d: %t, %v", status, mounted, err)
		}
	}
}
