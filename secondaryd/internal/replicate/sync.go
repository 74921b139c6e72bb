package replicate

import (
	"context"
	"fmt"
	"time"

	"github.com/antipode-registry/antipode/client"
	"github.com/antipode-registry/antipode/internal/registry"
	"github.com/antipode-registry/antipode/secondaryd/internal/plan"
	"github.com/antipode-registry/antipode/secondaryd/internal/tracking"
)

// unknown is the tag count of an outcome that does not know it.
const unknown = -1

// rounds bounds how often one sync lists again because what it was copying vanished at the source meanwhile. A digest
// that is still listed and still not there after that is a failure.
const rounds = 3

// settleWait is how soon a repository is looked at again whose listing was not settled.
const settleWait = 2 * time.Second

// comparison is both sides of a repository, and what follows from them.
type comparison struct {
	listing client.Listing
	source  *registry.Registry
	tags    map[string]registry.Tag // of the source, by name
	site    plan.Site
	plan    plan.Plan
}

// sync makes the site's repository equal to the primary's and says what came of it.
func (e *Engine) sync(ctx context.Context, lease *tracking.Lease, held *heldLease, work *Active) tracking.Outcome {
	var story journal
	for round := 1; ; round++ {
		c, err := e.compare(ctx, lease)
		if err != nil {
			return story.failed(lease.Repository, err)
		}
		result := e.apply(ctx, lease.Repository, c, held, work, &story)
		if result.vanished && round < rounds && ctx.Err() == nil {
			continue
		}
		return e.conclude(lease, c, result, &story)
	}
}

// conclude turns what was done into the outcome.
func (e *Engine) conclude(lease *tracking.Lease, c comparison, result applied, story *journal) tracking.Outcome {
	outcome := tracking.Outcome{TagCount: tagCount(lease, c, result), Sum: sum(lease, c)}
	switch {
	case len(result.errs) > 0:
		return story.failed(lease.Repository, result.err())
	case c.plan.Held != "":
		outcome.Held = c.plan.Held
		story.add("held", "", "", "", c.plan.Held)
	case len(c.listing.Unsettled) > 0:
		outcome.Retry = settleWait
		story.add("unsettled", c.listing.Unsettled[0], "", "",
			fmt.Sprintf("%d tags do not yet read as announced at the primary", len(c.listing.Unsettled)))
	default:
		outcome.Synced = true
		story.add("synced", "", "", "", fmt.Sprintf("revision %d: %d tags written, %d removed, %d kept, %d were equal",
			lease.Wanted, result.tagged, result.removed, len(c.plan.Kept), c.plan.Equal))
	}
	outcome.Journal = story.entries
	return outcome
}

// tagCount is how many tags the site has afterwards.
func tagCount(lease *tracking.Lease, c comparison, result applied) int64 {
	if c.listing.Complete {
		return c.plan.Equal + result.tagged + int64(len(c.plan.Kept))
	}
	if lease.TagCount < 0 {
		return unknown
	}
	return max(0, lease.TagCount+result.created-result.removed)
}

// sum is what the site's tags come to afterwards, for its sweep to compare with; empty when it is not known.
func sum(lease *tracking.Lease, c comparison) string {
	if c.listing.Complete {
		return plan.SumOf(c.site.Tags).After(c.plan).String()
	}
	before, err := plan.ParseSum(lease.Sum)
	if err != nil {
		return ""
	}
	return before.After(c.plan).String()
}

// Diff returns what a sync of the repository would do now, by a complete listing of both sides. It changes nothing.
func (e *Engine) Diff(ctx context.Context, repository string) (plan.Plan, error) {
	c, err := e.compare(ctx, &tracking.Lease{Repository: repository, TagCount: unknown})
	return c.plan, err
}

// compare lists both sides and makes the plan. Where the site holds an older revision of the same feed, the primary
// may answer with the touched tags alone, and only those are asked of the site too.
func (e *Engine) compare(ctx context.Context, lease *tracking.Lease) (comparison, error) {
	since, err := e.since(ctx, lease)
	if err != nil {
		return comparison{}, err
	}
	listing, err := e.Primary.Tags(ctx, lease.Repository, since)
	if err != nil {
		return comparison{}, &primaryError{repository: lease.Repository, err: err}
	}
	c := comparison{listing: listing, tags: make(map[string]registry.Tag, len(listing.Tags))}
	if c.source, err = e.sources.at(e.opts.SourceURL, listing.RegistryURL); err != nil {
		return comparison{}, err
	}
	source := plan.Source{Complete: listing.Complete, Present: listing.Present, Absent: listing.Absent}
	for _, tag := range listing.Tags {
		c.tags[tag.Name] = registry.Tag{Name: tag.Name, Digest: tag.Digest, MediaType: tag.MediaType, Size: tag.Size}
		source.Tags = append(source.Tags, plan.Tag{Name: tag.Name, Digest: tag.Digest})
	}
	if c.site, err = e.site(ctx, lease, listing); err != nil {
		return comparison{}, err
	}
	policy := e.opts.Policy
	policy.Released, policy.Held = lease.Released, lease.Held != ""
	c.plan = plan.Compute(source, c.site, policy)
	return c, nil
}

func (e *Engine) since(ctx context.Context, lease *tracking.Lease) (client.Position, error) {
	if lease.Synced <= 0 {
		return client.Position{}, nil
	}
	cursor, err := e.Tracking.Cursor(ctx)
	if err != nil {
		return client.Position{}, fmt.Errorf("read the cursor: %w", err)
	}
	return client.Position{FeedID: cursor.FeedID, Revision: lease.Synced}, nil
}

// site lists what the plan needs to know of the site's registry.
func (e *Engine) site(ctx context.Context, lease *tracking.Lease, listing client.Listing) (plan.Site, error) {
	var found []registry.Tag
	if listing.Complete {
		all, err := e.Site.List(ctx, lease.Repository)
		if err != nil {
			return plan.Site{}, err
		}
		found = all.Tags
	} else {
		names := append([]string(nil), listing.Absent...)
		for _, tag := range listing.Tags {
			names = append(names, tag.Name)
		}
		var err error
		if found, _, err = e.Site.Resolve(ctx, lease.Repository, names); err != nil {
			return plan.Site{}, err
		}
	}
	site := plan.Site{Total: max(0, lease.TagCount)}
	for _, tag := range found {
		site.Tags = append(site.Tags, plan.Tag{Name: tag.Name, Digest: tag.Digest})
	}
	return site, nil
}
