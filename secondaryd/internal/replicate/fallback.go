package replicate

import (
	"context"
	"errors"
	"slices"

	"github.com/antipode-registry/antipode/internal/registry"
	"github.com/antipode-registry/antipode/secondaryd/internal/plan"
)

// dropUnlisted deletes the referrers that a moved or removed fallback tag no longer lists: where the site's registry
// has the referrers API, it would go on listing them by itself.
func (a *attempt) dropUnlisted(ctx context.Context, c comparison, result *applied) {
	for _, moved := range fallbackMoves(c.plan) {
		if err := a.dropUnlistedBy(ctx, c, moved); err != nil {
			result.errs = append(result.errs, &referenceError{reference: moved.tag, err: err})
		}
	}
}

// fallbackMove is a fallback tag that names, or will name, another index or none.
type fallbackMove struct{ tag, before, after string }

func fallbackMoves(p plan.Plan) []fallbackMove {
	var moves []fallbackMove
	for _, step := range p.Copies {
		for _, tag := range step.Tags {
			if isFallbackTag(tag.Name) && tag.Previous != "" {
				moves = append(moves, fallbackMove{tag: tag.Name, before: tag.Previous, after: step.Digest})
			}
		}
	}
	for _, removal := range p.Removals {
		if isFallbackTag(removal.Tag) {
			moves = append(moves, fallbackMove{tag: removal.Tag, before: removal.Digest})
		}
	}
	return moves
}

func (a *attempt) dropUnlistedBy(ctx context.Context, c comparison, moved fallbackMove) error {
	subject := "sha" + moved.tag[3:6] + ":" + moved.tag[7:]
	supports, err := a.siteAPI.has(ctx, a.Site, a.target, subject)
	if err != nil || !supports {
		return err
	}
	before, _, err := a.children(ctx, moved.before)
	if err != nil {
		if errors.Is(err, registry.ErrNotFound) {
			return nil
		}
		return err
	}
	var after []registry.Descriptor
	if moved.after != "" {
		if after, _, err = a.children(ctx, moved.after); err != nil {
			return err
		}
	}
	for _, child := range before {
		listed := slices.ContainsFunc(after, func(d registry.Descriptor) bool { return d.Digest == child.Digest })
		if listed {
			continue
		}
		if err := a.dropChild(ctx, c, moved, child.Digest); err != nil {
			return err
		}
	}
	return nil
}

// dropChild deletes what was a referrer of the fallback tag's subject; an index under such a tag may list other things.
func (a *attempt) dropChild(ctx context.Context, c comparison, moved fallbackMove, digest string) error {
	_, subject, err := a.children(ctx, digest)
	if errors.Is(err, registry.ErrNotFound) {
		return nil
	}
	if err != nil || fallbackTag(subject) != moved.tag {
		return err
	}
	if !a.opts.Policy.Deletions {
		a.story.add("kept", reference(digest), digest, "", "deletions are switched off")
		return nil
	}
	if err := a.held.fence(ctx); err != nil {
		return err
	}
	if err := a.dropReferrer(ctx, c, digest); err != nil {
		return err
	}
	a.story.add("removed", reference(digest), "", digest, "no longer listed by "+moved.tag)
	return nil
}
