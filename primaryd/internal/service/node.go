package service

import (
	"context"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	antipodev1 "github.com/antipode-registry/antipode/gen/antipode/v1"
	"github.com/antipode-registry/antipode/internal/link"
	"github.com/antipode-registry/antipode/primaryd/internal/node"
	"github.com/antipode-registry/antipode/primaryd/internal/request"
)

// Head returns the newest revision of the feed; *feed.Feed implements it.
type Head interface {
	Head(ctx context.Context) (int64, error)
}

// NodeOptions configures a NodeService.
type NodeOptions struct {
	// ReportWithin is how often nodes are to report; required.
	ReportWithin time.Duration
	// Stopping is closed when the server begins to stop, so that streams end by themselves.
	Stopping <-chan struct{}
	// Requests carries what operators ask of the sites, and Locator asks all of them where an image is; both required.
	Requests *request.Desk
	Locator  *request.Locator
}

// NodeService implements antipode.v1.NodeService.
type NodeService struct {
	antipodev1.UnimplementedNodeServiceServer
	access Access
	head   Head
	opts   NodeOptions
}

// NewNodeService returns the service over the node directory in access.
func NewNodeService(access Access, head Head, opts NodeOptions) *NodeService {
	return &NodeService{access: access, head: head, opts: opts}
}

// ReportStatus implements the RPC.
func (s *NodeService) ReportStatus(
	ctx context.Context, req *antipodev1.ReportStatusRequest,
) (*antipodev1.ReportStatusResponse, error) {
	id, err := caller(ctx)
	if err != nil {
		return nil, err
	}
	if !s.access.IsNode(id) {
		return nil, status.Errorf(codes.PermissionDenied, "%q is not a node", id.Name)
	}
	if err := asItself(id, req.GetNode()); err != nil {
		return nil, err
	}
	if req.GetStatus() == nil {
		return nil, status.Error(codes.InvalidArgument, "status is missing")
	}
	if err := s.access.Nodes.Report(ctx, id.Name, statusFromProto(req.GetStatus())); err != nil {
		return nil, err
	}
	return &antipodev1.ReportStatusResponse{NextReportWithin: durationpb.New(s.opts.ReportWithin)}, nil
}

// ListNodes implements the RPC.
func (s *NodeService) ListNodes(ctx context.Context, _ *antipodev1.ListNodesRequest) (*antipodev1.ListNodesResponse, error) {
	id, err := caller(ctx)
	if err != nil {
		return nil, err
	}
	head, err := s.head.Head(ctx)
	if err != nil {
		return nil, err
	}
	nodes, err := s.visible(ctx, id, head)
	if err != nil {
		return nil, err
	}
	resp := &antipodev1.ListNodesResponse{HeadRevision: head}
	for _, n := range nodes {
		resp.Nodes = append(resp.Nodes, nodeProto(n))
	}
	shorten(resp)
	return resp, nil
}

// maxNodesBytes keeps a list of nodes well within what a client takes.
const maxNodesBytes = 3 << 20

// shorten leaves the details out of those nodes' statuses that are longer than their share, where the list as a whole is
// too long for one message: however much some sites report, the others are seen.
func shorten(resp *antipodev1.ListNodesResponse) {
	if proto.Size(resp) <= maxNodesBytes {
		return
	}
	for _, n := range resp.GetNodes() {
		if proto.Size(n) <= maxNodesBytes/len(resp.GetNodes()) {
			continue
		}
		st := n.GetStatus()
		st.Active, st.Replicas, st.Troubled, st.LastError = nil, nil, nil, nil
		st.Problems = []string{"it reports more than fits into the list of all nodes: ask for this one alone"}
		n.Reasons = st.GetProblems()
	}
}

// visible returns the nodes that id may see.
func (s *NodeService) visible(ctx context.Context, id link.Identity, head int64) ([]node.Node, error) {
	if s.access.IsOperator(id) {
		return s.access.Nodes.List(ctx, head)
	}
	own, found, err := s.access.Nodes.Get(ctx, id.Name, head)
	if err != nil || !found {
		return nil, err
	}
	return []node.Node{own}, nil
}

