package replicate_test

import (
	"net/http"
	"strings"
	"testing"

	"github.com/antipode-registry/antipode/internal/database/databasetest"
	"github.com/antipode-registry/antipode/internal/registrytest"
	"github.com/antipode-registry/antipode/secondaryd/internal/replicate"
	"github.com/antipode-registry/antipode/secondaryd/internal/tracking"
)

// Two processes on one Postgres share the work of a site: each repository is one's at a time, and one that is stopped
// leaves its work to the other.
func TestTwoProcesses(t *testing.T) {
	t.Parallel()
	databasetest.SkipWithoutPostgres(t)
	s := buildStage(t, registrytest.InMemory(t, false).URL(), registrytest.InMemory(t, false).URL())
	open := func(shared bool) *tracking.Store {
		t.Helper()
		if shared {
			s.db = databasetest.Shared(t, s.db)
		} else {
			s.db = databasetest.OpenPostgres(t)
		}
		store, err := tracking.Open(t.Context(), s.db, tracking.Options{})
		s.must(err)
		return store
	}
	var stops []func()
	for i, owner := range []string{"one", "two"} {
		s.store = open(i > 0)
		s.engine = s.build(func(o *replicate.Options) { o.Owner, o.Workers = owner, 3 })
		s.start()
		stops = append(stops, s.stop)
	}
	names := numbered("team/app", 24)
	var changes []tracking.Change
	for _, name := range names {
		s.push(name, "v1", "v2")
		changes = append(changes, s.primary.announce(name, tracking.Live))
	}
	s.deliver(changes...)
	s.settle()
	for _, name := range names {
		s.wantEqual(name)
		if n := strings.Count(s.story(name), "synced"); n != 1 {
			t.Errorf("%s was synced %d times:\n%s", name, n, s.story(name))
		}
	}

	// Each of them holds something; the one that stops lets go of it.
	held := newGate(t)
	held.on(s.from, http.MethodGet, "/blobs/")
	changes = changes[:0]
	for _, name := range names {
		s.push(name, "v3")
		changes = append(changes, s.primary.announce(name, tracking.Live, "v3"))
	}
	s.deliver(changes...)
	s.wait(held.reached, "a download")
	stops[0]()
	s.from.Fault(nil)
	held.open()
	s.settle()
	for _, name := range names {
		s.wantEqual(name)
	}
}
