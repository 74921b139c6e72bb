package transfer

import (
	"encoding/json"
	"fmt"
	"mime"
	"slices"
	"strings"

	// Digests of these families are checked, whatever else the program links.
	_ "crypto/sha256"
	_ "crypto/sha512"

	"github.com/opencontainers/go-digest"

	"github.com/antipode-registry/antipode/internal/registry"
)

// Media types of manifests: OCI image-spec v1.1, Docker image manifest version 2 schemas 1 and 2, and the two artifact
// manifests that came before image-spec v1.1 and may still be stored.
const (
	typeOCIIndex       = "application/vnd.oci.image.index.v1+json"
	typeOCIManifest    = "application/vnd.oci.image.manifest.v1+json"
	typeOCIArtifact    = "application/vnd.oci.artifact.manifest.v1+json"
	typeORASArtifact   = "application/vnd.cncf.oras.artifact.manifest.v1+json"
	typeDockerList     = "application/vnd.docker.distribution.manifest.list.v2+json"
	typeDockerManifest = "application/vnd.docker.distribution.manifest.v2+json"
	typeDockerSchema1  = "application/vnd.docker.distribution.manifest.v1+json"
	typeDockerSigned   = "application/vnd.docker.distribution.manifest.v1+prettyjws"
)

var errSchema1 = fmt.Errorf("docker image manifest of schema 1: registries rewrite and no longer accept it, "+
	"push the image again as schema 2 or OCI: %w", ErrUnsupported)

// shape is which members of a manifest hold its references.
type shape int

const (
	shapeUnknown  shape = iota
	shapeIndex          // manifests
	shapeImage          // config, layers
	shapeArtifact       // blobs
	shapeSchema1        // fsLayers; refused
)

func shapeOf(mediaType string) shape {
	switch mediaType {
	case typeOCIIndex, typeDockerList:
		return shapeIndex
	case typeOCIManifest, typeDockerManifest:
		return shapeImage
	case typeOCIArtifact, typeORASArtifact:
		return shapeArtifact
	case typeDockerSchema1, typeDockerSigned:
		return shapeSchema1
	}
	return shapeUnknown
}

// document is what a manifest refers to.
type document struct {
	mediaType string // to write it under
	isIndex   bool
	manifests []registry.Descriptor // children that are manifests
	blobs     []registry.Descriptor // config, layers, artifact blobs, and children that are not manifests
	subject   string                // digest; "" = none. Not a child.
}

// descriptor mirrors the members of an OCI content descriptor that matter for copying.
type descriptor struct {
	MediaType string   `json:"mediaType"`
	Digest    string   `json:"digest"`
	Size      int64    `json:"size"`
	URLs      []string `json:"urls"`
}

func (d descriptor) registry() registry.Descriptor {
	return registry.Descriptor{MediaType: d.MediaType, Digest: d.Digest, Size: d.Size, URLs: d.URLs}
}

// body is the union of all manifests. Lists are pointers to tell absent from empty: an index without children has
// "manifests": [].
type body struct {
	SchemaVersion int             `json:"schemaVersion"`
	MediaType     string          `json:"mediaType"`
	Manifests     *[]descriptor   `json:"manifests"`
	Config        *descriptor     `json:"config"`
	Layers        *[]descriptor   `json:"layers"`
	Blobs         *[]descriptor   `json:"blobs"`
	Subject       *descriptor     `json:"subject"`
	FSLayers      json.RawMessage `json:"fsLayers"`
}

// parse reads a manifest. hints are the media types that others state for it, the most trustworthy first (the
// Content-Type it was served with, the parent's descriptor); the body's own comes next, and its shape last. Errors match
// ErrUnsupported.
func parse(data []byte, hints ...string) (document, error) {
	var b body
	if err := json.Unmarshal(data, &b); err != nil {
		return document{}, fmt.Errorf("manifest is not JSON of the expected form (%w): %w", err, ErrUnsupported)
	}
	form, mediaType, err := b.classify(hints)
	if err != nil {
		return document{}, err
	}
	doc := document{mediaType: mediaType, isIndex: form == shapeIndex}
	switch form {
	case shapeIndex:
		err = doc.addChildren(b.Manifests)
	case shapeImage:
		err = doc.addImage(b.Config, b.Layers)
	case shapeArtifact:
		err = doc.addBlobs(b.Blobs)
	case shapeSchema1:
		err = errSchema1
	case shapeUnknown:
		err = fmt.Errorf("manifest of media type %q: its references are not known, so a complete copy "+
			"cannot be promised: %w", mediaType, ErrUnsupported)
	}
	if err == nil && b.Subject != nil {
		doc.subject = b.Subject.Digest
	}
	return doc, err
}

