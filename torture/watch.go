package main

import (
	"bytes"
	"context"
	"time"

	"github.com/antipode-registry/antipode/internal/registrytest"
)

// Between two looks at everything there is time for the pair to work: looking costs the site's registry, too.
const watchPause = 400 * time.Millisecond

// answerPatience bounds how long the torture waits for one answer of a part that may be frozen.
const answerPatience = 3 * time.Second

// throwAway marks the manifest by which a tag is removed where the registry cannot delete a tag alone
// (docs/registries.md): who sees it sees that the tag is being removed.
const throwAway = `"antipode.throw-away"`

// watcher reads every tag off the site's registry again and again, around all faults, and tells the ledger what it
// sees. A registry that does not answer says nothing.
type watcher struct {
	client *registrytest.Client
	ledger *ledger
	diary  *diary
	told   map[string]bool // what was found wrong already: the same is not told twice
}

// Run watches until ctx ends.
func (w *watcher) Run(ctx context.Context) {
	for sleep(ctx, watchPause) {
		w.look(ctx)
	}
}

// look reads every tag once.
func (w *watcher) look(ctx context.Context) {
	for _, repository := range w.ledger.Repositories() {
		for _, tag := range w.ledger.Known(repository) {
			if !w.tag(ctx, repository, tag) {
				return // the registry is down: it is asked again in the next round
			}
		}
	}
	w.diary.Count("check: looks at every tag of the site")
}

func (w *watcher) tag(ctx context.Context, repository, tag string) (answered bool) {
	hold := w.ledger.Hold(repository, tag)
	limited, cancel := context.WithTimeout(ctx, answerPatience)
	defer cancel()
	m, err := w.client.Manifest(limited, repository, tag)
	if err != nil && !registrytest.IsAbsent(err) {
		return false
	}
	w.diary.Count("check: tags read")
	if bytes.Contains(m.Bytes, []byte(throwAway)) {
		m.Digest = absent
	}
	wrong := w.ledger.Seen(repository, tag, m.Digest, hold)
	if wrong != "" && !w.told[repository+tag+m.Digest+wrong] {
		w.told[repository+tag+m.Digest+wrong] = true
		w.diary.Violation("%s:%s %s (%s)", repository, tag, wrong, short(m.Digest))
	}
	return true
}
