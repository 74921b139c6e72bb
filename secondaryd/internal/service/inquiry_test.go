package service_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	antipodev1 "github.com/antipode-registry/antipode/gen/antipode/v1"
	"github.com/antipode-registry/antipode/internal/link"
	"github.com/antipode-registry/antipode/secondaryd/internal/plan"
	"github.com/antipode-registry/antipode/secondaryd/internal/tracking"
)

// announce applies a change with the tags that were touched after the base.
func (c *counter) announce(repository string, revision, base int64, touches ...tracking.Touch) {
	c.Helper()
	for i := range touches {
		touches[i].Revision, touches[i].At = revision, time.Now().Add(-time.Minute)
	}
	c.must(c.store.Apply(c.Context(), tracking.Batch{FeedID: "feed", Cursor: revision, Head: revision, Changes: []tracking.Change{
		{Repository: repository, Revision: revision, Hint: tracking.Hint{Base: base, Touches: touches}},
	}}))
}

// The primary is gone. What it had announced, what failed and what is withheld is looked for at the site's registry, and
// only what is not here as it should be is told.
func TestPromotionNamesTagsWithoutThePrimary(t *testing.T) {
	t.Parallel()
	c := newCounter(t)
	c.differ.err, c.differ.directErr = errCut, errCut
	c.announce("known", 1, 0, tracking.Touch{Tag: "v1", Digest: "sha256:1"})
	c.finish(tracking.Outcome{Synced: true})
	c.announce("known", 2, 1, tracking.Touch{Tag: "v2", Digest: "sha256:2"}, tracking.Touch{Tag: "here", Digest: "sha256:h"},
		tracking.Touch{Tag: "moved", Digest: "sha256:m"}, tracking.Touch{Tag: "gone", Deleted: true},
		tracking.Touch{Tag: "odd"}, tracking.Touch{Tag: "@sha256:u", Digest: "sha256:u"})
	c.finish(tracking.Outcome{Failure: &tracking.Failure{Side: "source", Message: "500"}, Journal: []tracking.Entry{
		{Action: "tagged", Reference: "healed", Digest: "sha256:o", At: time.Now()},
		{Action: "failed", Reference: "broken", Digest: "sha256:b", Detail: "500", At: time.Now()},
	}})
	c.announce("late", 3, 0)
	c.finish(tracking.Outcome{Held: "too many", TagCount: 9, Journal: []tracking.Entry{
		{Action: "kept", Reference: "old", Digest: "sha256:old", Detail: "too many", At: time.Now()},
		{Action: "kept", Reference: "guarded", Digest: "sha256:g", Detail: "the tag is protected", At: time.Now()},
	}})
	c.announce("new", 4, 3, tracking.Touch{Tag: "v1", Digest: "sha256:1"})
	c.differ.site = map[string]string{
		"here": "sha256:h", "moved": "sha256:before", "gone": "sha256:g", "old": "sha256:old", "guarded": "sha256:g",
	}
	want := []string{
		`known:@sha256:u missing "sha256:u" here ""`, `known:broken missing "sha256:b" here ""`,
		`known:gone not_removed "" here "sha256:g"`, `known:moved outdated "sha256:m" here "sha256:before"`,
		`known:odd unknown "" here ""`, `known:v2 missing "sha256:2" here ""`,
		`late:old not_removed "" here "sha256:old"`, `new:v1 missing "sha256:1" here ""`,
	}
	wantOthers := []string{
		"known false ", "late false it was never synced here, so any of its tags may be missing",
		"new false it was never synced here, so any of its tags may be missing",
	}
	for _, dry := range []bool{true, false} {
		got, err := c.promote(t.Context(), &antipodev1.PromoteRequest{DryRun: dry})
		c.must(err)
		if diff := cmp.Diff(want, got.tags); diff != "" {
			t.Errorf("rehearsal %t (-want +got):\n%s", dry, diff)
		}
		if diff := cmp.Diff(wantOthers, got.others); diff != "" {
			t.Errorf("rehearsal %t (-want +got):\n%s", dry, diff)
		}
		if r := got.report; r.GetComparedWith() != antipodev1.ComparedWith_COMPARED_WITH_NOBODY || r.GetPrimaryProblem() == "" {
			t.Errorf("rehearsal %t: %v", dry, r)
		}
	}
}

