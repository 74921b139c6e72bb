package replicate

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"

	"github.com/antipode-registry/antipode/internal/registry"
	"github.com/antipode-registry/antipode/internal/transfer"
)

// sources keeps one handle for each address of the primary's registry, so that all workers share its budget and its
// tokens.
type sources struct {
	open    func(url string) (*registry.Registry, error)
	mu      sync.Mutex
	handles map[string]*registry.Registry
	newest  *registry.Registry // what the last sync used
}

// any is the handle that was asked for last; nil before the first.
func (s *sources) any() *registry.Registry {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.newest
}

// at returns the handle for the configured address, or else for the announced one.
func (s *sources) at(configured, announced string) (*registry.Registry, error) {
	url := configured
	if url == "" {
		url = announced
	}
	if url == "" {
		return nil, errors.New("the primary did not say where its registry is, and primary.registry_url is not set")
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if handle, ok := s.handles[url]; ok {
		s.newest = handle
		return handle, nil
	}
	handle, err := s.open(url)
	if err != nil {
		return nil, fmt.Errorf("the primary's registry at %s: %w", url, err)
	}
	if s.handles == nil {
		s.handles = map[string]*registry.Registry{}
	}
	s.handles[url], s.newest = handle, handle
	return handle, nil
}

// remnants is the source of a restored tag: what the primary's registry no longer has, the site's may, for a registry
// keeps what no tag names until its garbage is collected.
type remnants struct {
	transfer.Source
	site       *registry.Registry
	repository string // on the site
}

// Manifest implements transfer.Source.
func (r remnants) Manifest(ctx context.Context, repository, reference string) (registry.Manifest, error) {
	m, err := r.Source.Manifest(ctx, repository, reference)
	if errors.Is(err, registry.ErrNotFound) {
		if own, ownErr := r.site.Manifest(ctx, r.repository, reference); ownErr == nil {
			return own, nil
		}
	}
	return m, err
}

// Blob implements transfer.Source.
func (r remnants) Blob(
	ctx context.Context, repository string, desc registry.Descriptor, offset int64,
) (io.ReadCloser, error) {
	content, err := r.Source.Blob(ctx, repository, desc, offset)
	if errors.Is(err, registry.ErrNotFound) {
		if own, ownErr := r.site.Blob(ctx, r.repository, desc, offset); ownErr == nil {
			return own, nil
		}
	}
	return content, err
}
