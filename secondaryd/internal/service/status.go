package service

import (
	"context"
	"fmt"
	"slices"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	antipodev1 "github.com/antipode-registry/antipode/gen/antipode/v1"
	"github.com/antipode-registry/antipode/secondaryd/internal/replicate"
	"github.com/antipode-registry/antipode/secondaryd/internal/tracking"
)

// probeTimeout bounds the question whether the registry and the database answer.
const probeTimeout = 3 * time.Second

// What a status names at most, for the primary takes no more: running syncs, processes, and problems of all of them
// together; there is room for a few besides.
const (
	mostActive   = 64
	mostReplicas = 64
	mostProblems = 48
)

// mostTroubled is how many repositories that failed or are held a status names.
const mostTroubled = 20

// StatusSources is where a status comes from; all are required.
type StatusSources struct {
	Version   string
	StartedAt time.Time
	Tracking  *tracking.Store
	// Database and Registry answer whether they can be reached.
	Database, Registry interface {
		Ping(ctx context.Context) error
	}
	// Replica is this process among those of the site.
	Replica interface {
		Name() string
		// Leads says whether this process follows, and Works whether its configuration is in force.
		Leads() bool
		Works() bool
		// Leader names the process that leads, as the database knows it; empty when none does.
		Leader(ctx context.Context) (string, error)
	}
	// Follower says whether this process's subscription is up and, if not, why.
	Follower interface{ Connected() (bool, error) }
	// Engine names what is being synced.
	Engine interface{ Active() []*replicate.Active }
	// Bytes counts what was written to the site's registry.
	Bytes func() int64
}

// Status makes the site's status.
type Status struct{ from StatusSources }

// NewStatus returns a maker of statuses. It is safe for concurrent use.
func NewStatus(from StatusSources) *Status { return &Status{from: from} }

// Make returns the status as of now. What cannot be found out is said in it: it has no other errors.
func (s *Status) Make(ctx context.Context) *antipodev1.NodeStatus {
	st := s.own()
	st.Uptime, st.Repositories = durationpb.New(time.Since(s.from.StartedAt)), &antipodev1.RepositoryCounts{}
	registryErr := ping(ctx, s.from.Registry)
	if st.RegistryReachable = registryErr == nil; registryErr != nil {
		problem(st, "the site's registry does not answer", registryErr)
	}
	err := s.fill(ctx, st)
	if st.DatabaseReachable = err == nil; err != nil {
		problem(st, "the site's database does not answer", err)
	}
	if err == nil && !slices.ContainsFunc(st.GetReplicas(), (*antipodev1.Replica).GetLeads) {
		problem(st, "not connected to the primary: no process leads", nil)
	}
	if n := st.GetRepositories().GetFailed(); n > 0 {
		problem(st, repositories(n)+" failed", nil)
	}
	if n := st.GetRepositories().GetVerificationFailed(); n > 0 {
		problem(st, repositories(n)+" damaged, found by a verification and not mended", nil)
	}
	if n := st.GetRepositories().GetHeld(); n > 0 {
		problem(st, repositories(n)+" held: removals wait for an operator", nil)
	}
	return st
}

func repositories(n int64) string {
	if n == 1 {
		return "1 repository"
	}
	return fmt.Sprintf("%d repositories", n)
}

func problem(st *antipodev1.NodeStatus, what string, err error) {
	if err != nil {
		what += ": " + clip(err.Error())
	}
	st.Problems = append(st.Problems, what)
}

func ping(ctx context.Context, target interface {
	Ping(ctx context.Context) error
},
) error {
	ctx, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	return target.Ping(ctx)
}

// fill adds what the database knows.
func (s *Status) fill(ctx context.Context, st *antipodev1.NodeStatus) error {
	if err := ping(ctx, s.from.Database); err != nil {
		return err
	}
	cursor, err := s.from.Tracking.Cursor(ctx)
	if err != nil {
		return err
	}
	summary, err := s.from.Tracking.Summary(ctx)
	if err != nil {
		return err
	}
	if st.Paused, err = s.from.Tracking.Paused(ctx); err != nil {
		return err
	}
	promoted, err := s.from.Tracking.Promoted(ctx)
	if err != nil {
		return err
	}
	st.PromotedAt = timeProto(promoted)
	st.FeedId, st.CursorRevision, st.HeadRevision = cursor.FeedID, cursor.Revision, cursor.Head
	st.CursorMovedAt, st.PrimaryHeardAt = timeProto(cursor.MovedAt), timeProto(cursor.HeardAt)
	st.Incarnation = cursor.Incarnation
	st.CursorChangedAt, st.HeadChangedAt = timeProto(cursor.ChangedAt), timeProto(cursor.HeadChangedAt)
	st.LastSyncedAt, st.LastError = timeProto(summary.LastSyncedAt), failureProto(summary.LastError)
	st.Repositories = &antipodev1.RepositoryCounts{
		Total: summary.Total, Synced: summary.Counts[tracking.Synced], Pending: summary.Counts[tracking.Pending],
		Syncing: summary.Counts[tracking.Syncing], Failed: summary.Counts[tracking.Failed],
		Held: summary.Counts[tracking.Held], Verified: summary.Verified, VerificationFailed: summary.Damaged,
		SyncedPercentage:   percentage(summary.Counts[tracking.Synced], summary.Total),
		VerifiedPercentage: percentage(summary.Verified, summary.Total),
	}
	st.LagRevisions, st.Lag = lag(cursor, summary)
	// A cursor that has moved but belongs to no feed was taken back: what the counts compare with is not known yet.
	if cursor.FeedID == "" && !cursor.MovedAt.IsZero() {
		problem(st, "the primary's feed was not read since the site started over", nil)
	}
	if err := s.trouble(ctx, st); err != nil {
		return err
	}
	return s.join(ctx, st)
}

// trouble names what an operator may have to look at.
func (s *Status) trouble(ctx context.Context, st *antipodev1.NodeStatus) error {
	troubled, err := s.from.Tracking.Troubled(ctx, mostTroubled)
	for _, row := range troubled {
		st.Troubled = append(st.Troubled, troubledProto(row))
	}
	return err
}

// percentage is 100 of nothing. It is rounded down to a hundredth, so that 100 means all.
func percentage(part, total int64) float64 {
	if total == 0 {
		return 100
	}
	return float64(max(0, part)*10_000/total) / 100
}

// lag is how far the site is behind: in revisions, from below the first one that is not on the site; in time, the age of
// the oldest such change.
func lag(cursor tracking.Cursor, summary tracking.Summary) (int64, *durationpb.Duration) {
	if summary.Counts[tracking.Synced] == summary.Total {
		return max(0, cursor.Head-cursor.Revision), durationpb.New(0)
	}
	age := time.Duration(0)
	if !summary.OldestUnsyncedAt.IsZero() {
		age = max(0, time.Since(summary.OldestUnsyncedAt))
	}
	return max(0, cursor.Head-max(0, summary.LowestUnsynced-1)), durationpb.New(age)
}
