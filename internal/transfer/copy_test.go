package transfer_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/antipode-registry/antipode/internal/registry"
	"github.com/antipode-registry/antipode/internal/registrytest"
	"github.com/antipode-registry/antipode/internal/transfer"
)

// errTest is a failure that a test has caused.
var errTest = errors.New("caused by the test")

func TestOrderIsBlobsThenChildrenThenTags(t *testing.T) {
	t.Parallel()
	p := newPair()
	shared := registrytest.NewImage(1, 1, 10)
	inner := registrytest.NewIndex(shared, registrytest.NewImage(2, 1, 10))
	root := registrytest.NewIndex(shared, inner, registrytest.NewImage(3, 1, 10), shared)
	p.src.push("app", root, "latest")

	p.copy(t, "app", root, "latest", "v1")

	var blobs, manifests []string
	for _, call := range p.dst.calls() {
		if strings.HasPrefix(call, "PUT blob") {
			if len(manifests) > 0 {
				t.Errorf("%s after a manifest", call)
			}
			blobs = append(blobs, call)
			continue
		}
		manifests = append(manifests, call)
	}
	if len(blobs) != 6 || len(manifests) != 6 { // 3 images of 2 blobs; 3 images, the inner index, 2 tags
		t.Errorf("%d blobs and %d manifests were written, want 6 and 6:\n%v\n%v", len(blobs), len(manifests), blobs, manifests)
	}
	wantTail := []string{"PUT manifest app@" + short(inner.Digest), "PUT manifest app@latest", "PUT manifest app@v1"}
	if diff := cmp.Diff(wantTail, manifests[len(manifests)-3:]); diff != "" {
		t.Errorf("last manifests (-want +got)\n%s", diff)
	}
	if !p.index.knows(root.Digest, inner.Digest, shared.Digest, shared.Layers()[0]) {
		t.Error("something written is not recorded")
	}
}

// A root whose bytes are at hand is not asked for; bytes that are not the root's are no bytes.
func TestManifestAtHand(t *testing.T) {
	t.Parallel()
	root := registrytest.NewImage(1, 1, 10)
	for name, test := range map[string]struct {
		manifest []byte
		asked    bool
	}{
		"right": {root.Manifest, false}, "other": {registrytest.NewImage(2, 1, 10).Manifest, true}, "none": {nil, true},
		"longer": {append(slices.Clone(root.Manifest), '\n'), true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := newPair()
			p.src.push("app", root)
			req := request(p.src, "app", root, "v1")
			req.Manifest = test.manifest
			if _, err := p.copier.Copy(t.Context(), req); err != nil {
				t.Fatal(err)
			}
			calls := p.src.calls()
			if asked := slices.Contains(calls, "GET manifest app@"+short(root.Digest)); asked != test.asked {
				t.Errorf("the source was asked for %v", calls)
			}
			if got, err := p.dst.Manifest(t.Context(), "app", "v1"); err != nil || string(got.Bytes) != string(root.Manifest) {
				t.Errorf("%s, %v", got.Bytes, err)
			}
		})
	}
}

func TestKnownSubgraphIsNotLookedAt(t *testing.T) {
	t.Parallel()
	p := newPair()
	known, added := registrytest.NewImage(1, 2, 10), registrytest.NewImage(2, 1, 10)
	root := registrytest.NewIndex(known, added)
	p.src.push("app", root)
	p.copy(t, "app", known, "old")
	p.src.calls()
	p.dst.calls()

	result := p.copy(t, "app", root, "new")

	if got := p.src.calls(); len(got) != 4 || slices.Contains(got, "GET manifest app@"+short(known.Digest)) {
		t.Errorf("source was asked for %v, want the index, the added image and its 2 blobs", got)
	}
	if got := p.dst.calls(); len(got) != 4 {
		t.Errorf("destination was asked for %v, want 2 blobs, a child and a tag", got)
	}
	if result.BlobsCopied != 2 {
		t.Errorf("copied %d blobs, want 2", result.BlobsCopied)
	}
}

