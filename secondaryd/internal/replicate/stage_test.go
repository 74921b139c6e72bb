package replicate_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/antipode-registry/antipode/internal/database"
	"github.com/antipode-registry/antipode/internal/database/databasetest"
	"github.com/antipode-registry/antipode/internal/registry"
	"github.com/antipode-registry/antipode/internal/registrytest"
	"github.com/antipode-registry/antipode/internal/transfer"
	"github.com/antipode-registry/antipode/secondaryd/internal/plan"
	"github.com/antipode-registry/antipode/secondaryd/internal/replicate"
	"github.com/antipode-registry/antipode/secondaryd/internal/tracking"
)

// enough bounds every wait. It is for a machine that is busy with others; what is waited for takes milliseconds.
const enough = time.Minute

// stage is an engine between two registries, with a recording proxy in front of each. What failed is not tried again
// until the test asks for it. Every method fails the test on an error.
type stage struct {
	*testing.T
	source, site string // the registries themselves, without the proxies
	from, to     *registrytest.Proxy
	primary      *announcer
	db           *database.DB
	store        *tracking.Store
	engine       *replicate.Engine
	stop         func() // ends the engine and waits for it
}

// newStage builds a stage whose engine runs.
func newStage(t *testing.T, source, site string, changes ...func(*replicate.Options)) *stage {
	t.Helper()
	s := buildStage(t, source, site, changes...)
	s.start()
	return s
}

// memoryStage is a stage between two registries in this process.
func memoryStage(t *testing.T, changes ...func(*replicate.Options)) *stage {
	t.Helper()
	return newStage(t, registrytest.InMemory(t, false).URL(), registrytest.InMemory(t, false).URL(), changes...)
}

// buildStage builds a stage; start starts its engine.
func buildStage(t *testing.T, source, site string, changes ...func(*replicate.Options)) *stage {
	t.Helper()
	s := &stage{
		T: t, source: source, site: site,
		from: registrytest.NewProxy(t, source), to: registrytest.NewProxy(t, site), db: databasetest.OpenSQLite(t),
	}
	s.primary = newAnnouncer(s.handle(source, registry.Source), s.from.URL())
	var err error
	s.store, err = tracking.Open(t.Context(), s.db, tracking.Options{BackoffMin: time.Hour, BackoffMax: time.Hour})
	s.must(err)
	s.engine = s.build(changes...)
	return s
}

// build makes another engine on the same store and registries: the next process of the same site.
func (s *stage) build(changes ...func(*replicate.Options)) *replicate.Engine {
	s.Helper()
	site := s.handle(s.to.URL(), registry.Destination)
	options := replicate.Options{
		Owner: "stage", Workers: 4, Lease: time.Minute,
		Policy:     plan.Policy{Deletions: true, BrakeShare: 1},
		SiteBrake:  tracking.SiteBrake{Share: 1, Window: time.Hour},
		Target:     func(repository string) string { return repository },
		OpenSource: func(url string) (*registry.Registry, error) { return s.handle(url, registry.Source), nil },
		Logger:     slog.New(slog.DiscardHandler),
	}
	for _, change := range changes {
		change(&options)
	}
	return replicate.New(replicate.Parts{
		Tracking: s.store, Primary: s.primary, Site: site,
		Copier: transfer.New(site, s.store.Content(), transfer.Options{}),
	}, options)
}

func (s *stage) start() {
	s.Helper()
	ctx, cancel := context.WithCancel(context.WithoutCancel(s.Context()))
	var running sync.WaitGroup
	engine := s.engine
	running.Go(func() { _ = engine.Run(ctx) }) // always nil
	s.stop = func() {
		cancel()
		running.Wait()
	}
	s.Cleanup(s.stop)
}

func (s *stage) handle(url string, side registry.Side) *registry.Registry {
	r, err := registry.Open(registry.Config{URL: url, Side: side})
	if err != nil {
		s.Error(err) // also called from the engine's goroutines
		return nil
	}
	s.Cleanup(r.Close)
	return r
}

func (s *stage) must(err error) {
	s.Helper()
	if err != nil {
		s.Fatal(err)
	}
}

// changed tells the site that these tags changed, or without any that everything in the repository may have, and waits
// until there is nothing to do.
func (s *stage) changed(repository string, tags ...string) {
	s.Helper()
	s.deliver(s.primary.announce(repository, tracking.Live, tags...))
	s.settle()
}

func (s *stage) deliver(changes ...tracking.Change) {
	s.Helper()
	last := changes[len(changes)-1].Revision
	s.must(s.store.Apply(s.Context(), tracking.Batch{FeedID: feedID, Changes: changes, Cursor: last, Head: last}))
}

// settle waits until nothing is due and nothing at work.
func (s *stage) settle() {
	s.Helper()
	registrytest.Eventually(s.T, enough, func(ctx context.Context) error {
		rows, err := s.store.List(ctx, "", "", 1000)
		for _, row := range rows {
			failed := row.State == tracking.Failed && time.Until(row.NextAttemptAt) < time.Minute
			if failed || row.State == tracking.Pending || row.State == tracking.Syncing {
				return fmt.Errorf("%s is %s", row.Name, row.State)
			}
		}
		return err
	})
}

