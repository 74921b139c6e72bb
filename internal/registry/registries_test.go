package registry

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/antipode-registry/antipode/internal/registrytest"
)

const repo = "team/app"

func content(body []byte) func() (io.ReadCloser, error) {
	return func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(body)), nil }
}

func noContent(t *testing.T) func() (io.ReadCloser, error) {
	t.Helper()
	return func() (io.ReadCloser, error) {
		t.Error("content was asked for")
		return nil, errors.New("no content")
	}
}

func blobOf(body []byte) Descriptor {
	return Descriptor{Digest: registrytest.Digest(body), Size: int64(len(body))}
}

func manifestOf(img registrytest.Image) Manifest {
	return Manifest{
		Descriptor: Descriptor{MediaType: img.MediaType, Digest: img.Digest, Size: int64(len(img.Manifest))},
		Bytes:      img.Manifest,
	}
}

func TestListLargeRepository(t *testing.T) {
	t.Parallel()
	eachRegistry(t, func(t *testing.T, kind registryKind, url string) {
		img := registrytest.NewImage(1, 1, 64)
		registrytest.Push(t, url, repo, "t0000", img)
		want := []Tag{}
		var names []string
		for i := range 2500 {
			name := fmt.Sprintf("t%04d", i)
			names = append(names, name)
			want = append(want, Tag{Name: name, Digest: img.Digest, MediaType: img.MediaType, Size: int64(len(img.Manifest))})
		}
		plant(t, kind, url, repo, img, names[1:])
		proxy := registrytest.NewProxy(t, url)
		r := open(t, proxy.URL())

		got, err := r.List(t.Context(), repo)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(Listing{Present: true, Tags: want}, got); diff != "" {
			t.Error(diff)
		}
		if n := proxy.Count(http.MethodHead, "manifest"); n != 2500 {
			t.Errorf("%d HEAD requests for 2500 tags", n)
		}
		if n := len(proxy.Requests()); n > 2500+4 {
			t.Errorf("%d requests in all", n)
		}
	})
}

func TestListSizesAroundAPage(t *testing.T) {
	t.Parallel()
	eachRegistry(t, func(t *testing.T, kind registryKind, url string) {
		img := registrytest.NewImage(1, 1, 64)
		registrytest.Push(t, url, repo, "first", img)
		r := open(t, url)
		have := 1
		for _, size := range []int{998, 999, 1000, 1001, 1999, 2000} {
			var more []string
			for ; have < size; have++ {
				more = append(more, fmt.Sprintf("v%05d", have))
			}
			plant(t, kind, url, repo, img, more)
			names, present, err := r.TagNames(t.Context(), repo)
			if err != nil || !present || len(names) != size || !slices.IsSorted(names) {
				t.Errorf("%d tags: got %d, %t, %v", size, len(names), present, err)
			}
		}
	})
}

func TestAbsentRepositoryAndTag(t *testing.T) {
	t.Parallel()
	eachRegistry(t, func(t *testing.T, _ registryKind, url string) {
		registrytest.Push(t, url, repo, "v1", registrytest.NewImage(1, 1, 64))
		r := open(t, url)
		listing, err := r.List(t.Context(), "team/none")
		if err != nil || listing.Present || listing.Tags != nil {
			t.Errorf("absent repository: %+v, %v", listing, err)
		}
		found, absent, err := r.Resolve(t.Context(), repo, []string{"v2", "v1", "v1"})
		if err != nil || len(found) != 1 || !slices.Equal(absent, []string{"v2"}) {
			t.Errorf("resolve: %v, %v, %v", found, absent, err)
		}
		found, absent, err = r.Resolve(t.Context(), "team/none", []string{"v1"})
		if err != nil || len(found) != 0 || !slices.Equal(absent, []string{"v1"}) {
			t.Errorf("resolve in absent repository: %v, %v, %v", found, absent, err)
		}
		_, err = r.Manifest(t.Context(), repo, "v2")
		if !errors.Is(err, ErrNotFound) {
			t.Errorf("manifest: %v", err)
		}
		gone := Descriptor{Digest: registrytest.Digest([]byte("gone")), Size: 4}
		if _, err := r.Blob(t.Context(), repo, gone, 0); !errors.Is(err, ErrNotFound) {
			t.Errorf("blob: %v", err)
		}
	})
}

func TestPing(t *testing.T) {
	t.Parallel()
	eachRegistry(t, func(t *testing.T, _ registryKind, url string) {
		if err := open(t, url).Ping(t.Context()); err != nil {
			t.Error(err)
		}
	})
}

func TestRepositories(t *testing.T) {
	t.Parallel()
	eachRegistry(t, func(t *testing.T, _ registryKind, url string) {
		img := registrytest.NewImage(1, 1, 64)
		want := map[string]bool{}
		for i := range 20 {
			name := fmt.Sprintf("team/r%03d", i)
			want[name] = true
			registrytest.Push(t, url, name, "v1", img)
		}
		got := map[string]bool{}
		for name, err := range open(t, url).Repositories(t.Context()) {
			if err != nil {
				t.Fatal(err)
			}
			got[name] = true
		}
		if !maps.Equal(want, got) {
			t.Error(cmp.Diff(want, got))
		}
	})
}