func TestRetagOfKnownRoot(t *testing.T) {
	t.Parallel()
	p := newPair()
	img := registrytest.NewImage(1, 2, 10)
	p.src.push("app", img)
	p.copy(t, "app", img)
	p.src.calls()
	p.dst.calls()

	p.copy(t, "app", img, "a", "b", "a")

	if got := p.src.calls(); len(got) != 0 {
		t.Errorf("source was asked for %v", got)
	}
	want := []string{"GET manifest app@" + short(img.Digest), "PUT manifest app@a", "PUT manifest app@b"}
	if diff := cmp.Diff(want, p.dst.calls()); diff != "" {
		t.Errorf("destination (-want +got)\n%s", diff)
	}

	p.copy(t, "app", img)
	if got := p.dst.calls(); len(got) != 0 {
		t.Errorf("a known digest without tags took %v", got)
	}
}

func TestPromotionNeedsNothingFromTheSource(t *testing.T) {
	t.Parallel()
	p := newPair()
	root := registrytest.NewIndex(registrytest.NewImage(1, 2, 10), registrytest.NewImage(2, 1, 10))
	p.src.push("dev/app", root)
	p.src.push("prod/app", root)
	p.copy(t, "dev/app", root, "latest")
	p.src.calls()

	result := p.copy(t, "prod/app", root, "latest")

	if got := p.src.calls(); len(got) != 0 {
		t.Errorf("source was asked for %v", got)
	}
	if result.BlobsMounted != 5 || result.BlobsCopied != 0 || result.Bytes != 0 {
		t.Errorf("result %+v, want 5 mounts", result)
	}
	if got := p.dst.tagged("prod/app", "latest"); got != root.Digest {
		t.Errorf("tag is on %q", got)
	}
}

func TestTagErrorsAreTheTagsOwn(t *testing.T) {
	t.Parallel()
	p := newPair()
	img := registrytest.NewImage(1, 1, 10)
	p.src.push("app", img)
	p.dst.onPutManifest = func(_ context.Context, _, reference string) error {
		if reference == "bad" {
			return errTest
		}
		return nil
	}

	result := p.copy(t, "app", img, "bad", "good")

	if len(result.TagErrors) != 1 || !errors.Is(result.TagErrors["bad"], errTest) {
		t.Errorf("tag errors %v, want one on bad", result.TagErrors)
	}
	if p.dst.tagged("app", "good") != img.Digest {
		t.Error("the sibling was not written")
	}
}

func TestUnavailableDestinationEndsTheTags(t *testing.T) {
	t.Parallel()
	p := newPair()
	img := registrytest.NewImage(1, 1, 10)
	p.src.push("app", img)
	tries := 0
	p.dst.onPutManifest = func(context.Context, string, string) error {
		tries++
		return &registry.Error{Op: "put manifest", Err: registry.ErrUnavailable}
	}
	tags := make([]string, 20)
	for i := range tags {
		tags[i] = fmt.Sprint("v", i)
	}

	result := p.copy(t, "app", img, tags...)

	if len(result.TagErrors) != 20 || tries != 3 {
		t.Errorf("%d tag errors after %d tries, want 20 after 3", len(result.TagErrors), tries)
	}
	for tag, err := range result.TagErrors {
		if !errors.Is(err, registry.ErrUnavailable) {
			t.Errorf("%s: %v", tag, err)
		}
	}
}

// What a guard refuses ends the copy: it is about the writer, and each further tag would be refused too.
func TestGuardStopsTheWrites(t *testing.T) {
	t.Parallel()
	img := registrytest.NewImage(1, 1, 10)
	for name, tt := range map[string]struct {
		root registrytest.Image
		tags []string
		at   int // which write is refused
	}{
		"a root":  {img, nil, 1},
		"a tag":   {img, []string{"a", "b", "c"}, 2},
		"a child": {registrytest.NewIndex(img), []string{"a", "b"}, 1},
	} {
		p := newPair()
		p.src.push("app", tt.root)
		asked := 0
		p.dst.onPutManifest = func(context.Context, string, string) error {
			if asked++; asked < tt.at {
				return nil
			}
			return &registry.Error{Op: "write manifest", Err: errors.Join(registry.ErrFenced, errTest)}
		}
		_, err := p.copier.Copy(t.Context(), request(p.src, "app", tt.root, tt.tags...))
		if !errors.Is(err, registry.ErrFenced) || !errors.Is(err, errTest) {
			t.Errorf("%s: error = %v, want the guard's", name, err)
		}
		if asked != tt.at {
			t.Errorf("%s: %d writes were tried, want %d", name, asked, tt.at)
		}
	}
}

