package transfer_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"runtime"
	"testing"
	"testing/iotest"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/antipode-registry/antipode/internal/registry"
	"github.com/antipode-registry/antipode/internal/registrytest"
	"github.com/antipode-registry/antipode/internal/transfer"
)

// breakingSource serves one blob, breaking each connection after so many bytes; it notes the offsets asked for.
type breakingSource struct {
	*memory
	digest   string
	body     []byte
	breaks   []int // bytes of the first connections; later ones are whole
	noRanges bool
	offsets  []int64
}

func (s *breakingSource) Blob(
	ctx context.Context, repository string, desc registry.Descriptor, offset int64,
) (io.ReadCloser, error) {
	if desc.Digest != s.digest {
		return s.memory.Blob(ctx, repository, desc, offset)
	}
	s.offsets = append(s.offsets, offset)
	if offset > 0 && s.noRanges {
		return nil, registry.ErrRangeIgnored
	}
	rest := s.body[offset:]
	if len(s.breaks) == 0 {
		return io.NopCloser(bytes.NewReader(rest)), nil
	}
	n := s.breaks[0]
	s.breaks = s.breaks[1:]
	broken := iotest.ErrReader(io.ErrUnexpectedEOF)
	return io.NopCloser(io.MultiReader(bytes.NewReader(rest[:min(n, len(rest))]), broken)), nil
}

func TestInterruptedDownloadGoesOnWhereItBroke(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		breaks   []int
		noRanges bool
		offsets  []int64
	}{
		"twice":                    {[]int{400, 300}, false, []int64{0, 400, 700}},
		"before the first byte":    {[]int{0}, false, []int64{0, 0}},
		"at the end":               {[]int{999}, false, []int64{0, 999}},
		"five times in vain":       {[]int{400, 0, 0, 0, 0}, false, []int64{0, 400, 400, 400, 400, 400}},
		"where ranges are ignored": {[]int{400, 700}, true, []int64{0, 400, 0, 700, 0}},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				p := newPair()
				img := registrytest.NewImage(1, 1, 1000)
				p.src.push("app", img)
				layer := img.Layers()[0]
				src := &breakingSource{
					memory: p.src, digest: layer, body: img.Blobs[layer], breaks: tt.breaks, noRanges: tt.noRanges,
				}
				result, err := p.copier.Copy(t.Context(), request(src, "app", img, "latest"))
				if err != nil {
					t.Fatal(err)
				}
				if diff := cmp.Diff(tt.offsets, src.offsets); diff != "" {
					t.Errorf("offsets (-want +got)\n%s", diff)
				}
				if body, _ := p.dst.blob("app", layer); !bytes.Equal(body, img.Blobs[layer]) {
					t.Error("other bytes arrived")
				}
				if want := int64(1000 + len(img.Manifest)); result.Bytes >= want {
					t.Errorf("%d bytes counted, the discarded ones too", result.Bytes)
				}
			})
		})
	}
}

func TestDownloadGivesUpWithoutProgress(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		p := newPair()
		img := registrytest.NewImage(1, 1, 1000)
		p.src.push("app", img)
		layer := img.Layers()[0]
		src := &breakingSource{
			memory: p.src, digest: layer, body: img.Blobs[layer], breaks: []int{400, 0, 0, 0, 0, 0, 0, 0},
		}
		began := time.Now()
		_, err := p.copier.Copy(t.Context(), request(src, "app", img, "latest"))
		if !errors.Is(err, io.ErrUnexpectedEOF) || len(src.offsets) != 6 {
			t.Errorf("error = %v after %v, want what broke it after 5 vain attempts", err, src.offsets)
		}
		if waited := time.Since(began); waited < 1500*time.Millisecond || waited > 10*time.Second {
			t.Errorf("gave up after %v", waited)
		}
		if _, ok := p.dst.blob("app", layer); ok {
			t.Error("part of a blob was committed")
		}
	})
}

func TestCancelEndsAPause(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		p := newPair()
		img := registrytest.NewImage(1, 1, 1000)
		p.src.push("app", img)
		src := &breakingSource{
			memory: p.src, digest: img.Layers()[0], body: img.Blobs[img.Layers()[0]], breaks: []int{1, 0, 0, 0, 0, 0, 0},
		}
		ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
		defer cancel()
		if _, err := p.copier.Copy(ctx, request(src, "app", img, "latest")); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("error = %v, want the deadline's", err)
		}
	})
}

// TestWrongBytesAreNeverWhole: the destination does not get the last byte, so it cannot commit even without checking.
func TestWrongBytesAreNeverWhole(t *testing.T) {
	t.Parallel()
	for name, change := range map[string]func([]byte) []byte{
		"one bit":  func(b []byte) []byte { b = bytes.Clone(b); b[10] ^= 1; return b },
		"last bit": func(b []byte) []byte { b = bytes.Clone(b); b[len(b)-1] ^= 1; return b },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := newPair()
			img := registrytest.NewImage(1, 1, 1000)
			p.src.push("app", img)
			layer := img.Layers()[0]
			p.src.blobs["app@"+layer] = change(img.Blobs[layer])
			_, err := p.copier.Copy(t.Context(), request(p.src, "app", img, "latest"))
			if !errors.Is(err, registry.ErrMalformed) {
				t.Errorf("error = %v, want that the digest does not match", err)
			}
			if _, ok := p.dst.blob("app", layer); ok || p.index.knows(layer) {
				t.Error("wrong bytes were committed or recorded")
			}
		})
	}
}

