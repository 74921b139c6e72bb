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
	"sync"
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

// secure is a registry behind TLS, with a handle that has the account for it and for others.
func secure(t *testing.T, answer http.HandlerFunc, others ...string) *Registry {
	t.Helper()
	server := httptest.NewUnstartedServer(answer)
	server.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, 0)
	server.StartTLS()
	t.Cleanup(server.Close)
	file := filepath.Join(t.TempDir(), "ca.pem")
	block := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw})
	if err := os.WriteFile(file, block, 0o600); err != nil {
		t.Fatal(err)
	}
	login(t, append(others, server.URL)...)
	return open(t, server.URL, func(cfg *Config) { cfg.CAFile = file })
}

// A registry behind TLS cannot have the account sent over the network in plain text, by naming such a token service.
func TestTokenServiceInPlainTextIsRefused(t *testing.T) {
	elsewhere, asked := thief(t)
	r := secure(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Www-Authenticate", fmt.Sprintf(`Bearer realm="%s/token",service="x"`, elsewhere))
		w.WriteHeader(http.StatusUnauthorized)
	}, elsewhere)
	if err := r.Ping(t.Context()); err == nil || !strings.Contains(err.Error(), "uses http but") {
		t.Errorf("ping: %v", err)
	}
	everything(t, r)
	if asked.Load() != 0 {
		t.Errorf("%d requests went out in plain text", asked.Load())
	}
}

// Nor does anything follow it from TLS to plain text: neither a redirect, nor a link to a next page, nor where an upload
// is to go; not even to the same host and port.
func TestNothingGoesFromTLSToPlainText(t *testing.T) {
	elsewhere, asked := thief(t)
	for name, target := range map[string]func(*http.Request) string{
		"elsewhere": func(*http.Request) string { return elsewhere },
		"here":      func(req *http.Request) string { return "http://" + req.Host },
	} {
		t.Run(name, func(t *testing.T) {
			var paths sync.Map
			r := secure(t, func(w http.ResponseWriter, req *http.Request) {
				paths.Store(req.URL.Path, true)
				switch {
				case req.Header.Get("Authorization") == "":
					w.Header().Set("Www-Authenticate", "Basic realm=home")
					w.WriteHeader(http.StatusUnauthorized)
				case req.Method == http.MethodPost:
					w.Header().Set("Location", target(req)+"/v2/upload")
					w.WriteHeader(http.StatusAccepted)
				case strings.HasSuffix(req.URL.Path, "/tags/list"):
					w.Header().Set("Link", "<"+target(req)+req.URL.Path+"?n=1&last=v1>; rel=next")
					_, _ = w.Write([]byte(`{"name":"team/app","tags":["v1"]}`))
				default:
					http.Redirect(w, req, target(req)+"/followed", http.StatusTemporaryRedirect)
				}
			}, elsewhere)
			everything(t, r)
			_, _, tags := r.TagNames(t.Context(), repo)
			_, manifest := r.Manifest(t.Context(), repo, "v1")
			for call, err := range map[string]error{"tags": tags, "manifest": manifest} {
				if err == nil {
					t.Errorf("%s: it was taken", call)
				}
			}
			for _, path := range []string{"/followed", "/v2/upload"} {
				if _, reached := paths.Load(path); reached {
					t.Errorf("%s was asked for", path)
				}
			}
		})
	}
	if asked.Load() != 0 {
		t.Errorf("%d requests went out in plain text", asked.Load())
	}
}

// An address that is refused is not repeated with what may be secret in it.
func TestRefusedAddressesAreNotRepeated(t *testing.T) {
	t.Parallel()
	for _, address := range []string{
		"http://robot:planted@127.0.0.1", "http://planted@127.0.0.1", "http://robot:planted@[::1", "ftp://robot:planted@a",
		"http://robot:planted%zz@a", "http://robot:planted/x@a", "http://a/?token=planted", "http://a/planted", "http://a/#planted", "https://robot:planted@",
	} {
		_, err := Open(Config{URL: address, Side: Source})
		if err == nil || strings.Contains(err.Error(), "planted") {
			t.Errorf("%s: %v", address, err)
		}
	}
}
