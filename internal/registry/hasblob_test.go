package registry

import (
	"errors"
	"io"
	"net/http"
	"testing"

	"github.com/antipode-registry/antipode/internal/registrytest"
)

func TestHasBlob(t *testing.T) {
	t.Parallel()
	eachRegistry(t, func(t *testing.T, _ registryKind, url string) {
		layer, empty := registrytest.Bytes(1, 0, 1000), []byte{}
		img := registrytest.NewImage(1, 0, 0, registrytest.WithLayers(layer))
		registrytest.Push(t, url, repo, "v1", img)
		proxy := registrytest.NewProxy(t, url)
		r := open(t, proxy.URL())
		size, found, err := r.HasBlob(t.Context(), repo, registrytest.Digest(layer))
		if size != 1000 || !found || err != nil {
			t.Errorf("there: %d, %v, %v", size, found, err)
		}
		if n := len(proxy.Requests()); n != 1 {
			t.Errorf("%d requests for a blob that is there", n)
		}
		for _, repository := range []string{repo, "nowhere"} {
			if _, found, err := r.HasBlob(t.Context(), repository, registrytest.Digest(empty)); found || err != nil {
				t.Errorf("not in %s: %v, %v", repository, found, err)
			}
		}
	})
}

func TestHasBlobOfNothing(t *testing.T) {
	t.Parallel()
	eachRegistry(t, func(t *testing.T, _ registryKind, url string) {
		r, none := open(t, url), blobOf(nil)
		if _, err := r.PutBlob(t.Context(), repo, none, "", content(nil)); err != nil {
			t.Fatal(err)
		}
		if size, found, err := r.HasBlob(t.Context(), repo, none.Digest); size != 0 || !found || err != nil {
			t.Errorf("an empty blob: %d, %v, %v", size, found, err)
		}
	})
}

// TestHasBlobBelievesNoStranger: only the registry's own words make a blob absent, and only a length makes it present.
func TestHasBlobBelievesNoStranger(t *testing.T) {
	t.Parallel()
	const unknown = `{"errors":[{"code":"BLOB_UNKNOWN"}]}`
	cases := map[string]struct {
		head, get reply
		size      int64
		found     bool
		want      error
	}{
		"denied, then denied in words": {says(404, ""), says(404, unknown), 0, false, nil},
		"denied, no such repository": {
			says(404, ""), says(404, `{"errors":[{"code":"NAME_UNKNOWN"}]}`), 0, false, nil,
		},
		"denied, then delivered":   {says(404, ""), part("bytes 0-0/7"), 7, true, nil},
		"denied, then all of it":   {says(404, ""), says(200, "1234567"), 7, true, nil},
		"denied, then nothing":     {says(404, ""), says(416, "", "Content-Range", "bytes */0"), 0, true, nil},
		"denied bare":              {says(404, ""), says(404, ""), 0, false, ErrMalformed},
		"denied by a page":         {says(404, ""), says(404, "<html>", "Content-Type", "text/html"), 0, false, ErrMalformed},
		"denied for another cause": {says(404, ""), says(404, `{"errors":[{"code":"DENIED"}]}`), 0, false, ErrMalformed},
		"denied, then refused":     {says(404, ""), says(403, ""), 0, false, ErrUnauthorized},
		"denied, odd part":         {says(404, ""), part("bytes 1-1/7"), 0, false, ErrMalformed},
		"denied, part of unknown":  {says(404, ""), part("bytes 0-0/*"), 0, false, ErrMalformed},
		"no length":                {unmeasured, part("bytes 0-0/7"), 7, true, nil},
		"no length twice":          {unmeasured, unmeasured, 0, false, ErrMalformed},
		"login page": {
			says(200, "<html>", "Content-Type", "text/html"), says(200, "<html>", "Content-Type", "text/html"),
			0, false, ErrMalformed,
		},
		"blob that is a page": {
			says(200, "<html>", "Content-Type", "text/html"),
			says(200, "<html>", "Content-Type", "text/html", headerDigest, registrytest.Digest([]byte("x"))), 6, true, nil,
		},
		"another blob": {says(200, "1", headerDigest, registrytest.Digest(nil)), nil, 0, false, ErrMalformed},
		"other name":   {says(200, "1", headerDigest, "sha512:1"), nil, 1, true, nil},
		"refused":      {says(401, ""), nil, 0, false, ErrUnauthorized},
		"odd":          {says(204, ""), nil, 0, false, ErrMalformed},
	}
	for name, c := range cases {
		r := carried(t, func(req *http.Request) (*http.Response, error) {
			if req.Method == http.MethodHead {
				return c.head(), nil
			}
			if got := req.Header.Get("Range"); got != "bytes=0-0" || c.get == nil {
				t.Fatalf("%s: asked for %q", name, got)
			}
			return c.get(), nil
		})
		size, found, err := r.HasBlob(t.Context(), repo, registrytest.Digest([]byte("x")))
		if size != c.size || found != c.found || !errors.Is(err, c.want) {
			t.Errorf("%s: %d, %v, %v", name, size, found, err)
		}
	}
}

// TestHasBlobDoesNotReadTheBlob: a registry that ignores ranges offers all of it.
func TestHasBlobDoesNotReadTheBlob(t *testing.T) {
	t.Parallel()
	body := &neverRead{t: t}
	r := carried(t, func(req *http.Request) (*http.Response, error) {
		if req.Method == http.MethodHead {
			return respond(404, ""), nil
		}
		resp := respond(200, "")
		resp.Body, resp.ContentLength = body, 10<<30
		return resp, nil
	})
	size, found, err := r.HasBlob(t.Context(), repo, registrytest.Digest(nil))
	if size != 10<<30 || !found || err != nil || !body.closed {
		t.Errorf("%d, %v, %v; closed: %v", size, found, err, body.closed)
	}
}

type neverRead struct {
	t      *testing.T
	closed bool
}

func (n *neverRead) Read([]byte) (int, error) {
	n.t.Error("the blob is read")
	return 0, io.EOF
}

func (n *neverRead) Close() error {
	n.closed = true
	return nil
}

// reply makes an answer each time that it is asked for.
type reply func() *http.Response

func says(status int, body string, header ...string) reply {
	return func() *http.Response { return respond(status, body, header...) }
}

// part is an answer with one byte of a blob.
func part(span string) reply { return says(206, "1", "Content-Range", span) }

// unmeasured is an answer that does not say how long it is.
func unmeasured() *http.Response {
	resp := respond(200, "1")
	resp.ContentLength = -1
	return resp
}
