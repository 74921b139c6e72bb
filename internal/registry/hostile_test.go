package registry

import (
	"encoding/pem"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/antipode-registry/antipode/internal/registrytest"
)

// planted is the account of these tests: user planted, password planted-password.
const planted = "cGxhbnRlZDpwbGFudGVkLXBhc3N3b3Jk"

// login leaves a docker configuration with the planted account for the hosts. It changes the environment, so the test
// that calls it is not parallel.
func login(t testing.TB, urls ...string) {
	t.Helper()
	dir := t.TempDir()
	t.Setenv("DOCKER_CONFIG", dir)
	var auths []string
	for _, url := range urls {
		_, host, _ := strings.Cut(url, "://")
		auths = append(auths, fmt.Sprintf(`%q:{"auth":%q}`, host, planted))
	}
	config := fmt.Sprintf(`{"auths":{%s}}`, strings.Join(auths, ","))
	if err := os.WriteFile(filepath.Join(dir, "config.json"), []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
}

// thief is another origin. It must not be shown credentials, nor tokens.
func thief(t *testing.T) (url string, asked *atomic.Int64) {
	t.Helper()
	asked = new(atomic.Int64)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		asked.Add(1)
		if got := req.Header.Get("Authorization"); got != "" {
			t.Errorf("%s %s was shown %q", req.Method, req.URL.Path, got)
		}
		if err := req.ParseForm(); err == nil && strings.Contains(fmt.Sprint(req.Form), "planted") {
			t.Errorf("%s %s was sent %v", req.Method, req.URL.Path, req.Form)
		}
		w.Header().Set("Www-Authenticate", "Basic realm=thief") // it asks, too
		w.WriteHeader(http.StatusUnauthorized)
	}))
	t.Cleanup(server.Close)
	return server.URL, asked
}

// everything calls what reads and writes. Against these registries all of it fails or ends somewhere harmless.
func everything(t *testing.T, r *Registry) {
	t.Helper()
	ctx, img := t.Context(), registrytest.NewImage(1, 1, 64)
	for _, err := range r.Repositories(ctx) {
		if err != nil && strings.Contains(err.Error(), "planted") {
			t.Errorf("the error tells the password: %v", err)
		}
	}
	_, _, tags := r.TagNames(ctx, repo)
	_, manifest := r.Manifest(ctx, repo, "v1")
	reader, blob := r.Blob(ctx, repo, blobOf([]byte("x")), 0)
	if blob == nil {
		_ = reader.Close()
	}
	_, _, referrers := r.Referrers(ctx, repo, img.Digest)
	_, upload := r.PutBlob(ctx, repo, blobOf([]byte("x")), "other/repo", func() (io.ReadCloser, error) {
		return io.NopCloser(strings.NewReader("x")), nil
	})
	for call, err := range map[string]error{
		"ping": r.Ping(ctx), "tags": tags, "manifest": manifest, "blob": blob, "referrers": referrers, "upload": upload,
		"put": r.PutManifest(ctx, repo, "v1", manifestOf(img)), "delete": r.DeleteTag(ctx, repo, "v1"),
	} {
		if err != nil && strings.Contains(err.Error(), "planted") {
			t.Errorf("%s: the error tells the password: %v", call, err)
		}
	}
}

// TestCredentialsStayAtHome: whatever a registry answers, another origin sees neither the account nor a token.
func TestCredentialsStayAtHome(t *testing.T) {
	elsewhere, asked := thief(t)
	challenge := func(w http.ResponseWriter, req *http.Request) bool {
		if req.Header.Get("Authorization") != "" {
			return false
		}
		w.Header().Set("Www-Authenticate", "Basic realm=home")
		w.WriteHeader(http.StatusUnauthorized)
		return true
	}
	redirect := func(status int) http.HandlerFunc {
		return func(w http.ResponseWriter, req *http.Request) {
			if !challenge(w, req) {
				http.Redirect(w, req, elsewhere+req.URL.Path, status)
			}
		}
	}
	answers := map[string]http.HandlerFunc{
		"301": redirect(301), "302": redirect(302), "303": redirect(303), "307": redirect(307), "308": redirect(308),
		"links and locations": func(w http.ResponseWriter, req *http.Request) {
			if challenge(w, req) {
				return
			}
			w.Header().Set("Link", "<"+elsewhere+"/v2/next>; rel=next")
			w.Header().Set("Location", elsewhere+"/v2/upload")
			w.Header().Set("Docker-Upload-UUID", "1")
			if req.Method == http.MethodPost {
				w.WriteHeader(http.StatusAccepted)
				return
			}
			_, _ = w.Write([]byte(`{"repositories":["a"],"name":"team/app","tags":["v1"],"manifests":[]}`))
		},
		"a token service that sends on": func(w http.ResponseWriter, req *http.Request) {
			if req.URL.Path == "/token" {
				http.Redirect(w, req, elsewhere+"/token", http.StatusTemporaryRedirect)
				return
			}
			w.Header().Set("Www-Authenticate", fmt.Sprintf(`Bearer realm="http://%s/token"`, req.Host))
			w.WriteHeader(http.StatusUnauthorized)
		},
		"tokens": func(w http.ResponseWriter, req *http.Request) {
			switch {
			case req.URL.Path == "/token":
				_, _ = w.Write([]byte(`{"token":"planted-token"}`))
			case req.Header.Get("Authorization") != "":
				http.Redirect(w, req, elsewhere+req.URL.Path, http.StatusTemporaryRedirect)
			default:
				w.Header().Set("Www-Authenticate", fmt.Sprintf(`Bearer realm="http://%s/token"`, req.Host))
				w.WriteHeader(http.StatusUnauthorized)
			}
		},
	}
	for name, answer := range answers {
		t.Run(name, func(t *testing.T) {
			r := serve(t, answer)
			login(t, r.URL())
			before := asked.Load()
			everything(t, r)
			if name != "links and locations" && asked.Load() == before {
				t.Error("nothing was sent on, so nothing was shown")
			}
		})
	}
}

// A registry behind TLS cannot have the account sent over the network in plain text, by naming such a token service.
func TestTokenServiceInPlainTextIsRefused(t *testing.T) {
	elsewhere, asked := thief(t)
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Www-Authenticate", fmt.Sprintf(`Bearer realm="%s/token",service="x"`, elsewhere))
		w.WriteHeader(http.StatusUnauthorized)
	}))
	server.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, 0)
	server.StartTLS()
	t.Cleanup(server.Close)
	file := filepath.Join(t.TempDir(), "ca.pem")
	block := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw})
	if err := os.WriteFile(file, block, 0o600); err != nil {
		t.Fatal(err)
	}
	login(t, server.URL, elsewhere)
	r := open(t, server.URL, func(cfg *Config) { cfg.CAFile = file })
	if err := r.Ping(t.Context()); err == nil || !strings.Contains(err.Error(), "uses http but") {
		t.Errorf("ping: %v", err)
	}
	everything(t, r)
	if asked.Load() != 0 {
		t.Errorf("%d requests went out in plain text", asked.Load())
	}
}
