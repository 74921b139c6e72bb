package service_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/known/timestamppb"

	antipodev1 "github.com/antipode-registry/antipode/gen/antipode/v1"
	"github.com/antipode-registry/antipode/secondaryd/internal/plan"
	"github.com/antipode-registry/antipode/secondaryd/internal/service"
	"github.com/antipode-registry/antipode/secondaryd/internal/tracking"
)

// told collects what a promotion says.
type told struct {
	grpc.ServerStream
	ctx    context.Context
	behind []string
	tags   []string // in short
	others []string
	report *antipodev1.PromoteReport
}

func (s *told) Context() context.Context { return s.ctx }

func (s *told) Send(m *antipodev1.PromoteResponse) error {
	if b := m.GetBehind(); b != nil {
		s.behind = append(s.behind, b.GetName())
	}
	if t := m.GetTags(); t != nil {
		for _, tag := range t.GetTags() {
			s.tags = append(s.tags, fmt.Sprintf("%s:%s %s %q here %q", t.GetRepository(), tag.GetTag(),
				strings.ToLower(strings.TrimPrefix(tag.GetDifference().String(), "TAG_DIFFERENCE_")), tag.GetDigest(), tag.GetSiteDigest()))
		}
		s.others = append(s.others, fmt.Sprintf("%s %t %s", t.GetRepository(), t.GetCompared(), t.GetOthers()))
	}
	if m.GetReport() != nil {
		s.report = m.GetReport()
	}
	return nil
}

func (c *counter) promote(ctx context.Context, req *antipodev1.PromoteRequest) (*told, error) {
	s := &told{ctx: ctx}
	return s, c.api.Promote(req, s)
}

// The primary is gone: the site stops for good, and says what it knows to be missing. Then it goes back.
func TestUnplannedPromotion(t *testing.T) {
	t.Parallel()
	c := newCounter(t)
	c.apply(1, 5, "a", "b", "c")
	c.finish(tracking.Outcome{Synced: true})
	before, err := c.promote(t.Context(), &antipodev1.PromoteRequest{DryRun: true})
	c.must(err)
	if before.report.GetPromoted() || c.make().GetPromotedAt() != nil {
		t.Error("a rehearsal promoted the site")
	}
	got, err := c.promote(t.Context(), &antipodev1.PromoteRequest{})
	c.must(err)
	if strings.Join(got.behind, " ") != "b c" || got.report.GetBehind() != 2 || !got.report.GetPromoted() ||
		got.report.GetCursorRevision() != 3 || got.report.GetHeadRevision() != 5 {
		t.Errorf("behind %v, report %v", got.behind, got.report)
	}
	if c.make().GetPromotedAt() == nil {
		t.Error("the status does not say so")
	}
	lease, err := c.store.Claim(t.Context(), "w", tracking.LiveFirst)
	if lease != nil || err != nil {
		t.Errorf("a promoted site claims %v, %v", lease, err)
	}
	if err := c.store.Apply(t.Context(), tracking.Batch{FeedID: "feed", Cursor: 5, Head: 5}); !errors.Is(err, tracking.ErrPromoted) {
		t.Errorf("a promoted site takes changes: %v", err)
	}
	_, err = c.promote(t.Context(), &antipodev1.PromoteRequest{})
	c.want(err, codes.FailedPrecondition)

	_, err = c.api.Demote(t.Context(), &antipodev1.DemoteRequest{})
	c.must(err)
	_, err = c.api.Demote(t.Context(), &antipodev1.DemoteRequest{})
	c.want(err, codes.FailedPrecondition)
	cursor, err := c.store.Cursor(t.Context())
	c.must(err)
	row, _, err := c.store.Get(t.Context(), "a")
	c.must(err)
	if cursor.Revision != 0 || row.State == tracking.Synced {
		t.Errorf("a demoted site goes on at %d with %v", cursor.Revision, row.State)
	}
}

