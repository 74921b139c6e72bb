// Package service is the site's gRPC surface and its voice towards the primary: it turns protobuf into calls of the
// domain packages and back, checks who may call, and does nothing else.
package service

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"strings"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	antipodev1 "github.com/antipode-registry/antipode/gen/antipode/v1"
	"github.com/antipode-registry/antipode/internal/database"
	"github.com/antipode-registry/antipode/internal/link"
	"github.com/antipode-registry/antipode/internal/registry"
	"github.com/antipode-registry/antipode/secondaryd/internal/plan"
	"github.com/antipode-registry/antipode/secondaryd/internal/replicate"
	"github.com/antipode-registry/antipode/secondaryd/internal/tracking"
)

// Access decides who may call.
type Access struct {
	// Node is the site's own name: its certificate may call, since its command line uses it.
	Node string
	// Operators are the names of the certificates that may call. Empty lets in every certificate whose role says
	// operator.
	Operators []string
}

// Authorize is package link's hook before every RPC.
func (a Access) Authorize(_ context.Context, _ string, id link.Identity) error {
	if id.Self || id.Role == link.RoleNode && id.Name == a.Node {
		return nil
	}
	if id.Role == link.RoleOperator && len(a.Operators) == 0 {
		return nil
	}
	for _, name := range a.Operators {
		if (id.Role == link.RoleOperator || id.Role == "") && id.Name == name {
			return nil
		}
	}
	return status.Errorf(codes.Unauthenticated, "the certificate of %q is not an operator's", id.Name)
}

// MapError turns domain errors into status errors: the one place where codes are chosen. What it does not know it returns
// as it is; package link logs that and tells the caller nothing of it.
func MapError(err error) error {
	if s, ok := status.FromError(err); ok {
		if s.Code() == codes.Unauthenticated {
			// The primary refuses the site. To pass the code on would say that the site refuses its caller.
			return status.Error(codes.Unavailable, err.Error())
		}
		// What else the primary answered keeps its code, with our words about it.
		return status.Error(s.Code(), err.Error())
	}
	switch {
	case errors.Is(err, tracking.ErrPromoted), errors.Is(err, tracking.ErrNotPromoted), errors.Is(err, tracking.ErrBehind):
		return status.Error(codes.FailedPrecondition, err.Error())
	case errors.Is(err, database.ErrUnavailable):
		return status.Error(codes.Unavailable, "the site's database cannot be reached")
	case errors.Is(err, registry.ErrUnavailable), errors.Is(err, registry.ErrUnauthorized):
		return status.Error(codes.Unavailable, err.Error())
	case errors.Is(err, registry.ErrMalformed):
		return status.Error(codes.FailedPrecondition, err.Error())
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		// Not the caller's own end, which package link sees first.
		return status.Error(codes.Unavailable, "took too long")
	}
	return err
}

// Engine compares both sides of a repository, and of a reference; *replicate.Engine implements it.
type Engine interface {
	Diff(ctx context.Context, repository string) (plan.Plan, error)
	DiffDirect(ctx context.Context, repository string) (plan.Plan, error)
	SourceAnswers(ctx context.Context) error
	Look(ctx context.Context, repository, reference string) (primary, site string, err error)
	LookHere(ctx context.Context, repository, reference string) (digest string, err error)
	Active() []*replicate.Active
}

// Nodes asks the primary how this site is; *client.Client implements it.
type Nodes interface {
	Nodes(ctx context.Context) ([]*antipodev1.Node, error)
}

// Parts are what a ReplicationService works with; all are required.
type Parts struct {
	Node     string // the site's name
	Tracking *tracking.Store
	Engine   Engine
	Status   *Status
	Primary  Nodes
	// Wants says whether the site replicates a repository.
	Wants  func(repository string) bool
	Logger *slog.Logger
}

// ReplicationService implements antipode.v1.ReplicationService.
type ReplicationService struct {
	antipodev1.UnimplementedReplicationServiceServer
	node     string
	tracking *tracking.Store
	engine   Engine
	status   *Status
	primary  Nodes
	wants    func(repository string) bool
	logger   *slog.Logger
}

// NewReplicationService returns the service of a site.
func NewReplicationService(p Parts) *ReplicationService {
	return &ReplicationService{
		node: p.Node, tracking: p.Tracking, engine: p.Engine, status: p.Status, primary: p.Primary, wants: p.Wants,
		logger: p.Logger,
	}
}

// GetStatus implements the RPC.
func (s *ReplicationService) GetStatus(
	ctx context.Context, _ *antipodev1.GetStatusRequest,
) (*antipodev1.GetStatusResponse, error) {
	return &antipodev1.GetStatusResponse{Node: s.node, Status: s.status.Make(ctx)}, nil
}

// ListRepositories implements the RPC.
func (s *ReplicationService) ListRepositories(
	ctx context.Context, req *antipodev1.ReplicationServiceListRepositoriesRequest,
) (*antipodev1.ReplicationServiceListRepositoriesResponse, error) {
	limit, after, err := page(req.GetPageSize(), req.GetPageToken())
	if err != nil {
		return nil, err
	}
	state, known := stateFromProto[req.GetState()]
	if !known {
		return nil, status.Errorf(codes.InvalidArgument, "state %d is not known", req.GetState())
	}
	rows, err := s.tracking.List(ctx, state, after, limit)
	if err != nil {
		return nil, err
	}
	resp := &antipodev1.ReplicationServiceListRepositoriesResponse{}
	for _, row := range rows {
		resp.Repositories = append(resp.Repositories, repositoryProto(row))
	}
	if len(rows) == limit {
		resp.NextPageToken = tokenPrefix + rows[limit-1].Name
	}
	return resp, nil
}

