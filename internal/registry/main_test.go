package registry

import (
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"go.uber.org/goleak"

	"github.com/antipode-registry/antipode/internal/registrytest"
)

func TestMain(m *testing.M) {
	// Whatever the machine's user is logged in to must not matter.
	dir, err := os.MkdirTemp("", "registry")
	if err != nil {
		panic(err)
	}
	if err := os.Setenv("DOCKER_CONFIG", dir); err != nil {
		panic(err)
	}
	goleak.VerifyTestMain(m, goleak.Cleanup(func(code int) {
		_ = os.RemoveAll(dir)
		os.Exit(code)
	}))
}

// open makes a handle that is closed with the test.
func open(t testing.TB, url string, edits ...func(*Config)) *Registry {
	t.Helper()
	cfg := Config{URL: url, Side: Source}
	for _, edit := range edits {
		edit(&cfg)
	}
	r, err := Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(r.Close)
	return r
}

// serve makes a handle on a registry that is a function.
func serve(t testing.TB, handler http.HandlerFunc) *Registry {
	t.Helper()
	server := httptest.NewServer(handler)
	t.Cleanup(server.Close)
	return open(t, server.URL)
}

// carried makes a handle whose requests never reach a network: for tests on a fake clock.
func carried(t testing.TB, f roundTripper, edits ...func(*Config)) *Registry {
	t.Helper()
	return open(t, "http://registry.test", append(edits, func(cfg *Config) { cfg.Transport = f })...)
}

type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(req *http.Request) (*http.Response, error) { return f(req) }

// respond makes a response; header is in pairs.
func respond(status int, body string, header ...string) *http.Response {
	resp := &http.Response{
		StatusCode: status, Header: http.Header{}, ContentLength: int64(len(body)),
		Body: io.NopCloser(strings.NewReader(body)),
	}
	for i := 0; i+1 < len(header); i += 2 {
		resp.Header.Add(header[i], header[i+1])
	}
	return resp
}

// registryKind is one of the registries that the package must work with.
type registryKind struct {
	name      string
	start     func(t testing.TB) (url, storage string)
	deleteTag bool // it deletes a tag alone
	// It keeps to the specification: what a manifest lacks is named by its code, and a mount that cannot be is an upload.
	saysUnknown, mountsOrOpens bool
	sha512                     bool

	storage string // of the registry that runs; "" = in memory
}

// eachRegistry runs fn on a fresh registry of each kind.
func eachRegistry(t *testing.T, fn func(t *testing.T, kind registryKind, url string)) {
	t.Helper()
	distribution := func(t testing.TB) (url, storage string) {
		t.Helper()
		p := registrytest.Distribution(t)
		return p.URL(), p.Dir()
	}
	debian := func(t testing.TB) (url, storage string) {
		t.Helper()
		p := registrytest.Debian(t)
		return p.URL(), p.Dir()
	}
	memory := func(t testing.TB) (url, storage string) {
		t.Helper()
		return registrytest.InMemory(t, true).URL(), ""
	}
	kinds := []registryKind{
		{name: "distribution", start: distribution, deleteTag: true, saysUnknown: true, mountsOrOpens: true, sha512: true},
		{name: "debian", start: debian, saysUnknown: true, mountsOrOpens: true, sha512: true},
		{name: "memory", start: memory, deleteTag: true},
	}
	for _, kind := range kinds {
		t.Run(kind.name, func(t *testing.T) {
			t.Parallel()
			var url string
			url, kind.storage = kind.start(t)
			fn(t, kind, url)
		})
	}
}

// plant makes many tags of one manifest that the repository has. Where the registry keeps them in files, they are
// written as such, which takes a tenth of the time.
func plant(t testing.TB, kind registryKind, url, repository string, img registrytest.Image, tags []string) {
	t.Helper()
	if kind.storage == "" {
		for _, tag := range tags {
			registrytest.Retag(t, url, repository, img.Digest, tag)
		}
		return
	}
	dir := filepath.Join(kind.storage, "docker/registry/v2/repositories", repository, "_manifests/tags")
	for _, tag := range tags {
		current := filepath.Join(dir, tag, "current")
		if err := os.MkdirAll(current, 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(current, "link"), []byte(img.Digest), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}
