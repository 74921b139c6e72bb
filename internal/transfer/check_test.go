package transfer_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"

	"github.com/google/go-cmp/cmp"

	"github.com/antipode-registry/antipode/internal/registry"
	"github.com/antipode-registry/antipode/internal/registrytest"
	"github.com/antipode-registry/antipode/internal/transfer"
)

// HasBlob makes a memory what Check can look at.
func (m *memory) HasBlob(_ context.Context, repository, digest string) (size int64, found bool, err error) {
	m.note("HEAD blob %s@%s", repository, short(digest))
	body, ok := m.blob(repository, digest)
	return int64(len(body)), ok, nil
}

// reader is a memory whose manifests and HEADs can be made to fail.
type reader struct {
	*memory
	onManifest func(reference string) error
	onHasBlob  func(digest string) error
}

func (r *reader) Manifest(ctx context.Context, repository, reference string) (registry.Manifest, error) {
	if r.onManifest != nil {
		if err := r.onManifest(reference); err != nil {
			return registry.Manifest{}, err
		}
	}
	return r.memory.Manifest(ctx, repository, reference)
}

func (r *reader) HasBlob(ctx context.Context, repository, digest string) (size int64, found bool, err error) {
	if r.onHasBlob != nil {
		if err := r.onHasBlob(digest); err != nil {
			return 0, false, err
		}
	}
	return r.memory.HasBlob(ctx, repository, digest)
}

// answered is what package registry makes of an answer.
func answered(status int, code string, reason error) error {
	return &registry.Error{Side: registry.Destination, Op: "read", Status: status, Code: code, Err: reason}
}

func check(t *testing.T, from transfer.Reader, img registrytest.Image, opts transfer.CheckOptions) transfer.Checked {
	t.Helper()
	checked, err := transfer.Check(t.Context(), from, "app", rootOf(img), opts)
	if err != nil {
		t.Fatal(err)
	}
	return checked
}

// family is an index in an index with two images, and what can be damaged in it.
type family struct {
	root, inner, left, right registrytest.Image
	layer                    string // of right
	bytes                    int64
}

func newFamily() family {
	f := family{left: registrytest.NewImage(1, 2, 100), right: registrytest.NewImage(2, 1, 200)}
	f.inner = registrytest.NewIndex(f.right)
	f.root = registrytest.NewIndex(f.left, f.inner)
	f.layer = f.right.Layers()[0]
	for _, img := range []registrytest.Image{f.root, f.inner, f.left, f.right} {
		f.bytes += int64(len(img.Manifest))
		for _, blob := range img.Blobs {
			f.bytes += int64(len(blob))
		}
	}
	return f
}

func TestCheckOfWhatIsRight(t *testing.T) {
	t.Parallel()
	f := newFamily()
	for _, deep := range []bool{false, true} {
		site := newMemory()
		site.push("app", f.root)
		got := check(t, site, f.root, transfer.CheckOptions{Deep: deep})
		want := transfer.Checked{Manifests: 4, Blobs: 5, Bytes: f.bytes}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("deep %v: %s", deep, diff)
		}
		asked := map[string]int{}
		for _, call := range site.calls() {
			asked[strings.Join(strings.Fields(call)[:2], " ")]++
		}
		cost := map[string]int{"GET manifest": 4, "HEAD blob": 5}
		if deep {
			cost = map[string]int{"GET manifest": 4, "GET blob": 5}
		}
		if diff := cmp.Diff(cost, asked); diff != "" {
			t.Errorf("deep %v: %s", deep, diff)
		}
	}
}

