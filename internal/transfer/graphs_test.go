package transfer_test

import (
	"crypto/sha512"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/antipode-registry/antipode/internal/registry"
	"github.com/antipode-registry/antipode/internal/registrytest"
)

// TestGraphs copies what registries hold besides plain images.
func TestGraphs(t *testing.T) {
	t.Parallel()
	amd64, arm64 := registrytest.NewImage(1, 2, 1000), registrytest.NewImage(2, 2, 1000)
	multi := registrytest.NewIndex(amd64, arm64)
	shared := registrytest.Bytes(3, 0, 100)
	config := []byte("{}")
	layer := registrytest.Bytes(4, 0, 500)
	graphs := map[string]registrytest.Image{
		"multi":    multi,
		"list":     registrytest.NewIndex(amd64.Docker(), arm64.Docker()).Docker(),
		"nested":   registrytest.NewIndex(multi, registrytest.NewIndex(multi, registrytest.NewImage(5, 1, 10))),
		"artifact": registrytest.NewArtifact(1, "application/vnd.example.sbom"),
		"referrer": registrytest.NewArtifact(2, "application/vnd.example.sig", registrytest.WithSubject(multi)),
		"twice":    registrytest.NewImage(6, 0, 0, registrytest.WithLayers(shared, shared)),
		"untyped": handmade(t, registrytest.OCIManifest, map[string]any{
			"schemaVersion": 2, "config": describe("application/vnd.oci.image.config.v1+json", config),
			"layers": []any{describe("application/vnd.oci.image.layer.v1.tar", layer)},
		}, layer, config),
		"both": handmade(t, registrytest.OCIManifest, map[string]any{ // one blob as config and layer
			"schemaVersion": 2, "mediaType": registrytest.OCIManifest,
			"config": describe("application/vnd.oci.image.config.v1+json", config),
			"layers": []any{describe("application/vnd.oci.image.layer.v1.tar", config)},
		}, config),
	}
	eachRegistry(t, func(t *testing.T, _ string, s *site) {
		for tag, img := range graphs {
			s.push(t, "app", tag, img)
			result := s.copy(t, "app", img, tag)
			if tag == "referrer" && result.Subject != multi.Digest {
				t.Errorf("subject %q", result.Subject)
			}
		}
		registrytest.AssertEqual(t, s.source, s.destination, "app")
	})
}

// TestBuildKitCache copies an index of blobs. CNCF distribution 3 takes one only when it is told not to look at what an
// index lists; where it is not told, the error says so.
func TestBuildKitCache(t *testing.T) {
	t.Parallel()
	layer, config := registrytest.Bytes(4, 0, 500), []byte("{}")
	cache := handmade(t, registrytest.OCIIndex, map[string]any{
		"schemaVersion": 2, "mediaType": registrytest.OCIIndex, "manifests": []any{
			describe("application/vnd.oci.image.layer.v1.tar+gzip", layer),
			describe("application/vnd.buildkit.cacheconfig.v0", config),
		},
	}, layer, config)
	unchecked := registrytest.WithConfig(func(config map[string]any) {
		config["validation"] = map[string]any{"manifests": map[string]any{"indexes": map[string]any{"platforms": "none"}}}
	})
	for kind, destination := range map[string]string{
		"debian":       registrytest.Debian(t).URL(),
		"distribution": registrytest.Distribution(t, unchecked).URL(),
	} {
		s := newSite(t, registrytest.Debian(t).URL(), destination)
		s.push(t, "app", "cache", cache)
		s.copy(t, "app", cache, "cache")
		s.wantCounts(t, 3, 5)
		if err := registrytest.Equal(t.Context(), s.source, s.destination); err != nil {
			t.Errorf("%s: %v", kind, err)
		}
	}

	s := newSite(t, registrytest.Debian(t).URL(), registrytest.Distribution(t).URL())
	s.push(t, "app", "cache", cache)
	_, err := s.copier.Copy(t.Context(), request(s.from, "app", cache, "cache"))
	if !errors.Is(err, registry.ErrBlobUnknown) || !strings.Contains(err.Error(), "validation.manifests.indexes.platforms") {
		t.Errorf("error = %v, want one that says what to configure", err)
	}
}

