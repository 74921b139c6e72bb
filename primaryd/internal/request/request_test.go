package request_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"github.com/antipode-registry/antipode/internal/database"
	"github.com/antipode-registry/antipode/internal/database/databasetest"
	"github.com/antipode-registry/antipode/internal/registry"
	"github.com/antipode-registry/antipode/primaryd/internal/node"
	"github.com/antipode-registry/antipode/primaryd/internal/request"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// known are the sites.
type known []string

func (k known) Known(name string) bool {
	return slices.Contains(k, name)
}

func openDesk(t *testing.T, db *database.DB) *request.Desk {
	t.Helper()
	desk, err := request.Open(t.Context(), db, known{"eu", "asia"})
	if err != nil {
		t.Fatal(err)
	}
	return desk
}

// next waits for the oldest open request of a site.
func next(t *testing.T, desk *request.Desk, site string) request.Request {
	t.Helper()
	wake, stop := desk.Watch(site)
	defer stop()
	for {
		pending, err := desk.Pending(t.Context(), site)
		if err != nil {
			t.Fatal(err)
		}
		if len(pending) > 0 {
			return pending[0]
		}
		<-wake
	}
}

// The operator asks at one replica, the site is subscribed at another: each hears of the other by the database.
func TestAskAtOneReplicaAnswerAtAnother(t *testing.T) {
	t.Parallel()
	databasetest.Each(t, func(t *testing.T, open func(t testing.TB) *database.DB) {
		t.Parallel()
		db := open(t)
		here, there := openDesk(t, db), openDesk(t, db)
		if db.Dialect() == database.Postgres {
			there = openDesk(t, databasetest.Shared(t, db))
		}
		want := request.Answer{Kind: request.Inspect, Found: &request.Found{
			Digest: "sha256:1", Since: time.UnixMilli(1000).UTC(), Repository: request.Repository{Name: "a", State: "synced"},
		}}
		ask := request.Ask{Kind: request.Inspect, Repository: "a", Reference: "v1"}
		answered := make(chan error, 1)
		go func() {
			answer, err := here.Ask(t.Context(), "eu", "ops", ask)
			if diff := cmp.Diff(want, answer); diff != "" {
				err = errors.Join(err, errors.New(diff))
			}
			answered <- err
		}()
		r := next(t, there, "eu")
		if diff := cmp.Diff(ask, r.Ask); diff != "" || r.AskedBy != "ops" || r.ExpiresAt.IsZero() {
			t.Errorf("the site is asked %+v", r)
		}
		if pending, err := there.Pending(t.Context(), "asia"); len(pending) != 0 || err != nil {
			t.Errorf("another site is asked %v, %v", pending, err)
		}
		if err := there.Answer(t.Context(), "asia", r.ID, want); !errors.Is(err, request.ErrOthers) {
			t.Errorf("another site's answer: %v", err)
		}
		if err := there.Answer(t.Context(), "eu", r.ID, want); err != nil {
			t.Fatal(err)
		}
		if err := <-answered; err != nil {
			t.Error(err)
		}
		// The first answer stays, and one that comes late is no error.
		for _, id := range []string{r.ID, "eu/gone"} {
			if err := there.Answer(t.Context(), "eu", id, request.Answer{Kind: request.Pause}); err != nil {
				t.Errorf("a late answer to %s: %v", id, err)
			}
		}
		if pending, err := there.Pending(t.Context(), "eu"); len(pending) != 0 || err != nil {
			t.Errorf("still asked: %v, %v", pending, err)
		}
	})
}

func TestAskRefuses(t *testing.T) {
	t.Parallel()
	desk := openDesk(t, databasetest.OpenSQLite(t))
	pause := request.Ask{Kind: request.Pause}
	tests := map[string]struct {
		node, by string
		ask      request.Ask
		want     error
	}{
		"unknown node": {"mars", "ops", pause, request.ErrUnknownNode},
		"no kind":      {"eu", "ops", request.Ask{}, request.ErrInvalid},
		"too large":    {"eu", "ops", request.Ask{Kind: request.Inspect, Reference: strings.Repeat("a", 1<<17)}, request.ErrInvalid},
		"long name":    {"eu", strings.Repeat("a", 256), pause, request.ErrInvalid},
	}
	for name, test := range tests {
		if _, err := desk.Ask(t.Context(), test.node, test.by, test.ask); !errors.Is(err, test.want) {
			t.Errorf("%s: %v, want %v", name, err, test.want)
		}
	}
	large := request.Answer{Refusal: &request.Refusal{Code: 9, Message: strings.Repeat("a", 1<<17)}}
	if err := desk.Answer(t.Context(), "eu", "eu/1", large); !errors.Is(err, request.ErrInvalid) {
		t.Errorf("a large answer: %v", err)
	}
}

