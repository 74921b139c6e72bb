package replicate

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/antipode-registry/antipode/internal/registry"
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
	for _, removal := range slices.Concat(tags, references) {
		if err := a.remove(ctx, c, removal); err != nil {
			result.errs = append(result.errs, &referenceError{reference: removal.Tag, err: err})
			a.story.add("failed", removal.Tag, removal.Digest, "", err.Error())
			if !refused(err) {
				a.lostCount()
			}
			if errors.Is(err, tracking.ErrLeaseLost) || ctx.Err() != nil {
				return
			}
			continue
		}
		result.removed++
		result.planned++
		a.wrote(removal.Tag, removal.Digest, "")
		a.story.add("removed", removal.Tag, "", removal.Digest, "the primary no longer has it")
	}
}

// remove deletes one tag, or one manifest without a tag, if the lease still holds.
func (a *attempt) remove(ctx context.Context, c comparison, removal plan.Removal) error {
	if err := a.held.fence(ctx); err != nil {
		return fmt.Errorf("remove %s:%s: %w", a.target, removal.Tag, err)
	}
	if isTag(removal.Tag) {
		return a.Site.DeleteTag(ctx, a.target, removal.Tag)
	}
	return a.dropReferrer(ctx, c, removal.Digest)
}

// dropReferrer deletes a manifest without a tag by its digest, unless a tag or an index still uses it. Either way it is
// no longer remembered as a referrer.
func (a *attempt) dropReferrer(ctx context.Context, c comparison, digest string) error {
	used, err := a.inUse(ctx, c)
	if err != nil {
		return fmt.Errorf("find out what uses %s: %w", digest, err)
	}
	if !used[digest] {
		if err := a.Site.DeleteManifest(ctx, a.target, digest); err != nil {
			return err
		}
		if err := a.Tracking.Content().Forget(ctx, a.target, digest); err != nil {
			return err
		}
	}
	return a.Tracking.DropReferrer(ctx, a.target, digest)
}

// inUse returns the digests that the site's tags name, directly or through indexes, once the tags are right.
func (a *attempt) inUse(ctx context.Context, c comparison) (map[string]bool, error) {
	if a.used != nil {
		return a.used, nil
	}
	all, err := a.Site.List(ctx, a.target)
	if err != nil {
		return nil, err
	}
	used := map[string]bool{}
	pending := make([]registry.Descriptor, 0, len(all.Tags))
	for _, tag := range all.Tags {
		pending = append(pending, registry.Descriptor{Digest: tag.Digest, MediaType: tag.MediaType})
	}
	for _, subject := range c.listing.Subjects {
		for _, r := range subject.Referrers {
			pending = append(pending, registry.Descriptor{Digest: r.Digest, MediaType: r.MediaType})
		}
	}
	for len(pending) > 0 {
		next := pending[len(pending)-1]
		pending = pending[:len(pending)-1]
		if used[next.Digest] {
			continue
		}
		used[next.Digest] = true
		if !mayBeIndex(next.MediaType) {
			continue
		}
		children, _, err := a.children(ctx, next.Digest)
		if err != nil && !errors.Is(err, registry.ErrNotFound) {
			return nil, err
		}
		pending = append(pending, children...)
	}
	a.used = used
	return used, nil
}

// mayBeIndex says whether a manifest of this type can list others.
func mayBeIndex(mediaType string) bool {
	const dockerList = "application/vnd.docker.distribution.manifest.list.v2+json"
	return mediaType == indexType || mediaType == dockerList || mediaType == ""
}

// children returns the manifests that one on the site lists, and its subject.
func (a *attempt) children(ctx context.Context, digest string) ([]registry.Descriptor, string, error) {
	m, err := a.Site.Manifest(ctx, a.target, digest)
	if err != nil {
		return nil, "", err
	}
	return transfer.References(m)
}
