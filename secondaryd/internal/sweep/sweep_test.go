package sweep_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"go.uber.org/goleak"

	"github.com/antipode-registry/antipode/internal/database"
	"github.com/antipode-registry/antipode/internal/database/databasetest"
	"github.com/antipode-registry/antipode/internal/registry"
	"github.com/antipode-registry/antipode/internal/registrytest"
	"github.com/antipode-registry/antipode/secondaryd/internal/plan"
	"github.com/antipode-registry/antipode/secondaryd/internal/sweep"
	"github.com/antipode-registry/antipode/secondaryd/internal/tracking"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var errDown = errors.New("the registry is down")

// shelf is the site's registry in memory.
type shelf struct {
	mu         sync.Mutex
	tags       map[string][]registry.Tag
	unreadable map[string][]string
	fails      map[string]error
	listed     []string
	during     func(repository string) // called before an answer is made; may be nil
}

func (s *shelf) ListReadable(_ context.Context, repository string) (registry.Listing, []string, error) {
	if s.during != nil {
		s.during(repository)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.listed = append(s.listed, repository)
	if err := s.fails[repository]; err != nil {
		return registry.Listing{}, nil, err
	}
	tags := s.tags[repository]
	return registry.Listing{Present: tags != nil, Tags: slices.Clone(tags)}, s.unreadable[repository], nil
}

// put sets the tags of a repository, each "name=digest".
func (s *shelf) put(repository string, pairs ...string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.tags[repository] = []registry.Tag{}
	for _, pair := range pairs {
		name, digest, _ := strings.Cut(pair, "=")
		s.tags[repository] = append(s.tags[repository], registry.Tag{Name: name, Digest: digest})
	}
}

// fail makes the listing of a repository fail; nil lets it succeed again.
func (s *shelf) fail(repository string, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.fails["site/"+repository] = err
}

// scene is a sweeper with its site.
type scene struct {
	*testing.T
	*shelf
	db       *database.DB
	store    *tracking.Store
	sweeper  *sweep.Sweeper
	metrics  *prometheus.Registry
	revision int64
}

func newScene(t *testing.T, changes ...func(*sweep.Options)) *scene {
	t.Helper()
	db := databasetest.OpenSQLite(t)
	store, err := tracking.Open(t.Context(), db, tracking.Options{})
	if err != nil {
		t.Fatal(err)
	}
	s := &scene{
		T: t, db: db, store: store, metrics: prometheus.NewRegistry(),
		shelf: &shelf{tags: map[string][]registry.Tag{}, unreadable: map[string][]string{}, fails: map[string]error{}},
	}
	opts := sweep.Options{
		Interval: time.Hour, Target: func(name string) string { return "site/" + name },
		Logger: slog.New(slog.DiscardHandler), Metrics: sweep.NewMetrics(s.metrics),
	}
	for _, change := range changes {
		change(&opts)
	}
	s.sweeper = sweep.New(s.shelf, store, store.Content(), opts)
	return s
}

func (s *scene) must(err error) {
	s.Helper()
	if err != nil {
		s.Fatal(err)
	}
}

// sync records a sync of the repository with what its place on the site holds now.
func (s *scene) sync(repository string) {
	s.Helper()
	s.revision++
	change := tracking.Change{Repository: repository, Revision: s.revision}
	s.must(s.store.Apply(s.Context(), tracking.Batch{FeedID: "feed", Changes: []tracking.Change{change}, Cursor: s.revision, Head: s.revision}))
	lease, err := s.store.Claim(s.Context(), "worker", tracking.LiveFirst)
	s.must(err)
	if lease.Repository != repository {
		s.Fatalf("claimed %s instead of %s", lease.Repository, repository)
	}
	s.must(s.store.Finish(s.Context(), lease, s.outcome(repository)))
}

func (s *scene) outcome(repository string) tracking.Outcome {
	s.mu.Lock()
	defer s.mu.Unlock()
	var tags []plan.Tag
	for _, tag := range s.tags["site/"+repository] {
		tags = append(tags, plan.Tag{Name: tag.Name, Digest: tag.Digest})
	}
	return tracking.Outcome{Synced: true, TagCount: int64(len(tags)), Sum: plan.SumOf(tags).String()}
}

// wantDue compares the repositories that are not synced.
func (s *scene) wantDue(want ...string) {
	s.Helper()
	rows, err := s.store.List(s.Context(), "", "", 10_000)
	s.must(err)
	var due []string
	for _, row := range rows {
		if row.State != tracking.Synced {
			due = append(due, row.Name)
		}
	}
	if diff := cmp.Diff(want, due); diff != "" {
		s.Errorf("due (-want +got):\n%s", diff)
	}
}

// What differs on the site becomes due with a complete listing, and what was believed of its content is forgotten; the
// rest is left alone.
func TestRound(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	names := []string{"empty", "equal", "gone", "less", "more", "moved", "unreadable"}
	for _, name := range names {
		if name != "empty" {
			s.put("site/"+name, "v1=sha256:1", "v2=sha256:2")
		}
		s.sync(name)
		s.must(s.store.Content().Record(t.Context(), "site/"+name, "sha256:1"))
	}
	s.must(s.sweeper.Round(t.Context()))
	s.wantDue()

	delete(s.tags, "site/gone")
	s.put("site/less", "v1=sha256:1")
	s.put("site/more", "v1=sha256:1", "v2=sha256:2", "v3=sha256:3")
	s.put("site/moved", "v1=sha256:1", "v2=sha256:other")
	s.unreadable["site/unreadable"] = []string{"v3"}
	s.must(s.sweeper.Round(t.Context()))
	s.wantDue("gone", "less", "more", "moved", "unreadable")
	for _, name := range names {
		where, err := s.store.Content().Find(t.Context(), "site/"+name, "sha256:1")
		s.must(err)
		has := where["sha256:1"] == "site/"+name
		if whole := name == "equal" || name == "empty"; has != whole {
			t.Errorf("content of %s is remembered: %t", name, has)
		}
	}
	lease, err := s.store.Claim(t.Context(), "worker", tracking.LiveFirst)
	s.must(err)
	if lease.Synced != -1 {
		t.Errorf("the sync that follows asks for changes since %d, want a complete listing", lease.Synced)
	}
	s.wantDamaged(5)
}

func (s *scene) wantDamaged(n int) {
	s.Helper()
	want := fmt.Sprintf(`
# HELP antipode_site_sweep_damaged_total Repositories that the site's sweep found to differ from what was synced.
# TYPE antipode_site_sweep_damaged_total counter
antipode_site_sweep_damaged_total %d
`, n)
	if err := testutil.GatherAndCompare(s.metrics, strings.NewReader(want), "antipode_site_sweep_damaged_total"); err != nil {
		s.Error(err)
	}
}

// What is not synced is a sync's affair, and is not asked for.
func TestOnlySyncedAreCompared(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	s.sync("synced")
	changes := []tracking.Change{{Repository: "pending", Revision: 9}}
	s.must(s.store.Apply(t.Context(), tracking.Batch{FeedID: "feed", Changes: changes, Cursor: 9, Head: 9}))
	s.must(s.sweeper.Round(t.Context()))
	if diff := cmp.Diff([]string{"site/synced"}, s.listed); diff != "" {
		t.Errorf("listed (-want +got):\n%s", diff)
	}
}

// Many repositories are read in pages; none is left out, none is asked for twice.
func TestManyPages(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	const n = 1203
	var changes []tracking.Change
	for i := range n {
		changes = append(changes, tracking.Change{Repository: fmt.Sprintf("r%04d", i), Revision: int64(i + 1)})
	}
	s.must(s.store.Apply(t.Context(), tracking.Batch{FeedID: "feed", Changes: changes, Cursor: n, Head: n}))
	// All are synced, and hold nothing.
	s.must(s.db.Write(t.Context(), func(ctx context.Context, tx *database.Tx) error {
		_, err := tx.ExecContext(ctx, `UPDATE repository SET synced_revision = wanted_revision, oldest_unsynced_at = NULL,
			last_synced_at = 1, tag_sum = $1`, plan.SumOf(nil).String())
		return err
	}))
	s.put("site/r0499", "v1=sha256:1")
	s.put("site/r0500", "v1=sha256:1")
	s.put("site/r1202", "v1=sha256:1")
	s.must(s.sweeper.Round(t.Context()))
	s.wantDue("r0499", "r0500", "r1202")
	slices.Sort(s.listed)
	if len(slices.Compact(slices.Clone(s.listed))) != n || len(s.listed) != n {
		t.Errorf("%d listings of %d repositories", len(s.listed), n)
	}
}

// A sync that ends while its repository is listed explains the difference, whatever it wrote.
func TestConcurrentSyncIsNoDamage(t *testing.T) {
	t.Parallel()
	for name, after := range map[string][]string{
		"to something else": {"v1=sha256:2"},
		"there and back":    {"v1=sha256:1"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				s := newScene(t)
				s.put("site/a", "v1=sha256:1")
				s.sync("a")
				<-time.After(time.Minute)
				s.during = func(string) {
					s.put("site/a", after...)
					s.sync("a")
					s.put("site/a", "v1=sha256:between")
				}
				s.must(s.sweeper.Round(t.Context()))
				s.wantDue()
			})
		})
	}
}

