package transfer

import (
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/antipode-registry/antipode/internal/registry"
)

const (
	digestA = "sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
	digestB = "sha256:bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb"
)

func TestParse(t *testing.T) {
	t.Parallel()
	const (
		image = `{"schemaVersion":2,"config":{"digest":"` + digestA + `","size":2},` +
			`"layers":[{"digest":"` + digestB + `","size":3}]}`
		list = `{"schemaVersion":2,"manifests":[{"mediaType":"` + typeOCIManifest + `","digest":"` + digestA + `","size":2}]}`
	)
	tests := []struct {
		name      string
		body      string
		hints     []string
		mediaType string
		manifests string
		blobs     string
		subject   string
	}{
		{
			name: "served as an OCI image", body: image, hints: []string{typeOCIManifest},
			mediaType: typeOCIManifest, blobs: "ab",
		},
		{
			name: "with parameters on the content type", body: image, hints: []string{typeOCIManifest + "; charset=utf-8"},
			mediaType: typeOCIManifest, blobs: "ab",
		},
		{
			name: "served as nothing, called an image by its parent", body: image,
			hints: []string{"application/octet-stream", typeDockerManifest}, mediaType: typeDockerManifest, blobs: "ab",
		},
		{name: "an image by its shape", body: image, hints: []string{"text/plain", ""}, mediaType: typeOCIManifest, blobs: "ab"},
		{name: "an index by its shape", body: list, hints: nil, mediaType: typeOCIIndex, manifests: "a"},
		{
			name: "by the body's own type", body: `{"mediaType":"` + typeDockerList + `",` + list[1:],
			hints: []string{"application/json"}, mediaType: typeDockerList, manifests: "a",
		},
		{
			name: "of two names for one shape the body's", body: `{"mediaType":"` + typeDockerManifest + `",` + image[1:],
			hints: []string{typeOCIManifest}, mediaType: typeDockerManifest, blobs: "ab",
		},
		{name: "an empty index", body: `{"manifests":[]}`, mediaType: typeOCIIndex},
		{
			name: "a BuildKit cache", hints: []string{typeOCIIndex}, mediaType: typeOCIIndex, blobs: "ab",
			body: `{"manifests":[{"mediaType":"application/vnd.oci.image.layer.v1.tar+gzip","digest":"` + digestA + `"},` +
				`{"mediaType":"application/vnd.buildkit.cacheconfig.v0","digest":"` + digestB + `"}]}`,
		},
		{
			name: "an artifact manifest", hints: []string{typeOCIArtifact}, mediaType: typeOCIArtifact, blobs: "a", subject: digestB,
			body: `{"blobs":[{"digest":"` + digestA + `"}],"subject":{"digest":"` + digestB + `"}}`,
		},
		{
			name: "a referrer without layers", hints: []string{typeOCIManifest}, mediaType: typeOCIManifest, blobs: "a",
			subject: digestB, body: `{"config":{"digest":"` + digestA + `"},"subject":{"digest":"` + digestB + `"}}`,
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			doc, err := parse([]byte(tt.body), tt.hints...)
			if err != nil {
				t.Fatal(err)
			}
			got := []string{doc.mediaType, initials(doc.manifests), initials(doc.blobs), doc.subject}
			want := []string{tt.mediaType, tt.manifests, tt.blobs, tt.subject}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("(-want +got)\n%s", diff)
			}
		})
	}
}

func TestParseRefuses(t *testing.T) {
	t.Parallel()
	tests := map[string]struct{ body, hint, says string }{
		"schema 1 by type":       {`{"schemaVersion":1}`, typeDockerSigned, "schema 1"},
		"schema 1 by body":       {`{"schemaVersion":1,"fsLayers":[]}`, "application/json", "schema 1"},
		"unknown type":           {`{"schemaVersion":2}`, "application/vnd.example.v1+json", "application/vnd.example.v1+json"},
		"unknown type of body":   {`{"mediaType":"application/vnd.example.v1+json"}`, "", "references are not known"},
		"nothing recognizable":   {`{"schemaVersion":2}`, "", "references are not known"},
		"not JSON":               {`<html>`, typeOCIManifest, "not JSON"},
		"index and image":        {`{"manifests":[],"layers":[]}`, typeOCIIndex, "index and of an image"},
		"served as another kind": {`{"mediaType":"` + typeOCIIndex + `","manifests":[]}`, typeOCIManifest, "served as"},
		"image without config":   {`{"layers":[]}`, typeOCIManifest, "config"},
		"index without children": {`{}`, typeOCIIndex, "manifests"},
		"digest of nothing":      {`{"config":{"digest":"sha256:abc"}}`, typeOCIManifest, "sha256:abc"},
		"digest by unknown rule": {`{"config":{"digest":"blake3:` + digestA[7:] + `"}}`, typeOCIManifest, "blake3"},
		"negative size":          {`{"config":{"digest":"` + digestA + `","size":-1}}`, typeOCIManifest, "-1"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, err := parse([]byte(tt.body), tt.hint)
			if !errors.Is(err, ErrUnsupported) || !strings.Contains(err.Error(), tt.says) {
				t.Errorf("error = %v, want ErrUnsupported that says %q", err, tt.says)
			}
		})
	}
}

// initials names descriptors by the first letter of their digests.
func initials(list []registry.Descriptor) string {
	var b strings.Builder
	for _, desc := range list {
		b.WriteByte(desc.Digest[len("sha256:")])
	}
	return b.String()
}
