package replicate

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"sync"

	"github.com/antipode-registry/antipode/client"
	"github.com/antipode-registry/antipode/internal/registry"
	"github.com/antipode-registry/antipode/internal/transfer"
	"github.com/antipode-registry/antipode/secondaryd/internal/plan"
	"github.com/antipode-registry/antipode/secondaryd/internal/tracking"
)

// Referrers come in two ways (distribution specification v1.1, "Listing Referrers" and "Referrers Tag Schema"). A
// registry without the referrers API lists them in an index under a tag made of the subject's digest: at the source that
// is a tag like any other, and is copied as one. One with the API lists them without a tag; what the primary then tells
// of them is brought to the site as its registry needs it:
//
//   - with the API too: each referrer is copied by its digest, and its registry lists it by itself. In the plan it has
//     the name of its reference, which no tag can have.
//   - without it: the index is made here, always with the same bytes, and is wanted like a tag of the source. A tag
//     of that name that the source has itself goes first.

// reference is what a manifest without a tag is called in plans and journals.
func reference(digest string) string { return "@" + digest }

// isTag tells tags from references.
func isTag(name string) bool { return !strings.HasPrefix(name, "@") }

// siteAPI remembers whether the site's registry has the referrers API.
type siteAPI struct {
	mu       sync.Mutex
	known    bool
	supports bool
}

// has asks the registry once. A registry cannot be asked about a repository that it does not know.
func (s *siteAPI) has(ctx context.Context, site *registry.Registry, repository, digest string) (bool, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.known {
		return s.supports, nil
	}
	_, supports, err := site.Referrers(ctx, repository, digest)
	if err != nil {
		return false, err
	}
	s.known, s.supports = true, supports
	return supports, nil
}

// addReferrers adds what the primary told of referrers to both sides of the plan.
func (a *attempt) addReferrers(ctx context.Context, c *comparison, want *plan.Source, present bool) error {
	if !c.listing.ReferrersAPI {
		return nil
	}
	stored, err := a.Tracking.Referrers(ctx, a.target)
	if err != nil {
		return err
	}
	if len(c.listing.Subjects) == 0 && len(stored) == 0 {
		return nil
	}
	if !present {
		c.again = len(c.listing.Subjects) > 0
		return nil
	}
	var probe string
	if len(c.listing.Subjects) > 0 {
		probe = c.listing.Subjects[0].Digest
	} else {
		probe = stored[0].Subject
	}
	supports, err := a.siteAPI.has(ctx, a.Site, a.target, probe)
	if err != nil {
		return err
	}
	if !supports {
		return a.wantFallbackTags(ctx, c, want)
	}
	wantByDigest(c, want, stored)
	return nil
}

// wantByDigest adds each referrer under its reference. What is stored of subjects that were looked at, and is no longer
// listed, is absent.
func wantByDigest(c *comparison, want *plan.Source, stored []tracking.Referrer) {
	looked := map[string]bool{}
	for _, subject := range c.listing.Subjects {
		looked[subject.Digest] = true
		for _, r := range subject.Referrers {
			name := reference(r.Digest)
			if _, twice := c.manifests[name]; twice {
				continue
			}
			c.manifests[name] = registry.Tag{Digest: r.Digest, MediaType: r.MediaType, Size: r.Size}
			c.subjects[name] = subject.Digest
			want.Tags = append(want.Tags, plan.Tag{Name: name, Digest: r.Digest})
		}
	}
	for _, r := range stored {
		name := reference(r.Digest)
		_, listed := c.manifests[name]
		if !c.listing.Complete && !listed && !looked[r.Subject] {
			continue
		}
		c.site.Tags = append(c.site.Tags, plan.Tag{Name: name, Digest: r.Digest})
		if !listed {
			want.Absent = append(want.Absent, name)
		}
	}
}

// wantFallbackTags adds the tag of each subject, naming an index of its referrers.
func (a *attempt) wantFallbackTags(ctx context.Context, c *comparison, want *plan.Source) error {
	made := overlay{Source: c.source, manifests: map[string]registry.Manifest{}}
	var delta []string
	for _, subject := range c.listing.Subjects {
		tag := fallbackTag(subject.Digest)
		if _, ofSource := c.manifests[tag]; ofSource {
			continue
		}
		if !c.listing.Complete {
			delta = append(delta, tag)
		}
		if len(subject.Referrers) == 0 {
			want.Absent = append(want.Absent, tag)
			continue
		}
		index := fallbackIndex(subject.Referrers)
		made.manifests[index.Digest] = index
		c.manifests[tag] = registry.Tag{Name: tag, Digest: index.Digest, MediaType: index.MediaType, Size: index.Size}
		want.Tags = append(want.Tags, plan.Tag{Name: tag, Digest: index.Digest})
	}
	c.source = made
	// A complete listing of the site has these tags already.
	found, _, err := a.Site.Resolve(ctx, a.target, delta)
	if err != nil {
		return err
	}
	for _, tag := range found {
		c.site.Tags = append(c.site.Tags, plan.Tag{Name: tag.Name, Digest: tag.Digest})
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