func TestSHA512(t *testing.T) {
	t.Parallel()
	eachRegistry(t, func(t *testing.T, _ string, s *site) {
		config, layer := []byte("{}"), registrytest.Bytes(1, 0, 1000)
		digest := fmt.Sprintf("sha512:%x", sha512.Sum512(layer))
		desc := describe("application/vnd.oci.image.layer.v1.tar", layer)
		desc["digest"] = digest
		img := handmade(t, registrytest.OCIManifest, map[string]any{
			"schemaVersion": 2, "mediaType": registrytest.OCIManifest,
			"config": describe("application/vnd.oci.image.config.v1+json", config), "layers": []any{desc},
		}, config)
		img.Blobs[digest] = layer
		if err := registrytest.PushErr(t.Context(), s.source, "app", "latest", img); err != nil {
			t.Skipf("the source does not take sha512: %v", err)
		}
		if err := registrytest.PushErr(t.Context(), s.destination, "probe", "latest", img); err != nil {
			t.Skipf("the destination does not take sha512: %v", err)
		}
		s.copy(t, "app", img, "latest")
		registrytest.AssertEqual(t, s.source, s.destination, "app")
	})
}

// TestHealsARemovedBlob removes a blob at the destination behind the index. The registry in memory answers 500 to a
// manifest that refers to a missing blob, which says nothing.
func TestHealsARemovedBlob(t *testing.T) {
	t.Parallel()
	eachRegistry(t, func(t *testing.T, kind string, s *site) {
		if kind == "memory" {
			t.Skip("does not say what is missing")
		}
		base := registrytest.Bytes(7, 0, 1000)
		one := registrytest.NewImage(1, 1, 1000, registrytest.WithLayers(base))
		two := registrytest.NewImage(2, 1, 1000, registrytest.WithLayers(base))
		s.push(t, "app", "one", one)
		s.push(t, "app", "two", two)
		s.copy(t, "app", one, "one")
		client := registrytest.NewClient(s.destination)
		defer client.Close()
		if err := client.Delete(t.Context(), "app", "blobs/"+registrytest.Digest(base)); err != nil {
			t.Fatal(err)
		}
		s.copy(t, "app", two, "two")
		registrytest.AssertEqual(t, s.source, s.destination, "app")
	})
}

// TestHealsARemovedManifest removes the root, and an index's child, at the destination behind the index.
func TestHealsARemovedManifest(t *testing.T) {
	t.Parallel()
	eachRegistry(t, func(t *testing.T, kind string, s *site) {
		child := registrytest.NewImage(1, 1, 1000)
		img := registrytest.NewIndex(child, registrytest.NewImage(2, 1, 1000))
		s.push(t, "app", "one", img)
		s.copy(t, "app", img, "one")
		registrytest.DeleteDigest(t, s.destination, "app", img.Digest)
		s.copy(t, "app", img, "one")
		registrytest.AssertEqual(t, s.source, s.destination, "app")
		if kind == "memory" {
			return // does not let go of, and does not miss, a child
		}
		registrytest.DeleteDigest(t, s.destination, "app", child.Digest)
		registrytest.Retag(t, s.source, "app", img.Digest, "two")
		s.copy(t, "app", img, "two")
		registrytest.AssertEqual(t, s.source, s.destination, "app")
	})
}

func TestWrongBytesFromTheSource(t *testing.T) {
	t.Parallel()
	eachRegistry(t, func(t *testing.T, _ string, s *site) {
		img := registrytest.NewImage(1, 1, 1000)
		s.push(t, "app", "latest", img)
		layer := img.Layers()[0]
		s.src.Fault(func(r *http.Request) registrytest.Fault {
			if strings.HasSuffix(r.URL.Path, layer) {
				return registrytest.Fault{Status: http.StatusOK, Body: strings.Repeat("x", 1000)}
			}
			return registrytest.Fault{}
		})
		_, err := s.copier.Copy(t.Context(), request(s.from, "app", img, "latest"))
		if !errors.Is(err, registry.ErrMalformed) || !strings.Contains(err.Error(), layer) {
			t.Errorf("error = %v, want one about the digest of %s", err, layer)
		}
		if tags := registrytest.Tags(t, s.destination, "app"); len(tags) != 0 {
			t.Errorf("tags %v", tags)
		}
		if s.dst.Count("DELETE", "upload") == 0 {
			t.Errorf("the upload was not cancelled:%s", lines(s.dst))
		}
		s.src.Fault(nil)
		s.copy(t, "app", img, "latest")
		registrytest.AssertEqual(t, s.source, s.destination, "app")
	})
}

func TestVanishedAtTheSource(t *testing.T) {
	t.Parallel()
	eachRegistry(t, func(t *testing.T, _ string, s *site) {
		child := registrytest.NewImage(1, 1, 100)
		img := registrytest.NewIndex(child, registrytest.NewImage(2, 1, 100))
		s.push(t, "app", "latest", img)
		registrytest.DeleteDigest(t, s.source, "app", child.Digest)
		_, err := s.copier.Copy(t.Context(), request(s.from, "app", img, "latest"))
		if !errors.Is(err, registry.ErrNotFound) || !strings.Contains(err.Error(), img.Digest+" -> manifest "+child.Digest) {
			t.Errorf("error = %v, want ErrNotFound that names the chain", err)
		}
	})
}