// A planned promotion succeeds only when the site equals the primary: by the feed, and by a comparison.
func TestPlannedPromotion(t *testing.T) {
	t.Parallel()
	c := newCounter(t)
	c.apply(1, 1, "a")
	c.finish(tracking.Outcome{Synced: true})
	c.differ.head = 1
	brief := func() context.Context {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		t.Cleanup(cancel)
		return ctx
	}
	// A lost notification: the feed says equal, the registries do not.
	c.differ.plan = plan.Plan{Copies: []plan.Copy{{Digest: "sha256:1"}}}
	_, err := c.promote(brief(), &antipodev1.PromoteRequest{Planned: true})
	c.want(err, codes.FailedPrecondition)
	if row, _, _ := c.store.Get(t.Context(), "a"); row.State != tracking.Pending {
		t.Errorf("what differs is %s, want it due", row.State)
	}
	c.finish(tracking.Outcome{Synced: true})
	rehearsal, err := c.promote(t.Context(), &antipodev1.PromoteRequest{Planned: true, DryRun: true})
	if err != nil || strings.Join(rehearsal.behind, " ") != "a" {
		t.Errorf("the rehearsal found %v, %v", rehearsal.behind, err)
	}
	c.differ.plan = plan.Plan{}

	c.differ.head = 2
	_, err = c.promote(brief(), &antipodev1.PromoteRequest{Planned: true})
	if said := c.want(err, codes.FailedPrecondition); !strings.Contains(said, "behind") {
		t.Errorf("behind the head: %s", said)
	}
	c.differ.head = 1
	got, err := c.promote(t.Context(), &antipodev1.PromoteRequest{Planned: true})
	if err != nil || !got.report.GetPromoted() || got.report.GetBehind() != 0 {
		t.Errorf("promoted with %v, %v", got.report, err)
	}
}

func TestPlannedPromotionNeedsThePrimaryAndNoBrake(t *testing.T) {
	t.Parallel()
	c := newCounter(t)
	c.differ.err = errCut
	_, err := c.promote(t.Context(), &antipodev1.PromoteRequest{Planned: true})
	c.want(err, codes.Unavailable)
	c.differ.err = nil
	c.apply(1, 1, "a")
	c.differ.head = 1
	c.finish(tracking.Outcome{Held: "too many removals"})
	_, err = c.promote(t.Context(), &antipodev1.PromoteRequest{Planned: true})
	if said := c.want(err, codes.FailedPrecondition); !strings.Contains(said, "withhold") {
		t.Error(said)
	}
}

func TestInspectAndWait(t *testing.T) {
	t.Parallel()
	c := newCounter(t)
	c.apply(1, 1, "a")
	c.finish(tracking.Outcome{Synced: true, Journal: []tracking.Entry{
		{Action: "tagged", Reference: "v1", Digest: "sha256:1", At: time.UnixMilli(5000)},
	}})
	c.differ.primary = map[string]string{"v1": "sha256:1", "v2": "sha256:2"}
	c.differ.site = map[string]string{"v1": "sha256:1"}
	found, err := c.api.Inspect(t.Context(), &antipodev1.InspectRequest{Repository: "a", Reference: "v1"})
	if err != nil || found.GetDigest() != "sha256:1" || found.GetSince().AsTime().UnixMilli() != 5000 ||
		found.GetRepository().GetState() != antipodev1.RepositoryState_REPOSITORY_STATE_SYNCED {
		t.Errorf("found %v, %v", found, err)
	}
	_, err = c.api.Inspect(t.Context(), &antipodev1.InspectRequest{Repository: "b"})
	c.want(err, codes.NotFound)
	_, err = c.api.Inspect(t.Context(), &antipodev1.InspectRequest{Repository: "a", Reference: "a b"})
	c.want(err, codes.InvalidArgument)

	_, err = c.api.Wait(t.Context(), &antipodev1.WaitRequest{Repository: "other", Reference: "v1"})
	c.want(err, codes.FailedPrecondition)
	there, err := c.api.Wait(t.Context(), &antipodev1.WaitRequest{Repository: "a", Reference: "v1"})
	if err != nil || there.GetDigest() != "sha256:1" {
		t.Errorf("waited for %v, %v", there, err)
	}
	brief, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if _, err := c.api.Wait(brief, &antipodev1.WaitRequest{Repository: "a", Reference: "v2"}); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("what is not there: %v", err)
	}
	arrived := make(chan error, 1)
	go func() {
		_, err := c.api.Wait(t.Context(), &antipodev1.WaitRequest{Repository: "a", Reference: "v2"})
		arrived <- err
	}()
	c.differ.mu.Lock()
	c.differ.site["v2"] = "sha256:2"
	c.differ.mu.Unlock()
	c.must(<-arrived)
}

