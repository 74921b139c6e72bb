package transfer

import (
	"bytes"
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"testing"
)

// FuzzDocument: what is read of a manifest can be followed, stands in its bytes, and is the same however it was served
// where the bytes say what they are; all else is refused for good.
func FuzzDocument(f *testing.F) {
	const sha = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
	for _, seed := range []string{
		`{"schemaVersion":2,"mediaType":"` + typeOCIManifest + `","config":{"mediaType":"x","digest":"` + sha + `","size":2},"layers":[]}`,
		`{"schemaVersion":2,"manifests":[{"mediaType":"` + typeOCIIndex + `","digest":"` + sha + `","size":1}],"subject":{"digest":"` + sha + `"}}`,
		`{"manifests":[{"mediaType":"application/vnd.oci.image.layer.v1.tar+gzip","digest":"` + sha + `","size":9223372036854775807}]}`,
		`{"mediaType":"` + typeORASArtifact + `","blobs":[{"digest":"sha512:00","size":-1}]}`,
		`{"schemaVersion":1,"fsLayers":[]}`, `{"manifests":[],"config":{}}`, `{"manifests":null}`, `[]`, `{"mediaType":5}`,
		`{"manifests":` + strings.Repeat("[", 2000), `{"config":{"digest":"` + sha + `"},"layers":[{"digest":"` + sha + `","urls":["http://x"]}]}`,
	} {
		for _, hint := range []string{"", typeOCIIndex, typeDockerManifest + "; charset=utf-8", "text/html"} {
			f.Add([]byte(seed), hint)
		}
	}
	f.Fuzz(func(t *testing.T, data []byte, hint string) {
		doc, err := parse(data, hint)
		if err != nil {
			if !errors.Is(err, ErrUnsupported) {
				t.Fatalf("another attempt would not help: %v", err)
			}
			return
		}
		for _, desc := range slices.Concat(doc.manifests, doc.blobs) {
			if checkDigest(desc.Digest) != nil || desc.Size < 0 || !bytes.Contains(data, []byte(desc.Digest[7:])) {
				t.Fatalf("%+v", desc)
			}
		}
		if !doc.isIndex && len(doc.manifests) > 0 || shapeOf(doc.mediaType) == shapeUnknown {
			t.Fatalf("%+v", doc)
		}
		var own struct {
			MediaType string `json:"mediaType"`
		}
		if json.Unmarshal(data, &own) != nil || shapeOf(own.MediaType) == shapeUnknown {
			return
		}
		if other, err := parse(data, ""); err != nil || other.mediaType != doc.mediaType || len(other.manifests) != len(doc.manifests) {
			t.Fatalf("served as %q it is %+v, and else %+v (%v)", hint, doc, other, err)
		}
	})
}
