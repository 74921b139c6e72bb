package service

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	antipodev1 "github.com/antipode-registry/antipode/gen/antipode/v1"
	"github.com/antipode-registry/antipode/secondaryd/internal/plan"
	"github.com/antipode-registry/antipode/secondaryd/internal/tracking"
)

const (
	progressEvery   = time.Second
	comparedAtOnce  = 8
	rowsOfPromotion = 64
	// writesEnd is within what running syncs notice that their leases were cut off.
	writesEnd = 30 * time.Second
)

type promotion = grpc.ServerStreamingServer[antipodev1.PromoteResponse]

// Promote implements the RPC.
func (s *ReplicationService) Promote(req *antipodev1.PromoteRequest, stream promotion) error {
	ctx := stream.Context()
	if at, err := s.tracking.Promoted(ctx); err != nil || !at.IsZero() {
		return errors.Join(err, tracking.ErrPromoted)
	}
	var differing map[string]plan.Plan
	active := unfinished(s.engine.Active())
	switch {
	case req.GetPlanned() && req.GetDryRun():
		head, err := s.head(ctx)
		if err != nil {
			return err
		}
		if differing, err = s.differing(ctx, stream, head); err != nil {
			return err
		}
	case req.GetPlanned():
		if err := s.promotePlanned(ctx, stream); err != nil {
			return err
		}
	case !req.GetDryRun():
		if err := s.tracking.Promote(asked(ctx), -1); err != nil {
			return err
		}
	}
	if !req.GetDryRun() {
		s.logger.Warn("the site is promoted: it follows the primary no more", "planned", req.GetPlanned())
		if err := s.untilQuiet(ctx); err != nil {
			return err
		}
	}
	return s.reportPromotion(ctx, stream, !req.GetDryRun(), differing, s.inquire(ctx, active))
}

// promotePlanned returns once the site was equal to the primary's head and is promoted.
//
// The feed alone does not decide: a notification may have been lost. So every repository is compared with a fresh listing
// of the primary's registry, one listing of each side for each repository, and the head must not have moved meanwhile.
func (s *ReplicationService) promotePlanned(ctx context.Context, stream promotion) error {
	for {
		head, err := s.caughtUp(ctx, stream)
		if err != nil {
			return err
		}
		differing, err := s.differing(ctx, stream, head)
		if err != nil {
			return err
		}
		if len(differing) > 0 {
			for name := range differing {
				if _, err := s.tracking.Resync(ctx, name); err != nil {
					return err
				}
			}
			continue
		}
		again, err := s.head(ctx)
		if err != nil {
			return err
		}
		if again == head {
			if err = s.tracking.Promote(asked(ctx), head); !errors.Is(err, tracking.ErrBehind) {
				return err
			}
		}
		if err := s.refuseAtDeadline(ctx, "the primary is still being changed; make its registry read-only first"); err != nil {
			return err
		}
	}
}

// head is the primary's newest revision, from the primary itself.
func (s *ReplicationService) head(ctx context.Context) (int64, error) {
	nodes, err := s.primary.Nodes(ctx)
	if err != nil {
		return 0, status.Errorf(codes.Unavailable, "the primary cannot be asked: %v", err)
	}
	for _, n := range nodes {
		if n.GetName() == s.node {
			return n.GetHeadRevision(), nil
		}
	}
	return 0, status.Errorf(codes.FailedPrecondition, "the primary does not know the site %s", s.node)
}

// caughtUp waits until the cursor is at the primary's head and everything is synced, and returns that head.
func (s *ReplicationService) caughtUp(ctx context.Context, stream promotion) (int64, error) {
	for {
		head, err := s.head(ctx)
		if err != nil {
			return 0, err
		}
		cursor, err := s.tracking.Cursor(ctx)
		if err != nil {
			return 0, err
		}
		summary, err := s.tracking.Summary(ctx)
		if err != nil {
			return 0, err
		}
		unsynced := summary.Total - summary.Counts[tracking.Synced]
		if cursor.Revision >= head && unsynced == 0 {
			return head, nil
		}
		if err := s.inTheWay(ctx, summary); err != nil {
			return 0, err
		}
		if err := sendProgress(stream, &antipodev1.PromoteProgress{
			HeadRevision: head, CursorRevision: cursor.Revision, Unsynced: unsynced, Total: summary.Total,
		}); err != nil {
			return 0, err
		}
		if !rest(ctx, progressEvery) {
			return 0, ctx.Err()
		}
	}
}