// A site that is away: who asks hears so by the deadline, the request is gone after its time, and so many may wait at once.
func TestASiteThatIsAway(t *testing.T) {
	t.Parallel()
	desk := openDesk(t, databasetest.OpenSQLite(t))
	brief, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := desk.Ask(brief, "eu", "ops", request.Ask{Kind: request.Pause}); !errors.Is(err, request.ErrUnanswered) {
		t.Errorf("nobody answered: %v", err)
	}
	<-brief.Done()
	if pending, err := desk.Pending(t.Context(), "eu"); len(pending) != 0 || err != nil {
		t.Errorf("what nobody waits for is still asked: %v, %v", pending, err)
	}
	waiting, done := context.WithCancel(t.Context())
	results := make(chan error)
	const askers = 101
	for range askers {
		go func() {
			_, err := desk.Ask(waiting, "asia", "ops", request.Ask{Kind: request.Resume})
			results <- err
		}()
	}
	if err := <-results; !errors.Is(err, request.ErrTooMany) { // only the one that was too many returns
		t.Errorf("the 101st request: %v", err)
	}
	done()
	for range askers - 1 {
		if err := <-results; !errors.Is(err, context.Canceled) {
			t.Errorf("an asker that went away: %v", err)
		}
	}
}

// resolver is a primary's registry with one tag.
type resolver struct{ err error }

func (r resolver) Resolve(_ context.Context, _ string, refs []string) ([]registry.Tag, []string, error) {
	if refs[0] != "v1" {
		return nil, refs, r.err
	}
	return []registry.Tag{{Name: "v1", Digest: "sha256:1"}}, nil, r.err
}

// Each site that is granted the repository is part of the answer, whatever it says and whether it says anything.
func TestLocate(t *testing.T) {
	t.Parallel()
	db := databasetest.OpenSQLite(t)
	all := []string{"**"}
	nodes, err := node.Open(t.Context(), db, []node.Config{
		{Name: "eu", Repositories: all}, {Name: "asia", Repositories: all}, {Name: "africa", Repositories: []string{"b/*"}},
	}, node.Options{})
	if err != nil {
		t.Fatal(err)
	}
	desk, err := request.Open(t.Context(), db, nodes)
	if err != nil {
		t.Fatal(err)
	}
	located := make(chan request.Located, 1)
	go func() {
		where, err := request.NewLocator(desk, nodes, resolver{}).Locate(t.Context(), "ops", "a", "v1", nil)
		if err != nil {
			t.Error(err)
		}
		located <- where
	}()
	answer := request.Answer{Kind: request.Inspect, Found: &request.Found{Digest: "sha256:1"}}
	if err := desk.Answer(t.Context(), "eu", next(t, desk, "eu").ID, answer); err != nil {
		t.Fatal(err)
	}
	no := request.Answer{Refusal: &request.Refusal{Code: 5, Message: "not tracked"}}
	if err := desk.Answer(t.Context(), "asia", next(t, desk, "asia").ID, no); err != nil {
		t.Fatal(err)
	}
	got := <-located
	want := request.Located{Digest: "sha256:1", Sites: []request.Site{
		{Node: "asia", Problem: "not tracked"}, {Node: "eu", Equal: true, Found: answer.Found},
	}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	locator := request.NewLocator(desk, nodes, resolver{})
	for reference, want := range map[string]error{"v2": request.ErrNoReference, "": request.ErrInvalid} {
		if _, err := locator.Locate(t.Context(), "ops", "a", reference, nil); !errors.Is(err, want) {
			t.Errorf("%q: %v, want %v", reference, err, want)
		}
	}
	if _, err := locator.Locate(t.Context(), "ops", "a", "v1", []string{"mars"}); !errors.Is(err, request.ErrUnknownNode) {
		t.Error(err)
	}
}
