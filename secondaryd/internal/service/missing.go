package service

import (
	"context"
	"time"

	"golang.org/x/sync/errgroup"
	"google.golang.org/protobuf/types/known/durationpb"

	antipodev1 "github.com/antipode-registry/antipode/gen/antipode/v1"
	"github.com/antipode-registry/antipode/secondaryd/internal/plan"
	"github.com/antipode-registry/antipode/secondaryd/internal/tracking"
)

// reportPromotion sends what may be missing: every repository that is not synced, and those found to differ, each with the
// tags in which it does, as far as can be told.
func (s *ReplicationService) reportPromotion(
	ctx context.Context, stream promotion, promoted bool, differing map[string]plan.Plan, q *inquiry,
) error {
	cursor, err := s.tracking.Cursor(ctx)
	if err != nil {
		return err
	}
	report := &antipodev1.PromoteReport{
		Promoted: promoted, CursorRevision: cursor.Revision, HeadRevision: cursor.Head,
		PrimaryHeardAt: timeProto(cursor.HeardAt), Lag: durationpb.New(0),
	}
	var oldest time.Time
	for after := ""; ; {
		rows, err := s.tracking.List(ctx, "", after, rowsOfPromotion)
		if err != nil {
			return err
		}
		if len(rows) == 0 {
			break
		}
		after = rows[len(rows)-1].Name
		behind := rows[:0]
		for _, row := range rows {
			if _, differs := differing[row.Name]; row.State == tracking.Synced && !differs {
				continue
			}
			if at := row.OldestUnsyncedAt; !at.IsZero() && (oldest.IsZero() || at.Before(oldest)) {
				oldest = at
			}
			behind = append(behind, row)
		}
		report.Behind += int64(len(behind))
		if err := tell(ctx, stream, behind, differing, q); err != nil {
			return err
		}
	}
	if !oldest.IsZero() {
		report.Lag = durationpb.New(max(0, time.Since(oldest)))
	}
	report.ComparedWith, report.PrimaryProblem = q.outcome()
	return stream.Send(&antipodev1.PromoteResponse{Kind: &antipodev1.PromoteResponse_Report{Report: report}})
}

// tell sends repositories that may lack changes, in their order, each with its tags.
func tell(
	ctx context.Context, stream promotion, rows []tracking.Repository, differing map[string]plan.Plan, q *inquiry,
) error {
	found := make([][]*antipodev1.UnsyncedTags, len(rows))
	group, groupCtx := errgroup.WithContext(ctx)
	group.SetLimit(comparedAtOnce)
	for i, row := range rows {
		group.Go(func() (err error) {
			if p, known := differing[row.Name]; known {
				found[i] = pages(row.Name, comparedTags(p), true, "")
				return nil
			}
			found[i], err = q.tags(groupCtx, row)
			return err
		})
	}
	if err := group.Wait(); err != nil {
		return err
	}
	for i, row := range rows {
		behind := &antipodev1.PromoteResponse_Behind{Behind: repositoryProto(row)}
		if err := stream.Send(&antipodev1.PromoteResponse{Kind: behind}); err != nil {
			return err
		}
		for _, tags := range found[i] {
			kind := &antipodev1.PromoteResponse_Tags{Tags: tags}
			if err := stream.Send(&antipodev1.PromoteResponse{Kind: kind}); err != nil {
				return err
			}
		}
	}
	return nil
}
