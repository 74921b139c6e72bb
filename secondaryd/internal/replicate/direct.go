package replicate

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/antipode-registry/antipode/client"
	"github.com/antipode-registry/antipode/internal/registry"
	"github.com/antipode-registry/antipode/secondaryd/internal/plan"
	"github.com/antipode-registry/antipode/secondaryd/internal/tracking"
)

// SourceAnswers says whether the primary's registry can be asked without primaryd: where it is must be configured, or
// known from a sync of this process.
func (e *Engine) SourceAnswers(ctx context.Context) error {
	source, err := e.knownSource()
	if err != nil {
		return err
	}
	return source.Ping(ctx)
}

func (e *Engine) knownSource() (*registry.Registry, error) {
	if e.opts.SourceURL != "" {
		return e.sources.at(e.opts.SourceURL, "")
	}
	if known := e.sources.any(); known != nil {
		return known, nil
	}
	return nil, errors.New("where the primary's registry is only primaryd knows; primary.registry_url would say it")
}

// DiffDirect is Diff without primaryd: the site lists the primary's registry itself. Of referrers that no tag names it
// says nothing.
func (e *Engine) DiffDirect(ctx context.Context, repository string) (plan.Plan, error) {
	source, err := e.knownSource()
	if err != nil {
		return plan.Plan{}, err
	}
	a := newAttempt(e, &tracking.Lease{Repository: repository, TagCount: unknown})
	a.lister = directly{source}
	c, err := a.compare(ctx)
	untagged := func(name string) bool { return !isTag(name) }
	c.plan.Removals = slices.DeleteFunc(c.plan.Removals, func(r plan.Removal) bool { return untagged(r.Tag) })
	c.plan.Kept = slices.DeleteFunc(c.plan.Kept, func(k plan.Kept) bool { return untagged(k.Tag) })
	return c.plan, err
}

// directly lists the primary's registry in primaryd's place.
type directly struct{ source *registry.Registry }

// Tags implements Primary by a complete listing.
func (d directly) Tags(ctx context.Context, repository string, _ client.Position) (client.Listing, error) {
	found, err := d.source.List(ctx, repository)
	if err != nil {
		return client.Listing{}, fmt.Errorf("without primaryd: %w", err)
	}
	listing := client.Listing{Complete: true, Present: found.Present, RegistryURL: d.source.URL()}
	for _, tag := range found.Tags {
		listing.Tags = append(listing.Tags, client.Tag{
			Name: tag.Name, Digest: tag.Digest, MediaType: tag.MediaType, Size: tag.Size,
		})
	}
	return listing, nil
}