// A repository that is changed, or no longer tracked, by the time it was listed is no damage either.
func TestGoneOrDueMeanwhile(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	scope := func(selection string) {
		t.Helper()
		_, err := s.store.SetScope(t.Context(), tracking.Scope{
			Selection: selection, Wants: func(name string) bool { return selection == "all" || name != "gone" },
		})
		s.must(err)
	}
	scope("all")
	s.sync("due")
	s.sync("gone")
	s.during = func(repository string) {
		s.put(repository, "v1=sha256:1")
		if repository == "site/due" {
			s.must(s.store.Apply(t.Context(), tracking.Batch{FeedID: "feed", Changes: []tracking.Change{{Repository: "due", Revision: 50}}, Cursor: 50, Head: 50}))
		} else {
			scope("fewer")
		}
	}
	s.must(s.sweeper.Round(t.Context()))
	s.wantDamaged(0)
	row, _, err := s.store.Get(t.Context(), "due")
	s.must(err)
	if row.Synced == -1 {
		t.Error("a repository that was due anyway is asked for a complete listing")
	}
}

// What cannot be listed is an error, concludes nothing, and does not keep the others from being compared.
func TestRegistryFails(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	for _, name := range []string{"a", "b", "c"} {
		s.sync(name)
		s.put("site/"+name, "v1=sha256:1")
	}
	s.fail("b", errDown)
	if err := s.sweeper.Round(t.Context()); !errors.Is(err, errDown) {
		t.Errorf("the round ended with %v, want %v", err, errDown)
	}
	s.wantDue("a", "c")
}

