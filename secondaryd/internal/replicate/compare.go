package replicate

import (
	"context"
	"fmt"
	"slices"

	"github.com/antipode-registry/antipode/client"
	"github.com/antipode-registry/antipode/internal/registry"
	"github.com/antipode-registry/antipode/internal/transfer"
	"github.com/antipode-registry/antipode/secondaryd/internal/plan"
)

// comparison is both sides of a repository, and what follows from them.
type comparison struct {
	listing client.Listing
	// origin is the primary's registry; source what is copied from, which is that and what we make ourselves.
	origin *registry.Registry
	source transfer.Source
	// manifests are what the plan copies, by the names in it: tags, and references of what has none.
	manifests map[string]registry.Tag
	// carried are the bytes of manifests that came along with the listing, by digest.
	carried map[string][]byte
	// subjects of what has no tag, by the same names.
	subjects map[string]string
	// restored are the tags that the source lacks and an operator brought back.
	restored map[string]bool
	site     plan.Site
	// lost says that the site's registry does not know the repository, whatever we remember of it.
	lost bool
	// superseded are the indexes that fallback tags name no more, if nothing else does.
	superseded []string
	plan       plan.Plan
	// obsoletePins are restored tags that the source has again.
	obsoletePins []string
	// again asks for another round: the site could not yet be asked how it lists referrers.
	again bool
}

// compare lists both sides and makes the plan. Where the site holds an older revision of the same feed, the primary
// may answer with what was touched alone, and only that is asked of the site too.
func (a *attempt) compare(ctx context.Context) (comparison, error) {
	since, err := a.since(ctx)
	if err != nil {
		return comparison{}, err
	}
	listing, err := a.lister.Tags(ctx, a.lease.Repository, since)
	if err != nil {
		return comparison{}, &primaryError{repository: a.lease.Repository, err: err}
	}
	source, err := a.sources.at(a.opts.SourceURL, listing.RegistryURL)
	if err != nil {
		return comparison{}, err
	}
	c := comparison{
		listing: listing, origin: source, source: source, manifests: make(map[string]registry.Tag, len(listing.Tags)),
		carried: map[string][]byte{}, subjects: map[string]string{}, restored: map[string]bool{},
	}
	want := plan.Source{Complete: listing.Complete, Present: listing.Present, Absent: slices.Clone(listing.Absent)}
	for _, tag := range listing.Tags {
		c.manifests[tag.Name] = registry.Tag{Name: tag.Name, Digest: tag.Digest, MediaType: tag.MediaType, Size: tag.Size}
		if tag.Manifest != nil {
			c.carried[tag.Digest] = tag.Manifest
		}
		want.Tags = append(want.Tags, plan.Tag{Name: tag.Name, Digest: tag.Digest})
	}
	if err := a.addPins(ctx, &c, &want); err != nil {
		return comparison{}, err
	}
	present, err := a.listSite(ctx, &c)
	if err != nil {
		return comparison{}, err
	}
	c.lost = !present
	if err := a.addReferrers(ctx, &c, &want); err != nil {
		return comparison{}, err
	}
	c.plan = plan.Compute(want, c.site, a.policy())
	return c, nil
}

func (a *attempt) policy() plan.Policy {
	policy := a.opts.Policy
	policy.Released, policy.Held = a.lease.Released, a.lease.Held != ""
	return policy
}

func (a *attempt) since(ctx context.Context) (client.Position, error) {
	if a.lease.Synced <= 0 {
		return client.Position{}, nil
	}
	cursor, err := a.Tracking.Cursor(ctx)
	if err != nil {
		return client.Position{}, fmt.Errorf("read the cursor: %w", err)
	}
	return client.Position{FeedID: cursor.FeedID, Revision: a.lease.Synced, Incarnation: cursor.Incarnation}, nil
}

// addPins adds the tags that an operator brought back to what the site should have, as long as the source lacks them.
func (a *attempt) addPins(ctx context.Context, c *comparison, want *plan.Source) error {
	pins, err := a.Tracking.Pins(ctx, a.lease.Repository)
	if err != nil {
		return fmt.Errorf("read the restored tags: %w", err)
	}
	for _, pin := range pins {
		if _, again := c.manifests[pin.Tag]; again {
			c.obsoletePins = append(c.obsoletePins, pin.Tag)
			continue
		}
		want.Absent = slices.DeleteFunc(want.Absent, func(tag string) bool { return tag == pin.Tag })
		if c.listing.Complete {
			c.manifests[pin.Tag] = registry.Tag{Name: pin.Tag, Digest: pin.Digest}
			c.restored[pin.Tag] = true
			want.Tags = append(want.Tags, plan.Tag{Name: pin.Tag, Digest: pin.Digest})
		}
	}
	return nil
}

// listSite lists what the plan needs to know of the site's registry, and says whether that knows the repository.
func (a *attempt) listSite(ctx context.Context, c *comparison) (present bool, err error) {
	var found []registry.Tag
	var unreadable []string
	names := slices.Clone(c.listing.Absent)
	for _, tag := range c.listing.Tags {
		names = append(names, tag.Name)
	}
	switch {
	case c.listing.Complete:
		found, unreadable, present, err = a.listAll(ctx)
	case a.sum == nil:
		// Nobody knows any more what all tags come to, so all are looked at; the plan is about the touched ones.
		found, unreadable, present, err = a.listAll(ctx)
		other := func(tag string) bool { return !slices.Contains(names, tag) }
		found = slices.DeleteFunc(found, func(tag registry.Tag) bool { return other(tag.Name) })
		unreadable = slices.DeleteFunc(unreadable, other)
	default:
		found, _, unreadable, err = a.Site.ResolveReadable(ctx, a.target, names)
		present = true // it was synced before
	}
	if err != nil {
		return false, err
	}
	c.site.Total = max(0, a.tags)
	for _, tag := range found {
		c.site.Tags = append(c.site.Tags, plan.Tag{Name: tag.Name, Digest: tag.Digest})
	}
	// What the site has under such a tag is not known, so that it is written anew if the source has it, and else removed.
	for _, tag := range unreadable {
		c.site.Tags = append(c.site.Tags, plan.Tag{Name: tag})
		a.story.add("damaged", tag, "", "", "the site's registry lists the tag and cannot serve it")
	}
	return present, nil
}

// listAll lists the site's repository, and counts anew by that.
func (a *attempt) listAll(ctx context.Context) (found []registry.Tag, unreadable []string, present bool, err error) {
	all, unreadable, err := a.Site.ListReadable(ctx, a.target)
	if err != nil {
		return nil, nil, false, err
	}
	tags := make([]plan.Tag, 0, len(all.Tags))
	for _, tag := range all.Tags {
		tags = append(tags, plan.Tag{Name: tag.Name, Digest: tag.Digest})
	}
	a.listed(tags)
	return all.Tags, unreadable, all.Present, nil
}
