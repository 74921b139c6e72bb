package registrytest

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
)

// AssertEqual fails the test unless the two registries hold the same; see [Equal].
func AssertEqual(t testing.TB, sourceURL, destinationURL string, repositories ...string) {
	t.Helper()
	if err := Equal(t.Context(), sourceURL, destinationURL, repositories...); err != nil {
		t.Errorf("%s and %s differ:\n%v", sourceURL, destinationURL, err)
	}
}

// Equal compares two registries by repository, tag and digest, and follows every tag's manifest through indexes and
// subjects down to the last blob: manifests must have the same bytes, blobs must be there with the size that their
// descriptor says. Without repositories it compares all that either catalog names; a repository without tags is the
// same as none. Every difference is in the error.
//
// A subject that the source does not have may be missing at the destination too, and so may a layer that is not to be
// distributed: the specifications allow both.
func Equal(ctx context.Context, sourceURL, destinationURL string, repositories ...string) error {
	c := comparison{source: NewClient(sourceURL), destination: NewClient(destinationURL), subjects: true}
	if err := c.run(ctx, repositories); err != nil {
		return err
	}
	return errors.Join(c.differences...)
}

// Differences compares as [Equal] does, and tells what differs from an error, which says that a registry could not be
// looked at. A subject is no child: one that no tag reaches may be missing at the destination. Where the source has the
// referrers API, the referrers of every manifest are compared too, in whichever way the destination lists them; tags of
// the destination that are such lists are then no difference.
func Differences(ctx context.Context, sourceURL, destinationURL string, repositories ...string) ([]error, error) {
	c := comparison{source: NewClient(sourceURL), destination: NewClient(destinationURL), referrers: true}
	if err := c.run(ctx, repositories); err != nil {
		return nil, err
	}
	return c.differences, nil
}

// comparison gathers differences; its methods return an error only where they could not look.
type comparison struct {
	source, destination *Client
	subjects            bool            // whether subjects that no tag reaches are compared, too
	referrers           bool            // whether what the source's referrers API lists is compared, too
	seen                map[string]bool // digests of the repository that were looked at
	differences         []error
}

// run compares these repositories, or all of both catalogs, and closes the clients.
func (c *comparison) run(ctx context.Context, repositories []string) error {
	defer c.source.Close()
	defer c.destination.Close()
	if len(repositories) == 0 {
		var err error
		if repositories, err = c.catalogs(ctx); err != nil {
			return err
		}
	}
	for _, repository := range repositories {
		if err := c.repository(ctx, repository); err != nil {
			return err
		}
	}
	return nil
}

func (c *comparison) differ(format string, args ...any) {
	c.differences = append(c.differences, fmt.Errorf(format, args...))
}

func (c *comparison) catalogs(ctx context.Context) ([]string, error) {
	source, err := c.source.Repositories(ctx)
	if err != nil {
		return nil, err
	}
	destination, err := c.destination.Repositories(ctx)
	if err != nil {
		return nil, err
	}
	all := append(source, destination...)
	slices.Sort(all)
	return slices.Compact(all), nil
}

func (c *comparison) repository(ctx context.Context, repository string) error {
	source, err := c.source.Tags(ctx, repository)
	if err != nil {
		return fmt.Errorf("tags of %s at the source: %w", repository, err)
	}
	destination, err := c.destination.Tags(ctx, repository)
	if err != nil {
		return fmt.Errorf("tags of %s at the destination: %w", repository, err)
	}
	for _, tag := range slices.Sorted(maps.Keys(destination)) {
		if _, ok := source[tag]; ok {
			continue
		}
		listed, err := c.isList(ctx, repository, tag)
		if err != nil {
			return err
		}
		if !listed {
			c.differ("%s:%s: only at the destination (%s)", repository, tag, destination[tag])
		}
	}
	c.seen = map[string]bool{}
	for _, tag := range slices.Sorted(maps.Keys(source)) {
		switch digest, ok := destination[tag]; {
		case !ok:
			c.differ("%s:%s: not at the destination (%s)", repository, tag, source[tag])
		case digest != source[tag]:
			c.differ("%s:%s: %s at the source, %s at the destination", repository, tag, source[tag], digest)
		default:
			if err := c.manifest(ctx, repository, digest, false); err != nil {
				return err
			}
		}
	}
	return nil
}

