package replicate_test

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/antipode-registry/antipode/client"
	"github.com/antipode-registry/antipode/internal/registrytest"
	"github.com/antipode-registry/antipode/secondaryd/internal/plan"
	"github.com/antipode-registry/antipode/secondaryd/internal/replicate"
	"github.com/antipode-registry/antipode/secondaryd/internal/tracking"
)

// gate holds requests at a proxy until it is opened, and tells when the first one came.
type gate struct {
	reached, opened chan struct{}
	reach, open     func()
}

func newGate(t *testing.T) *gate {
	t.Helper()
	g := &gate{reached: make(chan struct{}), opened: make(chan struct{})}
	g.reach = sync.OnceFunc(func() { close(g.reached) })
	g.open = sync.OnceFunc(func() { close(g.opened) })
	t.Cleanup(g.open)
	return g
}

// on holds requests of a method whose path has the part in it.
func (g *gate) on(proxy *registrytest.Proxy, method, part string) {
	proxy.Fault(func(r *http.Request) registrytest.Fault {
		if r.Method != method || !strings.Contains(r.URL.Path, part) {
			return registrytest.Fault{}
		}
		g.reach()
		return registrytest.Fault{Delay: g.opened}
	})
}

func (s *stage) wait(signal <-chan struct{}, what string) {
	s.Helper()
	select {
	case <-signal:
	case <-time.After(enough):
		s.Fatalf("%s did not happen", what)
	}
}

// A manifest that goes between the listing and its copy is no failure: the source is listed again.
func TestVanishedAfterListing(t *testing.T) {
	t.Parallel()
	for _, delta := range []bool{false, true} {
		t.Run(fmt.Sprintf("delta %t", delta), func(t *testing.T) {
			t.Parallel()
			s := memoryStage(t)
			const repository = "team/app"
			s.push(repository, "stays")
			s.changed(repository)
			s.push(repository, "goes", "moves")
			var listings atomic.Int64
			s.primary.after = func(*client.Listing) error {
				if listings.Add(1) == 1 {
					for _, tag := range []string{"goes", "moves"} {
						registrytest.DeleteDigest(t, s.source, repository, imageOf(tag).Digest)
						registrytest.DeleteTag(t, s.source, repository, tag)
					}
					registrytest.Push(t, s.source, repository, "moves", imageOf("moved"))
				}
				return nil
			}
			if delta {
				s.changed(repository, "goes", "moves")
			} else {
				s.changed(repository)
			}
			s.wantEqual(repository)
			s.wantTags(repository, "moves", "stays")
			if row := s.row(repository); row.LastError != nil || row.Failures != 0 {
				t.Errorf("an error is left behind: %+v", row.LastError)
			}
		})
	}
}

// What is listed and is never there is a failure of that tag.
func TestListedAndNeverThere(t *testing.T) {
	t.Parallel()
	s := memoryStage(t)
	const repository = "team/app"
	s.push(repository, "v1", "v2")
	s.changed(repository)
	s.push(repository, "ghost", "v3")
	faultOn(s.from, http.MethodGet, "/manifests/"+imageOf("ghost").Digest, registrytest.Fault{
		Status: http.StatusNotFound, Header: http.Header{"Content-Type": {"application/json"}},
		Body: `{"errors":[{"code":"MANIFEST_UNKNOWN","message":"manifest unknown"}]}`,
	})
	s.changed(repository, "ghost", "v3")
	if f := s.wantState(repository, tracking.Failed).LastError; f.Reference != "ghost" || f.Side != "source" {
		t.Errorf("failure %+v", f)
	}
	s.wantTags(repository, "v1", "v2", "v3")
	s.wantCounted(repository, repository)
}

