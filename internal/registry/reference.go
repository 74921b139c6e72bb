package registry

import (
	"cmp"
	"crypto/sha256"
	_ "crypto/sha512" // manifests and blobs may be addressed by sha512
	"encoding/hex"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/opencontainers/go-digest"
)

// Descriptor points at content, as in the OCI image specification. Size is in bytes.
type Descriptor struct {
	MediaType    string
	Digest       string
	Size         int64
	ArtifactType string
	URLs         []string
	Annotations  map[string]string
}

// Tag is a tag and the manifest that it names. Size is the manifest's, in bytes.
type Tag struct {
	Name      string
	Digest    string
	MediaType string
	Size      int64
}

// Manifest is a manifest's exact bytes and what describes them.
type Manifest struct {
	Descriptor
	Bytes []byte
}

// Listing is all tags of a repository, sorted by name. Present is false when the registry says that it does not know
// the repository; a known repository may have no tag.
type Listing struct {
	Present bool
	Tags    []Tag
}

const (
	maxRepository = 255
	maxTag        = 128
)

// The grammars of "Pulling manifests" in the distribution specification v1.1.
var (
	repositoryPattern = regexp.MustCompile(
		`^[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*(/[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*)*$`)
	tagPattern = regexp.MustCompile(`^[a-zA-Z0-9_][a-zA-Z0-9._-]*$`)
)

// ValidRepository returns an error when name is not a repository name by the distribution specification v1.1
// ("Pulling manifests"), or is longer than 255 bytes.
func ValidRepository(name string) error {
	if len(name) > maxRepository {
		return fmt.Errorf("repository name of %d bytes: more than %d", len(name), maxRepository)
	}
	if !repositoryPattern.MatchString(name) {
		return fmt.Errorf("repository name %q: not lower-case letters and digits, joined by . _ __ - and /", name)
	}
	return nil
}

// ValidTag returns an error when name is not a tag by the distribution specification v1.1 ("Pulling manifests").
func ValidTag(name string) error {
	if len(name) > maxTag {
		return fmt.Errorf("tag of %d bytes: more than %d", len(name), maxTag)
	}
	if !tagPattern.MatchString(name) {
		return fmt.Errorf("tag %q: not letters, digits, _ . and -, beginning with a letter, a digit or _", name)
	}
	return nil
}

// validDigest accepts the two algorithms that the image specification registers.
func validDigest(s string) error {
	d, err := digest.Parse(s)
	if err != nil {
		return fmt.Errorf("digest %q: %w", s, err)
	}
	if a := d.Algorithm(); a != digest.SHA256 && a != digest.SHA512 {
		return fmt.Errorf("digest %q: only sha256 and sha512 are supported", s)
	}
	return nil
}

// isDigest tells a digest reference from a tag: a tag has no colon.
func isDigest(reference string) bool { return strings.Contains(reference, ":") }

// ValidReference returns an error when the reference is neither a tag nor a digest that this package can check.
func ValidReference(reference string) error {
	if isDigest(reference) {
		return validDigest(reference)
	}
	return ValidTag(reference)
}

// Fingerprint condenses a set of tags into "sha256:...", over their names and digests alone. The order of tags and
// repeated pairs make no difference.
func Fingerprint(tags []Tag) string {
	sorted := slices.SortedFunc(slices.Values(tags), func(a, b Tag) int {
		return cmp.Or(strings.Compare(a.Name, b.Name), strings.Compare(a.Digest, b.Digest))
	})
	sorted = slices.CompactFunc(sorted, func(a, b Tag) bool { return a.Name == b.Name && a.Digest == b.Digest })
	hash := sha256.New()
	for _, tag := range sorted {
		// Neither part can contain a space or a line break, so the pairs cannot run into each other.
		fmt.Fprintf(hash, "%s %s\n", tag.Name, tag.Digest)
	}
	return "sha256:" + hex.EncodeToString(hash.Sum(nil))
}
