package service_test

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/testing/protocmp"

	antipodev1 "github.com/antipode-registry/antipode/gen/antipode/v1"
	"github.com/antipode-registry/antipode/internal/registry"
	"github.com/antipode-registry/antipode/primaryd/internal/feed"
)

// listed is everything that a listing sent.
type listed struct {
	pages   []int // tags of each
	names   []string
	laden   bool // each tag came with its manifest
	summary *antipodev1.TagSummary
}

func list(t *testing.T, c api, identity string, req *antipodev1.ListTagsRequest) (got listed, err error) {
	t.Helper()
	stream, err := c.feed.ListTags(as(deadline(t), identity), req)
	if err != nil {
		t.Fatal(err)
	}
	for message, err := range received(stream) {
		if errors.Is(err, io.EOF) {
			return got, nil
		}
		if err != nil {
			return got, err
		}
		if got.summary != nil {
			t.Errorf("after the summary: %v", message)
		}
		if got.summary = message.GetSummary(); got.summary == nil {
			got.laden = got.laden || len(got.pages) == 0
			got.pages = append(got.pages, len(message.GetPage().GetTags()))
			for _, tag := range message.GetPage().GetTags() {
				got.names = append(got.names, tag.GetName())
				got.laden = got.laden && int64(len(tag.GetManifest())) == tag.GetSize()
			}
		}
	}
	return got, nil
}

func TestListTagsSendsPagesThenASummary(t *testing.T) {
	t.Parallel()
	p := sqlite(t)
	revision := p.push(t, "a")
	var names []string
	for i := range 2500 {
		name := fmt.Sprintf("v%04d", i)
		names = append(names, name)
		p.registry.listing.Tags = append(p.registry.listing.Tags, registry.Tag{
			Name: name, Digest: "sha256:" + strings.Repeat("0", 64), MediaType: "m", Size: 7,
		})
	}
	p.registry.listing.Present = true
	p.registry.listing.Tags = append(p.registry.listing.Tags, registry.Tag{Name: "v1", Digest: "sha256:1"}) // as announced
	names = append(names, "v1")
	slices.Sort(names)
	got, err := list(t, p.run(t), "node/eu", &antipodev1.ListTagsRequest{Repository: "a"})
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]int{1000, 1000, 501}, got.pages) + cmp.Diff(names, got.names); diff != "" {
		t.Error(diff)
	}
	want := &antipodev1.TagSummary{
		ListingKind: antipodev1.ListingKind_LISTING_KIND_COMPLETE, Presence: antipodev1.Presence_PRESENCE_PRESENT,
		TagCount: 2501, Revision: revision, RegistryUrl: "http://primary:5000",
		Fingerprint: registry.Fingerprint(p.registry.listing.Tags),
	}
	if diff := cmp.Diff(want, got.summary, protocmp.Transform()); diff != "" {
		t.Error(diff)
	}
}

// Manifests come along for who wants them and needs them: with what was touched, and with everything for who has nothing.
func TestListTagsWithManifests(t *testing.T) {
	t.Parallel()
	p := sqlite(t)
	since := p.push(t, "a")
	now := p.push(t, "a")
	if _, err := p.feed.Append(t.Context(), feed.Change{Repository: "unknown", Unknown: true}); err != nil {
		t.Fatal(err)
	}
	p.registry.listing = registry.Listing{Present: true, Tags: []registry.Tag{
		{Name: "v1", Digest: "sha256:1", Size: 700 << 10},
		{Name: "v2", Digest: "sha256:2", Size: 700 << 10},
		{Name: "v3", Digest: "sha256:3", Size: 7},
	}}
	c := p.run(t)
	id := p.feed.ID()
	tests := map[string]struct {
		req   *antipodev1.ListTagsRequest
		pages []int
		laden bool
	}{
		"everything, not wanted": {&antipodev1.ListTagsRequest{}, []int{3}, false},
		"everything":             {&antipodev1.ListTagsRequest{WantManifests: true}, []int{2, 1}, true},
		"what was touched":       {&antipodev1.ListTagsRequest{WantManifests: true, FeedId: id, SinceRevision: since}, []int{1}, true},
		"everything, for who synced before": {
			&antipodev1.ListTagsRequest{Repository: "unknown", WantManifests: true, FeedId: id, SinceRevision: now}, []int{3}, false,
		},
		"another feed": {&antipodev1.ListTagsRequest{WantManifests: true, FeedId: "other", SinceRevision: now}, []int{3}, false},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if test.req.GetRepository() == "" {
				test.req.Repository = "a"
			}
			got, err := list(t, c, "node/eu", test.req)
			if err != nil || !slices.Equal(got.pages, test.pages) || got.laden != test.laden {
				t.Errorf("%v in pages of %v, manifests %t: %v", got.names, got.pages, got.laden, err)
			}
		})
	}
}

