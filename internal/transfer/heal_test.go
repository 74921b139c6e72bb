package transfer_test

import (
	"context"
	"errors"
	"testing"

	"github.com/antipode-registry/antipode/internal/registry"
	"github.com/antipode-registry/antipode/internal/registrytest"
)

func TestHealsWhenTheIndexLied(t *testing.T) {
	t.Parallel()
	img := registrytest.NewImage(1, 2, 10)
	layer := img.Layers()[0]
	tests := map[string]func(p *pair){
		"a blob is gone below a known root": func(p *pair) { p.dst.removeBlob(layer) },
		"a blob is gone, the root is not known": func(p *pair) {
			p.dst.removeBlob(layer)
			_ = p.index.Forget(context.Background(), "app", img.Digest)
		},
		"the root is gone": func(p *pair) {
			p.dst.removeBlob(layer)
			delete(p.dst.manifests, "app@"+img.Digest)
		},
		"the root cannot be read": func(p *pair) { p.dst.unreadable = map[string]bool{img.Digest: true} },
		"everything is gone":      func(p *pair) { clear(p.dst.blobs); clear(p.dst.manifests) },
	}
	for name, damage := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := newPair()
			p.src.push("app", img)
			p.dst.wants(img)
			p.copy(t, "app", img, "old")
			damage(p)

			p.copy(t, "app", img, "new")

			if _, ok := p.dst.blob("app", layer); !ok || p.dst.tagged("app", "new") != img.Digest {
				t.Error("not healed")
			}
			if !p.index.knows(img.Digest, layer) {
				t.Error("not recorded again")
			}
		})
	}
}

// TestRepairTakesNothingForGranted: neither what is recorded nor what the destination would mount.
func TestRepairTakesNothingForGranted(t *testing.T) {
	t.Parallel()
	p := newPair()
	img := registrytest.NewImage(1, 2, 10)
	layer := img.Layers()[0]
	p.src.push("app", img)
	p.copy(t, "app", img, "latest")
	p.dst.blobs["app@"+layer] = []byte("damaged")
	req := request(p.src, "app", img, "latest")
	req.Repair = true
	result, err := p.copier.Copy(t.Context(), req)
	if err != nil || result.BlobsCopied != 3 {
		t.Errorf("result %+v, %v; want all 3 blobs copied", result, err)
	}
	if body, _ := p.dst.blob("app", layer); registrytest.Digest(body) != layer {
		t.Error("the blob was not uploaded again")
	}
}

func TestComplaintAboutFreshContentIsTheError(t *testing.T) {
	t.Parallel()
	p := newPair()
	img := registrytest.NewImage(1, 1, 10)
	p.src.push("app", img)
	writes := 0
	p.dst.onPutManifest = func(context.Context, string, string) error {
		writes++
		return &registry.Error{Op: "put manifest", Err: registry.ErrBlobUnknown}
	}
	_, err := p.copier.Copy(t.Context(), request(p.src, "app", img, "latest"))
	if !errors.Is(err, registry.ErrBlobUnknown) || writes != 1 {
		t.Errorf("error = %v after %d writes, want ErrBlobUnknown after 1", err, writes)
	}
}
