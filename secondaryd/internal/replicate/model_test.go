package replicate_test

import (
	"context"
	"fmt"
	"hash/fnv"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/antipode-registry/antipode/internal/database"
	"github.com/antipode-registry/antipode/internal/database/databasetest"
	"github.com/antipode-registry/antipode/internal/registry"
	"github.com/antipode-registry/antipode/internal/registrytest"
	"github.com/antipode-registry/antipode/internal/transfer"
	"github.com/antipode-registry/antipode/secondaryd/internal/plan"
	"github.com/antipode-registry/antipode/secondaryd/internal/replicate"
	"github.com/antipode-registry/antipode/secondaryd/internal/sweep"
	"github.com/antipode-registry/antipode/secondaryd/internal/tracking"
)

// TestModel does random things to both registries, to the feed, to the wires and to the engine, which runs all the
// while, and holds the site to its promises after each. At the end all faults stop, everything is made due, and both
// registries must be equal. Each seed has its own kind of registries; time is synctest's.
//
// ANTIPODE_MODEL_SEED runs one seed, ANTIPODE_MODEL_STEPS sets the number of steps of each.
func TestModel(t *testing.T) {
	t.Parallel()
	seeds := []uint64{1, 2, 3, 4, 5, 6, 7, 8}
	if one := setting(t, "ANTIPODE_MODEL_SEED", 0); one != 0 {
		seeds = []uint64{uint64(one)}
	}
	steps := setting(t, "ANTIPODE_MODEL_STEPS", 150)
	for _, seed := range seeds {
		t.Run(fmt.Sprintf("seed %d", seed), func(t *testing.T) {
			t.Parallel()
			source, site := memoryRegistry(seed%4 < 2), memoryRegistry(seed%2 == 0)
			var reached map[string]bool
			var story []string
			synctest.Test(t, func(t *testing.T) {
				m := newModel(t, seed, source, site)
				m.run(steps)
				m.converge()
				reached = m.checkReferrers()
				m.stop()
				story = m.story
			})
			if reached != nil {
				from, to := httptest.NewServer(source), httptest.NewServer(site)
				defer from.Close()
				defer to.Close()
				wantEqual(t, from.URL, to.URL, reached)
			}
			if t.Failed() {
				t.Logf("the last steps:\n%s", strings.Join(story, "\n"))
			}
		})
	}
}

// wantEqual compares two registries down to the last blob. A subject that nothing reaches but the manifest that names it
// need not be on the site, nor need it be whole at the source: differences are of interest where they are reached, or
// about a tag.
func wantEqual(t *testing.T, source, site string, reached map[string]bool) {
	t.Helper()
	err := registrytest.Equal(t.Context(), source, site)
	if err == nil {
		return
	}
	content := regexp.MustCompile(`^([a-z/]+)(?:@|: blob )(sha256:[0-9a-f]{64})`)
	for line := range strings.Lines(err.Error()) {
		about := content.FindStringSubmatch(line)
		if about == nil || reached[about[1]+"@"+about[2]] {
			t.Error(line)
		}
	}
}

func setting(t *testing.T, name string, otherwise int) int {
	t.Helper()
	text := os.Getenv(name)
	if text == "" {
		return otherwise
	}
	n, err := strconv.Atoi(text)
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return n
}

// model is a world with an engine in it.
type model struct {
	*world
	db       *database.DB // the test's own, for as long as no engine lives
	rest     *tracking.Store
	policy   plan.Policy
	from, to weather
	refusing time.Time // until when the primary does not answer
	life     *life
	handlers [2]http.Handler
	slow     bool // listings take their time, and may be overtaken
}

// life is one process of the engine.
type life struct {
	db     *database.DB
	store  *tracking.Store
	site   *registry.Registry
	engine *replicate.Engine
	wires  []*wire
	cancel context.CancelFunc
	ended  chan struct{}
}

