package sweep_test

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"go.uber.org/goleak"

	"github.com/antipode-registry/antipode/internal/database/databasetest"
	"github.com/antipode-registry/antipode/internal/registry"
	"github.com/antipode-registry/antipode/internal/registrytest"
	"github.com/antipode-registry/antipode/primaryd/internal/feed"
	"github.com/antipode-registry/antipode/primaryd/internal/listing"
	"github.com/antipode-registry/antipode/primaryd/internal/sweep"
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

// rig is a registry behind a proxy, a feed, and a sweeper between them.
type rig struct {
	*registrytest.Proxy
	feed    *feed.Feed
	sweeper *sweep.Sweeper
}

func newRig(t *testing.T) *rig {
	t.Helper()
	r := &rig{Proxy: registrytest.NewProxy(t, registrytest.InMemory(t, false).URL()), feed: startFeed(t)}
	transport := &http.Transport{}
	t.Cleanup(transport.CloseIdleConnections)
	source, err := registry.Open(registry.Config{URL: r.URL(), Side: registry.Source, Transport: transport})
	if err != nil {
		t.Fatal(err)
	}
	r.sweeper = sweep.New(source, listing.New(source, r.feed), r.feed, sweep.Options{
		Interval: time.Hour, Logger: slog.New(slog.DiscardHandler),
	})
	return r
}

func (r *rig) push(t *testing.T, repository, tag string, seed int64) string {
	t.Helper()
	image := registrytest.NewImage(seed, 1, 64)
	registrytest.Push(t, r.URL(), repository, tag, image)
	return image.Digest
}

func (r *rig) round(t *testing.T) {
	t.Helper()
	if err := r.sweeper.Round(t.Context()); err != nil {
		t.Fatal(err)
	}
}

// baseline makes known what there is, and then what it looks like.
func (r *rig) baseline(t *testing.T) {
	t.Helper()
	r.round(t)
	r.round(t)
}

// revisions is the feed, without what a round changes where it finds nothing.
func revisions(t *testing.T, f *feed.Feed) map[string]int64 {
	t.Helper()
	rows, err := f.List(t.Context(), "", 1000)
	if err != nil {
		t.Fatal(err)
	}
	m := map[string]int64{}
	for _, row := range rows {
		m[row.Repository] = row.Revision
	}
	return m
}

func TestRoundMakesKnownWhatTheFeedNeverHeardOf(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	for _, repository := range []string{"b/c", "a", "d"} {
		r.push(t, repository, "v1", 1)
	}
	r.round(t)
	got := revisions(t, r.feed)
	if diff := cmp.Diff(map[string]int64{"a": 1, "b/c": 2, "d": 3}, got); diff != "" {
		t.Error(diff)
	}
	if n := r.Count(http.MethodHead, "manifest"); n != 0 {
		t.Errorf("making them known took %d requests for tags, which sites will ask for anyway", n)
	}
	for range 2 {
		r.round(t)
		if diff := cmp.Diff(got, revisions(t, r.feed)); diff != "" {
			t.Errorf("a round over nothing new: %s", diff)
		}
	}
	row, _, err := r.feed.Get(t.Context(), "a")
	if err != nil || row.Hint.Base != row.Revision || row.Fingerprint == "" || row.SweptAt.IsZero() {
		t.Errorf("%+v, %v", row, err)
	}
}

func TestRoundFindsWhatNotificationsLost(t *testing.T) {
	t.Parallel()
	tests := map[string]func(t *testing.T, r *rig){
		"a push":   func(t *testing.T, r *rig) { r.push(t, "a", "v9", 9) },
		"a retag":  func(t *testing.T, r *rig) { r.push(t, "a", "v1", 9) },
		"a delete": func(t *testing.T, r *rig) { registrytest.DeleteTag(t, r.URL(), "a", "v1") },
		"a push after one that was heard of": func(t *testing.T, r *rig) {
			touch := feed.Touch{Tag: "v8", Digest: r.push(t, "a", "v8", 8)}
			if _, err := r.feed.Append(t.Context(), feed.Change{Repository: "a", Tags: []feed.Touch{touch}}); err != nil {
				t.Fatal(err)
			}
			r.push(t, "a", "v9", 9)
		},
	}
	for name, lost := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t)
			r.push(t, "a", "v1", 1)
			r.push(t, "b", "v1", 2)
			r.baseline(t)
			lost(t, r)
			before := revisions(t, r.feed)
			r.round(t)
			after := revisions(t, r.feed)
			if after["a"] <= before["a"] || after["b"] != before["b"] {
				t.Errorf("from %v to %v", before, after)
			}
			row, _, err := r.feed.Get(t.Context(), "a")
			if err != nil || row.Hint.Base != row.Revision {
				t.Errorf("sites would not list all of it: %+v, %v", row, err)
			}
			r.round(t)
			if diff := cmp.Diff(after, revisions(t, r.feed)); diff != "" {
				t.Errorf("found twice: %s", diff)
			}
		})
	}
}

