package replicate_test

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/antipode-registry/antipode/internal/database"
	"github.com/antipode-registry/antipode/internal/database/databasetest"
	"github.com/antipode-registry/antipode/internal/registry"
	"github.com/antipode-registry/antipode/internal/registrytest"
	"github.com/antipode-registry/antipode/internal/transfer"
	"github.com/antipode-registry/antipode/secondaryd/internal/plan"
	"github.com/antipode-registry/antipode/secondaryd/internal/replicate"
	"github.com/antipode-registry/antipode/secondaryd/internal/tracking"
)

// patience bounds every wait. It is for a machine that is busy with others; what is waited for takes milliseconds.
const patience = 20 * time.Second

// bench is a running engine between two real registries, with a recording proxy in front of each. A failure is not tried
// again until the test asks for it, so that what is counted is one sync.
type bench struct {
	t            *testing.T
	source, site string // the registries themselves, without the proxies
	from, to     *registrytest.Proxy
	ledger       *ledger
	store        *tracking.Store
	engine       *replicate.Engine
}

// deletes is the policy that makes the site equal.
func deletes() plan.Policy { return plan.Policy{Deletions: true, BrakeShare: 1} }

func newBench(t *testing.T, source, site string) *bench {
	t.Helper()
	b := &bench{
		t: t, source: source, site: site,
		from: registrytest.NewProxy(t, source), to: registrytest.NewProxy(t, site),
	}
	b.ledger = newLedger(open(t, source, registry.Source), b.from.URL())
	opts := tracking.Options{BackoffMin: time.Hour, BackoffMax: time.Hour, JournalPerRepository: 100}
	b.store = openStore(t, databasetest.OpenSQLite(t), opts)
	to := open(t, b.to.URL(), registry.Destination)
	options := replicate.Options{
		Owner: "bench", Workers: 4, Lease: time.Minute, Policy: deletes(),
		SiteBrake:  tracking.SiteBrake{Share: 1, Window: time.Hour},
		Target:     func(repository string) string { return repository },
		OpenSource: func(url string) (*registry.Registry, error) { return open(t, url, registry.Source), nil },
		Logger:     slog.New(slog.DiscardHandler),
	}
	b.engine = replicate.New(replicate.Parts{
		Tracking: b.store, Primary: b.ledger, Site: to,
		Copier: transfer.New(to, b.store.Content(), transfer.Options{}),
	}, options)
	run(t, b.engine)
	return b
}

// run runs the engine until the test ends.
func run(t *testing.T, engine *replicate.Engine) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	var running sync.WaitGroup
	running.Go(func() { _ = engine.Run(ctx) }) // always nil
	t.Cleanup(func() {
		cancel()
		running.Wait()
	})
}

func open(t testing.TB, url string, side registry.Side) *registry.Registry {
	t.Helper()
	r, err := registry.Open(registry.Config{URL: url, Side: side})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(r.Close)
	return r
}

func openStore(t testing.TB, db *database.DB, opts tracking.Options) *tracking.Store {
	t.Helper()
	store, err := tracking.Open(context.WithoutCancel(t.Context()), db, opts)
	if err != nil {
		t.Fatal(err)
	}
	return store
}

// touched tells the site of tags that changed, "@digest" for a manifest without one, and waits for the sync.
func (b *bench) touched(repository string, names ...string) {
	b.t.Helper()
	b.ledger.touch(repository, names...)
	b.deliver()
}

// changed tells the site that anything in the repository may have changed, and waits for the sync.
func (b *bench) changed(repository string) {
	b.t.Helper()
	b.ledger.unknown(repository)
	b.deliver()
}

// deliver hands over what the ledger has, and waits until there is nothing to do.
func (b *bench) deliver() {
	b.t.Helper()
	if err := b.ledger.deliver(b.t.Context(), b.store); err != nil {
		b.t.Fatal(err)
	}
	b.settle()
}

func (b *bench) settle() {
	b.t.Helper()
	registrytest.Eventually(b.t, patience, func(ctx context.Context) error {
		summary, err := b.store.Summary(ctx)
		if err != nil {
			return err
		}
		if busy := summary.Counts[tracking.Pending] + summary.Counts[tracking.Syncing]; busy > 0 {
			rows, _ := b.store.List(ctx, tracking.Pending, "", 10)
			return fmt.Errorf("%d repositories are still at work: %+v", busy, rows)
		}
		return nil
	})
}

// row returns the repository's row.
func (b *bench) row(repository string) tracking.Repository {
	b.t.Helper()
	row, found, err := b.store.Get(b.t.Context(), repository)
	if err != nil || !found {
		b.t.Fatalf("row of %s: found %t, %v", repository, found, err)
	}
	return row
}

// wantSynced fails the test unless the repository is synced.
func (b *bench) wantSynced(repository string) {
	b.t.Helper()
	if row := b.row(repository); row.State != tracking.Synced {
		b.t.Fatalf("%s is %s: %+v\n%s", repository, row.State, row.LastError, b.story(repository))
	}
}

// wantIdle fails the test unless a complete comparison finds nothing to do, and does nothing at the destination.
func (b *bench) wantIdle(repository string) {
	b.t.Helper()
	p, err := b.engine.Diff(b.t.Context(), repository)
	if err != nil {
		b.t.Fatal(err)
	}
	if len(p.Copies) > 0 || len(p.Removals) > 0 || p.Held != "" {
		b.t.Errorf("%s: a second plan is not empty: %+v", repository, p)
	}
	b.reset()
	b.changed(repository)
	b.wantSynced(repository)
	if n := writes(b.to); n > 0 {
		b.t.Errorf("%s: a second sync made %d writes:%s", repository, n, requests(b.to))
	}
	if n := b.from.Count("", ""); n > 0 {
		b.t.Errorf("%s: a second sync asked the source:%s", repository, requests(b.from))
	}
}

func (b *bench) reset() {
	b.from.Reset()
	b.to.Reset()
}

// story is the journal, oldest first.
func (b *bench) story(repository string) string {
	b.t.Helper()
	entries, err := b.store.Journal(b.t.Context(), repository, 100)
	if err != nil {
		b.t.Fatal(err)
	}
	var text strings.Builder
	for i := range entries {
		e := entries[len(entries)-1-i]
		fmt.Fprintf(&text, "  %s %s %s (was %s) %s\n", e.Action, e.Reference, e.Digest, e.Previous, e.Detail)
	}
	return text.String()
}

// writes counts the requests that change a registry.
func writes(proxy *registrytest.Proxy) int {
	n := 0
	for _, method := range []string{"POST", "PUT", "PATCH", "DELETE"} {
		n += proxy.Count(method, "")
	}
	return n
}

func requests(proxy *registrytest.Proxy) string {
	var text strings.Builder
	for _, r := range proxy.Requests() {
		fmt.Fprintf(&text, "\n  %s %s?%s %d", r.Method, r.Path, r.Query, r.Status)
	}
	return text.String()
}
