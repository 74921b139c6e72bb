package main

import (
	"maps"
	"slices"
	"sync"
	"time"
)

// absent stands for no digest at all.
const absent = ""

// ledger knows what the primary's registry holds, by what it was asked and what it confirmed, and for how long already.
// One goroutine writes to a repository at a time (the workload has one for each); anybody may read.
//
// A request whose answer was lost may have been carried out or not, so both are possible from then on. A request is
// given up only when its connection breaks, which it does only when the registry dies: nothing is carried out later.
type ledger struct {
	mu      sync.Mutex
	books   map[string]*book
	rewound time.Time // when primaryd's database last became an older copy of itself
}

// book is one repository's part of the ledger.
type book struct {
	tags    map[string]*entry
	version int  // counts the operations that were begun
	busy    bool // an operation is going on

	// An operation is accounted for when primaryd has acknowledged the registry's notification of it. One that was not
	// confirmed, or that the registry tells nobody of, never is: only a sweep finds it.
	unaccounted bool
	doubted     time.Time // when the last such operation ended
	awaited     []awaited
}

// entry is one tag's part.
type entry struct {
	ever     map[string]bool // every digest that it was ever asked to have
	possible map[string]bool // what it may be now; absent among it when it may be none

	// A hold begins when a put is confirmed on a tag that was not held, and ends when something is begun that may remove
	// it. hold numbers it; 0 while there is none.
	hold, holds int
	fresh       map[string]bool // digests that the tag first got in this hold
	arrived     bool            // the site was seen with one of them
}

// awaited is a notification that the registry sends of an operation.
type awaited struct {
	action, tag  string
	since, ended time.Time // of the operation
}

func newLedger() *ledger { return &ledger{books: map[string]*book{}} }

func (l *ledger) book(repository string) *book {
	b := l.books[repository]
	if b == nil {
		b = &book{tags: map[string]*entry{}}
		l.books[repository] = b
	}
	return b
}

func (b *book) entry(tag string) *entry {
	e := b.tags[tag]
	if e == nil {
		e = &entry{ever: map[string]bool{}, possible: map[string]bool{absent: true}}
		b.tags[tag] = e
	}
	return e
}

func (b *book) begin() {
	b.version++
	b.busy = true
}

// end closes an operation. Where it was confirmed and is announced, its notifications are about these tags.
func (b *book) end(confirmed bool, action string, since time.Time, tags ...string) {
	b.busy = false
	if !confirmed {
		b.unaccounted, b.doubted = true, time.Now()
		return
	}
	for _, tag := range tags {
		b.awaited = append(b.awaited, awaited{action: action, tag: tag, since: since, ended: time.Now()})
	}
}

// Put runs do, which gives a tag a digest, and returns its error.
func (l *ledger) Put(repository, tag, digest string, do func() error) error {
	began := time.Now()
	l.mu.Lock()
	b := l.book(repository)
	b.begin()
	e := b.entry(tag)
	isNew := !e.ever[digest]
	e.ever[digest] = true
	if isNew && e.hold != 0 {
		e.fresh[digest] = true
	}
	e.possible[digest] = true
	l.mu.Unlock()

	err := do()

	l.mu.Lock()
	defer l.mu.Unlock()
	b.end(err == nil, "push", began, tag)
	if err != nil {
		return err
	}
	e.possible = map[string]bool{digest: true}
	if e.hold == 0 {
		e.holds++
		e.hold, e.arrived, e.fresh = e.holds, false, map[string]bool{}
		if isNew {
			e.fresh[digest] = true
		}
	}
	return nil
}

// Remove runs do, which removes these tags where they have the digest, or whatever they have where that is absent, and
// returns its error. Where announced, the registry sends a notification for each of them that was there.
func (l *ledger) Remove(repository string, tags []string, digest string, announced bool, do func() error) error {
	began := time.Now()
	l.mu.Lock()
	b := l.book(repository)
	b.begin()
	for _, tag := range tags {
		e := b.entry(tag)
		// Where it is not certain that the tag is removed, it is not certain that its removal is announced either.
		if e.possible[absent] || (digest != absent && len(e.possible) > 1) {
			announced = false
		}
		e.hold = 0
		e.possible[absent] = true
	}
	l.mu.Unlock()

	err := do()

	l.mu.Lock()
	defer l.mu.Unlock()
	b.end(err == nil && announced, "delete", began, tags...)
	if err != nil {
		return err
	}
	for _, tag := range tags {
		e := b.entry(tag)
		if digest == absent {
			clear(e.possible)
		}
		delete(e.possible, digest)
		e.possible[absent] = true
	}
	return nil
}

