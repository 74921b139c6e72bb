package transfer

import (
	"context"
	"errors"
	"fmt"

	"github.com/antipode-registry/antipode/internal/registry"
	"github.com/antipode-registry/antipode/internal/telemetry"
)

// maxUnavailable is after how many tags in a row that met an unavailable destination the others are not tried: each
// try is a series of its own, with waits, and what is unavailable is not so for one tag.
const maxUnavailable = 3

// putChildren writes the manifests below the root, from the leaves upward. Each has landed once it is written, for all
// that it refers to is there by then.
func (j *job) putChildren(ctx context.Context, g *graph) error {
	for _, row := range g.rows() {
		err := each(ctx, manifestReads, row, func(ctx context.Context, n *node) error {
			if err := j.dst.PutManifest(ctx, j.req.Repository, n.desc.Digest, n.manifest); err != nil {
				return fmt.Errorf("write %s: %w", n.path(), refused(n, err))
			}
			return j.landed(ctx, n.desc.Digest, n.manifest.Size)
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// unreadable says that the destination does not have a manifest, or says itself that it cannot read it: one that was
// killed while it wrote may have it without an end, and has it right again when it is written again.
func unreadable(err error) bool {
	found, other := judge(err)
	return other == nil && found.problem != ""
}

// retag writes the tags of a root that is there already. Its bytes come from the destination: the source is farther.
func (j *job) retag(ctx context.Context, g *graph) error {
	if len(j.req.Tags) == 0 {
		return nil
	}
	root := g.root
	m, err := checked(j.dst.Manifest(ctx, j.req.Repository, root.desc.Digest))(root.desc)
	switch {
	case errors.Is(err, registry.ErrMalformed), unreadable(err):
		return fmt.Errorf("%s: %w: %w", root.path(), errIndexLied, err)
	case err != nil:
		return fmt.Errorf("%s: %w", root.path(), err)
	}
	if root.document, err = parse(m.Bytes, m.MediaType, root.desc.MediaType); err != nil {
		return fmt.Errorf("%s: %w", root.path(), err)
	}
	// For Forget, should the destination miss some of it.
	if _, _, err := g.expand(root); err != nil {
		return fmt.Errorf("%s: %w", root.path(), err)
	}
	j.noteDiscovered(g)
	m.MediaType, m.Digest, m.Size = root.document.mediaType, root.desc.Digest, int64(len(m.Bytes))
	root.manifest = m
	return j.writeRoot(ctx, root)
}

// refused adds to the refusal of an index that lists blobs what may be behind it: CNCF distribution 3 looks for
// manifests alone there, unless told not to look.
func refused(n *node, err error) error {
	if !errors.Is(err, registry.ErrBlobUnknown) || len(n.document.blobs) == 0 || !n.document.isIndex {
		return err
	}
	return fmt.Errorf("%w (the index lists blobs, as BuildKit's caches do; CNCF distribution 3 takes it only with "+
		"validation.manifests.indexes.platforms set to none)", err)
}

// writeRoot writes the root under each tag, or under its digest where there is none. It is the last thing a copy does.
func (j *job) writeRoot(ctx context.Context, root *node) error {
	if len(j.req.Tags) == 0 {
		return j.putRoot(ctx, root.desc.Digest, root)
	}
	unavailable := 0
	for _, tag := range j.req.Tags {
		if j.settled(tag) {
			continue
		}
		if unavailable >= maxUnavailable {
			j.tagFailed(tag, fmt.Errorf("not tried, the tags before it failed: %w", registry.ErrUnavailable))
			continue
		}
		err := j.putRoot(ctx, tag, root)
		var stop *stopError
		switch {
		case err == nil:
			unavailable = 0
		case errors.As(err, &stop), errors.Is(err, registry.ErrBlobUnknown):
			return err
		case errors.Is(err, registry.ErrUnavailable):
			unavailable++
			j.tagFailed(tag, err)
		default:
			unavailable = 0
			j.tagFailed(tag, err)
		}
	}
	return nil
}

// stopError ends the writes: it is not about one reference.
type stopError struct{ err error }

func (e *stopError) Error() string { return e.err.Error() }
func (e *stopError) Unwrap() error { return e.err }

func (j *job) putRoot(ctx context.Context, reference string, root *node) error {
	if err := j.writeReference(ctx, reference, root); err != nil {
		err = fmt.Errorf("write %s: %w", reference, refused(root, err))
		if ctx.Err() != nil || errors.Is(err, registry.ErrFenced) {
			return &stopError{err}
		}
		return err
	}
	if j.markWritten(reference) {
		if err := j.landed(ctx, root.desc.Digest, 0); err != nil {
			return &stopError{err}
		}
	}
	return nil
}

// writeReference is what makes the root be seen.
func (j *job) writeReference(ctx context.Context, reference string, root *node) error {
	name := "write tag"
	if reference == root.desc.Digest {
		name = "write manifest"
	}
	ctx, span := j.tracer.Within(ctx, name, telemetry.About{
		Repository: j.req.Repository, Reference: reference, Digest: root.desc.Digest,
	})
	defer span.End()
	err := j.dst.PutManifest(ctx, j.req.Repository, reference, root.manifest)
	span.Fail(registry.SideOf(err), err)
	return err
}

// markWritten tells whether this is the first reference that was written.
func (j *job) markWritten(reference string) (first bool) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.written[reference] = true
	return len(j.written) == 1
}

func (j *job) settled(tag string) bool {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.written[tag] || j.result.TagErrors[tag] != nil
}

func (j *job) tagFailed(tag string, err error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.noteTagError(tag, err)
}
