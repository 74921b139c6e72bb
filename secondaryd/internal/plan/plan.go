// Package plan decides what a sync does: two listings and a policy in, copies and removals out.
//
// It is pure: no I/O, no clock, no randomness, so that `secondaryd diff` shows exactly what a sync would do, and the
// same input always makes the same plan in the same order.
//
// It guarantees that
//   - a tag that the source has is never removed, and is only ever written with the source's digest;
//   - a tag is removed only on evidence: the source's listing is complete and lacks it, or a delta names it as absent;
//   - what would be removed and is not is in Kept, with the reason;
//   - copies never wait for the brake or the policy, which are about removals alone.
//
// It refuses to guess. A source that is neither complete nor names any tag makes an empty plan, and a tag without a
// digest is neither copied nor removed.
package plan

import (
	"cmp"
	"maps"
	"slices"
)

// Tag is a tag and the digest that it points to, `algorithm:encoded`.
type Tag struct {
	Name   string
	Digest string
}

// Source is what the source's registry said of one repository.
type Source struct {
	// Complete says that Tags are all of the repository's tags. Otherwise the listing is a delta: it speaks of the
	// tags in Tags and Absent, and of no other.
	Complete bool
	// Present says that the repository exists. The plan is the same either way: an absent repository is one without
	// tags, and should a listing say absent and yet name tags, those tags exist.
	Present bool
	// Tags are the tags that exist, in any order. Should a name occur twice, the last one counts.
	Tags []Tag
	// Absent are the names that a delta asked for and the source does not have. Ignored in a complete listing. A name
	// that is in Tags too exists.
	Absent []string
}

// Site is what the site's registry holds of the same repository.
type Site struct {
	// Tags are all of the site's tags beside a complete source; beside a delta, those of the tags it speaks of.
	Tags []Tag
	// Total is the number of the site's tags, which a delta needs to weigh removals. Below len(Tags), unknown
	// included, it counts as len(Tags). Ignored beside a complete source.
	Total int64
}

// Policy says which removals are made.
//
// There is no memory of what the source once had, so a tag that was pushed to the site itself (a stray) looks like one
// that was deleted at the source. KeepStray therefore keeps everything that a complete listing lacks; what it still
// lets go are the tags that a delta names as absent, since the source announced a change to just those. With KeepStray
// a deletion whose delta was lost is not made up for later: that is the price of keeping strays.
type Policy struct {
	// Deletions false keeps every tag.
	Deletions bool
	// KeepStray keeps what a complete listing lacks. See above.
	KeepStray bool
	// Protected names tags that are never removed; nil protects none. A protected tag is still overwritten when the
	// source's digest changes.
	Protected func(tag string) bool
	// The brake: nothing is removed when that would be more than BrakeShare (0 to 1) of the site's tags and also more
	// than BrakeCount tags. A share of 1 switches the brake off, since more than all cannot be removed; so that a typing
	// error cannot, a share that is no number holds.
	BrakeShare float64
	BrakeCount int64
	// Held says that the brake is already on for this repository. It then stays on while more than BrakeCount tags
	// would be removed, whatever their share: else the copies that a held sync makes would themselves shrink the
	// share, and the next sync would remove what this one withheld.
	Held bool
	// Released lifts the brake for this plan.
	Released bool
}

// Plan is what a sync does, in order: the copies, then the removals.
type Plan struct {
	// Copies are ordered by their first tag.
	Copies []Copy
	// Removals are ordered by tag.
	Removals []Removal
	// Kept are the tags that would be removed but for the policy or the brake, ordered by tag, and those that the source
	// named without a digest.
	Kept []Kept
	// Held says how the brake was met; empty when it was not. Removals is then empty.
	Held string
	// Equal counts the tags that both sides have with the same digest.
	Equal int64
}

// Copy brings one manifest graph to the site and points tags to it.
type Copy struct {
	Digest string
	// Tags are the tags to write, by name; at least one.
	Tags []Retag
}

