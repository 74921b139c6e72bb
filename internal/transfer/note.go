package transfer

import (
	"context"
	"errors"
	"fmt"
	"time"
)

const (
	// noteBytes is how many bytes of blobs are brought over before the Index is told of them: what costs that much to
	// bring is worth a note of its own.
	noteBytes = 8 << 20
	// tellWithin bounds how long a copy that was stopped waits for the Index.
	tellWithin = 5 * time.Second
)

// landed notes that a digest is there, for other copies at once and for the Index with what follows.
func (j *job) landed(ctx context.Context, digest string, size int64) error {
	j.flights.note(digest, j.req.Repository)
	j.mu.Lock()
	j.pending = append(j.pending, digest)
	j.weight += size
	due := j.weight >= noteBytes
	j.mu.Unlock()
	if due {
		return j.tell(ctx)
	}
	return nil
}

// tell tells the Index of what landed. In one transaction, so that a manifest is not known without what it refers to.
func (j *job) tell(ctx context.Context) error {
	j.mu.Lock()
	digests := j.pending
	j.pending, j.weight = nil, 0
	j.mu.Unlock()
	if len(digests) == 0 {
		return nil
	}
	defer j.flights.tell(j.req.Repository, digests)
	if err := j.index.Record(ctx, j.req.Repository, digests...); err != nil {
		return fmt.Errorf("record %s: %w", digests[len(digests)-1], err)
	}
	return nil
}

// tellAfter tells the Index what a copy that ended with err did not come to tell, maybe because it was stopped: the next
// attempt need not do again what is done.
func (j *job) tellAfter(ctx context.Context, err error) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), tellWithin)
	defer cancel()
	told := j.tell(ctx)
	if err != nil && told != nil {
		return fmt.Errorf("%w (and %w)", err, told)
	}
	return errors.Join(err, told)
}