// classify settles what kind of manifest this is. A body that reads as two kinds at once is refused: two registries, or
// two clients, would see two different graphs behind one digest (CVE-2021-41190).
func (b *body) classify(hints []string) (shape, string, error) {
	if b.SchemaVersion == 1 || len(b.FSLayers) > 0 {
		return shapeSchema1, typeDockerSchema1, nil
	}
	image := b.Config != nil || b.Layers != nil
	if b.Manifests != nil && (image || b.Blobs != nil) {
		return 0, "", fmt.Errorf("manifest has the members of an index and of an image: %w", ErrUnsupported)
	}
	form, mediaType := b.stated(hints)
	if own := shapeOf(b.MediaType); own != shapeUnknown {
		if form != own {
			return 0, "", fmt.Errorf("manifest says it is %q but is served as %q: %w", b.MediaType, mediaType, ErrUnsupported)
		}
		return own, b.MediaType, nil // of two names for one shape, the one that the digest covers
	}
	if form == shapeUnknown && mediaType == "" {
		return b.guess()
	}
	return form, mediaType, nil
}

// stated returns the first media type that is known; failing that, the first that claims to be something.
func (b *body) stated(hints []string) (shape, string) {
	claim := ""
	for _, hint := range append(slices.Clip(hints), b.MediaType) {
		mediaType := bareType(hint)
		if form := shapeOf(mediaType); form != shapeUnknown {
			return form, mediaType
		}
		if claim == "" && !generic(mediaType) {
			claim = mediaType
		}
	}
	return shapeUnknown, claim
}

// guess goes by the members that are there: image-spec v1.0 manifests may lack a mediaType, and then mean OCI.
func (b *body) guess() (shape, string, error) {
	switch {
	case b.Manifests != nil:
		return shapeIndex, typeOCIIndex, nil
	case b.Config != nil || b.Layers != nil:
		return shapeImage, typeOCIManifest, nil
	}
	return shapeUnknown, "", nil
}

// bareType strips the parameters of a media type, such as a charset that a proxy added.
func bareType(s string) string {
	if t, _, err := mime.ParseMediaType(s); err == nil {
		return t
	}
	return strings.TrimSpace(s)
}

// generic tells media types that say nothing about a manifest.
func generic(mediaType string) bool {
	switch mediaType {
	case "", "application/json", "application/octet-stream", "text/plain":
		return true
	}
	return false
}

// addChildren sorts the entries of an index. An entry whose media type is not a manifest's is a blob: BuildKit keeps
// caches as an index of layers.
func (d *document) addChildren(list *[]descriptor) error {
	if list == nil {
		return fmt.Errorf("index without \"manifests\": %w", ErrUnsupported)
	}
	for _, entry := range *list {
		if entry.MediaType != "" && shapeOf(bareType(entry.MediaType)) == shapeUnknown {
			d.blobs = append(d.blobs, entry.registry())
			continue
		}
		d.manifests = append(d.manifests, entry.registry())
	}
	return d.check()
}

func (d *document) addImage(config *descriptor, layers *[]descriptor) error {
	if config == nil {
		return fmt.Errorf("image manifest without \"config\": %w", ErrUnsupported)
	}
	d.blobs = append(d.blobs, config.registry())
	return d.addBlobs(layers)
}

func (d *document) addBlobs(list *[]descriptor) error {
	if list != nil {
		for _, entry := range *list {
			d.blobs = append(d.blobs, entry.registry())
		}
	}
	return d.check()
}

// check refuses references that cannot be followed.
func (d *document) check() error {
	for _, desc := range slices.Concat(d.manifests, d.blobs) {
		if err := checkDigest(desc.Digest); err != nil {
			return err
		}
		if desc.Size < 0 {
			return fmt.Errorf("%s has the size %d: %w", desc.Digest, desc.Size, ErrUnsupported)
		}
	}
	return nil
}

// checkDigest refuses digests that are malformed or of an algorithm that cannot be checked here.
func checkDigest(s string) error {
	if err := digest.Digest(s).Validate(); err != nil {
		return fmt.Errorf("digest %q: %w: %w", s, err, ErrUnsupported)
	}
	return nil
}

// verify compares bytes with the digest and the size that they were announced with; unknownSize is not compared.
func verify(data []byte, want string, size int64) error {
	d := digest.Digest(want)
	if got := d.Algorithm().FromBytes(data); got != d {
		return fmt.Errorf("%d bytes have the digest %s instead of %s: %w", len(data), got, d, registry.ErrMalformed)
	}
	if size != unknownSize && int64(len(data)) != size {
		return fmt.Errorf("%s has %d bytes, its descriptor says %d: %w", want, len(data), size, registry.ErrMalformed)
	}
	return nil
}

// elsewhere tells a layer that is marked as not to be distributed and says where it is to be had instead. One without
// URLs can be had from the registry alone, and is therefore copied like any other.
func elsewhere(desc registry.Descriptor) bool {
	marked := strings.Contains(desc.MediaType, ".nondistributable.") ||
		strings.HasPrefix(desc.MediaType, "application/vnd.docker.image.rootfs.foreign.diff.")
	return marked && len(desc.URLs) > 0
}