// answers is a primary that takes answers.
type answers chan *antipodev1.SiteAnswer

func (a answers) Answer(_ context.Context, _ string, answer *antipodev1.SiteAnswer) error {
	a <- answer
	return nil
}

// What the primary's operators ask is done as far as the site lets them, and the journal says who asked.
func TestRequestsOfThePrimary(t *testing.T) {
	t.Parallel()
	c := newCounter(t)
	c.apply(1, 1, "a")
	c.finish(tracking.Outcome{Synced: true})
	answered := make(answers, 1)
	requests := service.NewRequests(c.store, answered, []string{"pause", "resume", "resync", "inspect"}, c.log())
	requests.Serve(c.api)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- requests.Run(ctx) }()
	ask := func(r *antipodev1.SiteRequest) *antipodev1.SiteAnswer {
		r.Id, r.AskedBy, r.ExpiresAt = "eu-west/1", "ops", timestamppb.New(time.Now().Add(time.Minute))
		requests.Take(r)
		return <-answered
	}
	pause := &antipodev1.SiteRequest{Ask: &antipodev1.SiteRequest_Pause{Pause: &antipodev1.PauseRequest{}}}
	if ask(pause).GetPause() == nil || !c.make().GetPaused() {
		t.Error("it was not paused")
	}
	resume := &antipodev1.SiteRequest{Ask: &antipodev1.SiteRequest_Resume{Resume: &antipodev1.ResumeRequest{}}}
	if ask(resume).GetResume() == nil || c.make().GetPaused() {
		t.Error("it was not resumed")
	}
	resync := &antipodev1.SiteRequest{Ask: &antipodev1.SiteRequest_Resync{Resync: &antipodev1.ResyncRequest{Repository: "a"}}}
	if ask(resync).GetResync().GetRepositories() != 1 {
		t.Error("nothing became due")
	}
	inspect := &antipodev1.SiteRequest{Ask: &antipodev1.SiteRequest_Inspect{Inspect: &antipodev1.InspectRequest{Repository: "a"}}}
	if ask(inspect).GetInspect().GetRepository().GetName() != "a" {
		t.Error("nothing was found")
	}
	refused := func(name string, r *antipodev1.SiteRequest, want codes.Code) {
		t.Helper()
		if got := ask(r).GetRefusal(); got.GetCode() != int32(want) || got.GetMessage() == "" {
			t.Errorf("%s: %v, want %v", name, got, want)
		}
	}
	refused("not allowed", &antipodev1.SiteRequest{Ask: &antipodev1.SiteRequest_Release{
		Release: &antipodev1.ReleaseRequest{Repository: "a"},
	}}, codes.PermissionDenied)
	refused("not known", &antipodev1.SiteRequest{}, codes.Unimplemented)
	refused("not tracked", &antipodev1.SiteRequest{Ask: &antipodev1.SiteRequest_Resync{
		Resync: &antipodev1.ResyncRequest{Repository: "b"},
	}}, codes.NotFound)
	c.must(c.store.Promote(t.Context(), -1))
	refused("promoted", pause, codes.FailedPrecondition)
	cancel()
	c.must(<-done)
	entries, err := c.store.Journal(t.Context(), "a", 10)
	c.must(err)
	for _, e := range entries {
		if e.Action == "resync" && strings.HasSuffix(e.Detail, "by ops, at the primary") {
			return
		}
	}
	t.Errorf("the journal does not say who asked: %v", entries)
}
