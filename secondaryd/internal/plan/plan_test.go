package plan_test

import (
	"math"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/antipode-registry/antipode/secondaryd/internal/plan"
)

func remove() plan.Policy {
	return plan.Policy{Deletions: true, BrakeShare: 0.5, BrakeCount: 10}
}

func tags(nameDigest ...string) []plan.Tag {
	var list []plan.Tag
	for i := 0; i < len(nameDigest); i += 2 {
		list = append(list, plan.Tag{Name: nameDigest[i], Digest: nameDigest[i+1]})
	}
	return list
}

func complete(nameDigest ...string) plan.Source {
	return plan.Source{Complete: true, Present: true, Tags: tags(nameDigest...)}
}

type computation struct {
	src    plan.Source
	site   plan.Site
	policy plan.Policy
	want   plan.Plan
}

func check(t *testing.T, tests map[string]computation) {
	t.Helper()
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got := plan.Compute(test.src, test.site, test.policy)
			if diff := cmp.Diff(test.want, got, cmpopts.EquateEmpty()); diff != "" {
				t.Errorf("plan (-want +got):\n%s", diff)
			}
		})
	}
}

func TestCopies(t *testing.T) {
	t.Parallel()
	check(t, map[string]computation{
		"nothing known": {
			site: plan.Site{Tags: tags("a", "d1"), Total: 1}, policy: remove(),
		},
		"delta that names nothing, repository said to be absent": {
			src: plan.Source{Present: false}, site: plan.Site{Tags: tags("a", "d1")}, policy: remove(),
		},
		"equal": {
			src: complete("a", "d1", "b", "d2"), site: plan.Site{Tags: tags("b", "d2", "a", "d1")}, policy: remove(),
			want: plan.Plan{Equal: 2},
		},
		"tags of one digest are one copy, ordered by first tag": {
			src:  complete("z", "d1", "a", "d2", "b", "d1", "c", "d2"),
			site: plan.Site{Tags: tags("z", "d0")}, policy: remove(),
			want: plan.Plan{Copies: []plan.Copy{
				{Digest: "d2", Tags: []plan.Retag{{Name: "a"}, {Name: "c"}}},
				{Digest: "d1", Tags: []plan.Retag{{Name: "b"}, {Name: "z", Previous: "d0"}}},
			}},
		},
		"a source tag without a digest is left alone": {
			src: complete("a", "", "b", ""), site: plan.Site{Tags: tags("a", "d0")}, policy: remove(),
			want: plan.Plan{Kept: []plan.Kept{{Tag: "a", Digest: "d0", Reason: "the source did not say its digest"}}},
		},
	})
}

func TestRemovals(t *testing.T) {
	t.Parallel()
	never := remove()
	never.Deletions = false
	stray := remove()
	stray.KeepStray = true
	protected := remove()
	protected.Protected = func(tag string) bool { return tag == "old" }

	check(t, map[string]computation{
		"complete listing removes what it lacks": {
			src: complete("a", "d1"), site: plan.Site{Tags: tags("old", "d0", "a", "d1", "alt", "d0")}, policy: remove(),
			want: plan.Plan{Equal: 1, Removals: []plan.Removal{{Tag: "alt", Digest: "d0"}, {Tag: "old", Digest: "d0"}}},
		},
		"absent in a complete listing is not evidence": {
			src:  plan.Source{Complete: true, Tags: tags("a", "d1"), Absent: []string{"a"}},
			site: plan.Site{Tags: tags("a", "d1")}, policy: remove(),
			want: plan.Plan{Equal: 1},
		},
		"delta removes only what it names": {
			src:  plan.Source{Tags: tags("a", "d2"), Absent: []string{"old", "old", "never-here", "a"}},
			site: plan.Site{Tags: tags("old", "d0", "a", "d1", "other", "d3"), Total: 50}, policy: remove(),
			want: plan.Plan{
				Copies:   []plan.Copy{{Digest: "d2", Tags: []plan.Retag{{Name: "a", Previous: "d1"}}}},
				Removals: []plan.Removal{{Tag: "old", Digest: "d0"}},
			},
		},
		"absent repository": {
			src: plan.Source{Complete: true}, site: plan.Site{Tags: tags("a", "d1")}, policy: remove(),
			want: plan.Plan{Removals: []plan.Removal{{Tag: "a", Digest: "d1"}}},
		},
		"deletions off": {
			src: complete("a", "d1"), site: plan.Site{Tags: tags("old", "d0")}, policy: never,
			want: plan.Plan{
				Copies: []plan.Copy{{Digest: "d1", Tags: []plan.Retag{{Name: "a"}}}},
				Kept:   []plan.Kept{{Tag: "old", Digest: "d0", Reason: "deletions are switched off"}},
			},
		},
		"protected stays, the others go": {
			src: complete(), site: plan.Site{Tags: tags("old", "d0", "new", "d1")}, policy: protected,
			want: plan.Plan{
				Removals: []plan.Removal{{Tag: "new", Digest: "d1"}},
				Kept:     []plan.Kept{{Tag: "old", Digest: "d0", Reason: "the tag is protected"}},
			},
		},
		"protected is overwritten": {
			src: complete("old", "d1"), site: plan.Site{Tags: tags("old", "d0")}, policy: protected,
			want: plan.Plan{Copies: []plan.Copy{{Digest: "d1", Tags: []plan.Retag{{Name: "old", Previous: "d0"}}}}},
		},
		"strays are kept on a complete listing": {
			src: complete(), site: plan.Site{Tags: tags("old", "d0")}, policy: stray,
			want: plan.Plan{Kept: []plan.Kept{{Tag: "old", Digest: "d0", Reason: "tags that the source lacks are kept"}}},
		},
		"strays are removed when a delta names them": {
			src: plan.Source{Absent: []string{"old"}}, site: plan.Site{Tags: tags("old", "d0")}, policy: stray,
			want: plan.Plan{Removals: []plan.Removal{{Tag: "old", Digest: "d0"}}},
		},
	})
}

