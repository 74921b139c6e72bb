package transfer

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"
)

const (
	// noteBytes is how many bytes of blobs are brought over before the Index is told of them: what costs that much to
	// bring is worth a note of its own.
	noteBytes = 8 << 20
	// noteDigests is how many digests may be noted, however small, before the Index is told of them.
	noteDigests = 256
	// tellWithin bounds how long a copy that was stopped waits for the Index.
	tellWithin = 5 * time.Second
)

// Notes are what copies brought to one repository and the Index was not told of yet. Other copies know of it at once.
// What is lost of them with the process is asked of the destination again, which mounts what is there. They are safe for
// concurrent use.
type Notes struct {
	copier     *Copier
	repository string

	mu      sync.Mutex
	digests []string
	weight  int64 // bytes of those
}

// Notes returns notes for copies to repository that are made with the same Request.Notes. Tell must be called after the
// last of them.
func (c *Copier) Notes(repository string) *Notes { return &Notes{copier: c, repository: repository} }

// Tell tells the Index of what was noted. The copies may have ended because ctx did: what is done need not be done again.
func (n *Notes) Tell(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), tellWithin)
	defer cancel()
	return n.tell(ctx)
}

// tell tells it in one transaction, so that a manifest is not known without what it refers to.
func (n *Notes) tell(ctx context.Context) error {
	n.mu.Lock()
	digests := n.digests
	n.digests, n.weight = nil, 0
	n.mu.Unlock()
	if len(digests) == 0 {
		return nil
	}
	defer n.copier.flights.tell(n.repository, digests)
	if err := n.copier.index.Record(ctx, n.repository, digests...); err != nil {
		return fmt.Errorf("record %s: %w", digests[len(digests)-1], err)
	}
	return nil
}

// add notes a digest, and says whether it is time to tell.
func (n *Notes) add(digest string, size int64) (due bool) {
	n.copier.flights.note(digest, n.repository)
	n.mu.Lock()
	defer n.mu.Unlock()
	n.digests = append(n.digests, digest)
	n.weight = sum(n.weight, size)
	return n.weight >= noteBytes || len(n.digests) >= noteDigests
}

// drop takes back what the destination turned out to lack.
func (n *Notes) drop(digests []string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.digests = slices.DeleteFunc(n.digests, func(digest string) bool { return slices.Contains(digests, digest) })
	n.copier.flights.tell(n.repository, digests)
}

// landed notes that a digest is there, for other copies at once and for the Index with what follows.
func (j *job) landed(ctx context.Context, digest string, size int64) error {
	if j.notes.add(digest, size) {
		return j.notes.tell(ctx)
	}
	return nil
}

// tellOwn tells the Index what a copy that has notes of its own, and ended with err, did not come to tell.
func (j *job) tellOwn(ctx context.Context, err error) error {
	if j.notes == j.req.Notes {
		return err
	}
	told := j.notes.Tell(ctx)
	if err != nil && told != nil {
		return fmt.Errorf("%w (and %w)", err, told)
	}
	return errors.Join(err, told)
}
