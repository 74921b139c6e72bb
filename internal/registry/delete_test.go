package registry

import (
	"errors"
	"net/http"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/antipode-registry/antipode/internal/registrytest"
)

func TestDeleteTagKeepsSiblings(t *testing.T) {
	t.Parallel()
	eachRegistry(t, func(t *testing.T, kind registryKind, url string) {
		img, other := registrytest.NewImage(1, 1, 64), registrytest.NewImage(2, 1, 64)
		registrytest.Push(t, url, repo, "v1", img)
		for _, tag := range []string{"v1.0", "latest", "stable"} {
			registrytest.Retag(t, url, repo, img.Digest, tag)
		}
		registrytest.Push(t, url, repo, "other", other)
		proxy := registrytest.NewProxy(t, url)
		r := open(t, proxy.URL())
		for range 2 { // the second time there is nothing to delete
			if err := r.DeleteTag(t.Context(), repo, "latest"); err != nil {
				t.Fatal(err)
			}
		}
		proxy.Reset()
		if err := r.DeleteTag(t.Context(), repo, "stable"); err != nil {
			t.Fatal(err)
		}
		want := map[string]string{"v1": img.Digest, "v1.0": img.Digest, "other": other.Digest}
		if diff := cmp.Diff(want, registrytest.Tags(t, url, repo)); diff != "" {
			t.Error(diff)
		}
		if _, ok := registrytest.GetManifest(t, url, repo, img.Digest); !ok {
			t.Error("the siblings' manifest is gone")
		}
		limit := 1
		if !kind.deleteTag {
			limit = 3 // HEAD, PUT, DELETE: what was learnt is remembered
		}
		if n := len(proxy.Requests()); n > limit {
			t.Errorf("%d requests: %+v", n, proxy.Requests())
		}
		if err := r.DeleteTag(t.Context(), "team/none", "v1"); err != nil {
			t.Errorf("absent repository: %v", err)
		}
	})
}

func TestDeleteManifest(t *testing.T) {
	t.Parallel()
	eachRegistry(t, func(t *testing.T, _ registryKind, url string) {
		img := registrytest.NewImage(1, 1, 64)
		registrytest.Push(t, url, repo, "v1", img)
		r := open(t, url)
		for range 2 {
			if err := r.DeleteManifest(t.Context(), repo, img.Digest); err != nil {
				t.Fatal(err)
			}
		}
		if _, ok := registrytest.GetManifest(t, url, repo, img.Digest); ok {
			t.Error("it is still there")
		}
		if err := r.DeleteManifest(t.Context(), repo, "v1"); err == nil {
			t.Error("a tag was taken for a digest")
		}
	})
}

func TestDeletesSwitchedOff(t *testing.T) {
	t.Parallel()
	off := registrytest.WithConfig(func(config map[string]any) {
		storage, _ := config["storage"].(map[string]any)
		storage["delete"] = map[string]any{"enabled": false}
	})
	urls := map[string]string{
		"distribution": registrytest.Distribution(t, off).URL(),
		"debian":       registrytest.Debian(t, off).URL(),
	}
	for name, url := range urls {
		img := registrytest.NewImage(1, 1, 64)
		registrytest.Push(t, url, repo, "v1", img)
		r := open(t, url)
		for range 2 {
			err := r.DeleteTag(t.Context(), repo, "v1")
			if err == nil || !strings.Contains(err.Error(), "allow deletes") {
				t.Errorf("%s: %v", name, err)
			}
		}
		if diff := cmp.Diff(map[string]string{"v1": img.Digest}, registrytest.Tags(t, url, repo)); diff != "" {
			t.Errorf("%s: a refused delete spoiled the tag: %s", name, diff)
		}
	}
}

func TestDeleteTagBrokenHalfWay(t *testing.T) {
	t.Parallel()
	url := registrytest.Debian(t).URL()
	img := registrytest.NewImage(1, 1, 64)
	registrytest.Push(t, url, repo, "v1", img)
	for _, tag := range []string{"v2", "v3"} {
		registrytest.Retag(t, url, repo, img.Digest, tag)
	}
	proxy := registrytest.NewProxy(t, url)
	r := open(t, proxy.URL())
	if err := r.DeleteTag(t.Context(), repo, "v3"); err != nil {
		t.Fatal(err)
	}
	proxy.Fault(func(req *http.Request) registrytest.Fault {
		if req.Method == http.MethodDelete {
			return registrytest.Fault{Status: http.StatusForbidden}
		}
		return registrytest.Fault{}
	})
	err := r.DeleteTag(t.Context(), repo, "v1")
	if !errors.Is(err, ErrUnauthorized) || !strings.Contains(err.Error(), "throw-away") {
		t.Errorf("half-way: %v", err)
	}
	if now := registrytest.Tags(t, url, repo); now["v1"] == img.Digest || now["v2"] != img.Digest {
		t.Errorf("tags half-way: %v", now)
	}
	proxy.Fault(nil)
	if err := r.DeleteTag(t.Context(), repo, "v1"); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(map[string]string{"v2": img.Digest}, registrytest.Tags(t, url, repo)); diff != "" {
		t.Error(diff)
	}
}

// TestTagDeleteAnsweredAsUnknown: a registry that takes a tag for an unknown digest has not deleted it.
func TestTagDeleteAnsweredAsUnknown(t *testing.T) {
	t.Parallel()
	url := registrytest.Distribution(t).URL()
	img := registrytest.NewImage(1, 1, 64)
	registrytest.Push(t, url, repo, "v1", img)
	registrytest.Retag(t, url, repo, img.Digest, "v2")
	proxy := registrytest.NewProxy(t, url)
	proxy.Fault(func(req *http.Request) registrytest.Fault {
		if req.Method == http.MethodDelete && !strings.Contains(req.URL.Path, "sha256:") {
			return registrytest.Fault{Status: 404, Body: `{"errors":[{"code":"MANIFEST_UNKNOWN"}]}`}
		}
		return registrytest.Fault{}
	})
	r := open(t, proxy.URL())
	if err := r.DeleteTag(t.Context(), repo, "v1"); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(map[string]string{"v2": img.Digest}, registrytest.Tags(t, url, repo)); diff != "" {
		t.Error(diff)
	}
}

// TestTagDeleteIsNeverBelievedDone: what is not the registry's own word is an error, and changes nothing.
func TestTagDeleteIsNeverBelievedDone(t *testing.T) {
	t.Parallel()
	for _, status := range []int{302, 400, 401, 403, 404, 405, 500, 501} {
		var changed []string
		r := carried(t, func(req *http.Request) (*http.Response, error) {
			if req.Method != http.MethodDelete {
				changed = append(changed, req.Method)
			}
			return respond(status, "<html>", "Content-Type", "text/html"), nil
		})
		if err := r.DeleteTag(t.Context(), repo, "v1"); err == nil || len(changed) > 0 {
			t.Errorf("%d: %v, then %v", status, err, changed)
		}
		if err := r.DeleteManifest(t.Context(), repo, registrytest.Digest(nil)); err == nil || len(changed) > 0 {
			t.Errorf("digest, %d: %v, then %v", status, err, changed)
		}
	}
}
