package transfer_test

import (
	"encoding/json"
	"fmt"
	"testing"
	"testing/synctest"

	"github.com/antipode-registry/antipode/internal/registry"
	"github.com/antipode-registry/antipode/internal/registrytest"
	"github.com/antipode-registry/antipode/internal/transfer"
)

const (
	ociIndex    = "application/vnd.oci.image.index.v1+json"
	ociManifest = "application/vnd.oci.image.manifest.v1+json"
)

// forge builds what a hostile registry holds from a program: three bytes for each manifest, which refers to those before
// it, and how it lies about it.
type forge struct {
	*memory

	made []entry
}

type entry struct {
	MediaType string `json:"mediaType"`
	Digest    string `json:"digest"`
	Size      int64  `json:"size"`
}

// Lies, bits of the third byte of a manifest.
const (
	lieSize    = 1 << iota // its descriptor has another size
	lieHuge                // the blob in it is said to have the largest size there is
	lieType                // it is served, and described, as the other kind
	lieBytes               // its digest is answered with the bytes of the first
	lieMissing             // its digest is not there
	lieBlob                // the blob in it is not what its digest says
	lieTwice               // it is referred to twice
	lieClaim               // it says it is a layer
)

func (f *forge) run(program []byte) {
	for i := 0; i+3 <= len(program); i += 3 {
		f.step(program[i], program[i+1], program[i+2])
	}
}

// step makes one manifest. The first byte says what it is and of how many of those before it, the second which.
func (f *forge) step(kind, which, lies byte) {
	body, mediaType := f.image(lies), ociManifest
	if kind&1 == 1 && len(f.made) > 0 {
		body, mediaType = f.index(int(kind>>1), int(which), lies), ociIndex
	}
	text, _ := json.Marshal(body) // maps of what can be
	e := entry{MediaType: mediaType, Digest: registrytest.Digest(text), Size: int64(len(text))}
	if lies&lieType != 0 && mediaType == ociIndex {
		e.MediaType = ociManifest
	}
	switch {
	case lies&lieBytes != 0 && len(f.made) > 0:
		text = f.manifests["app@"+f.made[0].Digest].Bytes
	case lies&lieMissing != 0:
		text = nil
	}
	if text != nil {
		f.manifests["app@"+e.Digest] = registry.Manifest{
			Descriptor: registry.Descriptor{MediaType: e.MediaType, Digest: e.Digest, Size: int64(len(text))}, Bytes: text,
		}
	}
	if lies&lieSize != 0 {
		e.Size++
	}
	f.made = append(f.made, e)
}

func (f *forge) image(lies byte) map[string]any {
	content := fmt.Appendf(nil, "blob %d", len(f.made)/2) // some are shared
	digest := registrytest.Digest(content)
	size := int64(len(content))
	if lies&lieHuge != 0 {
		size = 1<<63 - 1
	}
	f.blobs["app@"+digest] = content
	if lies&lieBlob != 0 {
		f.blobs["app@"+digest] = []byte("blob ?")
	}
	of := entry{MediaType: "application/octet-stream", Digest: digest, Size: size}
	return map[string]any{"schemaVersion": 2, "mediaType": ociManifest, "config": of, "layers": []entry{of}, "serial": len(f.made)}
}

func (f *forge) index(count, first int, lies byte) map[string]any {
	var children []entry
	for i := range min(count+1, len(f.made)) {
		child := f.made[(first+i)%len(f.made)]
		if lies&lieClaim != 0 {
			child.MediaType = "application/vnd.oci.image.layer.v1.tar+gzip"
		}
		children = append(children, child)
		if lies&lieTwice != 0 {
			children = append(children, child)
		}
	}
	return map[string]any{"schemaVersion": 2, "mediaType": ociIndex, "manifests": children, "serial": len(f.made)}
}

