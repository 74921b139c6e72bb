package listing_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/antipode-registry/antipode/internal/registry"
	"github.com/antipode-registry/antipode/internal/registrytest"
	"github.com/antipode-registry/antipode/primaryd/internal/feed"
	"github.com/antipode-registry/antipode/primaryd/internal/listing"
)

// digests is what refers to what, in the listing's order.
func digests(subjects []listing.Subject) map[string][]string {
	m := map[string][]string{}
	for _, subject := range subjects {
		m[subject.Digest] = []string{}
		for _, referrer := range subject.Referrers {
			m[subject.Digest] = append(m[subject.Digest], referrer.Digest)
		}
	}
	return m
}

func TestReferrersAreListedWithTheirSubjects(t *testing.T) {
	t.Parallel()
	p := newPair(t, true)
	child := registrytest.NewImage(1, 1, 64)
	index := registrytest.NewIndex(child)
	childSigned := registrytest.NewArtifact(2, "application/sig", registrytest.WithSubject(child))
	indexSigned := registrytest.NewArtifact(3, "application/sig", registrytest.WithSubject(index))
	attested := registrytest.NewArtifact(4, "application/att", registrytest.WithSubject(indexSigned))
	registrytest.Push(t, p.URL(), "a", "v1", index)
	for _, artifact := range []registrytest.Image{childSigned, indexSigned, attested} {
		registrytest.Push(t, p.URL(), "a", "", artifact)
	}
	got := p.list(t, "a", "", 0)
	want := map[string][]string{
		child.Digest: {childSigned.Digest}, index.Digest: {indexSigned.Digest}, indexSigned.Digest: {attested.Digest},
	}
	if diff := cmp.Diff(want, digests(got.Subjects)); diff != "" || !got.ReferrersAPI {
		t.Error(got.ReferrersAPI, diff)
	}
	inOrder := func(a, b listing.Subject) int { return strings.Compare(a.Digest, b.Digest) }
	if !slices.IsSortedFunc(got.Subjects, inOrder) {
		t.Errorf("not in order: %+v", got.Subjects)
	}
	bare := got
	bare.Subjects = nil
	if got.Fingerprint() == bare.Fingerprint() {
		t.Error("the fingerprint does not stand for the referrers")
	}
}

// A signature that comes long after its image touches no tag: the delta has to name the image as a subject.
func TestADeltaHoldsWhatWasPushedWithoutATag(t *testing.T) {
	t.Parallel()
	p := newPair(t, true)
	image := registrytest.NewImage(1, 1, 64)
	registrytest.Push(t, p.URL(), "a", "v1", image)
	p.notify(t, feed.Change{Repository: "a", Tags: []feed.Touch{{Tag: "v1", Digest: image.Digest}}})
	since := p.row(t, "a").Revision

	signed := registrytest.NewArtifact(2, "application/sig", registrytest.WithSubject(image))
	registrytest.Push(t, p.URL(), "a", "", signed)
	gone := registrytest.NewImage(9, 1, 64)
	for _, digest := range []string{signed.Digest, gone.Digest} {
		p.notify(t, feed.Change{Repository: "a", Tags: []feed.Touch{{Tag: feed.UntaggedReference(digest)}}})
	}
	got := p.list(t, "a", p.feed.ID(), since)
	if got.Complete || len(got.Tags) != 0 || len(got.Absent) != 0 || len(got.Unsettled) != 0 {
		t.Errorf("%+v", got)
	}
	if list := digests(got.Subjects)[image.Digest]; !slices.Equal(list, []string{signed.Digest}) {
		t.Errorf("%+v", got.Subjects)
	}
}

// counting is a registry without the referrers API that counts how often it is asked for it.
type counting struct {
	late
	questions int
}

func (c *counting) Referrers(context.Context, string, string) ([]registry.Descriptor, bool, error) {
	c.questions++
	return nil, false, nil
}

func TestARegistryWithoutTheAPIIsRarelyAsked(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		source := &counting{late: late{after: tags("d"), at: time.Now()}}
		lister := listing.New(source, startFeed(t))
		for range 10 {
			if got, err := lister.List(t.Context(), "r", "", feed.Cursor{}); err != nil || got.ReferrersAPI || len(got.Subjects) > 0 {
				t.Errorf("%+v, %v", got, err)
			}
		}
		if source.questions != 1 || lister.HasReferrersAPI() {
			t.Errorf("asked %d times", source.questions)
		}
		<-time.After(time.Hour) // it may have been upgraded
		if !lister.HasReferrersAPI() {
			t.Error("never asked again")
		}
	})
}

// TestManyListingsAskOnceForTheAPI: listings that begin together share the one request that shows that there is none.
func TestManyListingsAskOnceForTheAPI(t *testing.T) {
	t.Parallel()
	p := newPair(t, false)
	for seed := range int64(12) {
		p.push(t, fmt.Sprint("r", seed%4), fmt.Sprint("v", seed), seed)
	}
	p.Reset()
	var group sync.WaitGroup
	for repository := range 4 {
		group.Go(func() {
			got, err := p.lister.List(t.Context(), fmt.Sprint("r", repository), "", feed.Cursor{})
			if err != nil || len(got.Tags) != 3 || got.ReferrersAPI {
				t.Errorf("%+v, %v", got, err)
			}
		})
	}
	group.Wait()
	asked := 0
	for _, request := range p.Requests() {
		if request.Kind == "referrers" {
			asked++
		}
	}
	if asked != 1 {
		t.Errorf("asked %d times", asked)
	}
}
