package main

import (
	"fmt"
	"slices"
	"strings"

	"github.com/antipode-registry/antipode/internal/config"
	"github.com/antipode-registry/antipode/internal/registry"
)

// renameSettings replaces a prefix of repository names on their way to the site.
type renameSettings struct {
	// What the name begins with at the primary. Empty fits every name.
	// Limits: empty, or whole parts of a name that end with `/`.
	From string `yaml:"from"`
	// What that is replaced by on the site.
	// Limits: empty, or whole parts of a name that end with `/`.
	To string `yaml:"to"`
}

// target is a repository's name on the site: the first rule whose prefix fits replaces it, and without one the name
// stays.
func (s *settings) target(repository string) string {
	for _, rule := range s.Replication.Rename {
		if rest, fits := strings.CutPrefix(repository, rule.From); fits {
			return rule.To + rest
		}
	}
	return repository
}

// checkRename refuses rules by which two repositories could land on one.
func (s *settings) checkRename(p *config.Problems) {
	rules := s.Replication.Rename
	for i, rule := range rules {
		key := fmt.Sprintf("replication.rename[%d]", i)
		checkPrefix(p, key+".from", rule.From)
		checkPrefix(p, key+".to", rule.To)
		if rule.From == "" && rule.To == "" {
			p.Add(key, "replaces nothing by nothing")
		}
		for j, other := range rules[:i] {
			if overlap(rule.To, other.To) {
				p.Add(key+".to", "%q and %q of rename[%d] overlap: two repositories could land on one", rule.To, other.To, j)
			}
			if strings.HasPrefix(rule.From, other.From) {
				p.Add(key+".from", "never applies: rename[%d] takes %q first", j, other.From)
			}
		}
		if !s.vacated(rule.To) {
			p.Add(key+".to", "a repository of the primary that begins with %q already would land on the same name as a "+
				"renamed one; exclude %q, or rename it too", rule.To, rule.To+"**")
		}
	}
}

// vacated says whether no repository keeps a name that begins with the prefix.
func (s *settings) vacated(prefix string) bool {
	renamed := slices.ContainsFunc(s.Replication.Rename, func(rule renameSettings) bool {
		return strings.HasPrefix(prefix, rule.From)
	})
	return renamed || slices.Contains(s.Replication.Exclude, prefix+"**")
}

func overlap(a, b string) bool { return strings.HasPrefix(a, b) || strings.HasPrefix(b, a) }

// checkPrefix refuses a prefix that does not end a path element, or cannot begin a repository's name.
func checkPrefix(p *config.Problems, key, prefix string) {
	if prefix == "" {
		return
	}
	if !strings.HasSuffix(prefix, "/") || registry.ValidRepository(strings.TrimSuffix(prefix, "/")) != nil {
		p.Add(key, "expected path elements that end with a slash such as \"prod/\", got %q", prefix)
	}
}
