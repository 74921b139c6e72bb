package replicate

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/antipode-registry/antipode/client"
	"github.com/antipode-registry/antipode/internal/registry"
	"github.com/antipode-registry/antipode/internal/transfer"
	"github.com/antipode-registry/antipode/secondaryd/internal/plan"
)

// wantFallbackTags adds the tag of each subject, naming an index of its referrers, for a site without the API.
func (a *attempt) wantFallbackTags(ctx context.Context, c *comparison, want *plan.Source) error {
	made := overlay{Source: c.source, manifests: map[string]registry.Manifest{}}
	indexes := map[string]registry.Manifest{} // by tag; without bytes where there is nothing to list
	for _, subject := range c.listing.Subjects {
		tag := fallbackTag(subject.Digest)
		if _, ofSource := c.manifests[tag]; ofSource {
			continue
		}
		indexes[tag] = registry.Manifest{}
		if len(subject.Referrers) > 0 {
			indexes[tag] = fallbackIndex(subject.Referrers)
		}
	}
	c.source = made
	// A complete listing of both sides has these tags, if they are there.
	if !c.listing.Complete {
		if err := a.lookAtFallbackTags(ctx, c, want, indexes); err != nil {
			return err
		}
	}
	for tag, index := range indexes {
		if index.Bytes == nil {
			want.Absent = append(want.Absent, tag)
			continue
		}
		made.manifests[index.Digest] = index
		c.manifests[tag] = registry.Tag{Name: tag, Digest: index.Digest, MediaType: index.MediaType, Size: index.Size}
		want.Tags = append(want.Tags, plan.Tag{Name: tag, Digest: index.Digest})
	}
	return nil
}

// lookAtFallbackTags adds to a delta what the site has of the tags. Those that would be changed are looked up at the
// source too: one that it has itself, which this delta did not have to name, goes first, and leaves the indexes.
func (a *attempt) lookAtFallbackTags(
	ctx context.Context, c *comparison, want *plan.Source, indexes map[string]registry.Manifest,
) error {
	var names, changed []string
	for tag := range indexes {
		if !slices.Contains(c.listing.Absent, tag) { // the listing of the site has the others
			names = append(names, tag)
		}
	}
	found, _, err := a.Site.Resolve(ctx, a.target, names)
	if err != nil {
		return err
	}
	have := map[string]string{}
	for _, tag := range found {
		have[tag.Name] = tag.Digest
		c.site.Tags = append(c.site.Tags, plan.Tag{Name: tag.Name, Digest: tag.Digest})
	}
	for _, tag := range names {
		if have[tag] != indexes[tag].Digest {
			changed = append(changed, tag)
		}
	}
	own, _, err := c.origin.Resolve(ctx, a.lease.Repository, changed)
	if err != nil {
		return err
	}
	for _, tag := range own {
		delete(indexes, tag.Name)
		c.manifests[tag.Name] = tag
		want.Tags = append(want.Tags, plan.Tag{Name: tag.Name, Digest: tag.Digest})
	}
	return nil
}

// fallbackTag is the tag that stands in for the referrers API: algorithm and digest, cut to what a tag may hold.
func fallbackTag(digest string) string {
	algorithm, encoded, _ := strings.Cut(digest, ":")
	return algorithm[:min(len(algorithm), 32)] + "-" + encoded[:min(len(encoded), 64)]
}

// isFallbackTag says whether a tag may be one that stands in for the referrers API.
func isFallbackTag(tag string) bool {
	algorithm, encoded, found := strings.Cut(tag, "-")
	if !found || algorithm != "sha256" && algorithm != "sha512" || len(encoded) != 64 {
		return false
	}
	return strings.Trim(encoded, "0123456789abcdef") == ""
}

const indexType = "application/vnd.oci.image.index.v1+json"

// fallbackIndex lists referrers as the specification asks. The same referrers make the same bytes.
func fallbackIndex(referrers []client.Referrer) registry.Manifest {
	type descriptor struct {
		MediaType    string            `json:"mediaType"`
		Digest       string            `json:"digest"`
		Size         int64             `json:"size"`
		ArtifactType string            `json:"artifactType,omitempty"`
		Annotations  map[string]string `json:"annotations,omitempty"`
	}
	index := struct {
		SchemaVersion int          `json:"schemaVersion"`
		MediaType     string       `json:"mediaType"`
		Manifests     []descriptor `json:"manifests"`
	}{SchemaVersion: 2, MediaType: indexType}
	for _, r := range referrers {
		index.Manifests = append(index.Manifests, descriptor{
			MediaType: r.MediaType, Digest: r.Digest, Size: r.Size, ArtifactType: r.ArtifactType, Annotations: r.Annotations,
		})
	}
	slices.SortFunc(index.Manifests, func(a, b descriptor) int { return strings.Compare(a.Digest, b.Digest) })
	text, err := json.Marshal(index)
	if err != nil {
		panic(fmt.Sprintf("strings and numbers did not become JSON: %v", err))
	}
	sum := sha256.Sum256(text)
	return registry.Manifest{
		Descriptor: registry.Descriptor{
			MediaType: indexType, Digest: "sha256:" + hex.EncodeToString(sum[:]), Size: int64(len(text)),
		},
		Bytes: text,
	}
}

// overlay is a source with manifests of our own making.
type overlay struct {
	transfer.Source
	manifests map[string]registry.Manifest
}

// Manifest implements transfer.Source.
func (o overlay) Manifest(ctx context.Context, repository, reference string) (registry.Manifest, error) {
	if m, ours := o.manifests[reference]; ours {
		return m, nil
	}
	return o.Source.Manifest(ctx, repository, reference)
}
