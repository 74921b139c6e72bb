package main

import (
	"context"
	"time"

	antipodev1 "github.com/antipode-registry/antipode/gen/antipode/v1"
	"github.com/antipode-registry/antipode/internal/registrytest"
)

// honesty asks the site whether a repository is synced, and compares the registries where it says so.
//
// What a push at the primary did is unknown to the site for a moment, and for longer when its notification is lost: the
// site answers for the newest revision that it knows. So it is held to this: when nothing is going on in a repository,
// and primaryd has acknowledged the notification of everything that was done in it, the feed's revision of then covers
// it all; a site that calls the repository synced at that revision or a later one must be equal. Whatever is not
// announced, or was not confirmed, is covered by the revision that the feed has after whole rounds of the sweep.
type honesty struct {
	world  *world
	ledger *ledger
	swept  map[string]*sweeps
	told   map[string]bool // what was found wrong already: the same is not told twice
}

// sweeps counts the sweeps that compared a repository since a moment.
type sweeps struct {
	since, last time.Time
	rounds      int
}

// Run checks until ctx ends.
func (h *honesty) Run(ctx context.Context) {
	for sleep(ctx, watchPause) {
		for _, repository := range h.ledger.Repositories() {
			h.account(ctx, repository)
			if version, calm := h.ledger.Calm(repository); calm {
				h.check(ctx, repository, version)
			}
		}
	}
}

// account counts the sweeps over a repository, and tells the ledger what they must have found. The listing of one round
// may be older than the moment from which they are counted; a round of one primaryd begins after its last has ended. One
// of two may be frozen between reading and writing for longer than any number of rounds, so there nothing is concluded.
func (h *honesty) account(ctx context.Context, repository string) {
	const enough = 3
	if h.world.replicas() > 1 {
		return
	}
	s := h.swept[repository]
	if s == nil {
		s = &sweeps{since: time.Now()}
		h.swept[repository] = s
	}
	row, err := h.world.feedRow(ctx, repository)
	if err != nil || row.GetSweptAt() == nil {
		return
	}
	if at := row.GetSweptAt().AsTime(); at.After(s.since) && at.After(s.last) {
		s.last = at
		s.rounds++
	}
	if s.rounds >= enough {
		h.ledger.Account(repository, s.since)
		h.swept[repository] = &sweeps{since: time.Now()}
	}
}

func (h *honesty) check(ctx context.Context, repository string, version int) {
	feed, err := h.world.feedRow(ctx, repository)
	if err != nil || feed == nil {
		return
	}
	before, err := h.world.siteRow(ctx, repository)
	if err != nil || !claims(before, feed.GetRevision()) {
		return
	}
	limited, cancel := context.WithTimeout(ctx, 4*answerPatience)
	defer cancel()
	differences, err := registrytest.Differences(limited,
		h.world.url(primaryRegistry), h.world.url(siteRegistry), repository)
	if err != nil {
		return // a registry is down
	}
	after, err := h.world.siteRow(ctx, repository)
	if err != nil || !claims(after, feed.GetRevision()) || !h.ledger.Same(repository, version) {
		return
	}
	h.world.diary.Count("check: repositories called synced, compared")
	for _, difference := range differences {
		if h.told[difference.Error()] {
			continue
		}
		h.told[difference.Error()] = true
		h.world.diary.Violation("%s is called synced at revision %d (the feed has %d): %v",
			repository, after.GetSyncedRevision(), feed.GetRevision(), difference)
	}
}

// claims says whether the site calls the repository synced at the revision or a later one.
func claims(row *antipodev1.TrackedRepository, revision int64) bool {
	return row.GetState() == antipodev1.RepositoryState_REPOSITORY_STATE_SYNCED && row.GetSyncedRevision() >= revision
}