func TestMissingContentNamesTheChain(t *testing.T) {
	t.Parallel()
	child := registrytest.NewImage(1, 1, 10)
	root := registrytest.NewIndex(child)
	layer := child.Layers()[0]
	tests := map[string]struct {
		remove func(src *memory)
		names  []string
	}{
		"child": {
			func(src *memory) { delete(src.manifests, "app@"+child.Digest) }, []string{root.Digest, child.Digest},
		},
		"blob": {
			func(src *memory) { src.removeBlob(layer) }, []string{root.Digest, child.Digest, layer},
		},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := newPair()
			p.src.push("app", root)
			tt.remove(p.src)
			_, err := p.copier.Copy(t.Context(), request(p.src, "app", root, "latest"))
			if !errors.Is(err, registry.ErrNotFound) {
				t.Fatalf("error = %v, want ErrNotFound", err)
			}
			rest := err.Error()
			for _, digest := range tt.names {
				var found bool
				if _, rest, found = strings.Cut(rest, digest); !found {
					t.Errorf("%v: does not name %s in order", err, digest)
				}
			}
			if p.dst.tagged("app", "latest") != "" || p.index.knows(root.Digest) {
				t.Error("the root was written or recorded")
			}
		})
	}
}

func TestForeignLayersAreSkippedAndSaidSo(t *testing.T) {
	t.Parallel()
	p := newPair()
	config := []byte("{}")
	here := registrytest.Bytes(1, 0, 10)
	img := handmade(t, registrytest.OCIManifest, map[string]any{
		"schemaVersion": 2, "mediaType": registrytest.OCIManifest,
		"config": describe("application/vnd.oci.image.config.v1+json", config),
		"layers": []any{
			foreign("application/vnd.oci.image.layer.nondistributable.v1.tar", "1"),
			foreign("application/vnd.docker.image.rootfs.foreign.diff.tar.gzip", "2"),
			describe("application/vnd.oci.image.layer.nondistributable.v1.tar", here), // no URL: it is here or nowhere
		},
	}, config, here)
	p.src.push("app", img)
	result := p.copy(t, "app", img, "latest")
	if result.BlobsCopied != 2 || len(result.Skipped) != 2 || !strings.Contains(result.Skipped[0], "nondistributable") {
		t.Errorf("result %+v, want 2 blobs copied and 2 layers skipped", result)
	}
}

func TestRefusesWhatCannotBeCopied(t *testing.T) {
	t.Parallel()
	deep := registrytest.NewImage(1, 0, 0)
	for range 17 {
		deep = registrytest.NewIndex(deep)
	}
	child := registrytest.NewImage(2, 1, 10)
	wrongSize := describe(child.MediaType, child.Manifest)
	wrongSize["size"] = len(child.Manifest) + 1
	config := []byte("{}")
	longConfig := describe("application/json", config)
	longConfig["size"] = 3
	tests := map[string]struct {
		img  registrytest.Image
		is   error
		says string
	}{
		"schema 1": {
			handmade(t, "application/vnd.docker.distribution.manifest.v1+prettyjws", map[string]any{"schemaVersion": 1}),
			transfer.ErrUnsupported, "schema 1",
		},
		"indexes too deep": {deep, transfer.ErrUnsupported, "more than 16 indexes"},
		"a child of another size": {
			with(handmade(t, registrytest.OCIIndex, map[string]any{"manifests": []any{wrongSize}}), child),
			registry.ErrMalformed, "its descriptor says",
		},
		"one digest of two sizes": {
			handmade(t, registrytest.OCIManifest, map[string]any{
				"config": describe("application/json", config), "layers": []any{longConfig},
			}, config), transfer.ErrUnsupported, "3 bytes and 2 bytes",
		},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := newPair()
			p.src.push("app", tt.img)
			_, err := p.copier.Copy(t.Context(), request(p.src, "app", tt.img, "latest"))
			if !errors.Is(err, tt.is) || !strings.Contains(err.Error(), tt.says) {
				t.Errorf("error = %v, want %q", err, tt.says)
			}
			if p.dst.tagged("app", "latest") != "" {
				t.Error("the tag was written")
			}
		})
	}
}

