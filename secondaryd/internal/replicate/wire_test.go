package replicate_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"cuelabs.dev/go/oci/ociregistry"
	"cuelabs.dev/go/oci/ociregistry/ocimem"
	"cuelabs.dev/go/oci/ociregistry/ociserver"

	"github.com/antipode-registry/antipode/internal/registrytest"
)

// errReset is what a connection that breaks comes to.
var errReset = errors.New("connection reset by the wire")

// mishap is a fault, and one more than a proxy can make.
type mishap struct {
	registrytest.Fault
	// Lost has the registry do what it is asked for; its answer does not arrive.
	Lost bool
}

// wire carries requests to a registry in this process without a network, so that a test can live in synctest's time:
// thousands of steps, with all their back-offs, in seconds. It takes its time, and breaks what it is told to.
type wire struct {
	registry http.Handler
	delay    func(r *http.Request) time.Duration // nil = none; once before the registry, once after
	mishap   func(r *http.Request) mishap        // nil = none
	dead     atomic.Bool                         // whoever used it was killed
}

// RoundTrip implements http.RoundTripper.
func (w *wire) RoundTrip(req *http.Request) (*http.Response, error) {
	m := mishap{}
	if w.mishap != nil {
		m = w.mishap(req)
	}
	body := req.Body
	if body == nil {
		body = http.NoBody
	}
	defer func() { _ = body.Close() }() // as transports do
	if err := w.travel(req); err != nil {
		return nil, err
	}
	if m.Cut < 0 {
		return nil, errReset
	}
	if m.Status != 0 {
		return answer(req, m.Status, m.Header, m.Body), nil
	}
	resp, err := w.serve(req, body, m.CutRequest)
	if err != nil {
		return nil, err
	}
	if err := w.travel(req); err != nil {
		return nil, err
	}
	if m.Lost {
		return nil, errReset
	}
	if m.Cut > 0 {
		resp.Body = &cutBody{ReadCloser: resp.Body, left: m.Cut}
	}
	return resp, nil
}

// travel takes its time.
func (w *wire) travel(req *http.Request) error {
	if w.delay != nil {
		if err := after(req.Context(), w.delay(req)); err != nil {
			return err
		}
	}
	if w.dead.Load() {
		return errReset
	}
	return nil
}

// serve has the registry answer.
func (w *wire) serve(req *http.Request, body io.ReadCloser, cut int64) (*http.Response, error) {
	in := req.Clone(req.Context())
	in.RequestURI, in.Host = req.URL.RequestURI(), req.URL.Host
	upload := &cutBody{ReadCloser: body, left: cut, uncut: cut <= 0}
	in.Body = upload
	out := httptest.NewRecorder()
	w.registry.ServeHTTP(out, in)
	if upload.broke {
		return nil, errReset
	}
	resp := out.Result()
	resp.Request = req
	if req.Method == http.MethodHead {
		resp.Body = http.NoBody
	}
	return resp, nil
}

// cutBody breaks after some bytes, if there are more.
type cutBody struct {
	io.ReadCloser
	left  int64
	uncut bool
	broke bool
}

// Read implements io.Reader.
func (b *cutBody) Read(p []byte) (int, error) {
	if b.uncut {
		return b.ReadCloser.Read(p)
	}
	if b.left == 0 {
		n, err := b.ReadCloser.Read(p[:min(1, len(p))])
		if n == 0 && errors.Is(err, io.EOF) {
			return 0, io.EOF
		}
		b.broke = true
		return 0, io.ErrUnexpectedEOF
	}
	n, err := b.ReadCloser.Read(p[:min(int64(len(p)), b.left)])
	b.left -= int64(n)
	return n, err
}

func answer(req *http.Request, status int, header http.Header, body string) *http.Response {
	resp := &http.Response{
		StatusCode: status, Status: http.StatusText(status), Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
		Header: maps.Clone(header), Body: io.NopCloser(strings.NewReader(body)), ContentLength: int64(len(body)),
		Request: req,
	}
	if resp.Header == nil {
		resp.Header = http.Header{}
	}
	if req.Method == http.MethodHead {
		resp.Body = http.NoBody
	}
	return resp
}

// memoryRegistry is a registry in memory that says what the specification says where the library is vague: a manifest
// without all that it refers to is refused with MANIFEST_BLOB_UNKNOWN.
func memoryRegistry(referrers bool) http.Handler {
	return ociserver.New(ocimem.New(), &ociserver.Options{
		DisableReferrersAPI: !referrers,
		WriteError: func(w http.ResponseWriter, _ *http.Request, err error) {
			if text := err.Error(); strings.Contains(text, "invalid manifest") && strings.Contains(text, "not found") {
				w.Header().Set("Content-Type", "application/json")
				w.WriteHeader(http.StatusNotFound)
				_, _ = fmt.Fprintf(w, `{"errors":[{"code":"MANIFEST_BLOB_UNKNOWN","message":%q}]}`, text)
				return
			}
			_ = ociregistry.WriteError(w, err)
		},
	})
}

// hand changes and reads a registry past all that a test looks at. Its methods fail the test's step by their error.
type hand struct {
	url string
	via http.RoundTripper
	api bool // the registry has the referrers API
	one bool // the registry deletes by digest alone
	mu  sync.Mutex
}

type reply struct {
	status int
	header http.Header
	body   []byte
}

