package plan_test

import (
	"fmt"
	"maps"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/antipode-registry/antipode/secondaryd/internal/plan"
)

// Few names and digests, so that the two sides meet often.
func drawTags(t *rapid.T, label string) map[string]string {
	name := rapid.Map(rapid.IntRange(0, 14), func(i int) string { return fmt.Sprintf("t%02d", i) })
	digest := rapid.Map(rapid.IntRange(0, 4), func(i int) string { return fmt.Sprintf("sha256:%d", i) })
	return rapid.MapOf(name, digest).Draw(t, label)
}

func drawPolicy(t *rapid.T) plan.Policy {
	protected := drawTags(t, "protected")
	return plan.Policy{
		Deletions:  rapid.Bool().Draw(t, "deletions"),
		KeepStray:  rapid.Bool().Draw(t, "keep stray"),
		Protected:  func(tag string) bool { _, ok := protected[tag]; return ok },
		BrakeShare: rapid.Float64Range(0, 1).Draw(t, "share"),
		BrakeCount: rapid.Int64Range(0, 8).Draw(t, "count"),
		Held:       rapid.Bool().Draw(t, "held"),
		Released:   rapid.Bool().Draw(t, "released"),
	}
}

// list gives the tags in an order drawn at random.
func list(t *rapid.T, tags map[string]string, label string) []plan.Tag {
	var result []plan.Tag
	for _, name := range slices.Sorted(maps.Keys(tags)) {
		result = append(result, plan.Tag{Name: name, Digest: tags[name]})
	}
	if len(result) == 0 {
		return nil
	}
	return rapid.Permutation(result).Draw(t, label)
}

func apply(p plan.Plan, site map[string]string) map[string]string {
	after := maps.Clone(site)
	for _, c := range p.Copies {
		for _, r := range c.Tags {
			after[r.Name] = c.Digest
		}
	}
	for _, r := range p.Removals {
		delete(after, r.Tag)
	}
	return after
}

// delta draws the names that a delta speaks of and makes its listing.
func delta(t *rapid.T, source map[string]string) plan.Source {
	var src plan.Source
	for _, name := range slices.Sorted(maps.Keys(drawTags(t, "touched"))) {
		if digest, ok := source[name]; ok {
			src.Tags = append(src.Tags, plan.Tag{Name: name, Digest: digest})
		} else {
			src.Absent = append(src.Absent, name)
		}
	}
	return src
}

func TestCompleteMakesEqualOrSaysWhy(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		source, site, policy := drawTags(t, "source"), drawTags(t, "site"), drawPolicy(t)
		src := plan.Source{Complete: true, Present: true, Tags: list(t, source, "source order")}
		p := plan.Compute(src, plan.Site{Tags: list(t, site, "site order")}, policy)
		after := apply(p, site)

		for name, digest := range source {
			if after[name] != digest {
				t.Fatalf("tag %s is %q after the plan, the source has %q", name, after[name], digest)
			}
		}
		kept := map[string]string{}
		for _, k := range p.Kept {
			if k.Reason == "" || k.Digest != site[k.Tag] {
				t.Fatalf("kept %+v without a reason or with another digest than the site's %q", k, site[k.Tag])
			}
			kept[k.Tag] = k.Digest
		}
		for name := range after {
			_, atSource := source[name]
			if _, isKept := kept[name]; atSource == isKept {
				t.Fatalf("tag %s: at the source %v, kept %v; must be one of the two", name, atSource, isKept)
			}
		}
		if p.Held != "" && len(p.Removals) > 0 {
			t.Fatalf("held (%s), yet removes %v", p.Held, p.Removals)
		}
	})
}

func TestSecondPlanIsEmpty(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		source, site, policy := drawTags(t, "source"), drawTags(t, "site"), drawPolicy(t)
		src := plan.Source{Complete: true, Present: true, Tags: list(t, source, "source order")}
		first := plan.Compute(src, plan.Site{Tags: list(t, site, "site order")}, policy)
		policy.Held = first.Held != ""
		second := plan.Compute(src, plan.Site{Tags: list(t, apply(first, site), "order after")}, policy)
		if len(second.Copies) > 0 || len(second.Removals) > 0 {
			t.Fatalf("second plan still copies %v and removes %v", second.Copies, second.Removals)
		}
		if (first.Held == "") != (second.Held == "") || len(first.Kept) != len(second.Kept) {
			t.Fatalf("first held %q and kept %v, second held %q and kept %v",
				first.Held, first.Kept, second.Held, second.Kept)
		}
	})
}