func TestProgressEndsAtTheTotal(t *testing.T) {
	t.Parallel()
	p := newPair()
	shared := registrytest.Bytes(9, 0, 1000)
	p.src.push("a", registrytest.NewImage(1, 0, 0, registrytest.WithLayers(shared)))
	img := registrytest.NewImage(2, 2, 500, registrytest.WithLayers(shared))
	p.src.push("b", img)
	p.copy(t, "a", registrytest.NewImage(1, 0, 0, registrytest.WithLayers(shared)))
	req := request(p.src, "b", img, "latest")
	var done, total int64
	req.Progress = func(d, t int64) { done, total = d, t }
	result, err := p.copier.Copy(t.Context(), req)
	if err != nil {
		t.Fatal(err)
	}
	if done != total || total <= 2000 || result.BlobsMounted != 1 || result.Bytes != total-1000 {
		t.Errorf("progress %d of %d, result %+v; want it complete, the mounted included", done, total, result)
	}
}

func TestMetrics(t *testing.T) {
	t.Parallel()
	p := newPair()
	reg := prometheus.NewRegistry()
	p.copier = transfer.New(p.dst, p.index, transfer.Options{Metrics: transfer.NewMetrics(reg)})
	img := registrytest.NewImage(1, 1, 1000)
	other := registrytest.NewImage(2, 0, 0, registrytest.WithLayers(registrytest.Bytes(1, 0, 1000)))
	p.src.push("a", img)
	p.src.push("a", other)
	p.src.push("b", img)
	p.copy(t, "a", img, "latest")
	p.copy(t, "a", other, "other") // its layer is known
	p.copy(t, "b", img, "latest")  // all mounted
	want := `
# HELP antipode_transfer_blobs_total Blobs by how they came to be on the site: ` + "`copied`" + `, ` + "`mounted`" + ` from another repository, ` + "`known`" + ` to be there, ` + "`waited`" + ` for another copy that brought them. All are there from the start, at 0.
# TYPE antipode_transfer_blobs_total counter
antipode_transfer_blobs_total{result="copied"} 3
antipode_transfer_blobs_total{result="known"} 1
antipode_transfer_blobs_total{result="mounted"} 2
antipode_transfer_blobs_total{result="waited"} 0
`
	if err := testutil.GatherAndCompare(reg, strings.NewReader(want), "antipode_transfer_blobs_total"); err != nil {
		t.Error(err)
	}
	if problems, err := testutil.GatherAndLint(reg); err != nil || len(problems) > 0 {
		t.Error(problems, err)
	}
}

// handmade encodes a manifest that registrytest does not make.
func handmade(t *testing.T, mediaType string, doc map[string]any, blobs ...[]byte) registrytest.Image {
	t.Helper()
	body, err := json.Marshal(doc)
	if err != nil {
		t.Fatal(err)
	}
	return registrytest.NewManifest(mediaType, body, blobs...)
}

func with(img registrytest.Image, children ...registrytest.Image) registrytest.Image {
	img.Children = children
	return img
}

func describe(mediaType string, body []byte) map[string]any {
	return map[string]any{"mediaType": mediaType, "digest": registrytest.Digest(body), "size": len(body)}
}

func foreign(mediaType, content string) map[string]any {
	desc := describe(mediaType, []byte(content))
	desc["urls"] = []string{"https://example.com/" + content}
	return desc
}