func TestCheckFindsDamage(t *testing.T) {
	t.Parallel()
	f := newFamily()
	above := []string{f.root.Digest, f.inner.Digest, f.right.Digest}
	layerType := "application/vnd.oci.image.layer.v1.tar"
	tests := map[string]struct {
		damage  func(m *memory)
		deep    bool
		want    transfer.Damage
		problem string
	}{
		"root gone": {
			damage: func(m *memory) { delete(m.manifests, "app@"+f.root.Digest) }, problem: "missing",
			want: transfer.Damage{Missing: true, Digest: f.root.Digest, MediaType: registrytest.OCIIndex},
		},
		"child gone": {
			damage: func(m *memory) { delete(m.manifests, "app@"+f.right.Digest) }, problem: "missing",
			want: transfer.Damage{
				Missing: true, Digest: f.right.Digest, MediaType: registrytest.OCIManifest, Parents: above[:2],
			},
		},
		"child replaced": {
			damage:  func(m *memory) { m.manifests["app@"+f.inner.Digest] = m.manifests["app@"+f.left.Digest] },
			problem: f.left.Digest,
			want:    transfer.Damage{Digest: f.inner.Digest, MediaType: registrytest.OCIIndex, Parents: above[:1]},
		},
		"layer gone": {
			damage: func(m *memory) { m.removeBlob(f.layer) }, problem: "missing",
			want: transfer.Damage{Missing: true, Digest: f.layer, MediaType: layerType, Parents: above},
		},
		"layer gone, deep": {
			damage: func(m *memory) { m.removeBlob(f.layer) }, problem: "missing", deep: true,
			want: transfer.Damage{Missing: true, Digest: f.layer, MediaType: layerType, Parents: above},
		},
		"layer cut": {
			damage: func(m *memory) { m.blobs["app@"+f.layer] = make([]byte, 199) }, problem: "199 bytes instead of 200",
			want: transfer.Damage{Digest: f.layer, MediaType: layerType, Parents: above},
		},
		"layer changed": {
			damage: func(m *memory) { m.blobs["app@"+f.layer] = make([]byte, 200) }, problem: "its 200 bytes", deep: true,
			want: transfer.Damage{Digest: f.layer, MediaType: layerType, Parents: above},
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			site := newMemory()
			site.push("app", f.root)
			test.damage(site)
			got := check(t, site, f.root, transfer.CheckOptions{Deep: test.deep})
			if len(got.Damages) != 1 || !strings.Contains(got.Damages[0].Problem, test.problem) {
				t.Fatalf("found %+v", got.Damages)
			}
			got.Damages[0].Problem = ""
			if diff := cmp.Diff(test.want, got.Damages[0]); diff != "" {
				t.Error(diff)
			}
			if got.Bytes >= f.bytes {
				t.Errorf("%d bytes are right", got.Bytes)
			}
		})
	}
}

func TestCheckNamesAllDamageInOrder(t *testing.T) {
	t.Parallel()
	f := newFamily()
	site := newMemory()
	site.push("app", f.root)
	site.removeBlob(f.layer)
	delete(site.manifests, "app@"+f.left.Digest)
	got := check(t, site, f.root, transfer.CheckOptions{})
	if len(got.Damages) != 2 || got.Damages[0].Digest != f.left.Digest || got.Damages[1].Digest != f.layer {
		t.Errorf("found %+v", got.Damages)
	}
	if got.Manifests != 4 || got.Blobs != 2 {
		t.Errorf("%d manifests and %d blobs; the blobs of a missing manifest are not known", got.Manifests, got.Blobs)
	}
}

