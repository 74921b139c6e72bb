package replicate

import (
	"errors"
	"fmt"
	"sync"

	"github.com/antipode-registry/antipode/internal/registry"
)

// sources keeps one handle for each address of the primary's registry, so that all workers share its budget and its
// tokens.
type sources struct {
	open    func(url string) (*registry.Registry, error)
	mu      sync.Mutex
	handles map[string]*registry.Registry
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
		return handle, nil
	}
	handle, err := s.open(url)
	if err != nil {
		return nil, fmt.Errorf("the primary's registry at %s: %w", url, err)
	}
	if s.handles == nil {
		s.handles = map[string]*registry.Registry{}
	}
	s.handles[url] = handle
	return handle, nil
}