// A manifest that is larger than any may be fails its tag, by name and side, and is not asked for again at once; its siblings
// are copied.
func TestAManifestBeyondAllBounds(t *testing.T) {
	t.Parallel()
	s := memoryStage(t)
	const repository = "team/app"
	s.push(repository, "v1", "giant", "v2")
	giant := imageOf("giant").Digest
	faultOn(s.from, http.MethodGet, "/manifests/"+giant, registrytest.Fault{
		Status: http.StatusOK, Header: http.Header{"Content-Type": {imageOf("giant").MediaType}},
		Body: `{"annotations":{"a":"` + strings.Repeat("x", 5<<20) + `"}}`,
	})
	s.changed(repository)
	row := s.wantState(repository, tracking.Failed)
	if f := row.LastError; f.Reference != "giant" || f.Side != "source" || !strings.Contains(f.Message, "larger than 4194304 bytes") ||
		!strings.Contains(f.Message, repository) {
		t.Errorf("failure %+v", f)
	}
	if until := time.Until(row.NextAttemptAt); until < time.Minute {
		t.Errorf("it is tried again in %v", until)
	}
	asked := 0
	for _, r := range s.from.Requests() {
		if r.Method == http.MethodGet && strings.HasSuffix(r.Path, giant) {
			asked++
		}
	}
	if asked != 1 {
		t.Errorf("it was asked for %d times:%s", asked, sent(s.from))
	}
	s.wantTags(repository, "v1", "v2")
	s.wantCounted(repository, repository)
}

// A tag that does not read as announced is looked for again, although removals are held; and is then no error.
func TestUnsettledListing(t *testing.T) {
	t.Parallel()
	for _, held := range []bool{false, true} {
		t.Run(fmt.Sprintf("held %t", held), func(t *testing.T) {
			t.Parallel()
			s := memoryStage(t, func(o *replicate.Options) { o.Policy.BrakeShare = 0 })
			const repository = "team/app"
			s.push(repository, "v1", "v2")
			s.changed(repository)
			if held {
				s.untag(repository, "v1")
			}
			late := imageOf("late")
			change := s.primary.announce(repository, tracking.Live)
			s.primary.promise(repository, "late", late.Digest)
			var listings atomic.Int64
			s.primary.before = func(string) {
				if listings.Add(1) == 2 {
					registrytest.Push(t, s.source, repository, "late", late)
				}
			}
			s.deliver(change)
			s.settle()
			if listings.Load() < 2 {
				t.Fatal("an unsettled listing was not asked for again")
			}
			if !held {
				s.wantEqual(repository)
				return
			}
			s.wantState(repository, tracking.Held)
			s.wantTags(repository, "late", "v1", "v2")
			s.release(repository)
			s.wantEqual(repository)
		})
	}
}

// However many rows are due, and few slots there are, every one gets its turn.
func TestEveryRowGetsItsTurn(t *testing.T) {
	t.Parallel()
	s := memoryStage(t, func(o *replicate.Options) { o.Workers = 2 })
	var changes []tracking.Change
	names := numbered("team/app", 60)
	for i, name := range names {
		s.push(name, "v1")
		changes = append(changes, s.primary.announce(name, tracking.Class(i%2)))
	}
	s.deliver(changes...)
	for _, name := range names[:20] {
		s.push(name, "v2")
		s.deliver(s.primary.announce(name, tracking.Live, "v2"))
	}
	s.settle()
	for _, name := range names {
		s.wantEqual(name)
	}
}

// A backfill that waits for a slow registry does not keep live changes waiting.
func TestLiveWorkPassesABackfill(t *testing.T) {
	t.Parallel()
	s := memoryStage(t, func(o *replicate.Options) { o.Workers = 2 })
	s.push("slow/a", "v1")
	s.push("slow/b", "v1")
	s.push("live", "v1")
	held := newGate(t)
	held.on(s.from, http.MethodGet, "/v2/slow/")
	s.deliver(s.primary.announce("slow/a", tracking.Backfill), s.primary.announce("slow/b", tracking.Backfill))
	s.wait(held.reached, "the backfill")
	s.deliver(s.primary.announce("live", tracking.Live))
	registrytest.Eventually(t, enough, func(context.Context) error {
		if row := s.row("live"); row.State != tracking.Synced {
			return fmt.Errorf("the live change is %s", row.State)
		}
		return nil
	})
	registrytest.Eventually(t, enough, func(context.Context) error {
		active := s.engine.Active() // what is done leaves it after its row was written
		if len(active) != 1 || !strings.HasPrefix(active[0].Repository, "slow/") {
			return fmt.Errorf("%d repositories are at work", len(active))
		}
		return nil
	})
	s.from.Fault(nil)
	held.open()
	s.settle()
	s.wantEqual("slow/a")
	s.wantEqual("slow/b")
}

