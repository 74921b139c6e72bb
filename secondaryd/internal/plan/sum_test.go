package plan_test

import (
	"testing"

	"pgregory.net/rapid"

	"github.com/antipode-registry/antipode/secondaryd/internal/plan"
)

// After a delta plan, the sum that was carried along equals the sum of what is there.
func TestSumFollowsPlans(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		site := drawTagList(t, "site")
		source := drawTagList(t, "source")
		p := plan.Compute(plan.Source{Complete: true, Present: true, Tags: source}, plan.Site{Tags: site},
			plan.Policy{Deletions: true, BrakeShare: 1})
		got := plan.SumOf(site).After(p)
		if want := plan.SumOf(source); got != want {
			t.Fatalf("the sum after the plan is %s, the source's %s", got, want)
		}
		parsed, err := plan.ParseSum(got.String())
		if err != nil || parsed != got {
			t.Fatalf("ParseSum(%s) = %s, %v", got, parsed, err)
		}
	})
}

func drawTagList(t *rapid.T, label string) []plan.Tag {
	digests := rapid.MapOf(rapid.StringMatching("[a-e]"), rapid.StringMatching("sha256:[0-3]")).Draw(t, label)
	tags := make([]plan.Tag, 0, len(digests))
	for name, digest := range digests {
		tags = append(tags, plan.Tag{Name: name, Digest: digest})
	}
	return tags
}

func TestParseSumRefusesOtherText(t *testing.T) {
	t.Parallel()
	for _, text := range []string{"", "00", "xyz"} {
		if _, err := plan.ParseSum(text); err == nil {
			t.Errorf("ParseSum(%q) did not fail", text)
		}
	}
}