// maySeeNode refuses a caller that asks for no node, or for one that it may not see.
func (s *NodeService) maySeeNode(ctx context.Context, name string) error {
	id, err := caller(ctx)
	if err != nil {
		return err
	}
	if name == "" {
		return status.Error(codes.InvalidArgument, "name is missing")
	}
	if !s.access.IsOperator(id) && name != id.Name {
		return status.Errorf(codes.PermissionDenied, "%q may see itself alone", id.Name)
	}
	return nil
}

func unknownNode(name string) error {
	return status.Errorf(codes.NotFound, "no node %q is configured", name)
}

// GetNode implements the RPC.
func (s *NodeService) GetNode(ctx context.Context, req *antipodev1.GetNodeRequest) (*antipodev1.GetNodeResponse, error) {
	name := req.GetName()
	if err := s.maySeeNode(ctx, name); err != nil {
		return nil, err
	}
	head, err := s.head.Head(ctx)
	if err != nil {
		return nil, err
	}
	n, found, err := s.access.Nodes.Get(ctx, name, head)
	if err != nil {
		return nil, err
	}
	if !found {
		return nil, unknownNode(name)
	}
	return &antipodev1.GetNodeResponse{Node: nodeProto(n)}, nil
}

// GetNodeHistory implements the RPC.
func (s *NodeService) GetNodeHistory(
	ctx context.Context, req *antipodev1.GetNodeHistoryRequest,
) (*antipodev1.GetNodeHistoryResponse, error) {
	if err := s.maySeeNode(ctx, req.GetName()); err != nil {
		return nil, err
	}
	since := req.GetSince().AsDuration()
	if since < 0 {
		return nil, status.Error(codes.InvalidArgument, "since is negative")
	}
	samples, found, err := s.access.Nodes.History(ctx, req.GetName(), since)
	if err != nil {
		return nil, err
	}
	if !found {
		return nil, unknownNode(req.GetName())
	}
	resp := &antipodev1.GetNodeHistoryResponse{}
	for _, sample := range samples {
		resp.Samples = append(resp.Samples, sampleProto(sample))
	}
	return resp, nil
}

// WatchNodes implements the RPC.
func (s *NodeService) WatchNodes(
	_ *antipodev1.WatchNodesRequest, stream grpc.ServerStreamingServer[antipodev1.WatchNodesResponse],
) error {
	ctx := stream.Context()
	id, err := caller(ctx)
	if err != nil {
		return err
	}
	wake, stop := s.access.Nodes.Watch()
	defer stop()
	sent := map[string]seen{}
	for {
		if err := s.sendChanged(ctx, id, stream, sent); err != nil {
			return err
		}
		select {
		case <-wake:
		case <-s.opts.Stopping:
			return status.Error(codes.Unavailable, "the server is stopping")
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// seen is what decides whether a watcher has to hear of a node again.
type seen struct {
	reportedAt time.Time
	state      node.State
}

func (s *NodeService) sendChanged(
	ctx context.Context, id link.Identity, stream grpc.ServerStreamingServer[antipodev1.WatchNodesResponse],
	sent map[string]seen,
) error {
	if err := s.access.Authorize(ctx, "", id); err != nil { // it may have been withdrawn since the last time
		return err
	}
	head, err := s.head.Head(ctx)
	if err != nil {
		return err
	}
	nodes, err := s.visible(ctx, id, head)
	if err != nil {
		return err
	}
	for _, n := range nodes {
		now := seen{reportedAt: n.ReportedAt, state: n.State}
		if before, ok := sent[n.Name]; ok && before == now {
			continue
		}
		if err := stream.Send(&antipodev1.WatchNodesResponse{Node: nodeProto(n)}); err != nil {
			return err
		}
		sent[n.Name] = now
	}
	return nil
}
