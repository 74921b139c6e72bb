package listing_test

import (
	"context"
	"errors"
	"net/http"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"github.com/antipode-registry/antipode/internal/database/databasetest"
	"github.com/antipode-registry/antipode/internal/registry"
	"github.com/antipode-registry/antipode/internal/registrytest"
	"github.com/antipode-registry/antipode/primaryd/internal/feed"
	"github.com/antipode-registry/antipode/primaryd/internal/listing"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// startFeed runs a feed on a database of its own until the test ends.
func startFeed(t *testing.T) *feed.Feed {
	t.Helper()
	f, err := feed.Open(t.Context(), databasetest.OpenSQLite(t), feed.Options{})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	var running sync.WaitGroup
	running.Go(func() {
		if err := f.Run(ctx); err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(func() {
		cancel()
		running.Wait()
	})
	return f
}

// pair is a registry behind a proxy, and a feed.
type pair struct {
	*registrytest.Proxy
	feed     *feed.Feed
	registry *registry.Registry
	lister   *listing.Lister
}

func newPair(t *testing.T, referrers bool) *pair {
	t.Helper()
	p := &pair{Proxy: registrytest.NewProxy(t, registrytest.InMemory(t, referrers).URL()), feed: startFeed(t)}
	transport := &http.Transport{}
	t.Cleanup(transport.CloseIdleConnections)
	var err error
	p.registry, err = registry.Open(registry.Config{URL: p.URL(), Side: registry.Source, Transport: transport})
	if err != nil {
		t.Fatal(err)
	}
	p.lister = listing.New(p.registry, p.feed)
	return p
}

// push writes a tag and notifies the feed of it.
func (p *pair) push(t *testing.T, repository, tag string, seed int64) registry.Tag {
	t.Helper()
	image := registrytest.NewImage(seed, 1, 64)
	registrytest.Push(t, p.URL(), repository, tag, image)
	p.notify(t, feed.Change{Repository: repository, Tags: []feed.Touch{{Tag: tag, Digest: image.Digest}}})
	return registry.Tag{Name: tag, Digest: image.Digest, MediaType: image.MediaType, Size: int64(len(image.Manifest))}
}

func (p *pair) remove(t *testing.T, repository, tag string) {
	t.Helper()
	registrytest.DeleteTag(t, p.URL(), repository, tag)
	p.notify(t, feed.Change{Repository: repository, Tags: []feed.Touch{{Tag: tag, Deleted: true}}})
}

func (p *pair) notify(t *testing.T, change feed.Change) {
	t.Helper()
	if _, err := p.feed.Append(t.Context(), change); err != nil {
		t.Fatal(err)
	}
}

func (p *pair) row(t *testing.T, repository string) feed.Row {
	t.Helper()
	row, _, err := p.feed.Get(t.Context(), repository)
	if err != nil {
		t.Fatal(err)
	}
	return row
}

// list answers with what it is asked since, with the requests that it cost.
func (p *pair) list(t *testing.T, repository, feedID string, since int64) listing.Listing {
	t.Helper()
	p.Reset()
	got, err := p.lister.List(t.Context(), repository, feedID, feed.Cursor{Revision: since})
	if err != nil {
		t.Fatal(err)
	}
	return got
}

func TestDeltaAndComplete(t *testing.T) {
	t.Parallel()
	p := newPair(t, false)
	p.push(t, "a", "v1", 1)
	begin := p.row(t, "a").Revision
	v2 := p.push(t, "a", "v2", 2)
	v1 := p.push(t, "a", "v1", 3)
	p.push(t, "a", "v3", 4)
	p.remove(t, "a", "v3")
	now := p.row(t, "a").Revision
	p.push(t, "unknown", "v1", 5)
	p.notify(t, feed.Change{Repository: "unknown", Unknown: true})

	both := []registry.Tag{v1, v2}
	tests := map[string]struct {
		repository, feedID string
		since              int64
		want               listing.Listing
	}{
		"since a revision":      {"a", p.feed.ID(), begin, listing.Listing{Present: true, Tags: both, Absent: []string{"v3"}, Revision: now}},
		"up to date":            {"a", p.feed.ID(), now, listing.Listing{Present: true, Revision: now}},
		"from nothing":          {"a", p.feed.ID(), 0, listing.Listing{Complete: true, Present: true, Tags: both, Revision: now}},
		"of another feed":       {"a", "other", begin, listing.Listing{Complete: true, Present: true, Tags: both, Revision: now}},
		"from a time to come":   {"a", p.feed.ID(), now + 9, listing.Listing{Complete: true, Present: true, Tags: both, Revision: now}},
		"before the first push": {"a", p.feed.ID(), begin - 1, listing.Listing{Complete: true, Present: true, Tags: both, Revision: now}},
		"not in feed, not there": {
			"b", p.feed.ID(), 3, listing.Listing{Complete: true},
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			got := p.list(t, test.repository, test.feedID, test.since)
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Error(diff)
			}
			if lists := p.Count("GET", "tags"); (lists > 0) != got.Complete {
				t.Errorf("%d requests for tag lists", lists)
			}
		})
	}
	if got := p.list(t, "unknown", p.feed.ID(), p.row(t, "unknown").Revision-1); !got.Complete {
		t.Error("a change that nothing is known of was answered with a delta")
	}
}

func TestADeltaCostsAConstantNumberOfRequests(t *testing.T) {
	t.Parallel()
	p := newPair(t, false)
	p.push(t, "a", "v0", 1)
	for _, tag := range []string{"v1", "v2", "v3", "v4", "v5", "v6", "v7", "v8"} {
		p.push(t, "a", tag, 1)
	}
	p.list(t, "a", "", 0) // learns that there is no referrers API
	since := p.row(t, "a").Revision
	p.push(t, "a", "v9", 2)
	p.list(t, "a", p.feed.ID(), since)
	if n := len(p.Requests()); n != 1 {
		t.Errorf("%d requests for one push: %+v", n, p.Requests())
	}
}

// What sites are given decides what a sweep may take for granted.
func TestACompleteListingIsRecorded(t *testing.T) {
	t.Parallel()
	p := newPair(t, false)
	registrytest.Push(t, p.URL(), "a", "v1", registrytest.NewImage(1, 1, 64))
	if _, err := p.feed.AddMissing(t.Context(), []string{"a"}); err != nil {
		t.Fatal(err)
	}
	first := p.list(t, "a", "", 0)
	if got := p.row(t, "a").Fingerprint; got != first.Fingerprint() {
		t.Errorf("after the first listing: %q", got)
	}
	p.list(t, "a", "", 0)
	if got := p.row(t, "a").Fingerprint; got != first.Fingerprint() {
		t.Errorf("after the same listing: %q", got)
	}
	registrytest.Push(t, p.URL(), "a", "v2", registrytest.NewImage(2, 1, 64)) // its notification is lost
	p.list(t, "a", "", 0)
	if got := p.row(t, "a").Fingerprint; got != "" {
		t.Errorf("after a listing that differs: %q", got)
	}
	p.push(t, "a", "v3", 3)
	p.list(t, "a", p.feed.ID(), p.row(t, "a").Revision-1)
	p.list(t, "a", "", 0)
	if got := p.row(t, "a").Fingerprint; got != "" {
		t.Errorf("after a push that sites follow by its tag: %q", got)
	}
}

// forgetful is a feed that cannot take note of listings.
type forgetful struct{ *feed.Feed }

var errForgetful = errors.New("no database")

func (forgetful) RecordListing(context.Context, string, int64, string) error { return errForgetful }

func TestAListingThatCannotBeRecordedFails(t *testing.T) {
	t.Parallel()
	p := newPair(t, false)
	p.push(t, "a", "v1", 1)
	got, err := listing.New(p.registry, forgetful{p.feed}).List(t.Context(), "a", "", feed.Cursor{})
	if !errors.Is(err, errForgetful) || got.Complete {
		t.Errorf("%+v, %v", got, err)
	}
}

func TestAnErrorIsNoListing(t *testing.T) {
	t.Parallel()
	p := newPair(t, false)
	if _, err := p.feed.AddMissing(t.Context(), []string{"a"}); err != nil {
		t.Fatal(err)
	}
	registrytest.Push(t, p.URL(), "a", "v1", registrytest.NewImage(1, 1, 64))
	html := http.Header{"Content-Type": {"text/html"}}
	tests := map[string]struct {
		method string
		fault  registrytest.Fault
		want   error
	}{
		"tags 401":       {http.MethodGet, registrytest.Fault{Status: http.StatusUnauthorized}, registry.ErrUnauthorized},
		"tags 404":       {http.MethodGet, registrytest.Fault{Status: http.StatusNotFound, Header: html}, registry.ErrMalformed},
		"tags no JSON":   {http.MethodGet, registrytest.Fault{Status: http.StatusOK, Header: html, Body: "<p>"}, registry.ErrMalformed},
		"tags cut short": {http.MethodGet, registrytest.Fault{Cut: 5}, registry.ErrUnavailable},
		"digest 403":     {http.MethodHead, registrytest.Fault{Status: http.StatusForbidden}, registry.ErrUnauthorized},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			p.Fault(func(r *http.Request) registrytest.Fault {
				if r.Method == test.method {
					return test.fault
				}
				return registrytest.Fault{}
			})
			got, err := p.lister.List(t.Context(), "a", "", feed.Cursor{})
			if diff := cmp.Diff(listing.Listing{}, got); diff != "" || !errors.Is(err, test.want) {
				t.Error(err, diff)
			}
			if row := p.row(t, "a"); row.Fingerprint != "" {
				t.Errorf("the feed took note of it: %+v", row)
			}
		})
	}
}