func TestDeltaTouchesOnlyWhatItNames(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		source, site, policy := drawTags(t, "source"), drawTags(t, "site"), drawPolicy(t)
		src := delta(t, source)
		total := rapid.Int64Range(-1, 100).Draw(t, "total")
		p := plan.Compute(src, plan.Site{Tags: list(t, site, "site order"), Total: total}, policy)
		after := apply(p, site)
		named := map[string]bool{}
		for _, tag := range src.Tags {
			named[tag.Name] = true
			if after[tag.Name] != tag.Digest {
				t.Fatalf("tag %s is %q, the source has %q", tag.Name, after[tag.Name], tag.Digest)
			}
		}
		for _, name := range src.Absent {
			named[name] = true
		}
		for name, digest := range site {
			if !named[name] && after[name] != digest {
				t.Fatalf("tag %s was not named, yet went from %q to %q", name, digest, after[name])
			}
		}
	})
}

// Where the tags that a delta does not name are equal on both sides, the complete listing finds the same copies, and
// the same removals unless it keeps strays, which a delta's evidence overrules.
func TestDeltaIsPartOfComplete(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		source, site, policy := drawTags(t, "source"), drawTags(t, "site"), drawPolicy(t)
		policy.KeepStray = false
		src := delta(t, source)
		before := maps.Clone(source)
		for _, tag := range src.Tags {
			delete(before, tag.Name)
		}
		var touched []plan.Tag
		for _, name := range append(slices.Clone(src.Absent), names(src.Tags)...) {
			if digest, ok := site[name]; ok {
				before[name] = digest
				touched = append(touched, plan.Tag{Name: name, Digest: digest})
			}
		}
		whole := plan.Source{Complete: true, Present: true, Tags: list(t, source, "source order")}
		want := plan.Compute(whole, plan.Site{Tags: list(t, before, "site order")}, policy)
		got := plan.Compute(src, plan.Site{Tags: touched, Total: int64(len(before))}, policy)
		got.Equal = want.Equal // the complete listing counts more tags
		if diff := cmp.Diff(want, got); diff != "" {
			t.Fatalf("delta differs from the complete plan (-complete +delta):\n%s", diff)
		}
	})
}

func names(tags []plan.Tag) []string {
	var result []string
	for _, tag := range tags {
		result = append(result, tag.Name)
	}
	return result
}

func TestOrderOfInputDoesNotMatter(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		source, site, policy := drawTags(t, "source"), drawTags(t, "site"), drawPolicy(t)
		var plans [2]plan.Plan
		for i := range plans {
			src := plan.Source{Complete: true, Present: true, Tags: list(t, source, "source order")}
			plans[i] = plan.Compute(src, plan.Site{Tags: list(t, site, "site order")}, policy)
		}
		if diff := cmp.Diff(plans[0], plans[1]); diff != "" {
			t.Fatalf("the same listings in another order made another plan:\n%s", diff)
		}
	})
}

// Whatever nonsense arrives (repeated names, empty digests, a tag both there and absent), no tag that the source names
// is removed.
func TestNonsenseNeverRemovesWhatTheSourceNames(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		tag := rapid.Custom(func(t *rapid.T) plan.Tag {
			return plan.Tag{
				Name:   rapid.SampledFrom([]string{"", "a", "b", "c"}).Draw(t, "name"),
				Digest: rapid.SampledFrom([]string{"", "d1", "d2"}).Draw(t, "digest"),
			}
		})
		src := plan.Source{
			Complete: rapid.Bool().Draw(t, "complete"), Present: rapid.Bool().Draw(t, "present"),
			Tags:   rapid.SliceOf(tag).Draw(t, "tags"),
			Absent: rapid.SliceOf(rapid.SampledFrom([]string{"", "a", "b", "c"})).Draw(t, "absent"),
		}
		site := plan.Site{Tags: rapid.SliceOf(tag).Draw(t, "site"), Total: rapid.Int64().Draw(t, "total")}
		p := plan.Compute(src, site, plan.Policy{Deletions: true, Released: true})
		for _, r := range p.Removals {
			if slices.Contains(names(src.Tags), r.Tag) || !slices.Contains(names(site.Tags), r.Tag) {
				t.Fatalf("removes %+v; source %+v, site %+v", r, src, site)
			}
		}
	})
}