// Retag is a tag to write, with the digest that the site's tag has now ("" = it has none).
type Retag struct {
	Name     string
	Previous string
}

// Removal is a tag to remove, with the digest that it had when the site was listed.
type Removal struct {
	Tag    string
	Digest string
}

// Kept is a tag that stays on the site although it is not known to be equal to the source's, with the reason.
type Kept struct {
	Tag    string
	Digest string
	Reason string
}

// Compute makes the plan that turns the site into the source as far as the policy lets it. It does not modify its
// arguments and is safe for concurrent use if p.Protected is.
func Compute(src Source, site Site, p Policy) Plan {
	want, have := index(src.Tags), index(site.Tags)
	var result Plan
	result.Copies, result.Kept, result.Equal = copies(want, have)
	removals, kept := removals(src, want, have, p)
	result.Kept = append(result.Kept, kept...)

	total := int64(len(have))
	if !src.Complete {
		total = max(total, site.Total)
	}
	result.Removals = removals
	if held := brake(int64(len(removals)), total, p); held != "" {
		return result.Withhold(held)
	}
	slices.SortFunc(result.Kept, byTag)
	return result
}

// Withhold returns the plan without its removals: what would be removed is kept for the reason, and the plan is held.
func (p Plan) Withhold(reason string) Plan {
	kept := slices.Clone(p.Kept)
	for _, r := range p.Removals {
		kept = append(kept, Kept{Tag: r.Tag, Digest: r.Digest, Reason: reason})
	}
	slices.SortFunc(kept, byTag)
	p.Kept, p.Removals, p.Held = kept, nil, reason
	return p
}

func byTag(a, b Kept) int { return cmp.Compare(a.Tag, b.Tag) }

func index(tags []Tag) map[string]string {
	byName := make(map[string]string, len(tags))
	for _, t := range tags {
		byName[t.Name] = t.Digest
	}
	return byName
}

// copies groups by digest the tags of the source that the site lacks or has with another digest.
func copies(want, have map[string]string) (list []Copy, kept []Kept, equal int64) {
	at := make(map[string]int)
	for _, name := range slices.Sorted(maps.Keys(want)) {
		digest, previous := want[name], have[name]
		switch digest {
		case "":
			if _, ok := have[name]; ok {
				kept = append(kept, Kept{Tag: name, Digest: previous, Reason: "the source did not say its digest"})
			}
			continue
		case previous:
			equal++
			continue
		}
		i, ok := at[digest]
		if !ok {
			i = len(list)
			at[digest] = i
			list = append(list, Copy{Digest: digest})
		}
		list[i].Tags = append(list[i].Tags, Retag{Name: name, Previous: previous})
	}
	return list, kept, equal
}

// removals finds the site's tags that the source is known not to have, and splits them by policy.
func removals(src Source, want, have map[string]string, p Policy) (list []Removal, kept []Kept) {
	for _, name := range gone(src, want, have) {
		if reason := keep(name, src.Complete, p); reason != "" {
			kept = append(kept, Kept{Tag: name, Digest: have[name], Reason: reason})
			continue
		}
		list = append(list, Removal{Tag: name, Digest: have[name]})
	}
	return list, kept
}

// gone returns, sorted, the names that the site has and the source is known not to have.
func gone(src Source, want, have map[string]string) []string {
	var names []string
	candidates := slices.Values(src.Absent)
	if src.Complete {
		candidates = maps.Keys(have)
	}
	for name := range candidates {
		_, onSite := have[name]
		if _, atSource := want[name]; onSite && !atSource {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// keep says why a tag that the source does not have stays; "" when it goes.
func keep(name string, complete bool, p Policy) string {
	switch {
	case !p.Deletions:
		return "deletions are switched off"
	case p.Protected != nil && p.Protected(name):
		return "the tag is protected"
	case complete && p.KeepStray:
		return "tags that the source lacks are kept"
	}
	return ""
}