func TestAnErrorChangesNothing(t *testing.T) {
	t.Parallel()
	html := http.Header{"Content-Type": {"text/html"}}
	tests := map[string]struct {
		path       string
		fault      registrytest.Fault
		incomplete bool // the round goes on with what it can compare
	}{
		"catalog refused":  {"/v2/_catalog", registrytest.Fault{Status: http.StatusUnauthorized}, true},
		"no catalog":       {"/v2/_catalog", registrytest.Fault{Status: http.StatusNotFound, Header: html}, true},
		"catalog cut":      {"/v2/_catalog", registrytest.Fault{Cut: 3}, false},
		"tags refused":     {"/v2/a/tags/list", registrytest.Fault{Status: http.StatusForbidden}, true},
		"tags no JSON":     {"/v2/a/tags/list", registrytest.Fault{Status: http.StatusOK, Header: html, Body: "<p>"}, true},
		"tags unavailable": {"/v2/a/tags/list", registrytest.Fault{Status: http.StatusServiceUnavailable}, true},
		"digest refused":   {"/v2/a/manifests/v1", registrytest.Fault{Status: http.StatusUnauthorized}, true},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t)
			r.push(t, "a", "v1", 1)
			r.push(t, "b", "v1", 1)
			r.baseline(t)
			r.push(t, "b", "v2", 2) // its notification is lost
			before := revisions(t, r.feed)
			r.Fault(func(request *http.Request) registrytest.Fault {
				if request.URL.Path == test.path {
					return test.fault
				}
				return registrytest.Fault{}
			})
			err := r.sweeper.Round(t.Context())
			if err == nil || errors.Is(err, sweep.ErrIncomplete) != test.incomplete {
				t.Errorf("got %v", err)
			}
			after := revisions(t, r.feed)
			if after["a"] != before["a"] || (after["b"] > before["b"]) != test.incomplete {
				t.Errorf("from %v to %v", before, after)
			}
			r.Fault(nil)
			r.round(t)
			if healed := revisions(t, r.feed); healed["a"] != before["a"] || healed["b"] <= before["b"] {
				t.Errorf("the next round: from %v to %v", before, healed)
			}
		})
	}
}

// walker is a Lister of a test's own.
type walker func(row feed.Row) (listing.Listing, error)

func (w walker) Walk(_ context.Context, row feed.Row) (listing.Listing, error) { return w(row) }

// A push that was announced, and a newer one whose notification was lost with the registry's queue, read like one that is
// not written yet. Left to the next round, the site would be wrong until then.
func TestWhatIsNotSettledIsBumped(t *testing.T) {
	t.Parallel()
	f := startFeed(t)
	if _, err := f.Append(t.Context(), feed.Change{Repository: "a", Tags: []feed.Touch{{Tag: "v1"}}}); err != nil {
		t.Fatal(err)
	}
	w := walker(func(row feed.Row) (listing.Listing, error) {
		return listing.Listing{Complete: true, Present: true, Unsettled: []string{"v1"}, Revision: row.Revision}, nil
	})
	s := sweep.New(&catalog{}, w, f, sweep.Options{Interval: time.Hour, Logger: slog.New(slog.DiscardHandler)})
	before := revisions(t, f)["a"]
	if err := s.Round(t.Context()); err != nil || revisions(t, f)["a"] <= before {
		t.Errorf("%v, %v", revisions(t, f), err)
	}
}

// A registry that answers nobody is not asked for ten thousand repositories one after the other.
func TestAnOutageEndsTheRound(t *testing.T) {
	t.Parallel()
	f := startFeed(t)
	var names []string
	for i := range 200 {
		names = append(names, strings.Repeat("a", i+1))
	}
	if _, err := f.AddMissing(t.Context(), names); err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex
	asked := 0
	count := func() {
		mu.Lock()
		defer mu.Unlock()
		asked++
	}
	metrics := sweep.NewMetrics(prometheus.NewPedanticRegistry())
	for name, test := range map[string]struct {
		err        error
		all        bool
		incomplete bool
	}{
		"outage":        {registry.ErrUnavailable, false, false},
		"their own way": {registry.ErrMalformed, true, true},
	} {
		asked = 0
		s := sweep.New(&catalog{}, walker(func(feed.Row) (listing.Listing, error) {
			count()
			return listing.Listing{}, test.err
		}), f, sweep.Options{Interval: time.Hour, Logger: slog.New(slog.DiscardHandler), Metrics: metrics})
		err := s.Round(t.Context())
		if !errors.Is(err, test.err) || errors.Is(err, sweep.ErrIncomplete) != test.incomplete || len(err.Error()) > 500 {
			t.Errorf("%s: %v", name, err)
		}
		if (asked == len(names)) != test.all || !test.all && asked > 20 {
			t.Errorf("%s: asked for %d of %d", name, asked, len(names))
		}
	}
}

func TestMetrics(t *testing.T) {
	t.Parallel()
	reg := prometheus.NewPedanticRegistry()
	s := sweep.New(&catalog{names: []string{"a"}}, walker(func(feed.Row) (listing.Listing, error) {
		return listing.Listing{Complete: true, Present: true}, nil
	}), startFeed(t), sweep.Options{Interval: time.Hour, Logger: slog.New(slog.DiscardHandler), Metrics: sweep.NewMetrics(reg)})
	if err := s.Round(t.Context()); err != nil {
		t.Fatal(err)
	}
	want := "# HELP antipode_sweep_discovered_total Repositories that a sweep found and the feed had never heard of.\n" +
		"# TYPE antipode_sweep_discovered_total counter\nantipode_sweep_discovered_total 1\n"
	if err := testutil.GatherAndCompare(reg, strings.NewReader(want), "antipode_sweep_discovered_total"); err != nil {
		t.Error(err)
	}
}
