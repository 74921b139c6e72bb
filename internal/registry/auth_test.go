package registry

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/antipode-registry/antipode/internal/registrytest"
)

// guarded is a registry behind a token service of its own.
type guarded struct {
	next http.Handler

	mu     sync.Mutex
	valid  string // the token that is accepted
	issued int
	scopes []string
	denied int // answers of 401
	expire func(*http.Request) bool
}

func (g *guarded) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	g.mu.Lock()
	if req.URL.Path == "/token" {
		g.issued++
		g.valid = fmt.Sprintf("token-%d", g.issued)
		g.scopes = append(g.scopes, req.URL.Query()["scope"]...)
		_ = json.NewEncoder(w).Encode(map[string]string{"token": g.valid})
		g.mu.Unlock()
		return
	}
	if g.expire != nil && g.expire(req) {
		g.valid = ""
	}
	accepted := g.valid != "" && req.Header.Get("Authorization") == "Bearer "+g.valid
	if !accepted {
		g.denied++
	}
	g.mu.Unlock()
	if !accepted {
		w.Header().Set("Www-Authenticate", fmt.Sprintf(`Bearer realm="http://%s/token",service="test"`, req.Host))
		w.WriteHeader(http.StatusUnauthorized)
		return
	}
	g.next.ServeHTTP(w, req)
}

// guard puts a token service before an in-memory registry.
func guard(t *testing.T) (*guarded, *Registry) {
	t.Helper()
	proxy := registrytest.NewProxy(t, registrytest.InMemory(t, true).URL())
	g := &guarded{next: forward(t, proxy.URL())}
	server := httptest.NewServer(g)
	t.Cleanup(server.Close)
	return g, open(t, server.URL)
}

// forward sends requests on as they are.
func forward(t *testing.T, url string) http.Handler {
	t.Helper()
	transport := &http.Transport{}
	t.Cleanup(transport.CloseIdleConnections)
	return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		out := req.Clone(req.Context())
		out.RequestURI = ""
		out.URL.Scheme, out.URL.Host = "http", strings.TrimPrefix(url, "http://")
		resp, err := transport.RoundTrip(out)
		if err != nil {
			w.WriteHeader(http.StatusBadGateway)
			return
		}
		defer func() { _ = resp.Body.Close() }()
		maps.Copy(w.Header(), resp.Header)
		w.WriteHeader(resp.StatusCode)
		_, _ = io.Copy(w, resp.Body)
	})
}

func TestOneTokenCoversAnOperation(t *testing.T) {
	t.Parallel()
	g, r := guard(t)
	img := registrytest.NewImage(1, 3, 64)
	for _, body := range img.Blobs {
		if _, err := r.PutBlob(t.Context(), repo, blobOf(body), "", content(body)); err != nil {
			t.Fatal(err)
		}
	}
	if err := r.PutManifest(t.Context(), repo, "v1", manifestOf(img)); err != nil {
		t.Fatal(err)
	}
	if want := []string{"repository:" + repo + ":pull,push"}; g.issued != 1 || !slices.Equal(g.scopes, want) || g.denied != 1 {
		t.Errorf("%d tokens for %v, %d refusals", g.issued, g.scopes, g.denied)
	}
	if err := r.DeleteTag(t.Context(), repo, "v1"); err != nil {
		t.Fatal(err)
	}
	if want := "repository:" + repo + ":delete"; g.scopes[len(g.scopes)-1] != want {
		t.Errorf("deleting asked for %v", g.scopes)
	}
}

func TestTokenExpiresBeforeUploadEnds(t *testing.T) {
	t.Parallel()
	for _, size := range []int{1000, smallBlob + 1000, askFirst + 1000} {
		g, r := guard(t)
		once := true
		g.expire = func(req *http.Request) bool {
			expired := once && req.Method == http.MethodPut
			once = once && !expired
			return expired
		}
		body := registrytest.Bytes(1, 0, size)
		var opened, closed atomic.Int64
		_, err := r.PutBlob(t.Context(), repo, blobOf(body), "", func() (io.ReadCloser, error) {
			opened.Add(1)
			return closer{bytes.NewReader(body), &closed}, nil
		})
		if err != nil {
			t.Fatalf("%d bytes: %v", size, err)
		}
		if size > smallBlob && size < askFirst {
			continue // a stream that had begun, or not, and which its connection closes when it comes to it
		}
		// It is in memory, or the registry was asked before the first byte was needed.
		if opened.Load() != 1 || closed.Load() != 1 {
			t.Errorf("%d bytes: content opened %d times, closed %d times", size, opened.Load(), closed.Load())
		}
	}
}

type closer struct {
	io.Reader

	closed *atomic.Int64
}

func (c closer) Close() error {
	c.closed.Add(1)
	return nil
}

func TestTokenServiceFails(t *testing.T) {
	t.Parallel()
	for status, want := range map[int]error{
		http.StatusUnauthorized: ErrUnauthorized, http.StatusForbidden: ErrUnauthorized, http.StatusBadGateway: ErrUnavailable,
	} {
		r := serve(t, func(w http.ResponseWriter, req *http.Request) {
			if req.URL.Path == "/token" {
				w.WriteHeader(status)
				return
			}
			w.Header().Set("Www-Authenticate", fmt.Sprintf(`Bearer realm="http://%s/token"`, req.Host))
			w.WriteHeader(http.StatusUnauthorized)
		})
		_, present, err := r.TagNames(t.Context(), repo)
		if !errors.Is(err, want) || present {
			t.Errorf("%d: %v", status, err)
		}
	}
}

