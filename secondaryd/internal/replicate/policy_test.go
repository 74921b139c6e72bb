package replicate_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/antipode-registry/antipode/internal/registrytest"
	"github.com/antipode-registry/antipode/secondaryd/internal/plan"
	"github.com/antipode-registry/antipode/secondaryd/internal/replicate"
	"github.com/antipode-registry/antipode/secondaryd/internal/tracking"
)

func TestPolicies(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		policy plan.Policy
		stray  []string // what is left of tags that only the site ever had
		gone   []string // what is left of tags that the source deleted, each with its delete announced
	}{
		"all go":        {policy: plan.Policy{Deletions: true, BrakeShare: 1}},
		"deletions off": {policy: plan.Policy{BrakeShare: 1}, stray: []string{"keep-s", "s"}, gone: []string{"g", "keep-g"}},
		"keep stray": {
			policy: plan.Policy{Deletions: true, BrakeShare: 1, KeepStray: true}, stray: []string{"keep-s", "s"},
		},
		"protected": {
			policy: plan.Policy{Deletions: true, BrakeShare: 1, Protected: func(tag string) bool { return strings.HasPrefix(tag, "keep-") }},
			stray:  []string{"keep-s"}, gone: []string{"keep-g"},
		},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := memoryStage(t, func(o *replicate.Options) { o.Policy = tc.policy })
			const repository = "team/app"
			s.push(repository, "g", "keep-g", "v1")
			s.changed(repository)
			s.untag(repository, "g", "keep-g")
			s.changed(repository, "g", "keep-g")
			for _, tag := range []string{"s", "keep-s"} {
				registrytest.Push(t, s.site, repository, tag, imageOf(tag))
			}
			s.changed(repository)
			s.wantState(repository, tracking.Synced)
			s.wantCounted(repository, repository)
			want := slices.Concat(tc.stray, tc.gone, []string{"v1"})
			slices.Sort(want)
			s.wantTags(repository, want...)
			for _, kept := range slices.Concat(tc.stray, tc.gone) {
				if !strings.Contains(s.story(repository), "kept "+kept+" ") {
					t.Errorf("the journal does not say that %s was kept:\n%s", kept, s.story(repository))
				}
			}
			// What is protected from removal is still the source's where the source has it.
			registrytest.Push(t, s.source, repository, "keep-g", imageOf("other"))
			s.changed(repository, "keep-g")
			s.wantState(repository, tracking.Synced)
			if got := registrytest.Tags(t, s.site, repository)["keep-g"]; got != imageOf("other").Digest {
				t.Errorf("keep-g is %s on the site", got)
			}
		})
	}
}

// A removed tag comes back when an operator asks for it, although the source no longer has the manifest, and stays
// until the source has the tag again.
func TestRestore(t *testing.T) {
	t.Parallel()
	for _, forgetful := range []bool{false, true} {
		t.Run(fmt.Sprintf("content forgotten %t", forgetful), func(t *testing.T) {
			t.Parallel()
			s := newStage(t, registrytest.InMemory(t, false).URL(), registrytest.Distribution(t).URL())
			const repository = "team/app"
			s.push(repository, "v1", "v2")
			s.changed(repository)
			old := imageOf("v1").Digest
			registrytest.DeleteDigest(t, s.source, repository, old)
			s.untag(repository, "v1")
			s.changed(repository)
			s.wantTags(repository, "v2")
			if forgetful {
				s.must(s.store.Content().DropRepository(t.Context(), repository))
			}

			s.operate(func(ctx context.Context) (bool, error) {
				pins, found, err := s.store.Pin(ctx, repository, []string{"v1"})
				if diff := cmp.Diff([]tracking.Pin{{Tag: "v1", Digest: old}}, pins); diff != "" {
					t.Errorf("pinned (-want +got):\n%s", diff)
				}
				return found, err
			})
			s.wantState(repository, tracking.Synced)
			s.wantTags(repository, "v1", "v2")
			s.wantCounted(repository, repository)
			s.changed(repository)
			s.push(repository, "v3")
			s.changed(repository, "v1", "v3")
			s.wantState(repository, tracking.Synced)
			s.wantTags(repository, "v1", "v2", "v3")

			registrytest.Push(t, s.source, repository, "v1", imageOf("newer"))
			s.changed(repository, "v1")
			s.wantEqual(repository)
			if pins, err := s.store.Pins(t.Context(), repository); len(pins) > 0 || err != nil {
				t.Errorf("pins are left: %v, %v", pins, err)
			}
			s.untag(repository, "v1")
			s.changed(repository, "v1")
			s.wantEqual(repository)
			s.wantTags(repository, "v2", "v3")
		})
	}
}

func TestForgottenRestore(t *testing.T) {
	t.Parallel()
	s := memoryStage(t)
	s.push("team/app", "v1", "v2")
	s.changed("team/app")
	s.untag("team/app", "v1")
	s.changed("team/app")
	s.operate(func(ctx context.Context) (bool, error) {
		_, found, err := s.store.Pin(ctx, "team/app", nil)
		return found, err
	})
	s.wantTags("team/app", "v1", "v2")
	s.operate(func(ctx context.Context) (bool, error) {
		_, found, err := s.store.Unpin(ctx, "team/app", nil)
		return found, err
	})
	s.wantEqual("team/app")
}
