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
	found, err := j.locateBlobs(ctx, level, g)
	if err != nil {
		return err
	}
	begin, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	var group errgroup.Group
	group.SetLimit(j.blobs)
	for _, b := range g.order {
		if begin.Err() != nil {
			break
		}
		group.Go(func() error {
			if err := j.copyBlob(ctx, begin, level, b, found); err != nil {
				stop(fmt.Errorf("%s: %w", b.path(), err)) // the first to fail; others may only have been told to stop
			}
			return nil
		})
	}
	_ = group.Wait() // failures are the cause of begin
	return context.Cause(begin)
}

// locateBlobs finds out where the destination has the blobs of the graph.
func (j *job) locateBlobs(ctx context.Context, level trust, g *graph) (map[string]string, error) {
	if len(g.order) == 0 {
		return nil, nil
	}
	digests := make([]string, len(g.order))
	for i, b := range g.order {
		digests[i] = b.desc.Digest
	}
	return j.find(ctx, level, digests...)
}

// copyBlob brings one blob to the destination, or waits for the copy that is at it. begin ends waiting, ctx all.
func (j *job) copyBlob(ctx, begin context.Context, level trust, b *blob, found map[string]string) error {
	if _, known := j.place(level, b.desc.Digest, found); known {
		j.blobKnown(b)
		return nil
	}
	// The first round is about the digest in any repository. Who finds that another copy brought it to another
	// repository mounts it from there, and then waits only for copies to its own.
	key, from := flightKey{digest: b.desc.Digest}, ""
	for {
		f, mine := j.flights.join(key, j.req.Repository)
		if mine {
			err := j.leadBlob(ctx, begin, level, b, found, from, f.hurry)
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

// leadBlob transfers a blob that no other copy is at, if it is not there. from is a repository that is sure to have it, or
// ""; hurry is closed when an urgent copy begins to wait for this one.
func (j *job) leadBlob(
	ctx, begin context.Context, level trust, b *blob, found map[string]string, from string, hurry <-chan struct{},
) error {
	where, known := j.place(level, b.desc.Digest, found)
	if known { // since a moment ago
		j.blobKnown(b)
		return nil
	}
	place, err := j.slots.acquire(begin, j.req.Urgent, hurry)
	if err != nil {
		return err
	}
	defer j.slots.release(place)
	if place.urgent {
		ctx = registry.WithUrgency(ctx)
	}
	growStack(0) // now, and not before it waited: a stack that is not used is taken away
	mounted, err := j.putBlob(ctx, b, j.mountFrom(level, from, where))
	if err != nil {
		return err
	}
	if mounted {
		j.note(blobMounted, b)
	} else {
		j.note(blobCopied, b)
	}
	return j.landed(ctx, b.desc.Digest, b.desc.Size)
}

// mountFrom chooses what the POST that opens the upload asks to be mounted. Naming the repository itself costs nothing
// where the blob is not there (202 opens the upload all the same), and saves the bytes where it is there without our
// knowledge. Distribution 2.8 and 3.1 grant it.
func (j *job) mountFrom(level trust, sure, likely string) string {
	switch {
	case level == trustNothing || sure != "":
		return sure
	case likely != "":
		return likely
	}
	return j.req.Repository
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

// blobKnown takes a blob for granted.
func (j *job) blobKnown(b *blob) {
	j.assumed.Add(1)
	j.note(blobKnown, b)
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
