package registry

import (
	"cmp"
	"crypto/sha256"
	_ "crypto/sha512" // manifests and blobs may be addressed by sha512
	"encoding/hex"
	"fmt"
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

// Tag is a tag and the manifest that it names. Size is the manifest's, in bytes. Manifest is its bytes where they were
// asked for (WithManifests), and else nil.
type Tag struct {
	Name      string
	Digest    string
	MediaType string
	Size      int64
	Manifest  []byte
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

// ValidRepository returns an error when name is not a repository name by the distribution specification v1.1
// ("Pulling manifests"), or is longer than 255 bytes.
func ValidRepository(name string) error {
	if len(name) > maxRepository {
		return fmt.Errorf("repository name of %d bytes: more than %d", len(name), maxRepository)
	}
	if !isRepository(name) {
		return fmt.Errorf("repository name %q: not lower-case letters and digits, joined by . _ __ - and /", name)
	}
	return nil
}

// ValidTag returns an error when name is not a tag by the distribution specification v1.1 ("Pulling manifests").
func ValidTag(name string) error {
	if len(name) > maxTag {
		return fmt.Errorf("tag of %d bytes: more than %d", len(name), maxTag)
	}
	if !isTag(name) {
		return fmt.Errorf("tag %q: not letters, digits, _ . and -, beginning with a letter, a digit or _", name)
	}
	return nil
}

// isRepository tells [a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*(\/[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*)*, the grammar of "Pulling
// manifests". It and isTag are asked for each request, where a regular expression takes longer than the rest of it.
func isRepository(name string) bool {
	for part := range strings.SplitSeq(name, "/") {
		if !isComponent(part) {
			return false
		}
	}
	return true
}

func isComponent(s string) bool {
	for {
		rest := strings.TrimLeftFunc(s, func(c rune) bool { return c >= 'a' && c <= 'z' || c >= '0' && c <= '9' })
		if len(rest) == len(s) {
			return false
		}
		if rest == "" {
			return true
		}
		switch {
		case rest[0] == '-':
			s = strings.TrimLeft(rest, "-")
		case strings.HasPrefix(rest, "__"):
			s = rest[2:]
		case rest[0] == '.' || rest[0] == '_':
			s = rest[1:]
		default:
			return false
		}
	}
}

// isTag tells [a-zA-Z0-9_][a-zA-Z0-9._-]*.
func isTag(name string) bool {
	for i, c := range []byte(name) {
		letter := c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '_'
		if !letter && (i == 0 || c != '.' && c != '-') {
			return false
		}
	}
	return name != ""
}

// isSHA256 tells the digests that nearly all are.
func isSHA256(s string) bool {
	encoded, ok := strings.CutPrefix(s, "sha256:")
	if !ok || len(encoded) != 2*sha256.Size {
		return false
	}
	for _, c := range []byte(encoded) {
		if (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return false
		}
	}
	return true
}

// sumOf is the content's sha256 digest.
func sumOf(content []byte) string {
	sum := sha256.Sum256(content)
	return "sha256:" + hex.EncodeToString(sum[:])
}

// validDigest accepts the two algorithms that the image specification registers.
func validDigest(s string) error {
	if isSHA256(s) {
		return nil
	}
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
