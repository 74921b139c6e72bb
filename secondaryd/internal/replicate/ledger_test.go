package replicate_test

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/antipode-registry/antipode/client"
	"github.com/antipode-registry/antipode/internal/registry"
	"github.com/antipode-registry/antipode/secondaryd/internal/tracking"
)

// ledger is the primary of these tests: a change feed in memory, and listings made straight from the source's registry.
// What it answers when is what primaryd's feed and listing do, hints, deltas, referrers and unsettled tags included; the
// packages themselves are out of reach here.
type ledger struct {
	source *registry.Registry
	url    string // of the registry, as the site is told
	// settle is how often, and how soon, a tag is looked at again that does not read as announced.
	settle []time.Duration
	// watch hears of each listing before it is made; what it returns hears of its result, and may fail it. It may be nil.
	watch func(repository string) func(client.Listing, error) error

	mu        sync.Mutex
	id        string
	head      int64
	delivered int64
	rows      map[string]*ledgerRow
	api       knowledge
}

// knowledge is what primaryd knows of its registry's referrers API.
type knowledge int

const (
	apiUnknown knowledge = iota
	apiPresent
	apiAbsent
)

// hintBound and window are primaryd's.
const (
	hintBound = 32
	window    = time.Minute
)

type ledgerRow struct {
	revision int64
	base     int64
	touches  map[string]touch
}

// touch is a change of one tag, or the push of "@digest".
type touch struct {
	digest   string // as announced; "" = it was not
	deleted  bool
	at       time.Time
	revision int64
}

func newLedger(source *registry.Registry, url string) *ledger {
	return &ledger{source: source, url: url, id: "feed-1", rows: map[string]*ledgerRow{}}
}

// touch appends a change of these tags, of which nothing is announced that a listing could wait for.
func (l *ledger) touch(repository string, names ...string) {
	touches := map[string]touch{}
	for _, name := range names {
		touches[name] = touch{}
	}
	l.announce(repository, touches)
}

// announce appends a change.
func (l *ledger) announce(repository string, touches map[string]touch) {
	l.mu.Lock()
	defer l.mu.Unlock()
	row := l.bump(repository)
	previous := row.revision
	row.revision = l.head
	if previous == 0 {
		row.base = l.head - 1
	}
	all := maps.Clone(row.touches)
	if all == nil {
		all = map[string]touch{}
	}
	for name, t := range touches {
		t.revision = l.head
		all[name] = t
	}
	if len(all) > hintBound {
		// The changes before this one are no longer known.
		maps.DeleteFunc(all, func(_ string, t touch) bool { return t.revision != l.head })
		row.base = previous
	}
	row.touches = all
}

// unknown appends a change of which nothing is known but its repository.
func (l *ledger) unknown(repository string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	row := l.bump(repository)
	row.revision, row.base, row.touches = l.head, l.head, nil
}

// bump makes the next revision and returns the row. l.mu is held.
func (l *ledger) bump(repository string) *ledgerRow {
	l.head++
	row := l.rows[repository]
	if row == nil {
		row = &ledgerRow{}
		l.rows[repository] = row
	}
	return row
}

// replace is a primary whose database was lost: another feed, in which the sweep found every repository.
func (l *ledger) replace() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.id += "'"
	l.head, l.delivered, l.api = 0, 0, apiUnknown
	for _, name := range slices.Sorted(maps.Keys(l.rows)) {
		l.head++
		l.rows[name] = &ledgerRow{revision: l.head, base: l.head}
	}
}

// restart is a primary that knows nothing any more but what is in its database.
func (l *ledger) restart() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.api = apiUnknown
}

// deliver hands all that is new to the site, as a subscription does.
func (l *ledger) deliver(ctx context.Context, store *tracking.Store) error {
	l.mu.Lock()
	id, head, after := l.id, l.head, l.delivered
	var changes []tracking.Change
	for name, row := range l.rows {
		if row.revision > after {
			changes = append(changes, tracking.Change{
				Repository: name, Revision: row.revision, ChangedAt: time.Now(), Class: tracking.Live,
			})
		}
	}
	l.mu.Unlock()
	slices.SortFunc(changes, func(a, b tracking.Change) int { return cmp.Compare(a.Revision, b.Revision) })
	err := store.Apply(ctx, tracking.Batch{FeedID: id, Changes: changes, Cursor: head, Head: head})
	if errors.Is(err, tracking.ErrOtherFeed) {
		if err = store.StartOver(ctx); err == nil {
			err = store.Apply(ctx, tracking.Batch{FeedID: id, Changes: changes, Cursor: head, Head: head})
		}
	}
	if err == nil {
		l.mu.Lock()
		defer l.mu.Unlock()
		if l.id == id {
			l.delivered = head
		}
	}
	return err
}

