package service_test

import (
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	antipodev1 "github.com/antipode-registry/antipode/gen/antipode/v1"
	"github.com/antipode-registry/antipode/internal/registry"
)

// questions are one of each kind, and a site's answer to it.
func questions() map[string]struct {
	ask    *antipodev1.SiteRequest
	answer *antipodev1.SiteAnswer
} {
	type row = struct {
		ask    *antipodev1.SiteRequest
		answer *antipodev1.SiteAnswer
	}
	at := timestamppb.New(time.UnixMilli(1_700_000_000_000))
	return map[string]row{
		"pause": {
			&antipodev1.SiteRequest{Ask: &antipodev1.SiteRequest_Pause{Pause: &antipodev1.PauseRequest{}}},
			&antipodev1.SiteAnswer{Outcome: &antipodev1.SiteAnswer_Pause{Pause: &antipodev1.PauseResponse{}}},
		},
		"resume": {
			&antipodev1.SiteRequest{Ask: &antipodev1.SiteRequest_Resume{Resume: &antipodev1.ResumeRequest{}}},
			&antipodev1.SiteAnswer{Outcome: &antipodev1.SiteAnswer_Resume{Resume: &antipodev1.ResumeResponse{}}},
		},
		"resync": {
			&antipodev1.SiteRequest{Ask: &antipodev1.SiteRequest_Resync{Resync: &antipodev1.ResyncRequest{All: true}}},
			&antipodev1.SiteAnswer{Outcome: &antipodev1.SiteAnswer_Resync{Resync: &antipodev1.ResyncResponse{Repositories: 7}}},
		},
		"release": {
			&antipodev1.SiteRequest{Ask: &antipodev1.SiteRequest_Release{Release: &antipodev1.ReleaseRequest{Repository: "team/a"}}},
			&antipodev1.SiteAnswer{Outcome: &antipodev1.SiteAnswer_Release{Release: &antipodev1.ReleaseResponse{}}},
		},
		"inspect": {
			&antipodev1.SiteRequest{Ask: &antipodev1.SiteRequest_Inspect{
				Inspect: &antipodev1.InspectRequest{Repository: "team/a", Reference: "v1"},
			}},
			&antipodev1.SiteAnswer{Outcome: &antipodev1.SiteAnswer_Inspect{Inspect: &antipodev1.InspectResponse{
				Digest: "sha256:1", Since: at,
				Repository: &antipodev1.TrackedRepository{
					Name: "team/a", State: antipodev1.RepositoryState_REPOSITORY_STATE_HELD, WantedRevision: 9, SyncedRevision: 8,
					OldestUnsyncedAt: at, LastSyncedAt: at, NextAttemptAt: at, Failures: 3, HeldReason: "too many", TagCount: 4,
					VerifiedAt: at, LastError: &antipodev1.SyncError{
						Repository: "team/a", Reference: "v2", Side: antipodev1.Side_SIDE_SOURCE, Message: "no", OccurredAt: at, Attempts: 3,
					},
				},
			}}},
		},
	}
}

// nextRequest reads on to the next request of a stream.
func (s subscriber) nextRequest(t *testing.T) *antipodev1.SiteRequest {
	t.Helper()
	for {
		message, err := s.Recv()
		if err != nil {
			t.Fatal(err)
		}
		if r := message.GetRequest(); r != nil {
			return r
		}
	}
}

// What an operator asks reaches the site on its stream, and the site's answer reaches the operator, whole.
func TestAskNodeByWayOfItsSubscription(t *testing.T) {
	t.Parallel()
	p := sqlite(t)
	ctx, c := deadline(t), p.run(t)
	s := subscribe(ctx, t, c, "node/team", &antipodev1.SubscribeRequest{Node: "team"})
	for name, question := range questions() {
		answered := make(chan error, 1)
		var resp *antipodev1.AskNodeResponse
		go func() {
			var err error
			resp, err = c.nodes.AskNode(as(ctx, "operator/ops"), &antipodev1.AskNodeRequest{Node: "team", Request: question.ask})
			answered <- err
		}()
		asked := s.nextRequest(t)
		if asked.GetAskedBy() != "ops" || asked.GetExpiresAt() == nil {
			t.Errorf("%s: asked by %q until %v", name, asked.GetAskedBy(), asked.GetExpiresAt())
		}
		plain := proto.CloneOf(asked)
		plain.Id, plain.AskedBy, plain.ExpiresAt = "", "", nil
		if !proto.Equal(plain, question.ask) {
			t.Errorf("%s: the site was asked %v", name, asked)
		}
		_, err := c.nodes.AnswerRequest(as(ctx, "node/team"), &antipodev1.AnswerRequestRequest{Id: asked.GetId(), Answer: question.answer})
		if err != nil {
			t.Fatal(err)
		}
		if err := <-answered; err != nil || !proto.Equal(resp.GetAnswer(), question.answer) {
			t.Errorf("%s: answered %v, %v; want %v", name, resp.GetAnswer(), err, question.answer)
		}
	}
}

