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
// Position it is complete. A stream that ends without its summary, or does not match it, is ErrIncomplete.
func (c *Client) Tags(ctx context.Context, repository string, since Position) (Listing, error) {
	// The stream's resources are freed only when its context ends.
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := c.feed.ListTags(ctx, &antipodev1.ListTagsRequest{
		Repository: repository, FeedId: since.FeedID, SinceRevision: since.Revision,
	})
	if err != nil {
		return Listing{}, fmt.Errorf("list the tags of %s: %w", repository, err)
	}
	var listing Listing
	for {
		resp, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return Listing{}, fmt.Errorf("list the tags of %s: no summary: %w", repository, ErrIncomplete)
		}
		if err != nil {
			return Listing{}, fmt.Errorf("list the tags of %s: %w", repository, err)
		}
		for _, tag := range resp.GetPage().GetTags() {
			listing.Tags = append(listing.Tags, Tag{
				Name: tag.GetName(), Digest: tag.GetDigest(), MediaType: tag.GetMediaType(), Size: tag.GetSize(),
			})
		}
		for _, subject := range resp.GetPage().GetSubjects() {
			listing.Subjects = append(listing.Subjects, subjectOf(subject))
		}
		if summary := resp.GetSummary(); summary != nil {
			return finish(repository, listing, summary)
		}
	}
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

func finish(repository string, listing Listing, summary *antipodev1.TagSummary) (Listing, error) {
	if int64(len(listing.Tags)) != summary.GetTagCount() {
		return Listing{}, fmt.Errorf("list the tags of %s: %d tags came, the summary counts %d: %w",
			repository, len(listing.Tags), summary.GetTagCount(), ErrIncomplete)
	}
	if int64(len(listing.Subjects)) != summary.GetSubjectCount() {
		return Listing{}, fmt.Errorf("list the tags of %s: %d subjects came, the summary counts %d: %w",
			repository, len(listing.Subjects), summary.GetSubjectCount(), ErrIncomplete)
	}
	switch summary.GetListingKind() {
	case antipodev1.ListingKind_LISTING_KIND_COMPLETE:
		listing.Complete = true
	case antipodev1.ListingKind_LISTING_KIND_DELTA:
	default:
		return Listing{}, fmt.Errorf("list the tags of %s: kind %v: %w", repository, summary.GetListingKind(), ErrIncomplete)
	}
	switch summary.GetPresence() {
	case antipodev1.Presence_PRESENCE_PRESENT:
		listing.Present = true
	case antipodev1.Presence_PRESENCE_ABSENT:
	default:
		return Listing{}, fmt.Errorf("list the tags of %s: presence %v: %w", repository, summary.GetPresence(), ErrIncomplete)
	}
	listing.Absent, listing.Unsettled = summary.GetAbsentTags(), summary.GetUnsettledTags()
	listing.Revision, listing.Fingerprint = summary.GetRevision(), summary.GetFingerprint()
	listing.ReferrersAPI = summary.GetReferrersApi()
	listing.RegistryURL = summary.GetRegistryUrl()
	return listing, nil
}
