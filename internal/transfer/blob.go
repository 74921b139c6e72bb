package transfer

import (
	"context"
	"fmt"

	"golang.org/x/sync/errgroup"

	"github.com/antipode-registry/antipode/internal/registry"
)

// How a blob came to be at the destination: the values of the label "result".
const (
	blobCopied  = "copied"  // uploaded
	blobMounted = "mounted" // granted by the destination
	blobKnown   = "known"   // remembered by the Index
	blobWaited  = "waited"  // brought to the same repository by another copy
)

// copyBlobs brings all blobs of the graph to the destination. When one fails no other is begun, but those under way
// are finished: they are remembered, so the next attempt has less to do.
func (j *job) copyBlobs(ctx context.Context, level trust, g *graph) error {
	begin, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	var group errgroup.Group
	group.SetLimit(j.blobs)
	for _, b := range g.order {
		if begin.Err() != nil {
			break
		}
		group.Go(func() error {
			if err := j.copyBlob(ctx, begin, level, b); err != nil {
				stop(fmt.Errorf("%s: %w", b.path(), err)) // the first to fail; others may only have been told to stop
			}
			return nil
		})
	}
	_ = group.Wait() // failures are the cause of begin
	return context.Cause(begin)
}

// copyBlob brings one blob to the destination, or waits for the copy that is at it. begin ends waiting, ctx all.
func (j *job) copyBlob(ctx, begin context.Context, level trust, b *blob) error {
	known, err := j.known(ctx, level, b.desc.Digest)
	if err != nil {
		return err
	}
	if known {
		j.assumed.Add(1)
		j.note(blobKnown, b)
		return nil
	}
	// The first round is about the digest in any repository. Who finds that another copy brought it to another
	// repository mounts it from there, and then waits only for copies to its own.
	key, from := flightKey{digest: b.desc.Digest}, ""
	for {
		f, mine := j.flights.join(key, j.req.Repository)
		if mine {
			err := j.leadBlob(ctx, begin, level, b, from, f.hurry)
			j.flights.land(key, f, err == nil)
			return err
		}
		if j.req.Urgent {
			j.flights.urge(f)
		}
		if err := f.wait(begin); err != nil {
			return err
		}
		switch {
		case !f.done || level == trustNothing:
			continue
		case f.repository == j.req.Repository:
			j.note(blobWaited, b)
			return nil
		}
		key.repository, from = j.req.Repository, f.repository
	}
}

// leadBlob transfers a blob that no other copy is at. from is a repository that is sure to have it, or ""; hurry is
// closed when an urgent copy begins to wait for this one.
func (j *job) leadBlob(
	ctx, begin context.Context, level trust, b *blob, from string, hurry <-chan struct{},
) error {
	place, err := j.slots.acquire(begin, j.req.Urgent, hurry)
	if err != nil {
		return err
	}
	defer j.slots.release(place)
	if place.urgent {
		ctx = registry.WithUrgency(ctx)
	}
	from, err = j.mountFrom(ctx, level, b, from)
	if err != nil {
		return err
	}
	mounted, err := j.putBlob(ctx, b, from)
	if err != nil {
		return err
	}
	if err := j.record(ctx, b.desc.Digest); err != nil {
		return err
	}
	if mounted {
		j.note(blobMounted, b)
	} else {
		j.note(blobCopied, b)
	}
	return nil
}

// mountFrom chooses what the POST that opens the upload asks to be mounted. Naming the repository itself costs nothing
// where the blob is not there (202 opens the upload all the same), and saves the bytes where it is there without our
// knowledge. Distribution 2.8 and 3.1 grant it.
func (j *job) mountFrom(ctx context.Context, level trust, b *blob, from string) (string, error) {
	if level == trustNothing || from != "" {
		return from, nil
	}
	repository, ok, err := j.index.Locate(ctx, b.desc.Digest)
	if err != nil {
		return "", fmt.Errorf("locate %s: %w", b.desc.Digest, err)
	}
	if !ok {
		return j.req.Repository, nil
	}
	return repository, nil
}

// putBlob uploads or mounts. A source's failure comes back through PutBlob as the content's.
func (j *job) putBlob(ctx context.Context, b *blob, from string) (mounted bool, err error) {
	if b.desc.Size == 0 { // no byte will be read, so the download would check nothing
		if err := verify(nil, b.desc.Digest, 0); err != nil {
			return false, err
		}
	}
	d := &download{job: j, ctx: ctx, desc: b.desc}
	return j.dst.PutBlob(ctx, j.req.Repository, b.desc, from, d.open)
}

// note counts a blob that is there now.
func (j *job) note(how string, b *blob) {
	j.metrics.blob(how)
	if how != blobCopied {
		j.progress.add(b.desc.Size)
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	switch how {
	case blobCopied:
		j.result.BlobsCopied++
	case blobMounted:
		j.result.BlobsMounted++
	}
}
