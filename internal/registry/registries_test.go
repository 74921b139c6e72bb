package registry

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"slices"
	"strings"
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
			want = append(want, Tag{name, img.Digest, img.MediaType, int64(len(img.Manifest))})
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
			{"image", child.Digest, registrytest.DockerManifest, int64(len(child.Manifest))},
			{"list", list.Digest, registrytest.DockerList, int64(len(list.Manifest))},
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

func TestMount(t *testing.T) {
	t.Parallel()
	eachRegistry(t, func(t *testing.T, kind registryKind, url string) {
		body := registrytest.Bytes(1, 0, 5000)
		proxy := registrytest.NewProxy(t, url)
		r := open(t, proxy.URL())
		if _, err := r.PutBlob(t.Context(), "team/first", blobOf(body), "", content(body)); err != nil {
			t.Fatal(err)
		}
		proxy.Reset()
		for _, from := range []string{"team/first", "team/second"} {
			mounted, err := r.PutBlob(t.Context(), "team/second", blobOf(body), from, noContent(t))
			if err != nil || !mounted {
				t.Errorf("from %s: %t, %v", from, mounted, err)
			}
		}
		if n := len(proxy.Requests()); n != 2 {
			t.Errorf("two mounts took %d requests", n)
		}
		proxy.Reset()
		other := registrytest.Bytes(2, 0, 5000)
		mounted, err := r.PutBlob(t.Context(), "team/second", blobOf(other), "team/first", content(other))
		if err != nil || mounted {
			t.Errorf("blob that is not there: %t, %v", mounted, err)
		}
		limit := 2
		if !kind.mountsOrOpens {
			limit = 3
		}
		if n := len(proxy.Requests()); n != limit {
			t.Errorf("a refused mount took %d requests: %+v", n, proxy.Requests())
		}
		reader, err := r.Blob(t.Context(), "team/second", blobOf(other), 0)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = reader.Close() }()
		if got, err := io.ReadAll(reader); err != nil || !bytes.Equal(got, other) {
			t.Errorf("read back %d bytes, %v", len(got), err)
		}
	})
}

func TestPutBlobSizes(t *testing.T) {
	t.Parallel()
	eachRegistry(t, func(t *testing.T, _ registryKind, url string) {
		r := open(t, url)
		for _, size := range []int{0, 1, askFirst - 1, askFirst, heldUpload + askFirst} {
			body := registrytest.Bytes(int64(size), 0, size)
			if _, err := r.PutBlob(t.Context(), repo, blobOf(body), "", content(body)); err != nil {
				t.Errorf("%d bytes: %v", size, err)
			}
		}
		body := []byte("not what the digest says")
		desc := blobOf([]byte("NOT WHAT THE DIGEST SAYS"))
		if _, err := r.PutBlob(t.Context(), repo, desc, "", content(body)); err == nil {
			t.Error("a blob with another digest was taken")
		}
	})
}

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

// endless is content that never ends by itself; it tells when it has begun and when it was closed.
type endless struct {
	began  chan struct{}
	closed chan struct{}
}

func (e *endless) Read(p []byte) (int, error) {
	select {
	case e.began <- struct{}{}:
	default:
	}
	return len(p), nil
}

func (e *endless) Close() error {
	close(e.closed)
	return nil
}

func TestCancelledUploadIsDropped(t *testing.T) {
	t.Parallel()
	eachRegistry(t, func(t *testing.T, _ registryKind, url string) {
		proxy := registrytest.NewProxy(t, url)
		r := open(t, proxy.URL())
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		body := &endless{began: make(chan struct{}), closed: make(chan struct{})}
		go func() {
			<-body.began
			cancel()
		}()
		desc := Descriptor{Digest: registrytest.Digest(nil), Size: 1 << 40}
		_, err := r.PutBlob(ctx, repo, desc, "", func() (io.ReadCloser, error) { return body, nil })
		if !errors.Is(err, context.Canceled) {
			t.Errorf("error %v", err)
		}
		<-body.closed
		assertDropped(t, proxy)
	})
}

func TestFailingContentDropsUpload(t *testing.T) {
	t.Parallel()
	eachRegistry(t, func(t *testing.T, _ registryKind, url string) {
		proxy := registrytest.NewProxy(t, url)
		r := open(t, proxy.URL(), func(cfg *Config) { cfg.Side = Destination })
		fromSource := &Error{Side: Source, Host: "elsewhere", Op: "read blob", Err: ErrUnavailable}
		desc := Descriptor{Digest: registrytest.Digest(nil), Size: 100}
		for _, source := range []func() (io.ReadCloser, error){
			func() (io.ReadCloser, error) { return nil, fromSource },
			func() (io.ReadCloser, error) {
				return io.NopCloser(io.MultiReader(strings.NewReader("some"), failing{fromSource})), nil
			},
		} {
			proxy.Reset()
			_, err := r.PutBlob(t.Context(), repo, desc, "", source)
			var named *Error
			if !errors.As(err, &named) || named.Side != Source {
				t.Errorf("the source's failure is reported as %v", err)
			}
			assertDropped(t, proxy)
		}
		for _, length := range []int{99, 101} {
			_, err := r.PutBlob(t.Context(), repo, desc, "", content(make([]byte, length)))
			if err == nil || errors.Is(err, ErrUnavailable) {
				t.Errorf("content of %d bytes for 100: %v", length, err)
			}
		}
	})
}

type failing struct{ err error }

func (f failing) Read([]byte) (int, error) { return 0, f.err }

// assertDropped checks that the upload that was opened was deleted.
func assertDropped(t *testing.T, proxy *registrytest.Proxy) {
	t.Helper()
	var put, dropped string
	for _, req := range proxy.Requests() {
		if req.Kind != "upload" {
			continue
		}
		switch req.Method {
		case http.MethodPut:
			put = req.Path
		case http.MethodDelete:
			dropped = req.Path
		}
	}
	if dropped == "" || (put != "" && put != dropped) {
		t.Errorf("upload %q was not dropped: %+v", put, proxy.Requests())
	}
}
