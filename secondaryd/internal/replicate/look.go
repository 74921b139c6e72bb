package replicate

import (
	"context"
	"fmt"

	"github.com/antipode-registry/antipode/client"
	"github.com/antipode-registry/antipode/internal/registry"
)

// Look says what a tag or a digest names at the primary's registry and at the site's now; empty where it names nothing.
func (e *Engine) Look(ctx context.Context, repository, reference string) (primary, site string, err error) {
	source, err := e.source(ctx, repository)
	if err != nil {
		return "", "", err
	}
	if primary, err = digestAt(ctx, source, repository, reference); err != nil {
		return "", "", fmt.Errorf("the primary's registry: %w", err)
	}
	site, err = e.LookHere(ctx, repository, reference)
	return primary, site, err
}

// LookHere is Look at the site's registry alone.
//
// That it answers is enough: the site writes a manifest only after everything that the manifest refers to.
func (e *Engine) LookHere(ctx context.Context, repository, reference string) (string, error) {
	digest, err := digestAt(ctx, e.Site, e.opts.Target(repository), reference)
	if err != nil {
		return "", fmt.Errorf("the site's registry: %w", err)
	}
	return digest, nil
}

func digestAt(ctx context.Context, at *registry.Registry, repository, reference string) (string, error) {
	found, _, err := at.Resolve(registry.WithUrgency(ctx), repository, []string{reference})
	if err != nil || len(found) == 0 {
		return "", err
	}
	return found[0].Digest, nil
}

// source is the primary's registry: where a sync found it, or where the primary says that it is.
func (e *Engine) source(ctx context.Context, repository string) (*registry.Registry, error) {
	if e.opts.SourceURL != "" {
		return e.sources.at(e.opts.SourceURL, "")
	}
	if known := e.sources.any(); known != nil {
		return known, nil
	}
	listing, err := e.Primary.Tags(ctx, repository, client.Position{})
	if err != nil {
		return nil, &primaryError{repository: repository, err: err}
	}
	return e.sources.at("", listing.RegistryURL)
}
