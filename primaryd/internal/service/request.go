package service

import (
	"context"
	"errors"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/timestamppb"

	antipodev1 "github.com/antipode-registry/antipode/gen/antipode/v1"
	"github.com/antipode-registry/antipode/internal/registry"
	"github.com/antipode-registry/antipode/primaryd/internal/node"
	"github.com/antipode-registry/antipode/primaryd/internal/request"
)

// AskNode implements the RPC.
func (s *NodeService) AskNode(ctx context.Context, req *antipodev1.AskNodeRequest) (*antipodev1.AskNodeResponse, error) {
	id, err := caller(ctx)
	if err != nil {
		return nil, err
	}
	if !s.access.IsOperator(id) {
		return nil, status.Errorf(codes.PermissionDenied, "%q is not an operator", id.Name)
	}
	ask, ok := askFromProto(req.GetRequest())
	if !ok || req.GetNode() == "" {
		return nil, status.Error(codes.InvalidArgument, "a node and a question are needed")
	}
	answer, err := s.opts.Requests.Ask(ctx, req.GetNode(), id.Name, ask)
	if err != nil {
		return nil, err
	}
	return &antipodev1.AskNodeResponse{Answer: answerProto(answer)}, nil
}

// AnswerRequest implements the RPC.
func (s *NodeService) AnswerRequest(
	ctx context.Context, req *antipodev1.AnswerRequestRequest,
) (*antipodev1.AnswerRequestResponse, error) {
	id, err := caller(ctx)
	if err != nil {
		return nil, err
	}
	if !s.access.IsNode(id) {
		return nil, status.Errorf(codes.PermissionDenied, "%q is not a node", id.Name)
	}
	answer, ok := answerFromProto(req.GetAnswer())
	if !ok || req.GetId() == "" {
		return nil, status.Error(codes.InvalidArgument, "an id and an outcome are needed")
	}
	return &antipodev1.AnswerRequestResponse{}, s.opts.Requests.Answer(ctx, id.Name, req.GetId(), answer)
}

// LocateReference implements the RPC.
func (s *NodeService) LocateReference(
	ctx context.Context, req *antipodev1.LocateReferenceRequest,
) (*antipodev1.LocateReferenceResponse, error) {
	id, err := caller(ctx)
	if err != nil {
		return nil, err
	}
	if err := registry.ValidRepository(req.GetRepository()); err != nil {
		return nil, status.Error(codes.InvalidArgument, err.Error())
	}
	nodes := req.GetNodes()
	if !s.access.IsOperator(id) {
		if !s.access.MaySee(id, req.GetRepository()) {
			return nil, status.Errorf(codes.PermissionDenied, "repository %s is not granted to %s", req.GetRepository(), id.Name)
		}
		nodes = []string{id.Name}
	}
	located, err := s.opts.Locator.Locate(ctx, id.Name, req.GetRepository(), req.GetReference(), nodes)
	if err != nil {
		return nil, err
	}
	resp := &antipodev1.LocateReferenceResponse{Digest: located.Digest}
	for _, site := range located.Sites {
		n := &antipodev1.NodeReference{Node: site.Node, Equal: site.Equal, Problem: site.Problem}
		if site.Found != nil {
			n.Found = foundProto(site.Found)
		}
		resp.Nodes = append(resp.Nodes, n)
	}
	return resp, nil
}

// requestCode is the code of an error of package request; OK when it is not one.
func requestCode(err error) codes.Code {
	if refused, ok := errors.AsType[*request.Refusal](err); ok {
		if code := codes.Code(refused.Code); code > codes.OK && code <= codes.Unauthenticated {
			return code
		}
		return codes.Unknown
	}
	for known, code := range map[error]codes.Code{
		request.ErrUnknownNode: codes.NotFound, request.ErrOthers: codes.NotFound, request.ErrNoReference: codes.NotFound,
		request.ErrInvalid: codes.InvalidArgument, request.ErrTooMany: codes.ResourceExhausted,
		request.ErrUnanswered: codes.Unavailable,
	} {
		if errors.Is(err, known) {
			return code
		}
	}
	return codes.OK
}

func askFromProto(p *antipodev1.SiteRequest) (ask request.Ask, ok bool) {
	switch kind := p.GetAsk().(type) {
	case *antipodev1.SiteRequest_Pause:
		return request.Ask{Kind: request.Pause}, true
	case *antipodev1.SiteRequest_Resume:
		return request.Ask{Kind: request.Resume}, true
	case *antipodev1.SiteRequest_Resync:
		return request.Ask{Kind: request.Resync, Repository: kind.Resync.GetRepository(), All: kind.Resync.GetAll()}, true
	case *antipodev1.SiteRequest_Release:
		return request.Ask{Kind: request.Release, Repository: kind.Release.GetRepository()}, true
	case *antipodev1.SiteRequest_Inspect:
		return request.Ask{
			Kind: request.Inspect, Repository: kind.Inspect.GetRepository(), Reference: kind.Inspect.GetReference(),
		}, true
	}
	return request.Ask{}, false
}