func (h *hand) do(method, path string, body []byte, mediaType string) (reply, error) {
	h.mu.Lock() // an upload's two requests are not for this; it keeps connections to one
	defer h.mu.Unlock()
	target, err := url.Parse(h.url)
	if err != nil {
		return reply{}, err
	}
	if target, err = target.Parse(path); err != nil {
		return reply{}, err
	}
	req, err := http.NewRequestWithContext(context.Background(), method, target.String(), bytes.NewReader(body))
	if err != nil {
		return reply{}, err
	}
	if mediaType != "" {
		req.Header.Set("Content-Type", mediaType)
	}
	req.Header["Accept"] = []string{
		registrytest.OCIManifest, registrytest.OCIIndex, registrytest.DockerManifest, registrytest.DockerList, "*/*",
	}
	resp, err := h.via.RoundTrip(req)
	if err != nil {
		return reply{}, err
	}
	defer func() { _ = resp.Body.Close() }()
	text, err := io.ReadAll(resp.Body)
	return reply{status: resp.StatusCode, header: resp.Header, body: text}, err
}

// want is do for a request that must have one of the statuses.
func (h *hand) want(method, path string, body []byte, mediaType string, statuses ...int) (reply, error) {
	r, err := h.do(method, path, body, mediaType)
	if err == nil && !slices.Contains(statuses, r.status) {
		err = fmt.Errorf("%s %s: %d %s", method, path, r.status, r.body)
	}
	return r, err
}

// push uploads an image with all below it, under a tag or by its digest.
func (h *hand) push(repository, tag string, img registrytest.Image) error {
	for _, child := range img.Children {
		if err := h.push(repository, "", child); err != nil {
			return err
		}
	}
	for _, digest := range slices.Sorted(maps.Keys(img.Blobs)) {
		r, err := h.want("POST", "/v2/"+repository+"/blobs/uploads/", nil, "", http.StatusAccepted)
		if err != nil {
			return err
		}
		location := r.header.Get("Location")
		separator := "?"
		if strings.Contains(location, "?") {
			separator = "&"
		}
		_, err = h.want("PUT", location+separator+"digest="+digest, img.Blobs[digest], "application/octet-stream",
			http.StatusCreated)
		if err != nil {
			return err
		}
	}
	return h.put(repository, cmpOr(tag, img.Digest), img)
}

func cmpOr(a, b string) string {
	if a != "" {
		return a
	}
	return b
}

func (h *hand) put(repository, reference string, img registrytest.Image) error {
	_, err := h.want("PUT", "/v2/"+repository+"/manifests/"+reference, img.Manifest, img.MediaType, http.StatusCreated)
	return err
}

// remove deletes by tag or digest; what is not there is gone.
func (h *hand) remove(repository, reference string) error {
	_, err := h.want("DELETE", "/v2/"+repository+"/manifests/"+reference, nil, "", http.StatusAccepted, http.StatusNotFound)
	return err
}

// removeBlob deletes a blob.
func (h *hand) removeBlob(repository, digest string) error {
	_, err := h.want("DELETE", "/v2/"+repository+"/blobs/"+digest, nil, "", http.StatusAccepted, http.StatusNotFound)
	return err
}

// manifest reads a manifest; nil when it is not there.
func (h *hand) manifest(repository, reference string) (reply, bool, error) {
	r, err := h.want("GET", "/v2/"+repository+"/manifests/"+reference, nil, "", http.StatusOK, http.StatusNotFound)
	return r, r.status == http.StatusOK, err
}

func (h *hand) hasBlob(repository, digest string) (bool, error) {
	r, err := h.want("HEAD", "/v2/"+repository+"/blobs/"+digest, nil, "", http.StatusOK, http.StatusNotFound)
	return r.status == http.StatusOK, err
}

// tags lists the tags that can be read, with their digests.
func (h *hand) tags(repository string) (map[string]string, error) {
	tags := map[string]string{}
	r, err := h.want("GET", "/v2/"+repository+"/tags/list", nil, "", http.StatusOK, http.StatusNotFound)
	if err != nil || r.status == http.StatusNotFound {
		return tags, err
	}
	names, err := namesIn(r.body, "tags")
	if err != nil {
		return nil, err
	}
	for _, name := range names {
		r, err := h.want("HEAD", "/v2/"+repository+"/manifests/"+name, nil, "", http.StatusOK, http.StatusNotFound)
		if err != nil {
			return nil, err
		}
		if r.status == http.StatusOK {
			tags[name] = r.header.Get("Docker-Content-Digest")
		}
	}
	return tags, nil
}

// referrers lists what names the manifest as its subject, in the way that the registry has.
func (h *hand) referrers(repository, subject string) (map[string]bool, error) {
	list := map[string]bool{}
	var body []byte
	if h.api {
		r, err := h.want("GET", "/v2/"+repository+"/referrers/"+subject, nil, "", http.StatusOK, http.StatusNotFound)
		if err != nil || r.status == http.StatusNotFound {
			return list, err
		}
		body = r.body
	} else {
		r, found, err := h.manifest(repository, strings.Replace(subject, ":", "-", 1))
		if err != nil || !found {
			return list, err
		}
		body = r.body
	}
	children, _, err := contents(body)
	for _, child := range children {
		list[child.Digest] = true
	}
	return list, err
}
