package registry

import (
	"errors"
	"net/http"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/antipode-registry/antipode/internal/registrytest"
)

func TestErrorSaysEverything(t *testing.T) {
	t.Parallel()
	r := carried(t, func(*http.Request) (*http.Response, error) {
		return respond(403, `{"errors":[{"code":"DENIED","message":"requested access to the resource is denied"}]}`), nil
	}, func(cfg *Config) { cfg.Side = Destination })
	_, err := r.Manifest(t.Context(), repo, "v1")
	const want = "destination registry registry.test: read manifest team/app:v1: HTTP 403: not authorized: " +
		"DENIED: requested access to the resource is denied " +
		"(log in with docker login registry.test as the daemon's user, with an account that may do this)"
	if err == nil || err.Error() != want {
		t.Errorf("got  %v\nwant %s", err, want)
	}
	var named *Error
	if !errors.As(err, &named) {
		t.Fatal("not an *Error")
	}
	if named.Code != "DENIED" || named.Status != 403 || named.Repository != repo || named.Reference != "v1" {
		t.Errorf("%+v", named)
	}
}

func TestArgumentsAreCheckedBeforeAnythingIsSent(t *testing.T) {
	t.Parallel()
	r := carried(t, func(req *http.Request) (*http.Response, error) {
		t.Errorf("sent %s %s", req.Method, req.URL)
		return respond(200, ""), nil
	})
	ctx := t.Context()
	img := manifestOf(registrytest.NewImage(1, 1, 64))
	wrong := img
	wrong.Bytes = []byte("{}")
	bad := Descriptor{Digest: "sha256:123", Size: 1}
	calls := map[string]func() error{
		"repository":      func() error { _, _, err := r.TagNames(ctx, "../x"); return err },
		"listed":          func() error { _, err := r.List(ctx, "A"); return err },
		"resolved":        func() error { _, _, err := r.Resolve(ctx, "A", []string{"v1"}); return err },
		"tag":             func() error { _, _, err := r.Resolve(ctx, repo, []string{"a/b"}); return err },
		"reference":       func() error { _, err := r.Manifest(ctx, repo, "sha256:12"); return err },
		"algorithm":       func() error { _, err := r.Manifest(ctx, repo, "md5:12"); return err },
		"digest as tag":   func() error { return r.DeleteTag(ctx, repo, img.Digest) },
		"tag as digest":   func() error { return r.DeleteManifest(ctx, repo, "v1") },
		"blob":            func() error { _, err := r.Blob(ctx, repo, bad, 0); return err },
		"offset":          func() error { _, err := r.Blob(ctx, repo, blobOf([]byte("x")), 2); return err },
		"upload":          func() error { _, err := r.PutBlob(ctx, repo, bad, "", nil); return err },
		"mount":           func() error { _, err := r.PutBlob(ctx, repo, blobOf(nil), "A", nil); return err },
		"other bytes":     func() error { return r.PutManifest(ctx, repo, "v1", wrong) },
		"other reference": func() error { return r.PutManifest(ctx, repo, registrytest.Digest(nil), img) },
		"no media type": func() error {
			return r.PutManifest(ctx, repo, "v1", Manifest{Descriptor: Descriptor{Digest: img.Digest}, Bytes: img.Bytes})
		},
		"referrers": func() error { _, _, err := r.Referrers(ctx, repo, "v1"); return err },
	}
	for name, run := range calls {
		var named *Error
		if err := run(); !errors.As(err, &named) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestOpenRefuses(t *testing.T) {
	t.Parallel()
	for _, url := range []string{
		"", "registry.test", "ftp://registry.test", "http://", "http://registry.test/path", "http://u:secret@registry.test",
		"http://registry.test?x=1", "http://registry.test:port",
	} {
		if _, err := Open(Config{URL: url, Side: Source}); err == nil || strings.Contains(err.Error(), "secret") {
			t.Errorf("%q: %v", url, err)
		}
	}
	if _, err := Open(Config{URL: "https://registry.test", CAFile: "/does/not/exist"}); err == nil {
		t.Error("missing CA file")
	}
	if _, err := Open(Config{URL: "https://registry.test", Concurrency: -1}); err == nil {
		t.Error("negative concurrency")
	}
	r := open(t, "http://registry.test/")
	if r.URL() != "http://registry.test" {
		t.Error(r.URL())
	}
}

func TestManifestIsVerified(t *testing.T) {
	t.Parallel()
	img := registrytest.NewImage(1, 1, 64)
	other := registrytest.Digest([]byte("other"))
	const sha512 = "sha512:abdfae17ad96c38f38f86cdcb8b08c9d7a1b75a0e8ff93f0e1a1f0cfd7f0f2a3" +
		"abdfae17ad96c38f38f86cdcb8b08c9d7a1b75a0e8ff93f0e1a1f0cfd7f0f2a3"
	body := string(img.Manifest)
	cases := map[string]struct {
		reference, body           string
		contentType, headerDigest string
		want                      string // the media type; "" = must fail
	}{
		"by tag":             {"v1", body, img.MediaType + "; charset=utf-8", "", img.MediaType},
		"by digest":          {img.Digest, body, img.MediaType, "", img.MediaType},
		"type of its own":    {"v1", body, "text/plain", "", img.MediaType},
		"index by form":      {"v1", `{"manifests":[]}`, "", "", mediaTypeOCIIndex},
		"image by form":      {"v1", `{"config":{},"layers":[]}`, "", "", mediaTypeOCIManifest},
		"no known type":      {"v1", `{}`, "", "", ""},
		"HTML":               {"v1", `<html>`, "text/html", "", ""},
		"HTML by that type":  {"v1", `<html>`, img.MediaType, "", ""},
		"array":              {"v1", `[]`, img.MediaType, "", ""},
		"empty":              {"v1", ``, img.MediaType, "", ""},
		"other header":       {"v1", body, img.MediaType, other, ""},
		"odd header":         {"v1", body, img.MediaType, "x", ""},
		"other digest":       {other, body, img.MediaType, img.Digest, ""},
		"other sha512":       {sha512, body, img.MediaType, "", ""},
		"too large":          {"v1", `{"a":"` + strings.Repeat("x", maxManifest) + `"}`, img.MediaType, "", ""},
		"schema 1, unsigned": {"v1", `{}`, mediaTypeSchema1Signed, other, ""},
	}
	for name, c := range cases {
		r := carried(t, func(*http.Request) (*http.Response, error) {
			resp := respond(200, c.body, "Content-Type", c.contentType)
			if c.headerDigest != "" {
				resp.Header.Set(headerDigest, c.headerDigest)
			}
			return resp, nil
		})
		m, err := r.Manifest(t.Context(), repo, c.reference)
		if c.want == "" {
			if !errors.Is(err, ErrMalformed) || m.Bytes != nil {
				t.Errorf("%s: %+v, %v", name, m, err)
			}
			continue
		}
		if err != nil || m.MediaType != c.want || verify(m.Bytes, m.Digest) != nil || m.Size != int64(len(m.Bytes)) {
			t.Errorf("%s: %+v, %v", name, m.Descriptor, err)
		}
	}
}

func TestStoredDigestMustMatch(t *testing.T) {
	t.Parallel()
	img := registrytest.NewImage(1, 1, 64)
	for stored, want := range map[string]error{img.Digest: nil, registrytest.Digest(nil): ErrMalformed, "": nil} {
		gets := 0
		r := carried(t, func(req *http.Request) (*http.Response, error) {
			if req.Method == http.MethodGet {
				gets++
				return respond(200, string(img.Manifest), "Content-Type", img.MediaType), nil
			}
			resp := respond(201, "")
			if stored != "" {
				resp.Header.Set(headerDigest, stored)
			}
			return resp, nil
		})
		if err := r.PutManifest(t.Context(), repo, "v1", manifestOf(img)); !errors.Is(err, want) {
			t.Errorf("%q: %v", stored, err)
		}
		if asked := gets == 1; asked != (stored == "") {
			t.Errorf("%q: asked %d times what was stored", stored, gets)
		}
	}
}

func TestReferrersOnceSeenAreNotLost(t *testing.T) {
	t.Parallel()
	digest := registrytest.Digest(nil)
	for _, status := range []int{404, 405, 501} {
		number := 0
		r := carried(t, func(*http.Request) (*http.Response, error) {
			number++
			switch number {
			case 1, 3:
				return respond(status, "404 page not found"), nil
			case 2:
				return respond(200, `{"schemaVersion":2,"manifests":[]}`, "Content-Type", mediaTypeOCIIndex), nil
			}
			return respond(404, `{"errors":[{"code":"NAME_UNKNOWN"}]}`), nil
		})
		for i, want := range []struct{ supported, fails bool }{{false, false}, {true, false}, {false, true}, {true, false}} {
			list, supported, err := r.Referrers(t.Context(), repo, digest)
			if len(list) != 0 || supported != want.supported || (err != nil) != want.fails {
				t.Errorf("%d, answer %d: %v, %t, %v", status, i, list, supported, err)
			}
		}
	}
}

func TestMetrics(t *testing.T) {
	t.Parallel()
	url := registrytest.InMemory(t, true).URL()
	img := registrytest.NewImage(1, 1, 100)
	registrytest.Push(t, url, repo, "v1", img)
	reg := prometheus.NewRegistry()
	r := open(t, url, func(cfg *Config) { cfg.Metrics = NewMetrics(reg) })
	if _, err := r.List(t.Context(), repo); err != nil {
		t.Fatal(err)
	}
	body := registrytest.Bytes(5, 0, 1000)
	if _, err := r.PutBlob(t.Context(), repo, blobOf(body), "", content(body)); err != nil {
		t.Fatal(err)
	}
	host := strings.TrimPrefix(url, "http://")
	want := strings.ReplaceAll(`
# HELP antipode_registry_bytes_total Bytes of bodies: `+"`in`"+` from the registry, `+"`out`"+` to it.
# TYPE antipode_registry_bytes_total counter
antipode_registry_bytes_total{direction="in",host="HOST",side="source"} 33
antipode_registry_bytes_total{direction="out",host="HOST",side="source"} 1000
# HELP antipode_registry_in_flight Requests in flight now.
# TYPE antipode_registry_in_flight gauge
antipode_registry_in_flight{host="HOST",side="source"} 0
# HELP antipode_registry_requests_total Requests sent to a registry, each try counted. `+"`side`"+` is `+"`source`"+` (the primary's) or `+"`destination`"+` (the site's); `+"`kind`"+` is `+"`base`"+`, `+"`catalog`"+`, `+"`tags`"+`, `+"`manifest`"+`, `+"`blob`"+`, `+"`upload`"+`, `+"`referrers`"+` or `+"`token`"+`; `+"`code`"+` is the HTTP status, or `+"`none`"+` without an answer.
# TYPE antipode_registry_requests_total counter
antipode_registry_requests_total{code="200",host="HOST",kind="manifest",method="HEAD",side="source"} 1
antipode_registry_requests_total{code="200",host="HOST",kind="tags",method="GET",side="source"} 1
antipode_registry_requests_total{code="201",host="HOST",kind="upload",method="PUT",side="source"} 1
antipode_registry_requests_total{code="202",host="HOST",kind="upload",method="POST",side="source"} 1
`, "HOST", host)
	err := testutil.GatherAndCompare(reg, strings.NewReader(want), "antipode_registry_bytes_total",
		"antipode_registry_requests_total", "antipode_registry_in_flight")
	if err != nil {
		t.Error(err)
	}
	problems, err := testutil.GatherAndLint(reg)
	if err != nil || len(problems) > 0 {
		t.Error(problems, err)
	}
}