func requestProto(r request.Request) *antipodev1.SiteRequest {
	p := &antipodev1.SiteRequest{Id: r.ID, AskedBy: r.AskedBy, ExpiresAt: timestamppb.New(r.ExpiresAt)}
	switch r.Ask.Kind {
	case request.Pause:
		p.Ask = &antipodev1.SiteRequest_Pause{Pause: &antipodev1.PauseRequest{}}
	case request.Resume:
		p.Ask = &antipodev1.SiteRequest_Resume{Resume: &antipodev1.ResumeRequest{}}
	case request.Resync:
		p.Ask = &antipodev1.SiteRequest_Resync{Resync: &antipodev1.ResyncRequest{
			Repository: r.Ask.Repository, All: r.Ask.All,
		}}
	case request.Release:
		p.Ask = &antipodev1.SiteRequest_Release{Release: &antipodev1.ReleaseRequest{Repository: r.Ask.Repository}}
	case request.Inspect:
		p.Ask = &antipodev1.SiteRequest_Inspect{Inspect: &antipodev1.InspectRequest{
			Repository: r.Ask.Repository, Reference: r.Ask.Reference,
		}}
	}
	return p
}

func answerFromProto(p *antipodev1.SiteAnswer) (answer request.Answer, ok bool) {
	switch outcome := p.GetOutcome().(type) {
	case *antipodev1.SiteAnswer_Refusal:
		code := max(0, outcome.Refusal.GetCode())
		return request.Answer{Refusal: &request.Refusal{
			Code: uint32(code), Message: clip(outcome.Refusal.GetMessage()),
		}}, true
	case *antipodev1.SiteAnswer_Pause:
		return request.Answer{Kind: request.Pause}, true
	case *antipodev1.SiteAnswer_Resume:
		return request.Answer{Kind: request.Resume}, true
	case *antipodev1.SiteAnswer_Resync:
		return request.Answer{Kind: request.Resync, Repositories: outcome.Resync.GetRepositories()}, true
	case *antipodev1.SiteAnswer_Release:
		return request.Answer{Kind: request.Release}, true
	case *antipodev1.SiteAnswer_Inspect:
		return request.Answer{Kind: request.Inspect, Found: foundFromProto(outcome.Inspect)}, true
	}
	return request.Answer{}, false
}

// clip keeps a refusal's words within what the contract says.
func clip(message string) string { return message[:min(len(message), 4<<10)] }

func answerProto(a request.Answer) *antipodev1.SiteAnswer {
	p := &antipodev1.SiteAnswer{}
	switch a.Kind {
	case request.Pause:
		p.Outcome = &antipodev1.SiteAnswer_Pause{Pause: &antipodev1.PauseResponse{}}
	case request.Resume:
		p.Outcome = &antipodev1.SiteAnswer_Resume{Resume: &antipodev1.ResumeResponse{}}
	case request.Resync:
		p.Outcome = &antipodev1.SiteAnswer_Resync{Resync: &antipodev1.ResyncResponse{Repositories: a.Repositories}}
	case request.Release:
		p.Outcome = &antipodev1.SiteAnswer_Release{Release: &antipodev1.ReleaseResponse{}}
	case request.Inspect:
		p.Outcome = &antipodev1.SiteAnswer_Inspect{Inspect: foundProto(a.Found)}
	}
	return p
}

var repositoryStates = map[string]antipodev1.RepositoryState{
	"pending": antipodev1.RepositoryState_REPOSITORY_STATE_PENDING,
	"syncing": antipodev1.RepositoryState_REPOSITORY_STATE_SYNCING,
	"synced":  antipodev1.RepositoryState_REPOSITORY_STATE_SYNCED,
	"failed":  antipodev1.RepositoryState_REPOSITORY_STATE_FAILED,
	"held":    antipodev1.RepositoryState_REPOSITORY_STATE_HELD,
}

func foundProto(f *request.Found) *antipodev1.InspectResponse {
	r := f.Repository
	p := &antipodev1.InspectResponse{
		Digest: f.Digest, Since: timeProto(f.Since),
		Repository: &antipodev1.TrackedRepository{
			Name: r.Name, State: repositoryStates[r.State], WantedRevision: r.Wanted, SyncedRevision: r.Synced,
			OldestUnsyncedAt: timeProto(r.OldestUnsyncedAt), LastSyncedAt: timeProto(r.LastSyncedAt),
			NextAttemptAt: timeProto(r.NextAttemptAt), Failures: r.Failures, HeldReason: r.HeldReason, TagCount: r.TagCount,
			VerifiedAt: timeProto(r.VerifiedAt),
		},
	}
	if e := r.LastError; e != nil {
		p.Repository.LastError = &antipodev1.SyncError{
			Repository: r.Name, Reference: e.Reference, Side: sideToProto[node.Side(e.Side)], Message: e.Message,
			OccurredAt: timeProto(e.At), Attempts: e.Attempts,
		}
	}
	return p
}

func foundFromProto(p *antipodev1.InspectResponse) *request.Found {
	r := p.GetRepository()
	f := &request.Found{
		Digest: p.GetDigest(), Since: timeFromProto(p.GetSince()),
		Repository: request.Repository{
			Name: r.GetName(), Wanted: r.GetWantedRevision(), Synced: r.GetSyncedRevision(),
			OldestUnsyncedAt: timeFromProto(r.GetOldestUnsyncedAt()), LastSyncedAt: timeFromProto(r.GetLastSyncedAt()),
			NextAttemptAt: timeFromProto(r.GetNextAttemptAt()), Failures: r.GetFailures(), HeldReason: r.GetHeldReason(),
			TagCount: r.GetTagCount(), VerifiedAt: timeFromProto(r.GetVerifiedAt()),
		},
	}
	for state, code := range repositoryStates {
		if code == r.GetState() {
			f.Repository.State = state
		}
	}
	if e := r.GetLastError(); e != nil {
		f.Repository.LastError = &request.Failure{
			Reference: e.GetReference(), Side: string(sideFromProto(e.GetSide())), Message: e.GetMessage(),
			At: timeFromProto(e.GetOccurredAt()), Attempts: e.GetAttempts(),
		}
	}
	return f
}