// TestNewLoginNeedsNoRestart is not parallel: the docker configuration is found through the environment.
func TestNewLoginNeedsNoRestart(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("DOCKER_CONFIG", dir)
	r := serve(t, func(w http.ResponseWriter, req *http.Request) {
		if user, password, _ := req.BasicAuth(); user != "u" || password != "new" {
			w.Header().Set("Www-Authenticate", "Basic realm=test")
			w.WriteHeader(http.StatusUnauthorized)
		}
	})
	login := func(password string) {
		secret := base64.StdEncoding.EncodeToString([]byte("u:" + password))
		config := fmt.Sprintf(`{"auths":{%q:{"auth":%q}}}`, strings.TrimPrefix(r.URL(), "http://"), secret)
		if err := os.WriteFile(filepath.Join(dir, "config.json"), []byte(config), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := r.Ping(t.Context()); !errors.Is(err, ErrUnauthorized) || !strings.Contains(err.Error(), "docker login") {
		t.Errorf("without a login: %v", err)
	}
	login("old")
	if err := r.Ping(t.Context()); !errors.Is(err, ErrUnauthorized) {
		t.Errorf("with a wrong login: %v", err)
	}
	login("new")
	if err := r.Ping(t.Context()); err != nil {
		t.Errorf("with a new login: %v", err)
	}
	if err := os.WriteFile(filepath.Join(dir, "config.json"), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(Config{URL: "http://registry.test", Side: Source}); err == nil {
		t.Error("a broken docker configuration was not noticed")
	}
}

func TestRedirectedBlobTakesNoCredentialsAlong(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("DOCKER_CONFIG", dir)
	body := registrytest.Bytes(1, 0, 1000)
	storage := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		if got := req.Header.Get("Authorization"); got != "" {
			t.Errorf("the storage got %q", got)
		}
		http.ServeContent(w, req, "", fileTime, bytes.NewReader(body))
	}))
	t.Cleanup(storage.Close)
	r := serve(t, func(w http.ResponseWriter, req *http.Request) {
		if req.Header.Get("Authorization") == "" {
			w.Header().Set("Www-Authenticate", "Basic realm=test")
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		http.Redirect(w, req, storage.URL+"/object?signature=secret", http.StatusTemporaryRedirect)
	})
	config := fmt.Sprintf(`{"auths":{%q:{"auth":"dTpw"}}}`, strings.TrimPrefix(r.URL(), "http://"))
	if err := os.WriteFile(filepath.Join(dir, "config.json"), []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, offset := range []int64{0, 400} {
		reader, err := r.Blob(t.Context(), repo, blobOf(body), offset)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := io.ReadAll(reader); err != nil || !bytes.Equal(got, body[offset:]) {
			t.Errorf("offset %d: %d bytes, %v", offset, len(got), err)
		}
		_ = reader.Close()
	}
	storage.Close()
	_, err := r.Blob(t.Context(), repo, blobOf(body), 0)
	if !errors.Is(err, ErrUnavailable) || strings.Contains(err.Error(), "signature") {
		t.Errorf("storage that is down: %v", err)
	}
}

func TestWritesAreNotRedirected(t *testing.T) {
	t.Parallel()
	for _, status := range []int{301, 302, 303, 307, 308} {
		r := serve(t, func(w http.ResponseWriter, req *http.Request) {
			if req.URL.Path == "/elsewhere" {
				t.Errorf("%s was redirected by %d as %s", "a write", status, req.Method)
				return
			}
			http.Redirect(w, req, "/elsewhere", status)
		})
		if err := r.DeleteTag(t.Context(), repo, "v1"); !errors.Is(err, ErrMalformed) {
			t.Errorf("DELETE, %d: %v", status, err)
		}
		img := registrytest.NewImage(1, 1, 64)
		if err := r.PutManifest(t.Context(), repo, "v1", manifestOf(img)); !errors.Is(err, ErrMalformed) {
			t.Errorf("PUT, %d: %v", status, err)
		}
		if _, err := r.PutBlob(t.Context(), repo, blobOf([]byte("x")), "", noContent(t)); !errors.Is(err, ErrMalformed) {
			t.Errorf("POST, %d: %v", status, err)
		}
	}
}

func TestOwnAuthority(t *testing.T) {
	t.Parallel()
	var plain *httptest.Server
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		if strings.Contains(req.URL.Path, "/manifests/") {
			http.Redirect(w, req, plain.URL, http.StatusFound)
		}
	}))
	server.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, 0)
	server.StartTLS()
	t.Cleanup(server.Close)
	plain = httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
		t.Error("a redirect to plain http was followed")
	}))
	t.Cleanup(plain.Close)
	file := filepath.Join(t.TempDir(), "ca.pem")
	block := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw})
	if err := os.WriteFile(file, block, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := open(t, server.URL).Ping(t.Context()); !errors.Is(err, ErrUnavailable) {
		t.Errorf("unknown authority: %v", err)
	}
	r := open(t, server.URL, func(cfg *Config) { cfg.CAFile = file })
	if err := r.Ping(t.Context()); err != nil {
		t.Error(err)
	}
	if _, err := r.Manifest(t.Context(), repo, "v1"); err == nil || !strings.Contains(err.Error(), "plain http") {
		t.Errorf("redirect to plain http: %v", err)
	}
}

func TestTokensAreBounded(t *testing.T) {
	t.Parallel()
	g, r := guard(t)
	for i := range maxTokens + 10 {
		if _, _, err := r.TagNames(t.Context(), fmt.Sprintf("team/r%d", i)); err != nil {
			t.Fatal(err)
		}
	}
	cache, _ := r.client.Cache.(*tokenCache)
	if cache.tokens > maxTokens || g.issued != maxTokens+10 {
		t.Errorf("%d tokens are kept of %d", cache.tokens, g.issued)
	}
}