// TestCheckTellsDamageFromTrouble: an answer that may have another cause is damage only if the registry is well
// otherwise, and what cannot be found out is an error.
func TestCheckTellsDamageFromTrouble(t *testing.T) {
	t.Parallel()
	img := registrytest.NewImage(1, 1, 100)
	failure := answered(500, "UNKNOWN", registry.ErrUnavailable)
	page := answered(200, "", registry.ErrMalformed)
	only := func(err error) func(string) error {
		return func(reference string) error {
			if reference == img.Digest {
				return err
			}
			return nil
		}
	}
	passing := func(err error) func(string) error {
		var once sync.Once
		return func(string) (result error) {
			once.Do(func() { result = err })
			return result
		}
	}
	always := func(err error) func(string) error { return func(string) error { return err } }
	gone := answered(404, "MANIFEST_UNKNOWN", registry.ErrNotFound)
	bare := answered(404, "", registry.ErrMalformed)
	silence := answered(0, "", registry.ErrUnavailable)
	gateway, login := answered(502, "", registry.ErrUnavailable), answered(401, "", registry.ErrUnauthorized)
	tests := map[string]struct {
		onManifest, onHasBlob func(string) error
		damaged               bool
		want                  error
	}{
		"wrong bytes":                 {onManifest: only(page), damaged: true},
		"page for everything":         {onManifest: always(page), want: registry.ErrMalformed},
		"cannot decode it":            {onManifest: only(failure), damaged: true},
		"cannot read anything":        {onManifest: always(failure), want: registry.ErrUnavailable},
		"could not read it once":      {onManifest: passing(failure)},
		"gateway's error":             {onManifest: only(gateway), want: registry.ErrUnavailable},
		"no answer":                   {onManifest: only(silence), want: registry.ErrUnavailable},
		"a stranger's 404":            {onManifest: only(bare), want: registry.ErrMalformed},
		"login required":              {onManifest: only(login), want: registry.ErrUnauthorized},
		"another error":               {onManifest: only(errTest), want: errTest},
		"blob, no answer":             {onHasBlob: always(silence), want: registry.ErrUnavailable},
		"blob, page":                  {onHasBlob: always(page), want: registry.ErrMalformed},
		"blob, denied by a stranger":  {onHasBlob: always(bare), want: registry.ErrMalformed},
		"manifest gone, blobs unread": {onManifest: only(gone), damaged: true},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			site := &reader{memory: newMemory(), onManifest: test.onManifest, onHasBlob: test.onHasBlob}
			site.push("app", img)
			got, err := transfer.Check(t.Context(), site, "app", rootOf(img), transfer.CheckOptions{})
			if !errors.Is(err, test.want) || len(got.Damages) > 0 != test.damaged {
				t.Errorf("found %+v, error %v", got.Damages, err)
			}
		})
	}
}

func TestCheckKeepsWhatItFoundBeforeAnError(t *testing.T) {
	t.Parallel()
	f := newFamily()
	site := &reader{memory: newMemory(), onHasBlob: func(string) error { return errTest }}
	site.push("app", f.root)
	delete(site.manifests, "app@"+f.left.Digest)
	got, err := transfer.Check(t.Context(), site, "app", rootOf(f.root), transfer.CheckOptions{})
	if !errors.Is(err, errTest) || !strings.Contains(err.Error(), f.layer) && !strings.Contains(err.Error(), "blob") {
		t.Errorf("error %v", err)
	}
	if len(got.Damages) != 1 || got.Damages[0].Digest != f.left.Digest {
		t.Errorf("found %+v", got.Damages)
	}
}

// TestCheckGoesOnBesidesTheUnsupported: one manifest that cannot be followed hides no damage elsewhere.
func TestCheckGoesOnBesidesTheUnsupported(t *testing.T) {
	t.Parallel()
	f := newFamily()
	odd := registrytest.NewManifest(registrytest.OCIManifest, []byte(`{"schemaVersion":2}`))
	root := registrytest.NewIndex(odd, f.inner)
	old := registrytest.NewManifest("application/vnd.docker.distribution.manifest.v1+prettyjws", []byte(`{}`))
	site := newMemory()
	site.push("app", root)
	site.removeBlob(f.layer)
	got, err := transfer.Check(t.Context(), site, "app", rootOf(root), transfer.CheckOptions{})
	if !errors.Is(err, transfer.ErrUnsupported) || !strings.Contains(err.Error(), odd.Digest) {
		t.Errorf("error %v", err)
	}
	if len(got.Damages) != 1 || got.Damages[0].Digest != f.layer {
		t.Errorf("found %+v", got.Damages)
	}
	_, err = transfer.Check(t.Context(), site, "app", rootOf(old), transfer.CheckOptions{})
	if !errors.Is(err, transfer.ErrUnsupported) {
		t.Errorf("schema 1: %v", err)
	}
	for _, bad := range []string{"", "latest", "sha256:12"} {
		_, err := transfer.Check(t.Context(), site, "app", registry.Tag{Digest: bad}, transfer.CheckOptions{})
		if err == nil {
			t.Errorf("%q is taken for a digest", bad)
		}
	}
}