// Untagged runs do, which changes a repository without touching a tag, and returns its error.
func (l *ledger) Untagged(repository string, do func() error) error {
	l.mu.Lock()
	b := l.book(repository)
	b.begin()
	l.mu.Unlock()

	err := do()

	l.mu.Lock()
	defer l.mu.Unlock()
	b.end(false, "", time.Time{})
	return err
}

// Rewound says that primaryd has forgotten the newest of what it acknowledged: only a sweep finds it.
func (l *ledger) Rewound() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.rewound = time.Now()
	for _, b := range l.books {
		b.version++
		b.unaccounted, b.doubted = true, l.rewound
	}
}

// Acknowledged takes an event for which primaryd has answered, asked at that time.
func (l *ledger) Acknowledged(e event, asked time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if asked.Before(l.rewound) {
		return // it may be forgotten by now
	}
	b := l.book(e.Target.Repository)
	b.awaited = slices.DeleteFunc(b.awaited, func(a awaited) bool {
		// The registry's clock is ours. An event of before the operation is of another one on the same tag.
		return a.action == e.Action && a.tag == e.Target.Tag && !e.Timestamp.Before(a.since)
	})
}

// Tags returns the tags that may be there, with what they may be, by name.
func (l *ledger) Tags(repository string) map[string][]string {
	l.mu.Lock()
	defer l.mu.Unlock()
	tags := map[string][]string{}
	for tag, e := range l.book(repository).tags {
		digests := slices.DeleteFunc(slices.Sorted(maps.Keys(e.possible)), func(d string) bool { return d == absent })
		if len(digests) > 0 {
			tags[tag] = digests
		}
	}
	return tags
}

// Known returns every tag that the repository was ever asked to have, by name.
func (l *ledger) Known(repository string) []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Sorted(maps.Keys(l.book(repository).tags))
}

// Repositories returns the names of all, sorted.
func (l *ledger) Repositories() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Sorted(maps.Keys(l.books))
}

// Hold returns the number of the tag's hold now, 0 for none.
func (l *ledger) Hold(repository, tag string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.book(repository).entry(tag).hold
}

// Seen takes what the site answered for a tag, asked after the hold was read, and says what is wrong with that, if
// anything.
//
// A digest is in the ledger before the registry is asked for it, so one that is not there now never was.
//
// A tag may be missing on the site, although the primary has it, for as long as a sync is under way that read the
// primary before. Once the site was seen with a digest that the tag first got in this hold, a sync has been carried out
// that read the primary within it; so has every later one, and none of them may find the tag missing.
func (l *ledger) Seen(repository, tag, digest string, hold int) (wrong string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	e := l.book(repository).entry(tag)
	same := hold != 0 && hold == e.hold // all the while
	switch {
	case digest != absent && !e.ever[digest]:
		return "serves a digest that the primary never had under it"
	case digest != absent && same && e.fresh[digest]:
		e.arrived = true
	case digest == absent && same && e.arrived:
		return "is missing although the primary held it all the while since it was there"
	}
	return ""
}

// Calm returns the version of a repository in which nothing is going on and all that was done is accounted for.
func (l *ledger) Calm(repository string) (version int, calm bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	b := l.book(repository)
	return b.version, !b.busy && !b.unaccounted && len(b.awaited) == 0
}

// Same says whether nothing was begun in the repository since its version was that.
func (l *ledger) Same(repository string, version int) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.book(repository).version == version
}

// Account says that a sweep has found whatever was done before a time.
func (l *ledger) Account(repository string, before time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	b := l.book(repository)
	b.unaccounted = b.unaccounted && !b.doubted.Before(before)
	b.awaited = slices.DeleteFunc(b.awaited, func(a awaited) bool { return a.ended.Before(before) })
}
