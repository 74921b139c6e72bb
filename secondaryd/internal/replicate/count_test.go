package replicate_test

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/antipode-registry/antipode/internal/database"
	"github.com/antipode-registry/antipode/internal/registry"
	"github.com/antipode-registry/antipode/internal/registrytest"
	"github.com/antipode-registry/antipode/internal/transfer"
	"github.com/antipode-registry/antipode/secondaryd/internal/replicate"
	"github.com/antipode-registry/antipode/secondaryd/internal/tracking"
)

// forgetful makes requests and loses the answers to some of them.
type forgetful struct {
	http.RoundTripper
	loses func(r *http.Request) bool
}

func (f forgetful) RoundTrip(r *http.Request) (*http.Response, error) {
	resp, err := f.RoundTripper.RoundTrip(r)
	if err == nil && f.loses(r) {
		_ = resp.Body.Close()
		return nil, fmt.Errorf("the answer to %s %s was lost", r.Method, r.URL.Path)
	}
	return resp, err
}

// A write whose answer is lost may have been made: what the row counts is then taken from the site itself, so that no
// sweep takes it for damage.
func TestCountAfterLostAnswers(t *testing.T) {
	t.Parallel()
	for method, path := range map[string]string{http.MethodPut: "/manifests/new", http.MethodDelete: "/manifests/gone"} {
		t.Run(method, func(t *testing.T) {
			t.Parallel()
			s := buildStage(t, registrytest.InMemory(t, false).URL(), registrytest.InMemory(t, false).URL())
			var losing atomic.Bool
			transport := &http.Transport{}
			t.Cleanup(transport.CloseIdleConnections)
			site, err := registry.Open(registry.Config{URL: s.to.URL(), Side: registry.Destination, Transport: forgetful{
				RoundTripper: transport, loses: func(r *http.Request) bool {
					return losing.Load() && r.Method == method && strings.HasSuffix(r.URL.Path, path)
				},
			}})
			s.must(err)
			t.Cleanup(site.Close)
			s.engine.Site, s.engine.Copier = site, transfer.New(site, s.store.Content(), transfer.Options{})
			s.start()
			const repository = "team/app"
			s.push(repository, "v1", "gone")
			s.changed(repository)
			s.wantEqual(repository)

			losing.Store(true)
			s.push(repository, "new", "v2")
			s.untag(repository, "gone")
			s.changed(repository, "new", "v2", "gone")
			losing.Store(false)
			s.push(repository, "v3")
			s.changed(repository, "v3")
			s.wantEqual(repository)
			s.wantTags(repository, "new", "v1", "v2", "v3")
		})
	}
}

// A stop between two tags on one digest leaves the first one written; the next process counts it.
func TestCountAfterAStop(t *testing.T) {
	t.Parallel()
	s := memoryStage(t)
	const repository = "team/app"
	s.push(repository, "v1")
	s.changed(repository)
	image := imageOf("new")
	for _, tag := range []string{"a", "b", "c"} {
		registrytest.Push(t, s.source, repository, tag, image)
	}
	held := newGate(t)
	held.on(s.to, http.MethodPut, "/manifests/b")
	s.deliver(s.primary.announce(repository, tracking.Live, "a", "b", "c"))
	s.wait(held.reached, "the write of the second tag")
	s.stop()
	s.wantTags(repository, "a", "v1")
	s.to.Fault(nil)
	s.engine = s.build()
	s.start()
	s.settle()
	s.wantEqual(repository)
}

// The same goes for a worker that was killed between a write and its record.
func TestCountAfterAKill(t *testing.T) {
	t.Parallel()
	s := buildStage(t, registrytest.InMemory(t, false).URL(), registrytest.InMemory(t, false).URL())
	const repository = "team/app"
	s.start()
	s.push(repository, "v1")
	s.changed(repository)
	s.stop()

	s.push(repository, "v2")
	s.deliver(s.primary.announce(repository, tracking.Live, "v2"))
	dead, err := s.store.Claim(t.Context(), "dead", tracking.LiveFirst)
	if err != nil || dead == nil {
		t.Fatalf("claim: %v, %v", dead, err)
	}
	registrytest.Push(t, s.site, repository, "v2", imageOf("v2"))
	s.must(s.db.Write(t.Context(), func(ctx context.Context, tx *database.Tx) error {
		_, err := tx.ExecContext(ctx, "UPDATE repository SET lease_until = 1")
		return err
	}))
	s.engine = s.build()
	s.start()
	s.settle()
	s.wantEqual(repository)
}

// A repository may have another name on the site; nothing else changes.
func TestRenamed(t *testing.T) {
	t.Parallel()
	s := memoryStage(t, func(o *replicate.Options) {
		o.Target = func(repository string) string { return "mirror/" + repository }
	})
	const repository = "team/app"
	s.push(repository, "v1", "v2")
	registrytest.Push(t, s.site, repository, "own", imageOf("own"))
	s.changed(repository)
	s.wantState(repository, tracking.Synced)
	s.wantTags("mirror/"+repository, "v1", "v2")
	s.wantTags(repository, "own")
	s.wantCounted(repository, "mirror/"+repository)
	s.untag(repository, "v1")
	s.changed(repository, "v1")
	s.wantTags("mirror/"+repository, "v2")
	s.wantCounted(repository, "mirror/"+repository)
	where, err := s.store.Content().Find(t.Context(), "mirror/"+repository, imageOf("v2").Digest)
	if where[imageOf("v2").Digest] != "mirror/"+repository || err != nil {
		t.Errorf("the content is not noted under its name on the site (%v)", err)
	}
}