// inTheWay is what waiting does not cure, or has not by the caller's deadline.
func (s *ReplicationService) inTheWay(ctx context.Context, summary tracking.Summary) error {
	paused, err := s.tracking.Paused(ctx)
	switch {
	case err != nil:
		return err
	case paused:
		return status.Error(codes.FailedPrecondition, "the site is paused and not equal to the primary; resume it first")
	case summary.Counts[tracking.Held] > 0:
		return status.Errorf(codes.FailedPrecondition,
			"%d repositories withhold removals; release them, or promote without --planned", summary.Counts[tracking.Held])
	case summary.LastError != nil:
		return s.refuseAtDeadline(ctx, fmt.Sprintf("%d repositories fail, %s among them: %s", summary.Counts[tracking.Failed],
			summary.LastError.Repository, clip(summary.LastError.Message)))
	}
	return s.refuseAtDeadline(ctx, "the site is still behind the primary")
}

// refuseAtDeadline says what stands in the way shortly before the caller stops listening; nil before.
func (s *ReplicationService) refuseAtDeadline(ctx context.Context, why string) error {
	if deadline, ok := ctx.Deadline(); ok && time.Until(deadline) < 2*progressEvery {
		return status.Error(codes.FailedPrecondition, "nothing was changed: "+why)
	}
	return ctx.Err()
}

// differing compares every synced repository with a fresh listing of the primary's registry, and returns what a sync would
// do where that is anything.
func (s *ReplicationService) differing(ctx context.Context, stream promotion, head int64) (map[string]plan.Plan, error) {
	summary, err := s.tracking.Summary(ctx)
	if err != nil {
		return nil, err
	}
	progress := &antipodev1.PromoteProgress{
		HeadRevision: head, CursorRevision: head, Total: summary.Total, ToCompare: summary.Counts[tracking.Synced],
		Unsynced: summary.Total - summary.Counts[tracking.Synced],
	}
	differing := map[string]plan.Plan{}
	for after := ""; ; {
		rows, err := s.tracking.List(ctx, tracking.Synced, after, rowsOfPromotion)
		if err != nil || len(rows) == 0 {
			return differing, err
		}
		after = rows[len(rows)-1].Name
		if err := s.compareAll(ctx, rows, differing); err != nil {
			return nil, err
		}
		progress.Compared += int64(len(rows))
		if err := sendProgress(stream, progress); err != nil {
			return nil, err
		}
	}
}

// compareAll compares some repositories, and adds what differs.
func (s *ReplicationService) compareAll(ctx context.Context, rows []tracking.Repository, differing map[string]plan.Plan) error {
	var mu sync.Mutex
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(comparedAtOnce)
	for _, row := range rows {
		group.Go(func() error {
			p, err := s.engine.Diff(ctx, row.Name)
			if err != nil {
				return status.Errorf(codes.Unavailable, "%s cannot be compared with the primary: %v", row.Name, err)
			}
			if unequal(p) {
				mu.Lock()
				defer mu.Unlock()
				differing[row.Name] = p
			}
			return nil
		})
	}
	return group.Wait()
}

func sendProgress(stream promotion, p *antipodev1.PromoteProgress) error {
	return stream.Send(&antipodev1.PromoteResponse{Kind: &antipodev1.PromoteResponse_Progress{
		Progress: proto.CloneOf(p),
	}})
}

// unequal says whether a sync would do anything. What policy keeps is meant to differ.
func unequal(p plan.Plan) bool { return len(p.Copies)+len(p.Removals) > 0 || p.Held != "" }

// untilQuiet returns when this process writes nothing more to the site's registry.
func (s *ReplicationService) untilQuiet(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, writesEnd)
	defer cancel()
	for len(s.engine.Active()) > 0 {
		if !rest(ctx, leastLook) {
			return status.Error(codes.Unavailable, "the site is promoted, but syncs that had begun did not end yet; "+
				"wait half a minute before pushing to it")
		}
	}
	return nil
}

// Demote implements the RPC.
func (s *ReplicationService) Demote(ctx context.Context, _ *antipodev1.DemoteRequest) (*antipodev1.DemoteResponse, error) {
	if err := s.tracking.Demote(asked(ctx)); err != nil {
		return nil, err
	}
	s.logger.Warn("the site is demoted: it follows the primary again, and compares everything anew")
	return &antipodev1.DemoteResponse{}, nil
}