func TestLongerSourceIsCutAtTheDescriptorsSize(t *testing.T) {
	t.Parallel()
	p := newPair()
	img := registrytest.NewImage(1, 1, 1000)
	p.src.push("app", img)
	layer := img.Layers()[0]
	p.src.blobs["app@"+layer] = append(bytes.Clone(img.Blobs[layer]), "more"...)
	p.copy(t, "app", img, "latest")
	if body, _ := p.dst.blob("app", layer); registrytest.Digest(body) != layer {
		t.Error("what arrived does not have the digest")
	}
}

func TestEmptyBlobNeedsNoSource(t *testing.T) {
	t.Parallel()
	p := newPair()
	img := registrytest.NewImage(1, 0, 0, registrytest.WithLayers([]byte{}))
	p.src.push("app", img)
	p.src.removeBlob(registrytest.Digest(nil))
	p.copy(t, "app", img, "latest")
	if body, ok := p.dst.blob("app", registrytest.Digest(nil)); !ok || len(body) != 0 {
		t.Error("the empty layer is not there")
	}
}

// closingDestination gives an upload up after some bytes for a reason of its own.
type closingDestination struct{ *memory }

func (d closingDestination) PutBlob(
	_ context.Context, _ string, _ registry.Descriptor, _ string, content func() (io.ReadCloser, error),
) (bool, error) {
	r, err := content()
	if err != nil {
		return false, err
	}
	_, _ = r.Read(make([]byte, 1))
	_ = r.Close()
	if _, err := r.Read(make([]byte, 1)); err == nil {
		return false, errors.New("read after close")
	}
	return false, errTest
}

func TestErrorOfTheUploadIsKept(t *testing.T) {
	t.Parallel()
	p := newPair()
	img := registrytest.NewImage(1, 1, 1000)
	p.src.push("app", img)
	copier := transfer.New(closingDestination{p.dst}, p.index, transfer.Options{})
	if _, err := copier.Copy(t.Context(), request(p.src, "app", img, "latest")); !errors.Is(err, errTest) {
		t.Errorf("error = %v, want the destination's", err)
	}
}

// generator serves a blob of any size without holding it.
type generator struct {
	*memory
	digest string
	size   int64
}

func generated(size int64) io.Reader {
	return io.LimitReader(rand.NewChaCha8([32]byte{1}), size)
}

func (g generator) Blob(
	ctx context.Context, repository string, desc registry.Descriptor, offset int64,
) (io.ReadCloser, error) {
	if desc.Digest != g.digest {
		return g.memory.Blob(ctx, repository, desc, offset)
	}
	return io.NopCloser(generated(g.size)), nil
}

// sink is a destination that keeps no blob.
type sink struct{ *memory }

func (s sink) PutBlob(
	_ context.Context, _ string, _ registry.Descriptor, _ string, content func() (io.ReadCloser, error),
) (bool, error) {
	r, err := content()
	if err != nil {
		return false, err
	}
	defer func() { _ = r.Close() }()
	_, err = io.Copy(struct{ io.Writer }{io.Discard}, r)
	return false, err
}

// TestMemoryDoesNotDependOnTheBlob is not parallel: it measures the heap.
func TestMemoryDoesNotDependOnTheBlob(t *testing.T) {
	const size = 256 << 20
	h := sha256.New()
	if _, err := io.Copy(h, generated(size)); err != nil {
		t.Fatal(err)
	}
	digest := fmt.Sprintf("sha256:%x", h.Sum(nil))
	config := []byte("{}")
	img := handmade(t, registrytest.OCIManifest, map[string]any{
		"config": describe("application/json", config),
		"layers": []any{map[string]any{"mediaType": "application/vnd.oci.image.layer.v1.tar", "digest": digest, "size": size}},
	}, config)
	p := newPair()
	p.src.push("app", img)
	copier := transfer.New(sink{p.dst}, p.index, transfer.Options{})
	req := request(generator{p.src, digest, size}, "app", img, "latest")
	var before, now runtime.MemStats
	runtime.ReadMemStats(&before)
	peak, reads := uint64(0), 0
	req.Progress = func(int64, int64) {
		if reads++; reads%500 == 0 {
			runtime.ReadMemStats(&now)
			peak = max(peak, now.HeapAlloc)
		}
	}
	result, err := copier.Copy(t.Context(), req)
	if err != nil || result.Bytes != size+2 {
		t.Fatalf("result %+v, %v", result, err)
	}
	if peak > before.HeapAlloc+(16<<20) {
		t.Errorf("the heap grew from %d to %d bytes", before.HeapAlloc, peak)
	}
}