// TestCheckSkipsWhatWasSeen: checks that share a memory look at each digest once.
func TestCheckSkipsWhatWasSeen(t *testing.T) {
	t.Parallel()
	f := newFamily()
	other := registrytest.NewIndex(f.inner, registrytest.NewImage(3, 1, 50))
	site := newMemory()
	site.push("app", f.root)
	site.push("app", other)
	seen := map[string]bool{}
	opts := transfer.CheckOptions{Seen: func(digest string) bool {
		before := seen[digest]
		seen[digest] = true
		return before
	}}
	first, second, third := check(t, site, f.root, opts), check(t, site, other, opts), check(t, site, other, opts)
	if first.Manifests != 4 || first.Blobs != 5 {
		t.Errorf("first: %+v", first)
	}
	if second.Manifests != 2 || second.Blobs != 2 {
		t.Errorf("second: %+v", second)
	}
	if third.Manifests != 0 || third.Blobs != 0 {
		t.Errorf("third: %+v", third)
	}
	looked := map[string]int{}
	for _, call := range site.calls() {
		if looked[call]++; looked[call] > 1 {
			t.Errorf("asked twice: %s", call)
		}
	}
}

func TestCheckTellsTheSubject(t *testing.T) {
	t.Parallel()
	img := registrytest.NewImage(1, 1, 10)
	signature := registrytest.NewArtifact(2, "application/vnd.example.signature", registrytest.WithSubject(img))
	site := newMemory()
	site.push("app", signature)
	if got := check(t, site, signature, transfer.CheckOptions{}); got.Subject != img.Digest || len(got.Damages) > 0 {
		t.Errorf("%+v; a subject is not a child", got)
	}
}

func TestCheckLeavesOutNonDistributableLayers(t *testing.T) {
	t.Parallel()
	config := []byte("{}")
	manifest := fmt.Appendf(nil, `{"schemaVersion":2,"mediaType":%q,"config":{"mediaType":"a/b","digest":%q,"size":2},`+
		`"layers":[{"mediaType":"application/vnd.oci.image.layer.nondistributable.v1.tar","digest":%q,"size":9,`+
		`"urls":["https://example.com/layer"]}]}`,
		registrytest.OCIManifest, registrytest.Digest(config), registrytest.Digest([]byte("elsewhere")))
	img := registrytest.NewManifest(registrytest.OCIManifest, manifest, config)
	site := newMemory()
	site.push("app", img)
	if got := check(t, site, img, transfer.CheckOptions{}); got.Blobs != 1 || len(got.Damages) > 0 {
		t.Errorf("%+v", got)
	}
}

func TestCheckIsBoundedAndStops(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		img := registrytest.NewImage(1, 40, 10)
		ctx, cancel := context.WithCancel(t.Context())
		var mu sync.Mutex
		now, all := 0, 0
		site := &reader{memory: newMemory()}
		site.onHasBlob = func(string) error {
			mu.Lock()
			now++
			all++
			mu.Unlock()
			<-ctx.Done()
			return ctx.Err()
		}
		site.push("app", img)
		done := make(chan error, 1)
		go func() {
			_, err := transfer.Check(ctx, site, "app", rootOf(img), transfer.CheckOptions{})
			done <- err
		}()
		synctest.Wait()
		mu.Lock()
		if now != 8 {
			t.Errorf("%d blobs are asked for at once", now)
		}
		mu.Unlock()
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) || all > 2*8 {
			t.Errorf("%v after %d", err, all)
		}
	})
}

func TestReferences(t *testing.T) {
	t.Parallel()
	f := newFamily()
	as := func(img registrytest.Image) registry.Manifest {
		return registry.Manifest{Descriptor: registry.Descriptor{MediaType: img.MediaType}, Bytes: img.Manifest}
	}
	children, subject, err := transfer.References(as(f.root))
	if err != nil || subject != "" || len(children) != 2 || children[0].Digest != f.left.Digest ||
		children[1].Digest != f.inner.Digest || children[1].MediaType != registrytest.OCIIndex {
		t.Errorf("%+v, %q, %v", children, subject, err)
	}
	signature := registrytest.NewArtifact(2, "application/vnd.example.signature", registrytest.WithSubject(f.root))
	children, subject, err = transfer.References(as(signature))
	if err != nil || subject != f.root.Digest || len(children) != 0 {
		t.Errorf("%+v, %q, %v", children, subject, err)
	}
	if _, _, err = transfer.References(registry.Manifest{Bytes: []byte("no")}); !errors.Is(err, transfer.ErrUnsupported) {
		t.Errorf("%v", err)
	}
}