func newModel(t *testing.T, seed uint64, source, site http.Handler) *model {
	t.Helper()
	m := &model{world: newWorld(t, seed), handlers: [2]http.Handler{source, site}}
	m.source = &hand{url: "http://source", via: &wire{registry: source}, api: seed%4 < 2}
	m.site = &hand{url: "http://site", via: &wire{registry: site}, api: seed%2 == 0}
	m.from.seed, m.to.seed = seed, seed+1<<32
	m.slow = m.chance(40)
	m.policy = deletes()
	if m.chance(30) {
		m.policy.BrakeShare, m.policy.BrakeCount = 0.5, 2
	}
	m.db = databasetest.OpenSQLite(t)
	m.rest = openStore(t, m.db, tracking.Options{})
	own := &wire{registry: source}
	if m.slow {
		own.delay = m.from.delay
	}
	m.ledger = newLedger(m.open(own, "http://source", registry.Source), "http://source")
	m.ledger.settle = []time.Duration{50 * time.Millisecond, 250 * time.Millisecond}
	m.ledger.watch = m.watch(m.refuse)
	m.start()
	t.Cleanup(m.stop)
	return m
}

func newWorld(t testing.TB, seed uint64) *world {
	t.Helper()
	w := &world{t: t, rng: rand.New(rand.NewPCG(seed, 7)), repos: map[string]*repo{}, began: time.Now()}
	for i := range 12 {
		w.layers = append(w.layers, registrytest.Bytes(-1, i, 1+w.rng.IntN(400)))
	}
	t.Logf("seed %d", seed)
	return w
}

func (m *model) open(via *wire, url string, side registry.Side) *registry.Registry {
	r, err := registry.Open(registry.Config{URL: url, Side: side, Transport: via})
	m.must(err)
	return r
}

// start begins a process.
func (m *model) start() {
	ctx := context.WithoutCancel(m.t.Context())
	l := &life{ended: make(chan struct{})}
	var err error
	l.db, err = database.Open(ctx, databasetest.URL(m.t, m.db), nil)
	m.must(err)
	l.store = openStore(m.t, l.db, tracking.Options{})
	connect := func(handler http.Handler, w *weather) *wire {
		via := &wire{registry: handler, delay: w.delay, mishap: w.mishap}
		l.wires = append(l.wires, via)
		return via
	}
	source := connect(m.handlers[0], &m.from)
	l.site = m.open(connect(m.handlers[1], &m.to), "http://site", registry.Destination)
	l.engine = replicate.New(replicate.Parts{
		Tracking: l.store, Primary: m.ledger, Site: l.site,
		Copier: transfer.New(l.site, l.store.Content(), transfer.Options{}),
	}, replicate.Options{
		Owner: "model", Workers: 3, Lease: time.Minute, Policy: m.policy,
		SiteBrake: tracking.SiteBrake{Share: 1, Window: time.Hour},
		Target:    func(repository string) string { return repository },
		OpenSource: func(url string) (*registry.Registry, error) {
			return registry.Open(registry.Config{URL: url, Side: registry.Source, Transport: source})
		},
		Logger: slog.New(slog.DiscardHandler),
	})
	ctx, l.cancel = context.WithCancel(ctx)
	go func() {
		defer close(l.ended)
		_ = l.engine.Run(ctx) // always nil
	}()
	m.life = l
}

// stop ends the process in good order.
func (m *model) stop() {
	if m.life == nil {
		return
	}
	m.life.cancel()
	<-m.life.ended
	m.must(m.life.db.Close())
	m.life = nil
}

// kill ends the process in the middle of whatever it does: nothing it does from now on reaches anybody.
func (m *model) kill() {
	for _, via := range m.life.wires {
		via.dead.Store(true)
	}
	_ = m.life.db.Close() // under the feet of who uses it
	m.life.cancel()
	<-m.life.ended
	m.life = nil
}

func (m *model) store() *tracking.Store {
	if m.life != nil {
		return m.life.store
	}
	return m.rest
}

// pass lets time go by, and returns when all is still.
func (m *model) pass(d time.Duration) {
	m.must(after(m.t.Context(), d))
	synctest.Wait()
}

// run makes the steps.
func (m *model) run(steps int) {
	for m.step.Store(1); int(m.step.Load()) <= steps; m.step.Add(1) {
		switch n := m.rng.IntN(100); {
		case n < 62:
			m.any(sourceSteps())
		case n < 72:
			m.any(siteSteps())
		default:
			m.any(m.operations())
		}
		if !m.jammed {
			m.post()
		}
		if m.chance(85) {
			m.deliver()
		}
		m.pass(m.moment())
		m.check(m.store())
	}
}

