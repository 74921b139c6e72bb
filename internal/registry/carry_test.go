package registry

import (
	"bytes"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/antipode-registry/antipode/internal/registrytest"
)

// What is carried along costs no request more than a listing does without: one for each tag, and each digest comes once.
func TestManifestsComeAlong(t *testing.T) {
	t.Parallel()
	eachRegistry(t, func(t *testing.T, _ registryKind, url string) {
		first, second := registrytest.NewImage(1, 1, 64), registrytest.NewIndex(registrytest.NewImage(2, 1, 64))
		for tag, img := range map[string]registrytest.Image{"v1": first, "v2": second, "v3": first} {
			registrytest.Push(t, url, repo, tag, img)
		}
		proxy := registrytest.NewProxy(t, url)
		r := open(t, proxy.URL())
		plain, err := r.List(t.Context(), repo)
		if err != nil || CarriesManifests(t.Context()) {
			t.Fatal(err)
		}
		for _, tag := range plain.Tags {
			if tag.Manifest != nil {
				t.Errorf("%s: a manifest that nobody asked for", tag.Name)
			}
		}
		proxy.Reset()
		all, err := r.List(WithManifests(t.Context(), 1<<20), repo)
		if err != nil || len(all.Tags) != 3 || Fingerprint(all.Tags) != Fingerprint(plain.Tags) {
			t.Fatalf("%v, %v", all, err)
		}
		came := map[string]int{}
		for i, tag := range all.Tags {
			if tag.MediaType != plain.Tags[i].MediaType || tag.Size != plain.Tags[i].Size {
				t.Errorf("%+v, not %+v", tag, plain.Tags[i])
			}
			if tag.Manifest == nil {
				continue
			}
			came[tag.Digest]++
			if !bytes.Equal(tag.Manifest, map[string][]byte{first.Digest: first.Manifest, second.Digest: second.Manifest}[tag.Digest]) {
				t.Errorf("%s: other bytes", tag.Name)
			}
		}
		if came[first.Digest] != 1 || came[second.Digest] != 1 {
			t.Errorf("came along: %v", came)
		}
		if heads, gets := proxy.Count(http.MethodHead, "manifest"), proxy.Count(http.MethodGet, "manifest"); heads != 0 || gets != 3 {
			t.Errorf("%d HEAD, %d GET", heads, gets)
		}
	})
}

// What has no room, or is too large, is listed like any other.
func TestManifestsComeAlongAsFarAsThereIsRoom(t *testing.T) {
	t.Parallel()
	server := registrytest.InMemory(t, true)
	var tags []string
	for i := range 3 {
		tags = append(tags, fmt.Sprint("v", i))
		registrytest.Push(t, server.URL(), repo, tags[i], registrytest.NewImage(int64(i), 1, 64))
	}
	large := registrytest.NewManifest(registrytest.OCIIndex, fmt.Appendf(nil,
		`{"schemaVersion":2,"mediaType":%q,"manifests":[],"annotations":{"a":"%s"}}`, registrytest.OCIIndex,
		strings.Repeat("x", maxCarried)))
	registrytest.Push(t, server.URL(), repo, "large", large)
	r := open(t, server.URL())
	carried := func(room int) (n int) {
		found, _, err := r.Resolve(WithManifests(t.Context(), room), repo, append(tags, "large"))
		if err != nil || len(found) != 4 {
			t.Fatalf("%d found, %v", len(found), err)
		}
		for _, tag := range found {
			if tag.Manifest != nil {
				n++
			}
		}
		return n
	}
	one := len(registrytest.NewImage(0, 1, 64).Manifest)
	for room, want := range map[int]int{1 << 20: 3, one + one/2: 1, 0: 0} {
		if n := carried(room); n != want {
			t.Errorf("%d came along in %d bytes, not %d", n, room, want)
		}
	}
}

// A manifest that cannot be read keeps no tag from being listed.
func TestUnreadableManifestStaysBehind(t *testing.T) {
	t.Parallel()
	r := serve(t, func(w http.ResponseWriter, req *http.Request) {
		w.Header().Set("Content-Type", registrytest.OCIManifest)
		w.Header().Set(headerDigest, "sha256:"+strings.Repeat("1", 64))
		w.Header().Set("Content-Length", "9")
		if req.Method == http.MethodGet {
			_, _ = w.Write([]byte("no object"))
		}
	})
	found, _, err := r.Resolve(WithManifests(t.Context(), 1<<20), repo, []string{"v1"})
	if err != nil || len(found) != 1 || found[0].Manifest != nil || found[0].Size != 9 {
		t.Errorf("%v, %v", found, err)
	}
}

// A registry that refuses to mount a blob from its own repository is not asked for that each time.
func TestRefusedSelfMountsBecomeRare(t *testing.T) {
	t.Parallel()
	proxy := registrytest.NewProxy(t, registrytest.InMemory(t, true).URL())
	r := open(t, proxy.URL())
	const blobs = 40
	for i := range blobs {
		body := registrytest.Bytes(1, i, 16)
		if _, err := r.PutBlob(t.Context(), repo, blobOf(body), repo, content(body)); err != nil {
			t.Fatal(err)
		}
	}
	if n := proxy.Count(http.MethodPost, "upload"); n != blobs+maxRefused+1 {
		t.Errorf("%d uploads begun for %d blobs", n, blobs)
	}
	// One that grants it is asked always.
	grant := true
	for range maxRefused {
		r.selfMounts.asked(true)
	}
	r.selfMounts.asked(!grant)
	if !r.selfMounts.worthwhile() {
		t.Error("a registry that grants it is not asked")
	}
}
