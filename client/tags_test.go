package client_test

import (
	"errors"
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/antipode-registry/antipode/client"
	antipodev1 "github.com/antipode-registry/antipode/gen/antipode/v1"
)

func page(names ...string) *antipodev1.ListTagsResponse {
	page := &antipodev1.TagPage{}
	for _, name := range names {
		page.Tags = append(page.Tags, &antipodev1.Tag{Name: name, Digest: "sha256:" + name, MediaType: "m", Size: 7})
	}
	return &antipodev1.ListTagsResponse{Kind: &antipodev1.ListTagsResponse_Page{Page: page}}
}

func referrers(subjects ...string) *antipodev1.ListTagsResponse {
	page := &antipodev1.TagPage{}
	for _, digest := range subjects {
		page.Subjects = append(page.Subjects, &antipodev1.SubjectReferrers{
			Subject: digest, Referrers: []*antipodev1.Referrer{{Digest: "r", MediaType: "m", Size: 7, ArtifactType: "sig"}},
		})
	}
	return &antipodev1.ListTagsResponse{Kind: &antipodev1.ListTagsResponse_Page{Page: page}}
}

// summary is one of a complete listing of so many tags and subjects, changed at will.
func summary(tags, subjects int64, change ...func(*antipodev1.TagSummary)) *antipodev1.ListTagsResponse {
	s := &antipodev1.TagSummary{
		ListingKind: antipodev1.ListingKind_LISTING_KIND_COMPLETE, Presence: antipodev1.Presence_PRESENCE_PRESENT,
		TagCount: tags, SubjectCount: subjects, Fingerprint: "sha256:f", Revision: 9, RegistryUrl: "http://r", ReferrersApi: true,
	}
	for _, change := range change {
		change(s)
	}
	return &antipodev1.ListTagsResponse{Kind: &antipodev1.ListTagsResponse_Summary{Summary: s}}
}

func listing(t *testing.T, end error, messages ...*antipodev1.ListTagsResponse) (client.Listing, error) {
	t.Helper()
	p := &primary{list: func(req *antipodev1.ListTagsRequest, stream listStream) error {
		if req.GetRepository() != "a" || req.GetFeedId() != "f" || req.GetSinceRevision() != 4 {
			t.Errorf("request %v", req)
		}
		return send(stream, end, messages...)
	}}
	return p.run(t).Tags(deadline(t), "a", client.Position{FeedID: "f", Revision: 4})
}

func TestTagsMakeAWhole(t *testing.T) {
	t.Parallel()
	tag := func(name string) client.Tag {
		return client.Tag{Name: name, Digest: "sha256:" + name, MediaType: "m", Size: 7}
	}
	subject := func(digest string) client.Subject {
		return client.Subject{Digest: digest, Referrers: []client.Referrer{{Digest: "r", MediaType: "m", Size: 7, ArtifactType: "sig"}}}
	}
	whole := client.Listing{
		Complete: true, Present: true, ReferrersAPI: true, Revision: 9, Fingerprint: "sha256:f", RegistryURL: "http://r",
	}
	full, absent, delta := whole, whole, whole
	full.Tags = []client.Tag{tag("a"), tag("b"), tag("c")}
	full.Subjects = []client.Subject{subject("s"), subject("t")}
	absent.Present = false
	delta.Complete, delta.Absent, delta.Unsettled = false, []string{"x"}, []string{"y"}
	tests := map[string]struct {
		messages []*antipodev1.ListTagsResponse
		want     client.Listing
	}{
		"pages": {[]*antipodev1.ListTagsResponse{page("a", "b"), page("c"), referrers("s"), referrers("t"), summary(3, 2)}, full},
		"none":  {[]*antipodev1.ListTagsResponse{summary(0, 0)}, whole},
		"absent": {[]*antipodev1.ListTagsResponse{summary(0, 0, func(s *antipodev1.TagSummary) {
			s.Presence = antipodev1.Presence_PRESENCE_ABSENT
		})}, absent},
		"delta": {[]*antipodev1.ListTagsResponse{summary(0, 0, func(s *antipodev1.TagSummary) {
			s.ListingKind = antipodev1.ListingKind_LISTING_KIND_DELTA
			s.AbsentTags, s.UnsettledTags = []string{"x"}, []string{"y"}
		})}, delta},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got, err := listing(t, nil, test.messages...)
			if diff := cmp.Diff(test.want, got); diff != "" || err != nil {
				t.Error(err, diff)
			}
		})
	}
}

func TestNoPartOfAListingIsReturned(t *testing.T) {
	t.Parallel()
	broken := status.Error(codes.Unavailable, "cut")
	tests := map[string]struct {
		messages []*antipodev1.ListTagsResponse
		end      error
	}{
		"nothing":               {nil, nil},
		"no summary":            {[]*antipodev1.ListTagsResponse{page("a")}, nil},
		"a tag short":           {[]*antipodev1.ListTagsResponse{page("a"), summary(2, 0)}, nil},
		"a tag too many":        {[]*antipodev1.ListTagsResponse{page("a", "b"), summary(1, 0)}, nil},
		"a tag twice":           {[]*antipodev1.ListTagsResponse{page("a"), page("a"), summary(2, 0)}, nil},
		"tags out of order":     {[]*antipodev1.ListTagsResponse{page("b", "a"), summary(2, 0)}, nil},
		"a subject short":       {[]*antipodev1.ListTagsResponse{referrers("s"), summary(0, 2)}, nil},
		"a subject twice":       {[]*antipodev1.ListTagsResponse{referrers("s", "s"), summary(0, 2)}, nil},
		"more after the end":    {[]*antipodev1.ListTagsResponse{summary(1, 0), page("a")}, nil},
		"two summaries":         {[]*antipodev1.ListTagsResponse{summary(0, 0), summary(0, 0)}, nil},
		"cut in the middle":     {[]*antipodev1.ListTagsResponse{page("a")}, broken},
		"error for a listing":   {nil, broken},
		"error for an end":      {[]*antipodev1.ListTagsResponse{summary(0, 0)}, broken},
		"unknown kind":          {[]*antipodev1.ListTagsResponse{summary(0, 0, func(s *antipodev1.TagSummary) { s.ListingKind = 9 })}, nil},
		"unspecified presence":  {[]*antipodev1.ListTagsResponse{summary(0, 0, func(s *antipodev1.TagSummary) { s.Presence = 0 })}, nil},
		"neither page nor else": {[]*antipodev1.ListTagsResponse{{}}, nil},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got, err := listing(t, test.end, test.messages...)
			if diff := cmp.Diff(client.Listing{}, got); diff != "" {
				t.Error(diff)
			}
			if test.end == nil && !errors.Is(err, client.ErrIncomplete) || test.end != nil && status.Code(err) != codes.Unavailable {
				t.Errorf("got %v", err)
			}
		})
	}
}
