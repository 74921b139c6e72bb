package tracking_test

import (
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/antipode-registry/antipode/secondaryd/internal/tracking"
)

// modelRow is a repository as the contract describes it, without a clock: it waits or it does not.
type modelRow struct {
	wanted, synced int64
	class          tracking.Class
	failures       int
	held, released bool
	waits          bool // in back-off, or held
	leased, relist bool // leased: the newest lease has not run out
	fence          int64
}

func (r *modelRow) due() bool { return r.synced != r.wanted && !r.waits && !r.leased }

func (r *modelRow) state() tracking.State {
	switch {
	case r.leased:
		return tracking.Syncing
	case r.synced == r.wanted:
		return tracking.Synced
	case r.waits && r.held && r.failures == 0 && !r.released:
		// A retry of a held row waits too, as pending; the model's outcomes below keep the two apart.
		return tracking.Held
	case r.failures > 0:
		return tracking.Failed
	}
	return tracking.Pending
}

// model runs the same calls on a store and on rows in memory.
type model struct {
	*site
	rows   map[string]*modelRow
	leases []*tracking.Lease // every lease ever given out
	feed   int
	head   int64
}

var repositories = []string{"a", "b", "c", "d"}

// TestModel plays random lives of a site. After each step every row is as the model says; a lease is given out exactly
// when something is due, and never twice; and in the end nothing that was announced is missing.
func TestModel(t *testing.T) {
	hour := tracking.Options{Lease: time.Hour, BackoffMin: time.Hour, BackoffMax: time.Hour}
	each(t, hour, func(t *testing.T, s *site) {
		rapid.Check(t, func(rt *rapid.T) {
			m := &model{site: &site{TB: t, Store: s.Store, db: s.db}, rows: map[string]*modelRow{}}
			m.wipe()
			rt.Repeat(map[string]func(*rapid.T){
				"":           m.compare,
				"apply":      m.apply,
				"claim":      m.claim,
				"claim 2":    m.claim, // drawn twice as often: it is what leads anywhere
				"finish":     m.finish,
				"finish 2":   m.finish,
				"run out":    m.runOut,
				"wait":       m.wait,
				"resync":     m.resync,
				"resync all": m.resyncAll,
				"release":    m.release,
				"start over": m.startOver,
			})
			m.drain(rt)
		})
	})
}

func (m *model) draw(t *rapid.T) (string, *modelRow) {
	name := rapid.SampledFrom(repositories).Draw(t, "repository")
	return name, m.rows[name]
}

func (m *model) apply(t *rapid.T) {
	var changes []tracking.Change
	for range rapid.IntRange(0, 3).Draw(t, "changes") {
		name, _ := m.draw(t)
		m.head++
		c := tracking.Change{Repository: name, Revision: m.head, Class: tracking.Class(rapid.IntRange(0, 1).Draw(t, "class"))}
		if rapid.IntRange(0, 4).Draw(t, "old") == 0 {
			c.Revision = max(1, m.head-3) // a batch that was sent before
		}
		changes = append(changes, c)
	}
	m.must(m.Apply(m.Context(), tracking.Batch{FeedID: fmt.Sprint("feed-", m.feed), Changes: changes, Cursor: m.head, Head: m.head}))
	merged := map[string]tracking.Change{}
	for _, c := range changes {
		if seen, ok := merged[c.Repository]; ok {
			c.Revision, c.Class = max(c.Revision, seen.Revision), min(c.Class, seen.Class)
		}
		merged[c.Repository] = c
	}
	for name, c := range merged {
		m.announce(name, c)
	}
}

func (m *model) announce(name string, c tracking.Change) {
	r := m.rows[name]
	if r == nil {
		m.rows[name] = &modelRow{wanted: c.Revision, class: c.Class}
		return
	}
	if c.Revision <= r.wanted {
		return
	}
	if r.synced == r.wanted || c.Class < r.class {
		r.class = c.Class
	}
	if c.Class == tracking.Live || r.state() == tracking.Held {
		r.waits = false
	}
	r.wanted = c.Revision
}

func (m *model) claim(t *rapid.T) {
	pick := rapid.SampledFrom([]tracking.Pick{
		tracking.LiveFirst, tracking.LiveOnly, tracking.OldestFirst,
	}).Draw(t, "pick")
	due, live := false, false
	for _, r := range m.rows {
		due, live = due || r.due(), live || r.due() && r.class == tracking.Live
	}
	l := m.site.claim(pick)
	if want := live || due && pick != tracking.LiveOnly; (l != nil) != want {
		t.Fatalf("pick %d claimed %+v; due %v, live %v", pick, l, due, live)
	}
	if l != nil {
		m.take(t, l)
		if pick == tracking.LiveFirst && live && l.Class != tracking.Live {
			t.Fatalf("claimed %+v before a live one", l)
		}
	}
}

// take checks a lease that was given out against the row.
func (m *model) take(t *rapid.T, l *tracking.Lease) {
	r := m.rows[l.Repository]
	if !r.due() || l.Fence <= r.fence || l.Wanted != r.wanted || l.Synced != r.synced || l.Class != r.class ||
		l.Failures != r.failures || l.Released != r.released || (l.Held != "") != r.held {
		t.Fatalf("lease %+v of %+v", l, *r)
	}
	r.leased, r.relist, r.fence = true, false, l.Fence
	m.leases = append(m.leases, l)
}

