package client

import (
	"context"
	"errors"
	"fmt"
	"io"

	antipodev1 "github.com/antipode-registry/antipode/gen/antipode/v1"
)

// Tag is what a tag names at the primary.
type Tag struct {
	Name, Digest, MediaType string
	// Size of the manifest in bytes.
	Size int64
	// Manifest is its bytes, on one of the tags that name it and where Config.Manifests asked for them; nil where the primary
	// sent none. It is not checked against Digest here.
	Manifest []byte
}

// Subject is a manifest and everything that names it as its subject.
type Subject struct {
	Digest    string
	Referrers []Referrer
}

// Referrer is a manifest that is reached by its subject and not by a tag.
type Referrer struct {
	Digest, MediaType string
	// Size of the manifest in bytes.
	Size         int64
	ArtifactType string
	Annotations  map[string]string
}

// Listing is what the primary's registry answered. It is whole: Tags returns no part of one.
type Listing struct {
	// Complete tells all tags from a delta, which speaks only of Tags and Absent.
	Complete bool
	// Present is whether the registry knows the repository.
	Present bool
	// Tags by name.
	Tags []Tag
	// Absent are touched tags that are no more; empty when complete.
	Absent []string
	// Unsettled are tags that do not yet read as announced: list again soon.
	Unsettled []string
	// ReferrersAPI is whether the primary's registry has the referrers API; without it Subjects is empty, and referrers
	// are listed by tags like any other.
	ReferrersAPI bool
	// Subjects are manifests with the complete lists of their referrers, by digest. A complete listing has those that
	// have some; a delta those that were looked at.
	Subjects []Subject
	// Revision of the repository that the listing holds at least.
	Revision int64
	// Fingerprint of the (tag, digest) and (subject, referrer) pairs.
	Fingerprint string
	// RegistryURL is where the primary's registry is reached.
	RegistryURL string
}

// Tags lists a repository. With a position that the caller has synced to, the answer may be a delta; with the zero
// Position it is complete. A stream that ends without its summary, or does not match it, is ErrIncomplete. The primary
// answers only when its walk of the registry is done, which takes as long as the registry does; ctx bounds it.
func (c *Client) Tags(ctx context.Context, repository string, since Position) (Listing, error) {
	listing, err := c.list(ctx, repository, since)
	if err != nil {
		return Listing{}, fmt.Errorf("list the tags of %s: %w", repository, err)
	}
	return listing, nil
}

func (c *Client) list(ctx context.Context, repository string, since Position) (Listing, error) {
	// The stream's resources are freed only when its context ends.
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := c.feed.ListTags(ctx, &antipodev1.ListTagsRequest{
		Repository: repository, FeedId: since.FeedID, SinceRevision: since.Revision,
		Incarnation: since.Incarnation, WantManifests: c.manifests,
	})
	if err != nil {
		return Listing{}, err
	}
	var reader pages
	for {
		message, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return reader.finish()
		}
		if err == nil {
			err = reader.take(message)
		}
		if err != nil {
			return Listing{}, err
		}
	}
}

// pages puts a listing together.
type pages struct {
	listing Listing
	summary *antipodev1.TagSummary
}

// take adds one message. Names and digests rise: one that comes twice could make up in the count for one that is missing.
func (p *pages) take(message *antipodev1.ListTagsResponse) error {
	if p.summary != nil {
		return fmt.Errorf("a message after the summary: %w", ErrIncomplete)
	}
	p.summary = message.GetSummary()
	for _, tag := range message.GetPage().GetTags() {
		if n := len(p.listing.Tags); n > 0 && p.listing.Tags[n-1].Name >= tag.GetName() {
			return fmt.Errorf("tag %s comes after %s: %w", tag.GetName(), p.listing.Tags[n-1].Name, ErrIncomplete)
		}
		p.listing.Tags = append(p.listing.Tags, Tag{
			Name: tag.GetName(), Digest: tag.GetDigest(), MediaType: tag.GetMediaType(), Size: tag.GetSize(),
			Manifest: tag.GetManifest(),
		})
	}
	for _, subject := range message.GetPage().GetSubjects() {
		if n := len(p.listing.Subjects); n > 0 && p.listing.Subjects[n-1].Digest >= subject.GetSubject() {
			return fmt.Errorf("subject %s comes after %s: %w",
				subject.GetSubject(), p.listing.Subjects[n-1].Digest, ErrIncomplete)
		}
		p.listing.Subjects = append(p.listing.Subjects, subjectOf(subject))
	}
	return nil
}

func subjectOf(message *antipodev1.SubjectReferrers) Subject {
	subject := Subject{Digest: message.GetSubject()}
	for _, r := range message.GetReferrers() {
		subject.Referrers = append(subject.Referrers, Referrer{
			Digest: r.GetDigest(), MediaType: r.GetMediaType(), Size: r.GetSize(), ArtifactType: r.GetArtifactType(),
			Annotations: r.GetAnnotations(),
		})
	}
	return subject
}

// finish holds the pages against the summary.
func (p *pages) finish() (Listing, error) {
	listing, summary := p.listing, p.summary
	if summary == nil {
		return Listing{}, fmt.Errorf("no summary: %w", ErrIncomplete)
	}
	if tags := int64(len(listing.Tags)); tags != summary.GetTagCount() {
		return Listing{}, fmt.Errorf("%d tags came, the summary counts %d: %w", tags, summary.GetTagCount(), ErrIncomplete)
	}
	if subjects := int64(len(listing.Subjects)); subjects != summary.GetSubjectCount() {
		return Listing{}, fmt.Errorf("%d subjects came, the summary counts %d: %w",
			subjects, summary.GetSubjectCount(), ErrIncomplete)
	}
	switch summary.GetListingKind() {
	case antipodev1.ListingKind_LISTING_KIND_COMPLETE:
		listing.Complete = true
	case antipodev1.ListingKind_LISTING_KIND_DELTA:
	default:
		return Listing{}, fmt.Errorf("kind %v: %w", summary.GetListingKind(), ErrIncomplete)
	}
	switch summary.GetPresence() {
	case antipodev1.Presence_PRESENCE_PRESENT:
		listing.Present = true
	case antipodev1.Presence_PRESENCE_ABSENT:
	default:
		return Listing{}, fmt.Errorf("presence %v: %w", summary.GetPresence(), ErrIncomplete)
	}
	listing.Absent, listing.Unsettled = summary.GetAbsentTags(), summary.GetUnsettledTags()
	listing.Revision, listing.Fingerprint = summary.GetRevision(), summary.GetFingerprint()
	listing.ReferrersAPI = summary.GetReferrersApi()
	listing.RegistryURL = summary.GetRegistryUrl()
	return listing, nil
}
