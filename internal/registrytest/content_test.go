package registrytest_test

import (
	"errors"
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sync/errgroup"

	"github.com/antipode-registry/antipode/internal/registrytest"
)

func TestContentIsDeterministic(t *testing.T) {
	t.Parallel()
	a, b := registrytest.NewImage(7, 3, 100), registrytest.NewImage(7, 3, 100)
	if a.Digest != b.Digest || len(a.Blobs) != 4 {
		t.Errorf("same seed: %s with %d blobs and %s", a.Digest, len(a.Blobs), b.Digest)
	}
	other := registrytest.NewImage(8, 3, 100)
	for digest := range other.Blobs {
		if _, shared := a.Blobs[digest]; shared {
			t.Errorf("another seed shares blob %s", digest)
		}
	}
	layer := registrytest.Bytes(7, 0, 100)
	sharing := registrytest.NewImage(9, 1, 50, registrytest.WithLayers(layer))
	if got := sharing.Layers(); len(got) != 2 || got[0] != a.Layers()[0] {
		t.Errorf("explicit layer is not shared: %v and %v", got, a.Layers())
	}
	if docker := a.Docker(); docker.MediaType != registrytest.DockerManifest || docker.Digest == a.Digest {
		t.Errorf("Docker form: %s %s", docker.MediaType, docker.Digest)
	}
	if a.MediaType != registrytest.OCIManifest {
		t.Errorf("Docker changed the original: %s", a.MediaType)
	}
}

// everything is content of each kind that the makers make.
func everything() map[string]registrytest.Image {
	oci := registrytest.NewImage(1, 2, 512)
	docker := registrytest.NewImage(2, 2, 512).Docker()
	index := registrytest.NewIndex(oci, registrytest.NewImage(3, 1, 512))
	return map[string]registrytest.Image{
		"oci":      oci,
		"docker":   docker,
		"index":    index,
		"list":     registrytest.NewIndex(docker).Docker(),
		"nested":   registrytest.NewIndex(index, docker),
		"artifact": registrytest.NewArtifact(4, "application/vnd.example.sbom"),
		"referrer": registrytest.NewArtifact(5, "application/vnd.example.signature", registrytest.WithSubject(oci)),
		"raw":      registrytest.NewManifest(registrytest.OCIManifest, oci.Manifest, blobs(oci)...),
	}
}

func blobs(img registrytest.Image) [][]byte {
	var all [][]byte
	for _, blob := range img.Blobs {
		all = append(all, blob)
	}
	return all
}

func TestPushReadBackAndDelete(t *testing.T) {
	t.Parallel()
	eachRegistry(t, func(t *testing.T, url string) {
		want := map[string]string{}
		for tag, img := range everything() {
			registrytest.Push(t, url, "team/app", tag, img)
			want[tag] = img.Digest
			m, ok := registrytest.GetManifest(t, url, "team/app", tag)
			if !ok || m.MediaType != img.MediaType || string(m.Bytes) != string(img.Manifest) || m.Digest != img.Digest {
				t.Errorf("%s reads back as %v %s %s", tag, ok, m.MediaType, m.Digest)
			}
		}
		if diff := cmp.Diff(want, registrytest.Tags(t, url, "team/app")); diff != "" {
			t.Errorf("tags (-want +got):\n%s", diff)
		}
		registrytest.Retag(t, url, "team/app", want["docker"], "moved")
		if got := registrytest.Tags(t, url, "team/app")["moved"]; got != want["docker"] {
			t.Errorf("retagged to %s, want %s", got, want["docker"])
		}
		registrytest.DeleteDigest(t, url, "team/app", want["artifact"])
		if _, ok := registrytest.GetManifest(t, url, "team/app", want["artifact"]); ok {
			t.Error("the deleted digest is still there")
		}
	})
}

func TestDeleteTagLeavesSiblings(t *testing.T) {
	t.Parallel()
	url := registrytest.Distribution(t).URL()
	img := registrytest.NewImage(1, 1, 64)
	registrytest.Push(t, url, "app", "stays", img)
	registrytest.Retag(t, url, "app", img.Digest, "goes")
	registrytest.DeleteTag(t, url, "app", "goes")
	if diff := cmp.Diff(map[string]string{"stays": img.Digest}, registrytest.Tags(t, url, "app")); diff != "" {
		t.Errorf("tags (-want +got):\n%s", diff)
	}
}

func TestDebianRefusesToDeleteATag(t *testing.T) {
	t.Parallel()
	url := registrytest.Debian(t).URL()
	registrytest.Push(t, url, "app", "one", registrytest.NewImage(1, 1, 64))
	c := registrytest.NewClient(url)
	t.Cleanup(c.Close)
	if err := c.Delete(t.Context(), "app", "one"); err == nil {
		t.Error("docker-registry 2.8 deleted a tag alone")
	}
}

func TestConcurrentPushes(t *testing.T) {
	t.Parallel()
	url := registrytest.Distribution(t).URL()
	group, ctx := errgroup.WithContext(t.Context())
	for i := range 20 {
		group.Go(func() error {
			return registrytest.PushErr(ctx, url, "app", fmt.Sprint("v", i), registrytest.NewImage(int64(i), 2, 256))
		})
	}
	if err := group.Wait(); err != nil {
		t.Fatal(err)
	}
	if tags := registrytest.Tags(t, url, "app"); len(tags) != 20 {
		t.Errorf("%d tags after 20 pushes", len(tags))
	}
}

func TestMissingIsNotAnError(t *testing.T) {
	t.Parallel()
	eachRegistry(t, func(t *testing.T, url string) {
		if tags := registrytest.Tags(t, url, "nobody/home"); len(tags) != 0 {
			t.Errorf("tags of a missing repository: %v", tags)
		}
		if _, ok := registrytest.GetManifest(t, url, "nobody/home", "latest"); ok {
			t.Error("a manifest in a missing repository")
		}
	})
}

func TestMemoryPagesItsLists(t *testing.T) {
	t.Parallel()
	server := registrytest.InMemory(t, true)
	proxy := registrytest.NewProxy(t, server.URL())
	img := registrytest.NewImage(1, 1, 16)
	registrytest.Push(t, server.URL(), "app", "first", img)
	for i := range 120 {
		registrytest.Retag(t, server.URL(), "app", img.Digest, fmt.Sprint("v", i))
	}
	if tags := registrytest.Tags(t, proxy.URL(), "app"); len(tags) != 121 {
		t.Errorf("%d tags, want 121", len(tags))
	}
	if pages := proxy.Count("GET", "tags"); pages != 2 {
		t.Errorf("121 tags came in %d pages, want 2", pages)
	}
}

func TestReferrersSwitch(t *testing.T) {
	t.Parallel()
	for _, on := range []bool{true, false} {
		url := registrytest.InMemory(t, on).URL()
		img := registrytest.NewImage(1, 1, 16)
		signature := registrytest.NewArtifact(2, "application/vnd.example.signature", registrytest.WithSubject(img))
		registrytest.Push(t, url, "app", "v1", img)
		registrytest.Push(t, url, "app", "", signature)
		status, body := get(t, url+"/v2/app/referrers/"+img.Digest)
		if found := status == 200 && contains(body, signature.Digest); found != on {
			t.Errorf("referrers API on=%v answers %d %s", on, status, body)
		}
	}
}

func TestAbsence(t *testing.T) {
	t.Parallel()
	if registrytest.IsAbsent(errors.New("boom")) || registrytest.IsAbsent(nil) {
		t.Error("an error of another kind is absence")
	}
}
