package registrytest

import (
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"maps"
	"math/rand/v2"
)

// Media types of what the makers make.
const (
	OCIManifest    = "application/vnd.oci.image.manifest.v1+json"
	OCIIndex       = "application/vnd.oci.image.index.v1+json"
	DockerManifest = "application/vnd.docker.distribution.manifest.v2+json"
	DockerList     = "application/vnd.docker.distribution.manifest.list.v2+json"

	ociConfig    = "application/vnd.oci.image.config.v1+json"
	ociLayer     = "application/vnd.oci.image.layer.v1.tar"
	ociEmpty     = "application/vnd.oci.empty.v1+json"
	dockerConfig = "application/vnd.docker.container.image.v1+json"
	dockerLayer  = "application/vnd.docker.image.rootfs.diff.tar.gzip"
)

// Image is a manifest with all that it needs: an image, an index or an artifact. It is a value: the makers and methods
// return new ones and change nothing. A test may fill one in by hand to get content that the makers do not make.
type Image struct {
	Manifest  []byte
	MediaType string
	Digest    string
	Blobs     map[string][]byte // by digest: config and layers; nil for an index
	Children  []Image           // the manifests that an index lists; pushed before it

	artifactType string
	document     document
}

// Index is an [Image] whose Children are manifests, indexes among them.
type Index = Image

// document covers the fields of all manifest kinds, in the order in which they are usually written.
type document struct {
	SchemaVersion int          `json:"schemaVersion"`
	MediaType     string       `json:"mediaType"`
	ArtifactType  string       `json:"artifactType,omitempty"`
	Config        *descriptor  `json:"config,omitempty"`
	Layers        []descriptor `json:"layers,omitempty"`
	Manifests     []descriptor `json:"manifests,omitempty"`
	Subject       *descriptor  `json:"subject,omitempty"`
}

type descriptor struct {
	MediaType    string    `json:"mediaType"`
	ArtifactType string    `json:"artifactType,omitempty"`
	Digest       string    `json:"digest"`
	Size         int64     `json:"size"`
	URLs         []string  `json:"urls,omitempty"`
	Platform     *platform `json:"platform,omitempty"`
}

type platform struct {
	Architecture string `json:"architecture"`
	OS           string `json:"os"`
}

// ContentOption changes what a maker makes.
type ContentOption func(*ingredients)

type ingredients struct {
	layers  [][]byte
	subject *descriptor
}

// WithLayers puts these layers into the image before its own: the way to share layers between images.
func WithLayers(layers ...[]byte) ContentOption {
	return func(in *ingredients) { in.layers = append(in.layers, layers...) }
}

// WithSubject makes the manifest a referrer of subject, which is not pushed along with it.
func WithSubject(subject Image) ContentOption {
	return func(in *ingredients) {
		in.subject = &descriptor{
			MediaType: subject.MediaType, Digest: subject.Digest, Size: int64(len(subject.Manifest)),
		}
	}
}

// NewImage makes an OCI image with a config and layers of layerBytes bytes each. The same arguments make the same
// image, and another seed shares no blob with it.
func NewImage(seed int64, layers, layerBytes int, opts ...ContentOption) Image {
	in := gather(opts)
	for i := range layers {
		in.layers = append(in.layers, Bytes(seed, i, layerBytes))
	}
	diffs := make([]string, len(in.layers))
	for i, layer := range in.layers {
		diffs[i] = Digest(layer)
	}
	config := encode(map[string]any{
		"architecture": "amd64",
		"os":           "linux",
		"config":       map[string]any{"Labels": map[string]string{"seed": fmt.Sprint(seed)}},
		"rootfs":       map[string]any{"type": "layers", "diff_ids": diffs},
	})
	doc := document{SchemaVersion: 2, MediaType: OCIManifest, Subject: in.subject}
	return assemble(doc, ociConfig, config, ociLayer, in.layers)
}

