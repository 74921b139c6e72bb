package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"io"

	"github.com/antipode-registry/antipode/internal/registry"
)

// Media types of the OCI image specification v1.1.
const (
	manifestType = "application/vnd.oci.image.manifest.v1+json"
	indexType    = "application/vnd.oci.image.index.v1+json"
	configType   = "application/vnd.oci.image.config.v1+json"
	layerType    = "application/vnd.oci.image.layer.v1.tar"
)

// image is a small one: a config and a layer.
type image struct {
	manifest      registry.Manifest
	config, layer blob
	architecture  string
}

type blob struct {
	registry.Descriptor
	bytes []byte
}

func newBlob(mediaType string, content []byte) blob {
	sum := sha256.Sum256(content)
	return blob{
		Descriptor: registry.Descriptor{
			MediaType: mediaType, Digest: "sha256:" + hex.EncodeToString(sum[:]), Size: int64(len(content)),
		},
		bytes: content,
	}
}

func newImage(text, architecture string) image {
	// An empty tar archive with a text in its padding: a layer that tools can unpack, different for each text.
	layer := make([]byte, 1024, 1024+512)
	layer = append(layer, append([]byte(text), make([]byte, 512-len(text))...)...)
	diff := newBlob(layerType, layer)
	config := newBlob(configType, mustJSON(map[string]any{
		"architecture": architecture, "os": "linux", "config": map[string]any{},
		"rootfs": map[string]any{"type": "layers", "diff_ids": []string{diff.Digest}},
	}))
	manifest := newBlob(manifestType, mustJSON(map[string]any{
		"schemaVersion": 2, "mediaType": manifestType, "config": reference(config.Descriptor),
		"layers": []any{reference(diff.Descriptor)},
	}))
	return image{
		manifest: registry.Manifest{Descriptor: manifest.Descriptor, Bytes: manifest.bytes}, config: config, layer: diff,
		architecture: architecture,
	}
}

func newIndex(children ...image) registry.Manifest {
	list := make([]any, 0, len(children))
	for _, child := range children {
		entry := reference(child.manifest.Descriptor)
		entry["platform"] = map[string]string{"os": "linux", "architecture": child.architecture}
		list = append(list, entry)
	}
	index := newBlob(indexType, mustJSON(map[string]any{"schemaVersion": 2, "mediaType": indexType, "manifests": list}))
	return registry.Manifest{Descriptor: index.Descriptor, Bytes: index.bytes}
}

func reference(d registry.Descriptor) map[string]any {
	return map[string]any{"mediaType": d.MediaType, "digest": d.Digest, "size": d.Size}
}

// push uploads the image's blobs and writes its manifest under a reference.
func push(ctx context.Context, to *registry.Registry, repository string, img image, reference string) error {
	for _, b := range []blob{img.config, img.layer} {
		content := func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(b.bytes)), nil }
		if _, err := to.PutBlob(ctx, repository, b.Descriptor, "", content); err != nil {
			return err
		}
	}
	return to.PutManifest(ctx, repository, reference, img.manifest)
}

func mustJSON(value any) []byte {
	text, err := json.Marshal(value)
	if err != nil {
		panic(err) // maps of strings and numbers
	}
	return text
}
