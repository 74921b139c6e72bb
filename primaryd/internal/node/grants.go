package node

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"

	"github.com/bmatcuk/doublestar/v4"
)

// grants are the configured nodes. They are not modified once made: a new configuration replaces them.
type grants struct {
	nodes    map[string]Config
	names    []string      // sorted
	replaced chan struct{} // closed when others took their place
}

func newGrants(nodes []Config) (*grants, error) {
	g := &grants{nodes: make(map[string]Config, len(nodes)), replaced: make(chan struct{})}
	for _, config := range nodes {
		if err := g.add(config); err != nil {
			return nil, fmt.Errorf("node: %w", err)
		}
	}
	slices.Sort(g.names)
	return g, nil
}

func (g *grants) add(config Config) error {
	if _, twice := g.nodes[config.Name]; twice || config.Name == "" {
		return fmt.Errorf("name %q is empty or used twice", config.Name)
	}
	for _, pattern := range config.Repositories {
		if !doublestar.ValidatePattern(pattern) {
			return fmt.Errorf("%s: %q is not a glob", config.Name, pattern)
		}
	}
	g.nodes[config.Name] = config
	g.names = append(g.names, config.Name)
	return nil
}

// Configure puts other nodes and grants in place of those before, at once and for every replica by itself; watchers
// hear of it. An error leaves everything as it was. What a node that is no longer configured last reported is kept, and
// shown again should it come back.
func (d *Directory) Configure(nodes []Config) error {
	next, err := newGrants(nodes)
	if err != nil {
		return err
	}
	before := d.grants.Swap(next)
	close(before.replaced)
	d.db.Wake(channel)
	return nil
}

// Reconfigured returns a channel that is closed when the configuration in force at the time of the call is replaced.
// Ask for it before looking at a grant that must be looked at again then.
func (d *Directory) Reconfigured() <-chan struct{} { return d.grants.Load().replaced }

// Known says whether a node of that name is configured.
func (d *Directory) Known(name string) bool {
	_, known := d.grants.Load().nodes[name]
	return known
}

// Names are the configured nodes, sorted.
func (d *Directory) Names() []string { return slices.Clone(d.grants.Load().names) }

// MaySee says whether the node may know of the repository. A node that is not configured may see nothing.
func (d *Directory) MaySee(name, repository string) bool {
	return slices.ContainsFunc(d.repositories(name), func(pattern string) bool {
		return doublestar.MatchUnvalidated(pattern, repository)
	})
}

func (d *Directory) repositories(name string) []string {
	return d.grants.Load().nodes[name].Repositories
}

// View identifies what the node may see: it changes when the grant does, and is empty for a node that may see all. A
// cursor is good for one view alone, since rows that were passed over are not sent again.
func (d *Directory) View(name string) string {
	patterns := slices.Sorted(slices.Values(d.repositories(name)))
	if slices.Contains(patterns, "**") {
		return ""
	}
	sum := sha256.Sum256([]byte(strings.Join(patterns, "\n")))
	return hex.EncodeToString(sum[:4])
}