func TestListTagsSaysDeltaAndAbsence(t *testing.T) {
	t.Parallel()
	p := sqlite(t)
	since := p.push(t, "a")
	now := p.push(t, "a")
	c := p.run(t)
	p.registry.listing.Tags = []registry.Tag{{Name: "v1", Digest: "sha256:1"}}
	got, err := list(t, c, "operator/ops", &antipodev1.ListTagsRequest{
		Repository: "a", FeedId: p.feed.ID(), SinceRevision: since,
	})
	if err != nil || got.summary.GetListingKind() != antipodev1.ListingKind_LISTING_KIND_DELTA ||
		got.summary.GetRevision() != now || !slices.Equal(got.names, []string{"v1"}) {
		t.Errorf("%+v, %v", got, err)
	}
	p.registry.listing = registry.Listing{}
	got, err = list(t, c, "operator/ops", &antipodev1.ListTagsRequest{Repository: "never/there"})
	if err != nil || got.summary.GetPresence() != antipodev1.Presence_PRESENCE_ABSENT || len(got.pages) != 0 ||
		got.summary.GetListingKind() != antipodev1.ListingKind_LISTING_KIND_COMPLETE {
		t.Errorf("%+v, %v", got, err)
	}
}

func TestListTagsRefusals(t *testing.T) {
	t.Parallel()
	p := sqlite(t)
	p.push(t, "team/a", "other/b")
	c := p.run(t)
	failed := func(err error) error { return &registry.Error{Host: "registry", Op: "list", Err: err} }
	tests := map[string]struct {
		identity string
		req      *antipodev1.ListTagsRequest
		err      error
		want     codes.Code
	}{
		"granted":                      {"node/team", &antipodev1.ListTagsRequest{Repository: "team/none"}, nil, codes.OK},
		"not granted":                  {"node/team", &antipodev1.ListTagsRequest{Repository: "other/b"}, nil, codes.PermissionDenied},
		"not granted, not there":       {"node/team", &antipodev1.ListTagsRequest{Repository: "other/c"}, nil, codes.PermissionDenied},
		"no name":                      {"node/eu", &antipodev1.ListTagsRequest{}, nil, codes.InvalidArgument},
		"no repository's name":         {"node/eu", &antipodev1.ListTagsRequest{Repository: "A/../b"}, nil, codes.InvalidArgument},
		"negative revision":            {"node/eu", &antipodev1.ListTagsRequest{Repository: "a", SinceRevision: -1}, nil, codes.InvalidArgument},
		"registry is no registry":      {"node/eu", &antipodev1.ListTagsRequest{Repository: "a"}, failed(registry.ErrMalformed), codes.FailedPrecondition},
		"registry refuses us":          {"node/eu", &antipodev1.ListTagsRequest{Repository: "a"}, failed(registry.ErrUnauthorized), codes.Unavailable},
		"registry cannot be reached":   {"node/eu", &antipodev1.ListTagsRequest{Repository: "a"}, failed(registry.ErrUnavailable), codes.Unavailable},
		"a delta's registry is broken": {"node/eu", &antipodev1.ListTagsRequest{Repository: "team/a", FeedId: p.feed.ID(), SinceRevision: 1}, failed(registry.ErrMalformed), codes.FailedPrecondition},
	}
	for name, test := range tests {
		p.registry.err = test.err
		got, err := list(t, c, test.identity, test.req)
		if status.Code(err) != test.want || test.want != codes.OK && (got.summary != nil || len(got.pages) > 0) {
			t.Errorf("%s: %+v, %v", name, got, err)
		}
	}
}