// moment is how long it is until the next step: most often so short that the engine is in the middle of something.
func (m *model) moment() time.Duration {
	switch n := m.rng.IntN(100); {
	case n < 60:
		return time.Duration(m.rng.IntN(200)) * time.Millisecond
	case n < 92:
		return time.Duration(m.rng.IntN(8000)) * time.Millisecond
	default:
		return time.Duration(m.rng.IntN(120)) * time.Second
	}
}

// post hands out the mail.
func (m *model) post() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.jammed = false
	for _, arrive := range m.mail {
		arrive()
	}
	m.mail = nil
}

func (m *model) deliver() {
	m.must(m.ledger.deliver(m.t.Context(), m.store()))
}

// refuse is the primary's part in the weather.
func (m *model) refuse(repository string) error {
	if time.Now().Before(m.refusing) {
		return fmt.Errorf("the primary does not list %s at the moment", repository)
	}
	return nil
}

// operations are what operators, sweeps and bad luck do.
func (m *model) operations() []step {
	at := func(weight int, do func()) step {
		return step{weight, func(w *world) {
			w.mu.Unlock() // they wait for the engine
			defer w.mu.Lock()
			do()
		}}
	}
	return []step{
		at(20, func() { m.storm("source", &m.from) }), at(20, func() { m.storm("site", &m.to) }),
		at(3, m.refuses), at(6, m.post), at(8, m.restarts), at(6, m.crashes), at(6, m.primarySweeps),
		at(6, m.siteSweeps), at(4, m.verifies), at(4, m.resyncs), at(2, m.pauses), at(4, m.releases),
		at(2, func() { m.note("the primary restarts"); m.ledger.restart() }),
		at(1, func() { m.note("the primary is replaced"); m.ledger.replace() }),
	}
}

func (m *model) storm(name string, w *weather) {
	percent := pick(m.world, []int{3, 15, 50, 100})
	last := time.Duration(1+m.rng.IntN(pick(m.world, []int{300, 5000, 60000}))) * time.Millisecond
	m.note("faults at the %s: %d%% for %s", name, percent, last)
	w.begin(percent, last)
}

func (m *model) refuses() {
	last := time.Duration(m.rng.IntN(20)) * time.Second
	m.note("the primary does not answer for %s", last)
	m.mu.Lock()
	defer m.mu.Unlock()
	m.refusing = time.Now().Add(last)
}

func (m *model) restarts() {
	m.note("restart")
	m.stop()
	m.start()
}

func (m *model) crashes() {
	m.note("crash")
	m.kill()
	if m.chance(50) {
		m.pass(m.moment())
	}
	m.start()
}

// primarySweeps finds what the feed was not told of.
func (m *model) primarySweeps() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.note("the primary sweeps")
	for _, r := range m.repos {
		if len(r.untold) > 0 {
			m.ledger.unknown(r.name)
			clear(r.untold)
		}
	}
}

func (m *model) siteSweeps() {
	l := m.life
	s := sweep.New(l.site, l.store, l.store.Content(), sweep.Options{
		Interval: time.Hour, Target: func(repository string) string { return repository },
		Logger: slog.New(slog.DiscardHandler),
	})
	err := s.Round(m.t.Context())
	m.note("the site sweeps: %v", err != nil)
}

func (m *model) verifies() {
	name, depth := pick(m.world, repositories()), pick(m.world, []tracking.Depth{tracking.Graphs, tracking.Deep})
	m.note("verify %s", name)
	_, err := m.store().Verify(m.t.Context(), name, depth)
	m.must(err)
}

func (m *model) resyncs() {
	name := pick(m.world, repositories())
	m.note("resync %s", name)
	_, err := m.store().Resync(m.t.Context(), name)
	m.must(err)
}

func (m *model) pauses() {
	paused, err := m.store().Paused(m.t.Context())
	m.must(err)
	m.note("pause %t", !paused)
	m.must(m.store().SetPaused(m.t.Context(), !paused))
}

func (m *model) releases() {
	for _, name := range repositories() {
		found, err := m.store().Release(m.t.Context(), name)
		m.must(err)
		if found {
			m.note("release %s", name)
		}
	}
}