func TestBrake(t *testing.T) {
	t.Parallel()
	released := plan.Policy{Deletions: true, Released: true}
	tests := map[string]struct {
		gone, equal int
		delta       bool
		total       int64
		policy      plan.Policy
		held        string
	}{
		"over both limits": {
			gone: 12, equal: 8, policy: remove(),
			held: "would remove 12 of 20 tags, more than 50% and more than 10",
		},
		"exactly the share": {gone: 12, equal: 12, policy: remove()},
		"exactly the count": {gone: 10, equal: 0, policy: remove()},
		"all, over the count": {
			gone: 11, policy: remove(),
			held: "would remove 11 of 11 tags, more than 50% and more than 10",
		},
		"no limits set": {
			gone: 1, equal: 99, policy: plan.Policy{Deletions: true},
			held: "would remove 1 of 100 tags, more than 0% and more than 0",
		},
		"share of one is off": {gone: 99, policy: plan.Policy{Deletions: true, BrakeShare: 1}},
		"share is not a share": {
			gone: 2, equal: 9, policy: plan.Policy{Deletions: true, BrakeShare: math.NaN()},
			held: "would remove 2 of 11 tags, more than NaN% and more than 0",
		},
		"released":          {gone: 12, policy: released},
		"nothing to remove": {equal: 5, policy: plan.Policy{Deletions: true}},
		"delta is weighed by the total": {
			gone: 12, delta: true, total: 100, policy: remove(),
		},
		"delta with an unknown total": {
			gone: 12, delta: true, total: -1, policy: remove(),
			held: "would remove 12 of 12 tags, more than 50% and more than 10",
		},
		"held before, by count alone": {
			gone: 12, equal: 100,
			policy: plan.Policy{Deletions: true, BrakeShare: 0.5, BrakeCount: 10, Held: true},
			held:   "held before and not released: would still remove 12 of 112 tags, more than 10",
		},
		"held before, and few are left": {
			gone: 10, equal: 100,
			policy: plan.Policy{Deletions: true, BrakeShare: 0.5, BrakeCount: 10, Held: true},
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			src := plan.Source{Complete: !test.delta, Present: true, Tags: tags("new", "d9")}
			site := plan.Site{Total: test.total}
			for i := range test.equal {
				tag := plan.Tag{Name: "equal" + string(rune('A'+i)), Digest: "d1"}
				src.Tags, site.Tags = append(src.Tags, tag), append(site.Tags, tag)
			}
			for i := range test.gone {
				name := "gone" + string(rune('A'+i))
				site.Tags = append(site.Tags, plan.Tag{Name: name, Digest: "d0"})
				if test.delta {
					src.Absent = append(src.Absent, name)
				}
			}
			got := plan.Compute(src, site, test.policy)
			if got.Held != test.held {
				t.Errorf("held %q, want %q", got.Held, test.held)
			}
			wantRemovals := test.gone
			if test.held != "" {
				wantRemovals = 0
			}
			if len(got.Removals) != wantRemovals || len(got.Kept) != test.gone-wantRemovals {
				t.Errorf("%d removals and %d kept of %d gone", len(got.Removals), len(got.Kept), test.gone)
			}
			if len(got.Copies) != 1 {
				t.Errorf("%d copies, want the one of the new tag whatever the brake says", len(got.Copies))
			}
		})
	}
}