// The walk must not wait for what the sweep is for.
func TestAWalkForTheSweepIsNotRecorded(t *testing.T) {
	t.Parallel()
	p := newPair(t, false)
	if _, err := p.feed.AddMissing(t.Context(), []string{"a"}); err != nil {
		t.Fatal(err)
	}
	registrytest.Push(t, p.URL(), "a", "v1", registrytest.NewImage(1, 1, 64))
	got, err := p.lister.Walk(t.Context(), p.row(t, "a"))
	if err != nil || !got.Complete || len(got.Tags) != 1 || p.row(t, "a").Fingerprint != "" {
		t.Errorf("%+v, %v, %+v", got, err, p.row(t, "a"))
	}
}

// One push costs the registry the same however many sites ask at the same time.
func TestSitesShareAWalk(t *testing.T) {
	t.Parallel()
	p := newPair(t, false)
	p.push(t, "a", "v1", 1)
	release, seen := make(chan struct{}), make(chan struct{}, 100)
	p.Fault(func(*http.Request) registrytest.Fault {
		seen <- struct{}{}
		return registrytest.Fault{Delay: release}
	})
	p.Reset()
	const sites = 20
	errs := make(chan error, sites)
	site := func() {
		_, err := p.lister.List(t.Context(), "a", "", feed.Cursor{})
		errs <- err
	}
	go site()
	<-seen // the walk is under way, and stays so until all have had time to join
	for range sites - 1 {
		go site()
	}
	registrytest.Eventually(t, time.Minute, func(context.Context) error {
		if n := listing.Waiting(p.lister); n != sites {
			return errors.New("not all of them wait yet")
		}
		return nil
	})
	close(release)
	for range sites {
		if err := <-errs; err != nil {
			t.Error(err)
		}
	}
	if n := p.Count("GET", "tags"); n != 1 {
		t.Errorf("%d walks for %d sites", n, sites)
	}
}
