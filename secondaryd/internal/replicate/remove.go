package replicate

import (
	"context"
	"errors"

	"github.com/antipode-registry/antipode/internal/registry"
	"github.com/antipode-registry/antipode/internal/telemetry"
	"github.com/antipode-registry/antipode/internal/transfer"
	"github.com/antipode-registry/antipode/secondaryd/internal/plan"
	"github.com/antipode-registry/antipode/secondaryd/internal/tracking"
)

func (a *attempt) removeAll(ctx context.Context, c comparison, result *applied) {
	// Tags first: what only they used may go then.
	tags, references := []plan.Removal{}, []plan.Removal{}
	for _, removal := range c.plan.Removals {
		if isTag(removal.Tag) {
			tags = append(tags, removal)
		} else {
			references = append(references, removal)
		}
	}
	if !a.removeEach(ctx, tags, result) || len(references) == 0 || len(result.errs) > 0 {
		// Nothing is known to use the references once all of the plan is done, and some of it is not.
		return
	}
	if err := a.dropSuperseded(ctx, c); err != nil {
		result.errs = append(result.errs, err)
		return
	}
	a.removeEach(ctx, references, result)
}

// removeEach returns whether it makes sense to go on.
func (a *attempt) removeEach(ctx context.Context, removals []plan.Removal, result *applied) bool {
	for _, removal := range removals {
		if err := a.traced(ctx, removal); err != nil {
			result.errs = append(result.errs, &referenceError{reference: removal.Tag, err: err})
			a.story.add("failed", removal.Tag, removal.Digest, "", err.Error())
			if !refused(err) {
				a.lostCount()
			}
			if errors.Is(err, tracking.ErrLeaseLost) || ctx.Err() != nil {
				return false
			}
			continue
		}
		result.removed++
		result.planned++
		a.wrote(removal.Tag, removal.Digest, "")
		a.work.did(removal.Tag)
		a.story.add("removed", removal.Tag, "", removal.Digest, "the primary no longer has it")
	}
	return true
}

// traced removes within a span.
func (a *attempt) traced(ctx context.Context, removal plan.Removal) error {
	ctx, span := a.opts.Tracer.Within(ctx, "remove tag", telemetry.About{
		Repository: a.target, Reference: removal.Tag, Digest: removal.Digest,
	})
	defer span.End()
	err := a.remove(ctx, removal)
	span.Fail(sideOf(err), err)
	return err
}

// remove deletes one tag, or one manifest without a tag.
func (a *attempt) remove(ctx context.Context, removal plan.Removal) error {
	if isTag(removal.Tag) {
		return a.Site.DeleteTag(ctx, a.target, removal.Tag)
	}
	if err := a.dropManifest(ctx, removal.Digest); err != nil {
		return err
	}
	return a.Tracking.DropReferrer(ctx, a.target, removal.Digest)
}

// dropManifest deletes a manifest that nothing uses by its digest.
func (a *attempt) dropManifest(ctx context.Context, digest string) error {
	// Forgotten first: what is remembered and not there is taken for granted by copies, the reverse only costs one.
	if err := a.Tracking.Content().Forget(ctx, a.target, digest); err != nil {
		return err
	}
	return a.Site.DeleteManifest(ctx, a.target, digest)
}

// dropSuperseded deletes the indexes that fallback tags named before: some registries do not let go of a manifest that
// an index lists, be it tagged or not.
func (a *attempt) dropSuperseded(ctx context.Context, c comparison) error {
	for _, digest := range c.superseded {
		if err := a.dropManifest(ctx, digest); err != nil {
			return err
		}
	}
	return nil
}

// mayBeIndex says whether a manifest of this type can list others.
func mayBeIndex(mediaType string) bool {
	const dockerList = "application/vnd.docker.distribution.manifest.list.v2+json"
	return mediaType == indexType || mediaType == dockerList || mediaType == ""
}

// children returns the manifests that one on the site, or else at the source, lists; none when it is nowhere.
func (a *attempt) children(ctx context.Context, c *comparison, digest string) ([]registry.Descriptor, error) {
	m, err := a.Site.Manifest(ctx, a.target, digest)
	if errors.Is(err, registry.ErrNotFound) {
		m, err = c.source.Manifest(ctx, a.lease.Repository, digest)
	}
	switch {
	case errors.Is(err, registry.ErrNotFound):
		return nil, nil
	case err != nil:
		return nil, err
	}
	children, _, err := transfer.References(m)
	return children, err
}
