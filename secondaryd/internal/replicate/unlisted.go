package replicate

import (
	"context"
	"errors"
	"slices"

	"github.com/antipode-registry/antipode/internal/registry"
	"github.com/antipode-registry/antipode/internal/transfer"
	"github.com/antipode-registry/antipode/secondaryd/internal/plan"
	"github.com/antipode-registry/antipode/secondaryd/internal/tracking"
)

// addUnlisted adds to the site's side of the plan the manifests with a subject that the source no longer lists and that
// nothing will use once the tags are as planned. The plan then removes them, as far as the policy and the brake let it.
func (a *attempt) addUnlisted(
	ctx context.Context, c *comparison, want *plan.Source, stored []tracking.Referrer,
) error {
	tags := plan.Compute(*want, c.site, a.policy())
	doubtful := a.doubtful(c, tags, stored)
	if len(doubtful) == 0 {
		return nil
	}
	search := map[string]bool{}
	for _, r := range doubtful {
		search[r.Digest] = true
	}
	moved := superseded(tags)
	for _, digest := range moved {
		search[digest] = true
	}
	roots, err := a.after(ctx, c, tags)
	if err != nil {
		return err
	}
	used, err := a.reach(ctx, c, roots, search)
	if errors.Is(err, transfer.ErrUnsupported) {
		return nil // what uses what cannot be told, so all of it stays
	}
	if err != nil {
		return err
	}
	doubtful = slices.DeleteFunc(doubtful, func(r tracking.Referrer) bool { return used[r.Digest] })
	if doubtful, err = a.withoutListed(ctx, c, doubtful); err != nil {
		return err
	}
	for _, r := range doubtful {
		c.site.Tags = append(c.site.Tags, plan.Tag{Name: reference(r.Digest), Digest: r.Digest})
		want.Absent = append(want.Absent, reference(r.Digest))
	}
	c.superseded = slices.DeleteFunc(moved, func(digest string) bool { return used[digest] })
	return nil
}

// doubtful returns what may have to go.
//
// Where the source has the API, its complete listing names all that must stay besides what tags use. A delta proves
// nothing: the deletion of a referrer is announced as a change of anything. Where the source does not have it, a
// fallback tag lists what must stay, and a change of that is a reason to look; so is a change of a tag that the manifest
// had itself.
func (a *attempt) doubtful(c *comparison, tags plan.Plan, stored []tracking.Referrer) (doubtful []tracking.Referrer) {
	if c.listing.ReferrersAPI && !c.listing.Complete {
		return nil
	}
	touched := map[string]bool{}
	for _, name := range c.listing.Absent {
		touched[name] = true
	}
	for name := range c.manifests {
		touched[name] = true
	}
	left := map[string]bool{}
	for _, change := range previous(tags) {
		left[change.digest] = true
	}
	for _, r := range stored {
		_, wanted := c.manifests[reference(r.Digest)]
		if !wanted && (c.listing.Complete || touched[fallbackTag(r.Subject)] || left[r.Digest]) {
			doubtful = append(doubtful, r)
		}
	}
	return doubtful
}

// withoutListed takes out what the source lists by its API, should it have one although the primary has not seen it.
func (a *attempt) withoutListed(
	ctx context.Context, c *comparison, doubtful []tracking.Referrer,
) ([]tracking.Referrer, error) {
	if c.listing.ReferrersAPI {
		return doubtful, nil
	}
	listed, asked := map[string]bool{}, map[string]bool{}
	for _, r := range doubtful {
		if asked[r.Subject] {
			continue
		}
		asked[r.Subject] = true
		found, _, err := c.origin.Referrers(ctx, a.lease.Repository, r.Subject)
		if err != nil {
			return nil, err
		}
		for _, r := range found {
			listed[r.Digest] = true
		}
	}
	return slices.DeleteFunc(doubtful, func(r tracking.Referrer) bool { return listed[r.Digest] }), nil
}

// change is a tag that a plan moves or removes, with what it named before.
type change struct{ tag, digest string }

func previous(p plan.Plan) (changes []change) {
	for _, step := range p.Copies {
		for _, tag := range step.Tags {
			if tag.Previous != "" {
				changes = append(changes, change{tag.Name, tag.Previous})
			}
		}
	}
	for _, removal := range p.Removals {
		changes = append(changes, change{removal.Tag, removal.Digest})
	}
	return changes
}

// superseded returns the indexes that the plan takes fallback tags from.
func superseded(p plan.Plan) (digests []string) {
	for _, change := range previous(p) {
		if isFallbackTag(change.tag) && change.digest != "" {
			digests = append(digests, change.digest)
		}
	}
	return digests
}

// after returns what will be used of itself once the plan for the tags is done: what tags name, and the referrers that
// the source lists. Fallback tags come first, since what is looked for is most often there.
func (a *attempt) after(ctx context.Context, c *comparison, tags plan.Plan) ([]registry.Descriptor, error) {
	names := map[string]string{}
	if c.listing.Complete {
		for _, tag := range c.site.Tags {
			names[tag.Name] = tag.Digest
		}
	} else {
		all, _, err := a.Site.ListReadable(ctx, a.target)
		if err != nil {
			return nil, err
		}
		for _, tag := range all.Tags {
			names[tag.Name] = tag.Digest
		}
	}
	for _, step := range tags.Copies {
		for _, tag := range step.Tags {
			names[tag.Name] = step.Digest
		}
	}
	for _, removal := range tags.Removals {
		delete(names, removal.Tag)
	}
	var first, rest []registry.Descriptor
	for name, digest := range names {
		root := registry.Descriptor{Digest: digest}
		if known := c.manifests[name]; known.Digest == digest {
			root.MediaType = known.MediaType
		}
		if isFallbackTag(name) {
			first = append(first, root)
		} else {
			rest = append(rest, root)
		}
	}
	return append(first, rest...), nil
}

// reach returns which of the digests looked for the roots name, directly or through indexes.
func (a *attempt) reach(
	ctx context.Context, c *comparison, roots []registry.Descriptor, search map[string]bool,
) (map[string]bool, error) {
	found, seen := map[string]bool{}, map[string]bool{}
	for next := roots; len(next) > 0 && len(found) < len(search); {
		var indexes []registry.Descriptor
		for _, manifest := range next {
			if manifest.Digest == "" || seen[manifest.Digest] {
				continue
			}
			seen[manifest.Digest] = true
			if search[manifest.Digest] {
				found[manifest.Digest] = true
			}
			if mayBeIndex(manifest.MediaType) {
				indexes = append(indexes, manifest)
			}
		}
		next = nil
		for _, index := range indexes {
			if len(found) == len(search) {
				break
			}
			children, err := a.children(ctx, c, index.Digest)
			if err != nil {
				return nil, err
			}
			for _, child := range children {
				if search[child.Digest] {
					found[child.Digest] = true
				}
			}
			next = append(next, children...)
		}
	}
	return found, nil
}