// manifest compares one manifest and all below it. optional is for subjects, which need not exist.
func (c *comparison) manifest(ctx context.Context, repository, digest string, optional bool) error {
	if c.seen[digest] {
		return nil
	}
	c.seen[digest] = true
	source, err := c.source.Manifest(ctx, repository, digest)
	if IsAbsent(err) {
		if !optional {
			c.differ("%s@%s: not at the source itself", repository, digest)
		}
		return nil
	}
	if err != nil {
		return fmt.Errorf("at the source: %w", err)
	}
	destination, err := c.destination.Manifest(ctx, repository, digest)
	if IsAbsent(err) {
		c.differ("%s@%s: manifest is not at the destination", repository, digest)
		return nil
	}
	if err != nil {
		return fmt.Errorf("at the destination: %w", err)
	}
	if !bytes.Equal(source.Bytes, destination.Bytes) {
		c.differ("%s@%s: bytes of the manifest differ", repository, digest)
	}
	if source.MediaType != destination.MediaType {
		c.differ("%s@%s: %s at the source, %s at the destination", repository, digest,
			source.MediaType, destination.MediaType)
	}
	if err := c.content(ctx, repository, digest, source.Bytes); err != nil || !c.referrers {
		return err
	}
	return c.referrersOf(ctx, repository, digest)
}

// content compares what a manifest refers to.
func (c *comparison) content(ctx context.Context, repository, digest string, manifest []byte) error {
	var doc document
	if err := json.Unmarshal(manifest, &doc); err != nil {
		c.differ("%s@%s: manifest does not parse: %w", repository, digest, err)
		return nil
	}
	blobs := doc.Layers
	if doc.Config != nil {
		blobs = append(blobs, *doc.Config)
	}
	for _, child := range doc.Manifests {
		if !isManifest(child.MediaType) { // BuildKit's caches are indexes of layers
			blobs = append(blobs, child)
			continue
		}
		if err := c.manifest(ctx, repository, child.Digest, false); err != nil {
			return err
		}
	}
	if doc.Subject != nil && c.subjects {
		if err := c.manifest(ctx, repository, doc.Subject.Digest, true); err != nil {
			return err
		}
	}
	for _, blob := range blobs {
		if c.seen[blob.Digest] {
			continue
		}
		c.seen[blob.Digest] = true
		if err := c.blob(ctx, repository, blob); err != nil {
			return err
		}
	}
	return nil
}

func (c *comparison) blob(ctx context.Context, repository string, blob descriptor) error {
	foreign := len(blob.URLs) > 0 || strings.Contains(blob.MediaType, "nondistributable") ||
		strings.Contains(blob.MediaType, "foreign")
	sides := []struct {
		name   string
		client *Client
	}{{"source", c.source}, {"destination", c.destination}}
	for _, side := range sides {
		size, err := side.client.BlobSize(ctx, repository, blob.Digest)
		switch {
		case IsAbsent(err) && foreign:
		case IsAbsent(err):
			c.differ("%s: blob %s is not at the %s", repository, blob.Digest, side.name)
		case err != nil:
			return fmt.Errorf("at the %s: %w", side.name, err)
		case size != blob.Size:
			c.differ("%s: blob %s has %d bytes at the %s, not %d", repository, blob.Digest, size, side.name, blob.Size)
		}
	}
	return nil
}

func isManifest(mediaType string) bool {
	switch mediaType {
	case OCIManifest, OCIIndex, DockerManifest, DockerList:
		return true
	}
	return false
}