func (s *ReplicationService) tracked(ctx context.Context, name string) (tracking.Repository, error) {
	if name == "" {
		return tracking.Repository{}, status.Error(codes.InvalidArgument, "repository is missing")
	}
	row, found, err := s.tracking.Get(ctx, name)
	if err == nil && !found {
		err = status.Errorf(codes.NotFound, "the site does not track %s", name)
	}
	return row, err
}

// DiffRepository implements the RPC.
func (s *ReplicationService) DiffRepository(
	ctx context.Context, req *antipodev1.DiffRepositoryRequest,
) (*antipodev1.DiffRepositoryResponse, error) {
	if err := registry.ValidRepository(req.GetRepository()); err != nil {
		return nil, status.Error(codes.InvalidArgument, err.Error())
	}
	difference, err := s.engine.Diff(ctx, req.GetRepository())
	if err != nil {
		return nil, err
	}
	return planProto(difference), nil
}

// Resync implements the RPC.
func (s *ReplicationService) Resync(ctx context.Context, req *antipodev1.ResyncRequest) (*antipodev1.ResyncResponse, error) {
	if req.GetAll() == (req.GetRepository() != "") {
		return nil, status.Error(codes.InvalidArgument, "name a repository, or ask for all")
	}
	ctx = asked(ctx)
	if req.GetAll() {
		n, err := s.tracking.ResyncAll(ctx)
		return &antipodev1.ResyncResponse{Repositories: n}, err
	}
	found, err := s.tracking.Resync(ctx, req.GetRepository())
	if err == nil && !found {
		err = status.Errorf(codes.NotFound, "the site does not track %s", req.GetRepository())
	}
	return &antipodev1.ResyncResponse{Repositories: 1}, err
}

// Release implements the RPC.
func (s *ReplicationService) Release(ctx context.Context, req *antipodev1.ReleaseRequest) (*antipodev1.ReleaseResponse, error) {
	if _, err := s.tracked(ctx, req.GetRepository()); err != nil {
		return nil, err
	}
	held, err := s.tracking.Release(asked(ctx), req.GetRepository())
	if err == nil && !held {
		err = status.Errorf(codes.FailedPrecondition, "no removals are withheld in %s", req.GetRepository())
	}
	return &antipodev1.ReleaseResponse{}, err
}

// Restore implements the RPC.
func (s *ReplicationService) Restore(ctx context.Context, req *antipodev1.RestoreRequest) (*antipodev1.RestoreResponse, error) {
	if _, err := s.tracked(ctx, req.GetRepository()); err != nil {
		return nil, err
	}
	change := s.tracking.Pin
	if req.GetForget() {
		change = s.tracking.Unpin
	}
	pins, _, err := change(asked(ctx), req.GetRepository(), req.GetTags())
	if err != nil {
		return nil, err
	}
	resp := &antipodev1.RestoreResponse{}
	for _, pin := range pins {
		resp.Tags = append(resp.Tags, pin.Tag)
	}
	for _, tag := range req.GetTags() {
		if !slices.Contains(resp.GetTags(), tag) {
			what := "nothing is known of a removal of %s:%s (brought back: %s)"
			if req.GetForget() {
				what = "%s:%s was not restored (no longer kept: %s)"
			}
			return nil, status.Errorf(codes.NotFound, what, req.GetRepository(), tag, strings.Join(resp.GetTags(), ", "))
		}
	}
	return resp, nil
}

// Verify implements the RPC.
func (s *ReplicationService) Verify(ctx context.Context, req *antipodev1.VerifyRequest) (*antipodev1.VerifyResponse, error) {
	if req.GetAll() == (req.GetRepository() != "") {
		return nil, status.Error(codes.InvalidArgument, "name a repository, or ask for all")
	}
	depth := tracking.Graphs
	if req.GetDeep() {
		depth = tracking.Deep
	}
	ctx = asked(ctx)
	if req.GetAll() {
		n, err := s.tracking.VerifyAll(ctx, depth)
		return &antipodev1.VerifyResponse{Repositories: n}, err
	}
	found, err := s.tracking.Verify(ctx, req.GetRepository(), depth)
	if err == nil && !found {
		err = status.Errorf(codes.NotFound, "the site does not track %s", req.GetRepository())
	}
	return &antipodev1.VerifyResponse{Repositories: 1}, err
}

// Pause implements the RPC.
func (s *ReplicationService) Pause(ctx context.Context, _ *antipodev1.PauseRequest) (*antipodev1.PauseResponse, error) {
	return &antipodev1.PauseResponse{}, s.tracking.SetPaused(asked(ctx), true)
}

// Resume implements the RPC.
func (s *ReplicationService) Resume(ctx context.Context, _ *antipodev1.ResumeRequest) (*antipodev1.ResumeResponse, error) {
	return &antipodev1.ResumeResponse{}, s.tracking.SetPaused(asked(ctx), false)
}

// tokenPrefix versions page tokens, so that their form can change.
const tokenPrefix = "after:"

// page reads the size and the token of a request for a page: names after the token, at most size of them.
func page(size int32, token string) (limit int, after string, err error) {
	const standard, most = 100, 1000
	if size < 0 {
		return 0, "", status.Error(codes.InvalidArgument, "page_size is negative")
	}
	if limit = min(int(size), most); limit == 0 {
		limit = standard
	}
	if token == "" {
		return limit, "", nil
	}
	after, ok := strings.CutPrefix(token, tokenPrefix)
	if !ok || registry.ValidRepository(after) != nil {
		return 0, "", status.Error(codes.InvalidArgument, "page_token was not made by this service")
	}
	return limit, after, nil
}