// repositories reads all pages.
func repositories(t *testing.T, c api, identity string, size int32) (pages [][]string, tokens []string) {
	t.Helper()
	for token := ""; ; {
		resp, err := c.feed.ListRepositories(as(deadline(t), identity), &antipodev1.ListRepositoriesRequest{
			PageSize: size, PageToken: token,
		})
		if err != nil {
			t.Fatal(err)
		}
		var names []string
		for _, row := range resp.GetRepositories() {
			names = append(names, row.GetName())
		}
		pages = append(pages, names)
		if token = resp.GetNextPageToken(); token == "" {
			return pages, tokens
		}
		tokens = append(tokens, token)
	}
}

func TestListRepositoriesPages(t *testing.T) {
	t.Parallel()
	p := sqlite(t)
	c := p.run(t)
	if pages, _ := repositories(t, c, "operator/ops", 0); len(pages) != 1 || len(pages[0]) != 0 {
		t.Errorf("of nothing: %v", pages)
	}
	p.push(t, "team/b", "other/z", "team/a", "other/a", "team/c")
	for size, want := range map[int32][][]string{
		0: {{"other/a", "other/z", "team/a", "team/b", "team/c"}},
		2: {{"other/a", "other/z"}, {"team/a", "team/b"}, {"team/c"}},
		5: {{"other/a", "other/z", "team/a", "team/b", "team/c"}},
		1: {{"other/a"}, {"other/z"}, {"team/a"}, {"team/b"}, {"team/c"}},
	} {
		pages, _ := repositories(t, c, "operator/ops", size)
		if diff := cmp.Diff(want, pages); diff != "" {
			t.Errorf("size %d: %s", size, diff)
		}
	}
}

func TestListRepositoriesTellsNothingOfOthers(t *testing.T) {
	t.Parallel()
	p := sqlite(t)
	p.push(t, "team/b", "zoo/z", "team/a", "other/a", "other/b", "team/c", "zoo/a")
	pages, tokens := repositories(t, p.run(t), "node/team", 2)
	if diff := cmp.Diff([][]string{{"team/a", "team/b"}, {"team/c"}}, pages); diff != "" {
		t.Error(diff)
	}
	if text := strings.Join(tokens, " "); strings.Contains(text, "other") || strings.Contains(text, "zoo") {
		t.Errorf("tokens %v", tokens)
	}
}

func TestListRepositoriesBoundsAPage(t *testing.T) {
	t.Parallel()
	p := sqlite(t)
	var names []string
	for i := range 1001 {
		names = append(names, fmt.Sprintf("r%04d", i))
	}
	if _, err := p.feed.AddMissing(t.Context(), names); err != nil {
		t.Fatal(err)
	}
	c := p.run(t)
	for size, first := range map[int32]int{0: 100, 5000: 1000, 1000: 1000} {
		pages, _ := repositories(t, c, "operator/ops", size)
		if len(pages[0]) != first || len(slices.Concat(pages...)) != len(names) {
			t.Errorf("size %d: a first page of %d", size, len(pages[0]))
		}
	}
}

func TestListRepositoriesShowsTheRow(t *testing.T) {
	t.Parallel()
	p := sqlite(t)
	p.push(t, "a")
	fingerprint := registry.Fingerprint(nil)
	if _, err := p.feed.RecordSweep(t.Context(), "a", 1, fingerprint, true); err != nil {
		t.Fatal(err)
	}
	resp, err := p.run(t).feed.ListRepositories(as(deadline(t), "operator/ops"), &antipodev1.ListRepositoriesRequest{})
	if err != nil || len(resp.GetRepositories()) != 1 {
		t.Fatal(resp, err)
	}
	row := resp.GetRepositories()[0]
	if row.GetRevision() != 2 || row.GetFingerprint() != fingerprint || row.GetSweptAt() == nil || row.GetChangedAt() == nil {
		t.Error(row)
	}
}

func TestListRepositoriesRefusals(t *testing.T) {
	t.Parallel()
	c := sqlite(t).run(t)
	for name, req := range map[string]*antipodev1.ListRepositoriesRequest{
		"negative size":   {PageSize: -1},
		"another's token": {PageToken: "abc"},
		"no name in it":   {PageToken: "after:"},
		"a broken name":   {PageToken: "after:\x00"},
	} {
		if resp, err := c.feed.ListRepositories(as(deadline(t), "operator/ops"), req); status.Code(err) != codes.InvalidArgument {
			t.Errorf("%s: %v, %v", name, resp, err)
		}
	}
}