// converge ends all trouble, has both sides swept, and waits until everything is synced.
func (m *model) converge() {
	m.step.Add(1)
	m.note("the end: no more faults")
	m.from.begin(0, 0)
	m.to.begin(0, 0)
	m.post()
	ctx := m.t.Context()
	m.must(m.store().SetPaused(ctx, false))
	m.mu.Lock()
	m.refusing = time.Time{}
	for name, r := range m.repos {
		m.ledger.unknown(name)
		clear(r.untold)
	}
	m.mu.Unlock()
	m.deliver()
	_, err := m.store().VerifyAll(ctx, tracking.Graphs)
	m.must(err)
	for range 200 {
		m.step.Add(1)
		m.releases()
		m.pass(10 * time.Second)
		m.check(m.store())
		summary, err := m.store().Summary(ctx)
		m.must(err)
		if summary.Counts[tracking.Synced] == summary.Total {
			return
		}
	}
	rows, err := m.store().List(ctx, "", "", 100)
	m.must(err)
	for _, row := range rows {
		m.note("%s is %s: %+v %s", row.Name, row.State, row.LastError, row.HeldReason)
	}
	m.fatalf("not everything is synced in the end")
}

// weather is what happens on the wires to a registry. What happens to a request depends on the seed and on which of
// its kind it is, not on what else goes on, so that a seed does nearly the same each time.
type weather struct {
	seed uint64

	mu      sync.Mutex
	stretch uint64
	percent uint64
	until   time.Time
	counts  map[string]uint64
}

// begin sets the share of requests that meet a fault, for a while.
func (w *weather) begin(percent int, last time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.stretch++
	w.percent, w.until = uint64(percent), time.Now().Add(last)
}

// die throws a die for a request.
func (w *weather) die(what string, r *http.Request) uint64 {
	path, _, _ := strings.Cut(r.URL.Path, "/blobs/uploads/") // sessions have names by chance
	key := what + r.Method + path + r.URL.Query().Get("digest")
	w.mu.Lock()
	if w.counts == nil {
		w.counts = map[string]uint64{}
	}
	w.counts[key]++
	n := w.counts[key]
	w.mu.Unlock()
	hash := fnv.New64a()
	_, _ = fmt.Fprintf(hash, "%d %d %s %d", w.seed, w.stretch, key, n)
	return rand.NewPCG(hash.Sum64(), w.seed).Uint64()
}

func (w *weather) delay(r *http.Request) time.Duration {
	return time.Duration(w.die("delay", r)%20_000) * time.Microsecond
}

func (w *weather) mishap(r *http.Request) mishap {
	w.mu.Lock()
	percent := w.percent
	if time.Now().After(w.until) {
		percent = 0
	}
	w.mu.Unlock()
	die := w.die("mishap", r)
	if die%100 >= percent {
		return mishap{}
	}
	all := mishaps(die >> 32)
	if strings.Contains(r.URL.Path, "/referrers/") {
		all = all[1:] // a page that says 404 cannot be told from a registry without the API
	}
	return all[die>>8%uint64(len(all))]
}

// mishaps are all kinds of faults, n their details.
func mishaps(n uint64) []mishap {
	html, text := http.Header{"Content-Type": {"text/html"}}, http.Header{"Content-Type": {"application/json"}}
	const page = "<html><body>Please log in</body></html>"
	wait := http.Header{"Retry-After": {strconv.FormatUint(n%2, 10)}, "Content-Type": {"application/json"}}
	status := func(code int, header http.Header, body string) mishap {
		return mishap{Fault: registrytest.Fault{Status: code, Header: header, Body: body}}
	}
	return []mishap{
		status(404, html, page), status(500, text, `{"errors":[{"code":"UNKNOWN","message":"disk on fire"}]}`),
		status(502, html, page), status(503, wait, ""), status(429, wait, ""),
		status(401, text, `{"errors":[{"code":"UNAUTHORIZED"}]}`), status(403, html, page),
		status(200, html, page),
		{Fault: registrytest.Fault{Cut: 1 + int64(n%64)}},
		{Fault: registrytest.Fault{Cut: -1}},
		{Fault: registrytest.Fault{CutRequest: 1 + int64(n%32)}},
		{Lost: true},
	}
}