// The primary still answers, or its registry alone does: what differs is what they say, not what was announced.
func TestPromotionComparesWithWhoAnswers(t *testing.T) {
	t.Parallel()
	differs := plan.Plan{
		Copies:   []plan.Copy{{Digest: "sha256:2", Tags: []plan.Retag{{Name: "v2"}, {Name: "latest", Previous: "sha256:1"}}}},
		Removals: []plan.Removal{{Tag: "v0", Digest: "sha256:0"}},
		Kept:     []plan.Kept{{Tag: "guarded", Digest: "sha256:g", Reason: "the tag is protected"}},
	}
	want := []string{
		`a:latest outdated "sha256:2" here "sha256:1"`, `a:v0 not_removed "" here "sha256:0"`, `a:v2 missing "sha256:2" here ""`,
	}
	for with, answers := range map[antipodev1.ComparedWith]func(d *differ){
		antipodev1.ComparedWith_COMPARED_WITH_PRIMARYD: func(d *differ) { d.plan = differs },
		antipodev1.ComparedWith_COMPARED_WITH_REGISTRY: func(d *differ) { d.err, d.direct = errCut, differs },
	} {
		c := newCounter(t)
		c.announce("a", 1, 0, tracking.Touch{Tag: "other", Digest: "sha256:9"})
		answers(c.differ)
		got, err := c.promote(t.Context(), &antipodev1.PromoteRequest{})
		c.must(err)
		if diff := cmp.Diff(want, got.tags); diff != "" {
			t.Errorf("%v (-want +got):\n%s", with, diff)
		}
		if got.report.GetComparedWith() != with || got.others[0] != "a true " {
			t.Errorf("%v: %v, %v", with, got.report, got.others)
		}
	}
}

// A primary that answers and then does not is given up, and many tags come in several messages.
func TestPromotionGivesAPrimaryUp(t *testing.T) {
	t.Parallel()
	c := newCounter(t)
	c.differ.directErr = errCut
	var names []string
	for i := range 5 {
		names = append(names, fmt.Sprint("r", i))
	}
	c.apply(1, 5, names...)
	c.differ.diffErr = errCut
	got, err := c.promote(t.Context(), &antipodev1.PromoteRequest{DryRun: true})
	c.must(err)
	if got.report.GetComparedWith() != antipodev1.ComparedWith_COMPARED_WITH_NOBODY || len(got.behind) != 5 {
		t.Errorf("%v, %v", got.behind, got.report)
	}
	c.differ.diffErr = nil
	for i := range 1200 {
		c.differ.plan.Removals = append(c.differ.plan.Removals, plan.Removal{Tag: fmt.Sprintf("t%04d", i), Digest: "sha256:1"})
	}
	if got, err = c.promote(t.Context(), &antipodev1.PromoteRequest{DryRun: true}); err != nil || len(got.tags) != 6000 || len(got.others) != 15 {
		t.Errorf("%d tags in %d messages, %v", len(got.tags), len(got.others), err)
	}
}

// The site's journal says who promoted it, how, and where it stood.
func TestPromotionIsJournalled(t *testing.T) {
	t.Parallel()
	c := newCounter(t)
	c.apply(1, 7, "a", "b")
	ctx := link.ContextWithIdentity(t.Context(), link.Identity{Role: link.RoleOperator, Name: "ops"})
	_, err := c.promote(ctx, &antipodev1.PromoteRequest{})
	c.must(err)
	_, err = c.api.Demote(link.ContextWithIdentity(t.Context(), link.Identity{Name: "eu-west", Self: true}), &antipodev1.DemoteRequest{})
	c.must(err)
	resp, err := c.api.GetSiteJournal(t.Context(), &antipodev1.GetSiteJournalRequest{})
	c.must(err)
	story, err := c.api.GetRepository(t.Context(), &antipodev1.GetRepositoryRequest{Repository: "a"})
	c.must(err)
	for name, journal := range map[string][]*antipodev1.SiteJournalEntry{"site": resp.GetJournal(), "repository": story.GetSiteJournal()} {
		var got []string
		for _, e := range journal {
			got = append(got, fmt.Sprintf("%s by %s at %d of %d: %s", e.GetAction(), e.GetAskedBy(), e.GetCursorRevision(),
				e.GetHeadRevision(), e.GetDetail()))
		}
		want := []string{
			"demote by eu-west, on the site at 2 of 7: ", "promote by ops at 2 of 7: unplanned: 2 repositories were not synced",
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
}

// Why something failed begins with digests, which must not take the room of what matters.
func TestReasonsCutDigestsShort(t *testing.T) {
	t.Parallel()
	p := newPlace(t)
	p.apply(1, 1, "a")
	digest := "sha256:" + strings.Repeat("0123456789abcdef", 4)
	p.finish(tracking.Outcome{Failure: &tracking.Failure{
		Side: "source", Message: strings.Repeat("copy "+digest+": ", 6) + "HTTP 500: the disk is full",
	}})
	want := "source side: " + strings.Repeat("copy sha256:0123456789ab…: ", 6) + "HTTP 500: the disk is full"
	if got := p.make().GetTroubled()[0].GetReason(); got != want {
		t.Errorf("%q", got)
	}
	if got := p.make().GetLastError().GetMessage(); !strings.Contains(got, digest) {
		t.Errorf("whoever wants to know all does not: %q", got)
	}
}