// get returns a copy of a row.
func (l *ledger) get(repository string) (row ledgerRow, id string, found bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if have := l.rows[repository]; have != nil {
		row, found = *have, true
	}
	return row, l.id, found
}

// Tags implements replicate.Primary.
func (l *ledger) Tags(ctx context.Context, repository string, since client.Position) (client.Listing, error) {
	done := func(client.Listing, error) error { return nil }
	if l.watch != nil {
		done = l.watch(repository)
	}
	listing, err := l.list(ctx, repository, since)
	if refused := done(listing, err); err == nil {
		err = refused
	}
	if err != nil {
		return client.Listing{}, fmt.Errorf("list %s: %w", repository, err)
	}
	return listing, nil
}

func (l *ledger) list(ctx context.Context, repository string, since client.Position) (client.Listing, error) {
	row, id, found := l.get(repository)
	covered := since.Revision > 0 && since.Revision >= row.base && since.Revision <= row.revision
	if found && since.FeedID == id && covered {
		return l.delta(ctx, repository, row, since.Revision)
	}
	all, err := l.source.List(ctx, repository)
	if err != nil {
		return client.Listing{}, err
	}
	tags := map[string]registry.Tag{}
	for _, tag := range all.Tags {
		tags[tag.Name] = tag
	}
	unsettled, err := l.settled(ctx, repository, row.touches, tags)
	if err != nil {
		return client.Listing{}, err
	}
	return l.answer(ctx, repository, row, client.Listing{
		Complete: true, Present: all.Present || len(tags) > 0, Unsettled: unsettled,
	}, tags, nil)
}

// delta looks at what was touched after the revision.
func (l *ledger) delta(
	ctx context.Context, repository string, row ledgerRow, since int64,
) (client.Listing, error) {
	touches := maps.Clone(row.touches)
	maps.DeleteFunc(touches, func(_ string, t touch) bool { return t.revision <= since })
	var names, pushed []string
	var subjects []registry.Descriptor
	for _, name := range slices.Sorted(maps.Keys(touches)) {
		if digest, untagged := strings.CutPrefix(name, "@"); untagged {
			pushed = append(pushed, digest)
			continue
		}
		names = append(names, name)
		if encoded, fallback := strings.CutPrefix(name, "sha256-"); fallback && len(encoded) == 64 {
			subjects = append(subjects, registry.Descriptor{Digest: "sha256:" + encoded})
		}
	}
	found, _, err := l.source.Resolve(ctx, repository, names)
	if err != nil {
		return client.Listing{}, err
	}
	tags := map[string]registry.Tag{}
	for _, tag := range found {
		tags[tag.Name] = tag
	}
	listing := client.Listing{Present: true}
	if listing.Unsettled, err = l.settled(ctx, repository, touches, tags); err != nil {
		return client.Listing{}, err
	}
	for _, name := range names {
		if _, exists := tags[name]; !exists {
			listing.Absent = append(listing.Absent, name)
		}
	}
	for _, tag := range tags {
		pushed = append(pushed, tag.Digest)
	}
	return l.answer(ctx, repository, row, listing, tags, pushed, subjects...)
}

// settled looks again at tags that do not read as announced, and returns those that still do not.
func (l *ledger) settled(
	ctx context.Context, repository string, touches map[string]touch, tags map[string]registry.Tag,
) ([]string, error) {
	early := mismatched(touches, tags)
	for _, delay := range l.settle {
		if len(early) == 0 {
			break
		}
		if err := after(ctx, delay); err != nil {
			return nil, err
		}
		found, absent, err := l.source.Resolve(ctx, repository, early)
		if err != nil {
			return nil, err
		}
		for _, name := range absent {
			delete(tags, name)
		}
		for _, tag := range found {
			tags[tag.Name] = tag
		}
		early = mismatched(touches, tags)
	}
	return early, nil
}

func mismatched(touches map[string]touch, tags map[string]registry.Tag) (names []string) {
	for name, t := range touches {
		if strings.HasPrefix(name, "@") {
			continue
		}
		tag, exists := tags[name]
		as := exists != t.deleted && (t.digest == "" || t.deleted || tag.Digest == t.digest)
		if !as && time.Since(t.at) < window {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

// after waits, or returns why it did not.
func after(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
