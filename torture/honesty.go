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
// announced, was not confirmed, or was acknowledged by a primaryd whose database then became an older copy of itself, is
// covered by the revision that the feed has once a sweep has compared the repository.
//
// A revision is one of the feed's only where the site's cursor fits the feed. And what a site says whose own database
// became an older copy of itself, it says of what its registry held then: it is held to what it synced since.
type honesty struct {
	world  *world
	ledger *ledger
	swept  map[string][]time.Time // when a repository was compared last, at most so often as counts
	told   map[string]bool        // what was found wrong already: the same is not told twice
}

// enoughSweeps is how often a sweep must have written down a comparison since something was done, so that one of them
// has seen it. A primaryd that was frozen, or is slow, may write down what it has read before: once, and there are two.
const enoughSweeps = 3

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

// account follows the sweeps over a repository by what they write into its row, whichever process they are of, and tells
// the ledger what they must have found.
func (h *honesty) account(ctx context.Context, repository string) {
	row, err := h.world.feedRow(ctx, repository)
	if err != nil || row.GetSweptAt() == nil {
		return
	}
	swept, at := h.swept[repository], row.GetSweptAt().AsTime()
	if len(swept) == 0 || at.After(swept[len(swept)-1]) {
		swept = append(swept, at)
	}
	h.swept[repository] = swept[max(0, len(swept)-enoughSweeps):]
	if len(swept) >= enoughSweeps {
		h.ledger.Account(repository, h.swept[repository][0])
	}
}

func (h *honesty) check(ctx context.Context, repository string, version int) {
	feed, err := h.world.feedRow(ctx, repository)
	if err != nil || feed == nil {
		return
	}
	if fits, err := h.world.siteFits(ctx); err != nil || !fits {
		return
	}
	before, err := h.world.siteRow(ctx, repository)
	if err != nil || !h.claims(before, feed.GetRevision()) {
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
	if err != nil || !h.claims(after, feed.GetRevision()) || !h.ledger.Same(repository, version) {
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

// claims says whether the site calls the repository synced at the revision or a later one, and since it knows better.
func (h *honesty) claims(row *antipodev1.TrackedRepository, revision int64) bool {
	h.world.mu.Lock()
	rewound := h.world.siteRewound
	h.world.mu.Unlock()
	return row.GetState() == antipodev1.RepositoryState_REPOSITORY_STATE_SYNCED && row.GetSyncedRevision() >= revision &&
		!row.GetLastSyncedAt().AsTime().Before(rewound)
}