func TestManifestRoundTrip(t *testing.T) {
	t.Parallel()
	eachRegistry(t, func(t *testing.T, kind registryKind, url string) {
		r := open(t, url)
		img := registrytest.NewImage(1, 2, 4096)
		for _, img := range []registrytest.Image{img, img.Docker()} {
			err := r.PutManifest(t.Context(), repo, "v1", manifestOf(img))
			if kind.saysUnknown && !errors.Is(err, ErrBlobUnknown) {
				t.Errorf("manifest without its blobs: %v", err)
			}
		}
		for _, body := range img.Blobs {
			if mounted, err := r.PutBlob(t.Context(), repo, blobOf(body), "", content(body)); mounted || err != nil {
				t.Fatalf("%t, %v", mounted, err)
			}
		}
		if err := r.PutManifest(t.Context(), repo, img.Digest, manifestOf(img)); err != nil {
			t.Fatal(err)
		}
		if err := r.PutManifest(t.Context(), repo, "v1", manifestOf(img)); err != nil {
			t.Fatal(err)
		}
		index := registrytest.NewIndex(img)
		if err := r.PutManifest(t.Context(), repo, "multi", manifestOf(index)); err != nil {
			t.Fatal(err)
		}
		for reference, want := range map[string]registrytest.Image{"v1": img, img.Digest: img, "multi": index} {
			got, err := r.Manifest(t.Context(), repo, reference)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(manifestOf(want), got); diff != "" {
				t.Error(reference, diff)
			}
		}
		missing := registrytest.NewIndex(registrytest.NewImage(77, 1, 10))
		err := r.PutManifest(t.Context(), repo, "broken", manifestOf(missing))
		if kind.saysUnknown && !errors.Is(err, ErrBlobUnknown) {
			t.Errorf("index without its child: %v", err)
		}
	})
}

func TestDockerManifestIsSeenAsSuch(t *testing.T) {
	t.Parallel()
	eachRegistry(t, func(t *testing.T, _ registryKind, url string) {
		child := registrytest.NewImage(1, 1, 64).Docker()
		list := registrytest.NewIndex(child).Docker()
		registrytest.Push(t, url, repo, "list", list)
		registrytest.Push(t, url, repo, "image", child)
		listing, err := open(t, url).List(t.Context(), repo)
		if err != nil {
			t.Fatal(err)
		}
		want := []Tag{
			{Name: "image", Digest: child.Digest, MediaType: registrytest.DockerManifest, Size: int64(len(child.Manifest))},
			{Name: "list", Digest: list.Digest, MediaType: registrytest.DockerList, Size: int64(len(list.Manifest))},
		}
		if diff := cmp.Diff(want, listing.Tags); diff != "" {
			t.Error(diff)
		}
	})
}

func TestBlobRead(t *testing.T) {
	t.Parallel()
	eachRegistry(t, func(t *testing.T, _ registryKind, url string) {
		body := registrytest.Bytes(1, 0, 300_000)
		img := registrytest.NewImage(1, 0, 0, registrytest.WithLayers(body))
		registrytest.Push(t, url, repo, "v1", img)
		r := open(t, url)
		for _, offset := range []int64{0, 1, 150_000, 299_999} {
			reader, err := r.Blob(t.Context(), repo, blobOf(body), offset)
			if err != nil {
				t.Fatalf("offset %d: %v", offset, err)
			}
			got, err := io.ReadAll(reader)
			if err != nil || !bytes.Equal(got, body[offset:]) {
				t.Errorf("offset %d: %d bytes, %v", offset, len(got), err)
			}
			if err := reader.Close(); err != nil {
				t.Error(err)
			}
		}
		wrong := blobOf(body)
		wrong.Size--
		if _, err := r.Blob(t.Context(), repo, wrong, 0); !errors.Is(err, ErrMalformed) {
			t.Errorf("wrong size: %v", err)
		}
	})
}

func TestReferrers(t *testing.T) {
	t.Parallel()
	url := registrytest.InMemory(t, true).URL()
	img := registrytest.NewImage(1, 1, 64)
	registrytest.Push(t, url, repo, "v1", img)
	r := open(t, url)
	list, supported, err := r.Referrers(t.Context(), repo, img.Digest)
	if err != nil || !supported || len(list) != 0 {
		t.Errorf("none: %v, %t, %v", list, supported, err)
	}
	want := map[string]string{}
	for i := range 3 {
		artifact := registrytest.NewArtifact(int64(i), "application/x.signature", registrytest.WithSubject(img))
		registrytest.Push(t, url, repo, "", artifact)
		want[artifact.Digest] = "application/x.signature"
	}
	list, supported, err = r.Referrers(t.Context(), repo, img.Digest)
	if err != nil || !supported {
		t.Fatalf("%t, %v", supported, err)
	}
	got := map[string]string{}
	for _, one := range list {
		got[one.Digest] = one.ArtifactType
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	for name, without := range map[string]string{
		"distribution": registrytest.Distribution(t).URL(),
		"debian":       registrytest.Debian(t).URL(),
		"memory":       registrytest.InMemory(t, false).URL(),
	} {
		registrytest.Push(t, without, repo, "v1", img)
		list, supported, err := open(t, without).Referrers(t.Context(), repo, img.Digest)
		if err != nil || supported || len(list) != 0 {
			t.Errorf("%s: %v, %t, %v", name, list, supported, err)
		}
	}
}