// A request is sent once on a stream, and again on the next one while nobody has answered it.
func TestARequestIsSentAgainOnANewStreamAlone(t *testing.T) {
	t.Parallel()
	p := sqlite(t)
	ctx, c := deadline(t), p.run(t)
	refused := make(chan error, 1)
	pause := questions()["pause"].ask
	first := subscribe(ctx, t, c, "node/eu", &antipodev1.SubscribeRequest{})
	first.expect(t, "hello 0")
	go func() {
		_, err := c.nodes.AskNode(as(ctx, "operator/ops"), &antipodev1.AskNodeRequest{Node: "eu", Request: pause})
		refused <- err
	}()
	one := first.nextRequest(t)
	p.push(t, "a")
	first.expect(t, "a:1 cursor 1 head 1") // and not the request again
	two := subscribe(ctx, t, c, "node/eu", &antipodev1.SubscribeRequest{}).nextRequest(t)
	if two.GetId() != one.GetId() {
		t.Errorf("the second stream carries %s, want %s", two.GetId(), one.GetId())
	}
	_, err := c.nodes.AnswerRequest(as(ctx, "node/eu"), &antipodev1.AnswerRequestRequest{
		Id: one.GetId(), Answer: &antipodev1.SiteAnswer{Outcome: &antipodev1.SiteAnswer_Refusal{
			Refusal: &antipodev1.SiteRefusal{Code: int32(codes.FailedPrecondition), Message: "promoted"},
		}},
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := <-refused; status.Code(err) != codes.FailedPrecondition || !strings.Contains(err.Error(), "promoted") {
		t.Errorf("refused with %v", err)
	}
}

// Where an image is: one site has it, another has something else, a third does not answer, and one is not granted it.
func TestLocateReference(t *testing.T) {
	t.Parallel()
	p := sqlite(t)
	p.registry.listing = registry.Listing{Present: true, Tags: []registry.Tag{{Name: "v1", Digest: "sha256:1"}}}
	ctx, c := deadline(t), p.run(t)
	for node, digest := range map[string]string{"eu": "sha256:0", "team": "sha256:1"} {
		s := subscribe(ctx, t, c, "node/"+node, &antipodev1.SubscribeRequest{})
		go func() {
			for message, err := range received(s.ServerStreamingClient) {
				if err != nil {
					return
				}
				if r := message.GetRequest(); r != nil {
					_, _ = c.nodes.AnswerRequest(as(ctx, "node/"+node), &antipodev1.AnswerRequestRequest{
						Id: r.GetId(), Answer: &antipodev1.SiteAnswer{Outcome: &antipodev1.SiteAnswer_Inspect{
							Inspect: &antipodev1.InspectResponse{Digest: digest, Repository: &antipodev1.TrackedRepository{Name: "team/a"}},
						}},
					})
				}
			}
		}()
	}
	ask := &antipodev1.LocateReferenceRequest{Repository: "team/a", Reference: "v1"}
	resp, err := c.nodes.LocateReference(as(ctx, "operator/ops"), ask)
	if err != nil || resp.GetDigest() != "sha256:1" || len(resp.GetNodes()) != 2 ||
		resp.GetNodes()[0].GetEqual() || !resp.GetNodes()[1].GetEqual() || resp.GetNodes()[0].GetProblem() != "" {
		t.Errorf("located %v, %v", resp, err)
	}
	own, err := c.nodes.LocateReference(as(ctx, "node/team"), ask)
	if err != nil || len(own.GetNodes()) != 1 || own.GetNodes()[0].GetNode() != "team" {
		t.Errorf("a node sees %v, %v; want itself alone", own, err)
	}
	elsewhere, err := c.nodes.LocateReference(as(ctx, "operator/ops"),
		&antipodev1.LocateReferenceRequest{Repository: "other/a", Reference: "v1", Nodes: []string{"team"}})
	if err != nil || len(elsewhere.GetNodes()) != 0 {
		t.Errorf("a repository that is not granted: %v, %v", elsewhere, err)
	}
	for _, bad := range []*antipodev1.LocateReferenceRequest{
		{Repository: "team/a"}, {Repository: "Team/a", Reference: "v1"}, {Repository: "team/a", Reference: "a b"},
	} {
		if _, err := c.nodes.LocateReference(as(ctx, "operator/ops"), bad); status.Code(err) != codes.InvalidArgument {
			t.Errorf("%v: %v", bad, err)
		}
	}
}