func (m *model) finish(t *rapid.T) {
	if len(m.leases) == 0 {
		t.Skip("no lease yet")
	}
	l := rapid.SampledFrom(m.leases).Draw(t, "lease")
	o := rapid.SampledFrom([]tracking.Outcome{synced(), failed(), held(), retry()}).Draw(t, "outcome")
	r := m.rows[l.Repository]
	if o.Retry > 0 && r.held {
		o = synced() // keeps the model's two reasons to wait apart
	}
	holds := r.leased && r.fence == l.Fence
	err := m.Finish(m.Context(), l, o)
	if !holds {
		if !errors.Is(err, tracking.ErrLeaseLost) {
			t.Fatalf("a lost lease finished with %v", err)
		}
		return
	}
	m.must(err)
	r.settle(l, o)
}

func (r *modelRow) settle(l *tracking.Lease, o tracking.Outcome) {
	released := r.released && !l.Released
	urgent := r.relist || released || r.wanted > l.Wanted && r.class == tracking.Live
	r.leased, r.waits = false, !urgent
	switch {
	case o.Synced:
		r.failures, r.held, r.released, r.waits = 0, false, false, false
		if !r.relist {
			r.synced = l.Wanted
		}
	case o.Failure != nil:
		r.failures++
	case o.Held != "":
		r.failures, r.held, r.released = 0, true, released
		r.waits = !urgent && r.wanted == l.Wanted
	}
}

func (m *model) runOut(t *rapid.T) {
	name, r := m.draw(t)
	m.expire(name)
	if r != nil {
		r.leased = false
	}
}

// wait lets the back-off pass of a row that is not held.
func (m *model) wait(t *rapid.T) {
	name, r := m.draw(t)
	if r == nil || r.state() == tracking.Held {
		t.Skip("waits for no time")
	}
	m.backOffIsOver(name)
	r.waits = false
}

func (m *model) resync(t *rapid.T) {
	name, r := m.draw(t)
	found, err := m.Resync(m.Context(), name)
	m.must(err)
	if found != (r != nil) {
		t.Fatalf("resync found %s: %v", name, found)
	}
	if found {
		r.synced, r.waits, r.class, r.relist = -1, false, tracking.Live, true
	}
}

func (m *model) resyncAll(t *rapid.T) {
	n, err := m.ResyncAll(m.Context())
	m.must(err)
	if int(n) != len(m.rows) {
		t.Fatalf("resync of %d, want all %d", n, len(m.rows))
	}
	for _, r := range m.rows {
		if r.synced == r.wanted {
			r.class = tracking.Backfill
		}
		r.synced, r.waits, r.relist = -1, false, true
	}
}

func (m *model) release(t *rapid.T) {
	name, r := m.draw(t)
	found, err := m.Release(m.Context(), name)
	m.must(err)
	if found != (r != nil && r.held) {
		t.Fatalf("release found %s: %v", name, found)
	}
	if found {
		r.released, r.waits, r.class = true, false, tracking.Live
	}
}

func (m *model) startOver(*rapid.T) {
	m.must(m.StartOver(m.Context()))
	m.feed, m.head = m.feed+1, 0
	for _, r := range m.rows {
		r.wanted, r.synced, r.class, r.waits, r.leased, r.relist = 0, -1, tracking.Backfill, false, false, false
		r.fence++
	}
}

// compare checks all that the store says against the model.
func (m *model) compare(t *rapid.T) {
	list, err := m.List(m.Context(), "", "", 100)
	m.must(err)
	sum, err := m.Summary(m.Context())
	m.must(err)
	counts := map[tracking.State]int64{}
	lowest := int64(0)
	for _, got := range list {
		r := m.rows[got.Name]
		if r == nil {
			t.Fatalf("%s was never announced", got.Name)
		}
		want := tracking.Repository{
			Name: got.Name, State: r.state(), Wanted: r.wanted, Synced: r.synced, Failures: r.failures, Released: r.released,
		}
		if got.State != want.State || got.Wanted != want.Wanted || got.Synced != want.Synced ||
			got.Failures != want.Failures || got.Released != want.Released || (got.HeldReason != "") != r.held ||
			got.OldestUnsyncedAt.IsZero() != (r.synced == r.wanted) {
			t.Fatalf("stored %+v, model %+v (%+v)", got, want, *r)
		}
		counts[got.State]++
		if r.synced != r.wanted && (lowest == 0 || max(1, r.wanted) < lowest) {
			lowest = max(1, r.wanted)
		}
	}
	if len(list) != len(m.rows) || sum.Total != int64(len(m.rows)) || sum.LowestUnsynced != lowest {
		t.Fatalf("%d rows listed, summary %+v; want %d, lowest %d", len(list), sum, len(m.rows), lowest)
	}
	for state, n := range sum.Counts {
		if n != counts[state] {
			t.Fatalf("%d counted as %s, %d listed", n, state, counts[state])
		}
	}
}

// drain lets all time pass and every sync succeed: then everything that was announced must be on the site.
func (m *model) drain(t *rapid.T) {
	for name, r := range m.rows {
		m.expire(name)
		r.leased = false
		if r.state() == tracking.Held {
			_, err := m.Release(m.Context(), name)
			m.must(err)
			r.released, r.class = true, tracking.Live
		}
		m.backOffIsOver(name)
		r.waits = false
	}
	for {
		l := m.site.claim(tracking.OldestFirst)
		if l == nil {
			break
		}
		m.take(t, l)
		m.site.finish(l, synced())
		m.rows[l.Repository].settle(l, synced())
	}
	names, err := m.List(m.Context(), tracking.Synced, "", 100)
	m.must(err)
	if len(names) != len(m.rows) || slices.ContainsFunc(names, func(r tracking.Repository) bool {
		return r.Synced != m.rows[r.Name].wanted
	}) {
		t.Fatalf("in the end %+v, of %d rows", names, len(m.rows))
	}
}