// A registry that is down is not asked about thousands of repositories, one after the other.
func TestRegistryIsDown(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	for i := range 60 {
		name := fmt.Sprintf("r%02d", i)
		s.sync(name)
		s.fail(name, fmt.Errorf("no answer: %w", registry.ErrUnavailable))
	}
	err := s.sweeper.Round(t.Context())
	if !errors.Is(err, registry.ErrUnavailable) || !strings.Contains(err.Error(), "given up") {
		t.Errorf("the round ended with %v", err)
	}
	if n := len(s.listed); n < 20 || n > 24 {
		t.Errorf("%d repositories were asked for", n)
	}
	// A failure now and then does not end a round.
	for i := range 60 {
		if i%5 == 0 {
			s.fail(fmt.Sprintf("r%02d", i), nil)
		}
	}
	s.listed = nil
	if err := s.sweeper.Round(t.Context()); err == nil || !strings.Contains(err.Error(), "and 47 more") {
		t.Errorf("the round ended with %v", err)
	}
	if len(s.listed) != 60 {
		t.Errorf("%d repositories were asked for", len(s.listed))
	}
}

func TestPausedSiteIsNotSwept(t *testing.T) {
	t.Parallel()
	s := newScene(t)
	s.sync("a")
	s.put("site/a", "v1=sha256:1")
	s.must(s.store.SetPaused(t.Context(), true))
	s.must(s.sweeper.Round(t.Context()))
	s.wantDue()
	if len(s.listed) > 0 {
		t.Errorf("a paused site asked its registry for %v", s.listed)
	}
}

