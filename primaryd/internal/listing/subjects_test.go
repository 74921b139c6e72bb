package listing_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/antipode-registry/antipode/internal/registrytest"
	"github.com/antipode-registry/antipode/primaryd/internal/feed"
)

// A signature that has a tag is a referrer like any other: who follows the tag alone must hear of its subject.
func TestADeltaHoldsTheSubjectsOfTouchedTags(t *testing.T) {
	t.Parallel()
	p := newPair(t, true)
	image := registrytest.NewImage(1, 1, 64)
	signed := registrytest.NewArtifact(2, "application/sig", registrytest.WithSubject(image))
	registrytest.Push(t, p.URL(), "a", "v1", image)
	p.notify(t, feed.Change{Repository: "a", Tags: []feed.Touch{{Tag: "v1", Digest: image.Digest}}})
	since := p.row(t, "a").Revision
	registrytest.Push(t, p.URL(), "a", "signature", signed)
	p.notify(t, feed.Change{Repository: "a", Tags: []feed.Touch{{Tag: "signature", Digest: signed.Digest}}})
	got := p.list(t, "a", p.feed.ID(), since)
	if list := digests(got.Subjects)[image.Digest]; got.Complete || !slices.Equal(list, []string{signed.Digest}) {
		t.Errorf("%+v", got)
	}
}

// A tag that clients keep in place of the API names a subject too; when it goes, a site without the API needs to know
// the subject's referrers to make the tag itself.
func TestADeltaHoldsTheSubjectOfATouchedFallbackTag(t *testing.T) {
	t.Parallel()
	p := newPair(t, true)
	image := registrytest.NewImage(1, 1, 64)
	signed := registrytest.NewArtifact(2, "application/sig", registrytest.WithSubject(image))
	registrytest.Push(t, p.URL(), "a", "v1", image)
	registrytest.Push(t, p.URL(), "a", "", signed)
	p.notify(t, feed.Change{Repository: "a", Tags: []feed.Touch{{Tag: "v1", Digest: image.Digest}}})
	since := p.row(t, "a").Revision
	tag := strings.Replace(image.Digest, ":", "-", 1)
	p.notify(t, feed.Change{Repository: "a", Tags: []feed.Touch{
		{Tag: tag, Deleted: true}, {Tag: tag + ".sig", Deleted: true}, {Tag: "sha256-" + strings.Repeat("z", 64), Deleted: true},
	}})
	got := p.list(t, "a", p.feed.ID(), since)
	subjects := digests(got.Subjects)
	if list := subjects[image.Digest]; len(got.Absent) != 3 || !slices.Equal(list, []string{signed.Digest}) || len(subjects) != 2 {
		t.Errorf("%+v", got)
	}
}