// FuzzGraph copies what a hostile registry holds. A copy without an error left all of it at the destination, each part
// with the bytes that its digest says; one with an error wrote no tag; no part was asked for without end.
func FuzzGraph(f *testing.F) {
	f.Add([]byte{0, 0, 0, 0, 1, 0, 3, 0, 0})
	f.Add([]byte{0, 0, 0, 1, 0, 0, 1, 1, 0, 1, 2, 0, 1, 3, 0, 1, 4, 0, 1, 5, 0}) // one in another
	f.Add([]byte{0, 0, 0, 1, 0, lieBytes, 1, 1, lieBytes, 3, 0, 0})              // the same for each digest
	f.Add([]byte{0, 0, 0, 0, 0, lieSize, 3, 0, 0})
	f.Add([]byte{0, 0, lieBlob, 1, 0, lieType, 1, 0, lieClaim, 7, 0, 0})
	f.Add([]byte{0, 0, lieMissing, 1, 0, 0})
	var deep []byte
	for i := range 20 {
		deep = append(deep, 1, byte(max(i-1, 0)), 0)
	}
	f.Add(deep)
	f.Fuzz(func(t *testing.T, program []byte) {
		if len(program) > 3*64 {
			t.Skip("more of the same")
		}
		source, destination := &forge{memory: newMemory()}, newMemory()
		source.run(program)
		if len(source.made) == 0 {
			t.Skip("nothing to copy")
		}
		synctest.Test(t, func(t *testing.T) { copyForged(t, source, destination) })
	})
}

// copyForged is for a bubble, in which the pauses between attempts take no time.
func copyForged(t *testing.T, source *forge, destination *memory) {
	t.Helper()
	last := source.made[len(source.made)-1]
	root := registry.Tag{Digest: last.Digest, MediaType: last.MediaType, Size: last.Size}
	copier := transfer.New(destination, newIndex(), transfer.Options{})
	_, err := copier.Copy(t.Context(), transfer.Request{
		Source: source, SourceRepository: "app", Repository: "app", Root: root, Tags: []string{"v1"},
		Progress: func(done, total int64) {
			if done < 0 || total < done {
				t.Errorf("%d of %d bytes", done, total)
			}
		},
	})
	if asked := len(source.calls()); asked > 20*len(source.made)+20 {
		t.Errorf("%d requests for %d manifests", asked, len(source.made))
	}
	for name, body := range destination.blobs {
		if name != "app@"+registrytest.Digest(body) {
			t.Errorf("%s has the bytes %q", name, body)
		}
	}
	switch tagged := destination.tagged("app", "v1"); {
	case err == nil && tagged != root.Digest:
		t.Errorf("the tag is on %q", tagged)
	case err != nil && tagged != "":
		t.Errorf("the tag was written in spite of %v", err)
	case err == nil:
		whole(t, destination, root.Digest, 0)
	}
}

// whole walks the graph at the destination by what the bytes say, without the help of what is tested.
func whole(t *testing.T, m *memory, digest string, depth int) {
	t.Helper()
	got, ok := m.manifests["app@"+digest]
	if !ok || registrytest.Digest(got.Bytes) != digest || depth > 20 {
		t.Fatalf("manifest %s: there %t, depth %d, %q", digest, ok, depth, got.Bytes)
	}
	var body struct {
		Manifests, Layers []entry
		Config            *entry
	}
	if err := json.Unmarshal(got.Bytes, &body); err != nil {
		t.Fatal(err)
	}
	if body.Config != nil {
		body.Layers = append(body.Layers, *body.Config)
	}
	for _, child := range body.Manifests {
		if child.MediaType == ociIndex || child.MediaType == ociManifest {
			whole(t, m, child.Digest, depth+1)
		} else {
			body.Layers = append(body.Layers, child)
		}
	}
	for _, layer := range body.Layers {
		if content, ok := m.blob("app", layer.Digest); !ok || int64(len(content)) != layer.Size {
			t.Fatalf("blob %+v of %s: there %t, %d bytes", layer, digest, ok, len(content))
		}
	}
}