// NewArtifact makes an OCI artifact of the given type: an empty config and one layer, made from seed. With
// [WithSubject] it is a signature, an SBOM or an attestation of another manifest.
func NewArtifact(seed int64, artifactType string, opts ...ContentOption) Image {
	in := gather(opts)
	if len(in.layers) == 0 {
		in.layers = [][]byte{Bytes(seed, 0, 64)}
	}
	doc := document{SchemaVersion: 2, MediaType: OCIManifest, ArtifactType: artifactType, Subject: in.subject}
	return assemble(doc, ociEmpty, []byte("{}"), artifactType, in.layers)
}

// NewIndex makes an OCI index of children, each with a platform of its own. Indexes may hold indexes.
func NewIndex(children ...Image) Index {
	architectures := []string{"amd64", "arm64", "ppc64le", "s390x", "riscv64"}
	doc := document{SchemaVersion: 2, MediaType: OCIIndex}
	for i, child := range children {
		doc.Manifests = append(doc.Manifests, descriptor{
			MediaType: child.MediaType, ArtifactType: child.artifactType, Digest: child.Digest,
			Size:     int64(len(child.Manifest)),
			Platform: &platform{Architecture: architectures[i%len(architectures)], OS: "linux"},
		})
	}
	return seal(doc, nil, children)
}

// NewManifest wraps a manifest made by hand, bytes unchanged, with the blobs that it refers to.
func NewManifest(mediaType string, manifest []byte, blobs ...[]byte) Image {
	img := Image{Manifest: manifest, MediaType: mediaType, Digest: Digest(manifest), Blobs: map[string][]byte{}}
	for _, blob := range blobs {
		img.Blobs[Digest(blob)] = blob
	}
	return img
}

// Docker is the same image or index in Docker's schema 2 types. The children of an index stay as they are. An
// artifact has no Docker form, and what was made by NewManifest has no known one: both are returned unchanged.
func (img Image) Docker() Image {
	doc := img.document
	switch {
	case doc.MediaType == OCIIndex:
		doc.MediaType = DockerList
	case doc.MediaType == OCIManifest && doc.ArtifactType == "":
		doc.MediaType = DockerManifest
		config := *doc.Config
		config.MediaType = dockerConfig
		doc.Config = &config
		doc.Layers = append([]descriptor(nil), doc.Layers...)
		for i := range doc.Layers {
			doc.Layers[i].MediaType = dockerLayer
		}
	default:
		return img
	}
	return seal(doc, img.Blobs, img.Children)
}

// Layers are the digests of the image's layers in order.
func (img Image) Layers() []string {
	var digests []string
	for _, layer := range img.document.Layers {
		digests = append(digests, layer.Digest)
	}
	return digests
}

// Bytes makes size pseudo-random bytes; seed and n name them.
func Bytes(seed int64, n, size int) []byte {
	key := sha256.Sum256(fmt.Appendf(nil, "%d/%d", seed, n))
	body := make([]byte, size)
	_, _ = rand.NewChaCha8(key).Read(body) // never fails
	return body
}

// Digest is the sha256 digest of body as registries write it.
func Digest(body []byte) string { return fmt.Sprintf("sha256:%x", sha256.Sum256(body)) }

func gather(opts []ContentOption) ingredients {
	var in ingredients
	for _, opt := range opts {
		opt(&in)
	}
	return in
}

func assemble(doc document, configType string, config []byte, layerType string, layers [][]byte) Image {
	blobs := map[string][]byte{Digest(config): config}
	doc.Config = &descriptor{MediaType: configType, Digest: Digest(config), Size: int64(len(config))}
	for _, layer := range layers {
		blobs[Digest(layer)] = layer
		doc.Layers = append(doc.Layers, descriptor{
			MediaType: layerType, Digest: Digest(layer), Size: int64(len(layer)),
		})
	}
	return seal(doc, blobs, nil)
}

func seal(doc document, blobs map[string][]byte, children []Image) Image {
	manifest := encode(doc)
	return Image{
		Manifest: manifest, MediaType: doc.MediaType, Digest: Digest(manifest), Blobs: maps.Clone(blobs),
		Children: append([]Image(nil), children...), artifactType: doc.ArtifactType, document: doc,
	}
}

// encode panics because only values of this package's own types reach it.
func encode(v any) []byte {
	body, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		panic(fmt.Sprintf("registrytest: encode %T: %v", v, err))
	}
	return body
}