// Diff changes nothing, and shows what the sync then does.
func TestDiff(t *testing.T) {
	t.Parallel()
	s := memoryStage(t, func(o *replicate.Options) {
		o.Policy.Protected = func(tag string) bool { return tag == "protected" }
	})
	const repository = "team/app"
	s.push(repository, "equal", "moves", "goes", "protected")
	s.changed(repository)
	s.untag(repository, "goes", "protected")
	registrytest.Push(t, s.source, repository, "moves", imageOf("moved"))
	s.push(repository, "new")
	registrytest.Push(t, s.site, repository, "stray", imageOf("stray"))
	before := s.row(repository)
	s.to.Reset()

	shown, err := s.engine.Diff(t.Context(), repository)
	s.must(err)
	want := plan.Plan{
		Copies: []plan.Copy{
			{Digest: imageOf("moved").Digest, Tags: []plan.Retag{{Name: "moves", Previous: imageOf("moves").Digest}}},
			{Digest: imageOf("new").Digest, Tags: []plan.Retag{{Name: "new"}}},
		},
		Removals: []plan.Removal{
			{Tag: "goes", Digest: imageOf("goes").Digest}, {Tag: "stray", Digest: imageOf("stray").Digest},
		},
		Kept:  []plan.Kept{{Tag: "protected", Digest: imageOf("protected").Digest, Reason: "the tag is protected"}},
		Equal: 1,
	}
	if diff := cmp.Diff(want, shown); diff != "" {
		t.Errorf("diff shows (-want +got):\n%s", diff)
	}
	for _, method := range []string{http.MethodPut, http.MethodPost, http.MethodPatch, http.MethodDelete} {
		if n := s.to.Count(method, ""); n > 0 {
			t.Errorf("diff wrote to the site:%s", sent(s.to))
		}
	}
	if diff := cmp.Diff(before, s.row(repository)); diff != "" {
		t.Errorf("diff changed the row:\n%s", diff)
	}

	s.changed(repository)
	s.wantState(repository, tracking.Synced)
	for _, did := range []string{"tagged moves", "tagged new", "removed goes", "removed stray", "kept protected"} {
		if !strings.Contains(s.story(repository), did) {
			t.Errorf("the sync did not do what diff showed: %s\n%s", did, s.story(repository))
		}
	}
	if again, err := s.engine.Diff(t.Context(), repository); err != nil || len(again.Copies)+len(again.Removals) > 0 {
		t.Errorf("a second diff shows %+v, %v", again, err)
	}
}

// Several changes to one repository during its sync end in the newest state, with one more sync at the end.
func TestChangesDuringASync(t *testing.T) {
	t.Parallel()
	s := memoryStage(t)
	const repository = "team/app"
	s.push(repository, "v1")
	held := newGate(t)
	held.on(s.from, http.MethodGet, "/blobs/")
	s.deliver(s.primary.announce(repository, tracking.Live, "v1"))
	s.wait(held.reached, "a download")
	for i := range 5 {
		registrytest.Push(t, s.source, repository, "v1", imageOf(fmt.Sprintf("moved%d", i)))
		s.push(repository, fmt.Sprintf("more%d", i))
		s.deliver(s.primary.announce(repository, tracking.Live, "v1", fmt.Sprintf("more%d", i)))
	}
	s.from.Fault(nil)
	held.open()
	s.settle()
	s.wantEqual(repository)
	entries, err := s.store.Journal(t.Context(), repository, 100)
	s.must(err)
	syncs := slices.DeleteFunc(entries, func(e tracking.Entry) bool { return e.Action != "synced" })
	if len(syncs) != 2 {
		t.Errorf("%d syncs, want 2:\n%s", len(syncs), s.story(repository))
	}
}