// operate runs an operator's command and waits for what follows.
func (s *stage) operate(command func(ctx context.Context) (bool, error)) {
	s.Helper()
	found, err := command(s.Context())
	if !found {
		err = errors.Join(err, errors.New("found nothing"))
	}
	s.must(err)
	s.settle()
}

func (s *stage) resync(repository string) {
	s.Helper()
	s.operate(func(ctx context.Context) (bool, error) { return s.store.Resync(ctx, repository) })
}

func (s *stage) release(repository string) {
	s.Helper()
	s.operate(func(ctx context.Context) (bool, error) { return s.store.Release(ctx, repository) })
}

func (s *stage) row(repository string) tracking.Repository {
	s.Helper()
	row, found, err := s.store.Get(s.Context(), repository)
	if err != nil || !found {
		s.Fatalf("row of %s: found %t, %v", repository, found, err)
	}
	return row
}

func (s *stage) wantState(repository string, want tracking.State) tracking.Repository {
	s.Helper()
	row := s.row(repository)
	if row.State != want {
		s.Fatalf("%s is %s, want %s: %+v, last error %+v\n%s", repository, row.State, want, row, row.LastError,
			s.story(repository))
	}
	return row
}

// wantEqual fails the test unless the repository is synced, equal and counted.
func (s *stage) wantEqual(repository string) {
	s.Helper()
	s.wantState(repository, tracking.Synced)
	registrytest.AssertEqual(s.T, s.source, s.site, repository)
	s.wantCounted(repository, repository)
}

// wantCounted fails the test unless the row knows the tags that the site's registry has.
func (s *stage) wantCounted(repository, target string) {
	s.Helper()
	var tags []plan.Tag
	for name, digest := range registrytest.Tags(s.T, s.site, target) {
		tags = append(tags, plan.Tag{Name: name, Digest: digest})
	}
	row := s.row(repository)
	if want := plan.SumOf(tags).String(); row.Sum != want || row.TagCount != int64(len(tags)) {
		s.Errorf("the row of %s counts %d tags with sum %q; the site has %d with %q\n%s",
			repository, row.TagCount, row.Sum, len(tags), want, s.story(repository))
	}
}

// wantTags compares the names of the site's tags.
func (s *stage) wantTags(repository string, want ...string) {
	s.Helper()
	var names []string
	for name := range registrytest.Tags(s.T, s.site, repository) {
		names = append(names, name)
	}
	slices.Sort(names)
	slices.Sort(want)
	if diff := cmp.Diff(want, names); diff != "" {
		s.Errorf("tags of %s on the site (-want +got):\n%s\n%s", repository, diff, s.story(repository))
	}
}

// story is the journal, oldest first.
func (s *stage) story(repository string) string {
	s.Helper()
	entries, err := s.store.Journal(s.Context(), repository, 100)
	s.must(err)
	slices.Reverse(entries)
	var text strings.Builder
	for _, e := range entries {
		fmt.Fprintf(&text, "  %s %s %s (was %s) %s\n", e.Action, e.Reference, e.Digest, e.Previous, e.Detail)
	}
	return text.String()
}

// push puts an image of its own under each tag of the source.
func (s *stage) push(repository string, tags ...string) {
	s.Helper()
	for _, tag := range tags {
		registrytest.Push(s.T, s.source, repository, tag, imageOf(tag))
	}
}

// untag deletes tags at the source.
func (s *stage) untag(repository string, tags ...string) {
	s.Helper()
	for _, tag := range tags {
		registrytest.DeleteTag(s.T, s.source, repository, tag)
	}
}

// imageOf makes the image of a name.
func imageOf(name string) registrytest.Image {
	seed := int64(1)
	for _, r := range name {
		seed = seed*131 + int64(r)
	}
	return registrytest.NewImage(seed, 1, 64)
}

// numbered makes n tag names.
func numbered(prefix string, n int) []string {
	names := make([]string, n)
	for i := range names {
		names[i] = fmt.Sprintf("%s%02d", prefix, i)
	}
	return names
}

// faultOn makes a proxy do this to requests of a method whose path ends so.
func faultOn(proxy *registrytest.Proxy, method, suffix string, fault registrytest.Fault) {
	proxy.Fault(func(r *http.Request) registrytest.Fault {
		if r.Method == method && strings.HasSuffix(r.URL.Path, suffix) {
			return fault
		}
		return registrytest.Fault{}
	})
}

// denied is a registry's refusal in its own words.
func denied() registrytest.Fault {
	return registrytest.Fault{
		Status: http.StatusForbidden, Header: http.Header{"Content-Type": {"application/json"}},
		Body: `{"errors":[{"code":"DENIED","message":"not here"}]}`,
	}
}

// sent lists what passed a proxy.
func sent(proxy *registrytest.Proxy) string {
	var text strings.Builder
	for _, r := range proxy.Requests() {
		fmt.Fprintf(&text, "\n  %s %s?%s %d", r.Method, r.Path, r.Query, r.Status)
	}
	return text.String()
}