// A round begins an interval after the one before ended, and the first one an interval after the start. What was not
// checked for long is then checked.
func TestRun(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newScene(t, func(o *sweep.Options) { o.VerifyAfter = 3 * time.Hour })
		s.put("site/a", "v1=sha256:1")
		s.sync("a")
		start := time.Now()
		var rounds []time.Duration
		s.during = func(string) {
			rounds = append(rounds, time.Since(start))
			<-time.After(90 * time.Minute) // longer than the interval
		}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- s.sweeper.Run(ctx) }()
		<-time.After(5 * time.Hour)
		synctest.Wait()
		s.wantDue("a")
		lease, err := s.store.Claim(t.Context(), "worker", tracking.LiveFirst)
		s.must(err)
		if lease.Verify != tracking.Graphs || lease.Class != tracking.Backfill {
			t.Errorf("the check is %+v", lease)
		}
		cancel()
		s.must(<-done)
		if diff := cmp.Diff([]time.Duration{time.Hour, 210 * time.Minute}, rounds); diff != "" {
			t.Errorf("rounds began (-want +got):\n%s", diff)
		}
		want := `
# HELP antipode_site_sweep_rounds_total Rounds of the site's sweep: ` + "`complete`" + ` or ` + "`failed`" + `.
# TYPE antipode_site_sweep_rounds_total counter
antipode_site_sweep_rounds_total{result="complete"} 2
`
		if err := testutil.GatherAndCompare(s.metrics, strings.NewReader(want), "antipode_site_sweep_rounds_total"); err != nil {
			t.Error(err)
		}
	})
}

// A failed round is counted and logged, and the next one comes all the same.
func TestRunGoesOn(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newScene(t)
		s.sync("a")
		s.put("site/a", "v1=sha256:1")
		s.fail("a", errDown)
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- s.sweeper.Run(ctx) }()
		<-time.After(90 * time.Minute)
		s.wantDue()
		s.fail("a", nil)
		<-time.After(time.Hour)
		synctest.Wait()
		s.wantDue("a")
		cancel()
		s.must(<-done)
		problems, err := testutil.GatherAndLint(s.metrics)
		if err != nil || len(problems) > 0 {
			t.Errorf("lint: %v, %v", problems, err)
		}
		if n := testutil.CollectAndCount(s.metrics, "antipode_site_sweep_rounds_total"); n != 2 {
			t.Errorf("%d results of rounds were counted, want failed and complete", n)
		}
	})
}

// The real registry's listing is what was summed when it was synced.
func TestRealRegistry(t *testing.T) {
	t.Parallel()
	site := registrytest.InMemory(t, false)
	handle, err := registry.Open(registry.Config{URL: site.URL(), Side: registry.Destination})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(handle.Close)
	s := newScene(t)
	s.sweeper = sweep.New(handle, s.store, s.store.Content(), sweep.Options{
		Target: func(name string) string { return name }, Logger: slog.New(slog.DiscardHandler),
	})
	image := registrytest.NewImage(1, 1, 64)
	for _, tag := range []string{"v1", "v2"} {
		registrytest.Push(t, site.URL(), "a", tag, image)
		s.tags["site/a"] = append(s.tags["site/a"], registry.Tag{Name: tag, Digest: image.Digest})
	}
	s.sync("a")
	s.must(s.sweeper.Round(t.Context()))
	s.wantDue()
	registrytest.DeleteTag(t, site.URL(), "a", "v2")
	s.must(s.sweeper.Round(t.Context()))
	s.wantDue("a")
}
