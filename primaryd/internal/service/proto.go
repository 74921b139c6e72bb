package service

import (
	"time"

	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	antipodev1 "github.com/antipode-registry/antipode/gen/antipode/v1"
	"github.com/antipode-registry/antipode/primaryd/internal/listing"
	"github.com/antipode-registry/antipode/primaryd/internal/node"
)

var stateToProto = map[node.State]antipodev1.NodeState{
	node.Unknown:  antipodev1.NodeState_NODE_STATE_UNKNOWN,
	node.Healthy:  antipodev1.NodeState_NODE_STATE_HEALTHY,
	node.Syncing:  antipodev1.NodeState_NODE_STATE_SYNCING,
	node.Degraded: antipodev1.NodeState_NODE_STATE_DEGRADED,
	node.Paused:   antipodev1.NodeState_NODE_STATE_PAUSED,
	node.Stale:    antipodev1.NodeState_NODE_STATE_STALE,
	node.Promoted: antipodev1.NodeState_NODE_STATE_PROMOTED,
	node.Down:     antipodev1.NodeState_NODE_STATE_DOWN,
}

var sideToProto = map[node.Side]antipodev1.Side{
	node.SidePrimary:     antipodev1.Side_SIDE_PRIMARY,
	node.SideSource:      antipodev1.Side_SIDE_SOURCE,
	node.SideDestination: antipodev1.Side_SIDE_DESTINATION,
	node.SideLocal:       antipodev1.Side_SIDE_LOCAL,
}

func subjectProto(s listing.Subject) *antipodev1.SubjectReferrers {
	p := &antipodev1.SubjectReferrers{Subject: s.Digest}
	for _, r := range s.Referrers {
		p.Referrers = append(p.Referrers, &antipodev1.Referrer{
			Digest: r.Digest, MediaType: r.MediaType, Size: r.Size, ArtifactType: r.ArtifactType, Annotations: r.Annotations,
		})
	}
	return p
}

func nodeProto(n node.Node) *antipodev1.Node {
	p := &antipodev1.Node{
		Name: n.Name, State: stateToProto[n.State], Reasons: n.Reasons, HeadRevision: n.Head,
		LagRevisions: n.LagRevisions, Lag: durationpb.New(n.Lag), ReportedAt: timeProto(n.ReportedAt),
		Subscriptions: int32(min(n.Subscriptions, 1<<30)), //nolint:gosec // G115: bounded
		Repositories:  n.Repositories,
	}
	if n.Status != nil {
		p.Status = statusProto(n.Status)
	}
	return p
}

func sampleProto(s node.Sample) *antipodev1.NodeSample {
	return &antipodev1.NodeSample{
		At: timeProto(s.At), Lag: durationpb.New(s.Lag), LagRevisions: s.LagRevisions, BytesCopied: s.BytesCopied,
		Failed: s.Failed, Held: s.Held,
	}
}

func statusProto(s *node.Status) *antipodev1.NodeStatus {
	p := &antipodev1.NodeStatus{
		Version: s.Version, StartedAt: timeProto(s.StartedAt), Uptime: durationpb.New(s.Uptime), Paused: s.Paused,
		Connected: s.Connected, FeedId: s.FeedID, CursorRevision: s.CursorRevision,
		CursorMovedAt: timeProto(s.CursorMovedAt), HeadRevision: s.HeadRevision,
		PrimaryHeardAt: timeProto(s.PrimaryHeardAt), PromotedAt: timeProto(s.PromotedAt), LagRevisions: s.LagRevisions, Lag: durationpb.New(s.Lag),
		Repositories: &antipodev1.RepositoryCounts{
			Total: s.Repositories.Total, Synced: s.Repositories.Synced, Pending: s.Repositories.Pending,
			Syncing: s.Repositories.Syncing, Failed: s.Repositories.Failed, Held: s.Repositories.Held,
			Verified: s.Repositories.Verified, VerificationFailed: s.Repositories.VerificationFailed,
			SyncedPercentage: s.Repositories.SyncedPercentage, VerifiedPercentage: s.Repositories.VerifiedPercentage,
		},
		RegistryReachable: s.RegistryReachable, DatabaseReachable: s.DatabaseReachable,
		LastSyncedAt: timeProto(s.LastSyncedAt), BytesCopied: s.BytesCopied, Problems: s.Problems,
		CursorChangedAt: timeProto(s.CursorChangedAt), HeadChangedAt: timeProto(s.HeadChangedAt), Incarnation: s.Incarnation,
	}
	if e := s.LastError; e != nil {
		p.LastError = &antipodev1.SyncError{
			Repository: e.Repository, Reference: e.Reference, Side: sideToProto[e.Side], Message: e.Message,
			OccurredAt: timeProto(e.OccurredAt), Attempts: e.Attempts,
		}
	}
	for _, a := range s.Active {
		p.Active = append(p.Active, &antipodev1.ActiveSync{
			Repository: a.Repository, StartedAt: timeProto(a.StartedAt), BytesDone: a.BytesDone, BytesTotal: a.BytesTotal,
			BytesPerSecond: a.BytesPerSecond, Replica: a.Replica,
		})
	}
	for _, r := range s.Replicas {
		p.Replicas = append(p.Replicas, &antipodev1.Replica{
			Name: r.Name, Version: r.Version, StartedAt: timeProto(r.StartedAt), SeenAt: timeProto(r.SeenAt), Leads: r.Leads,
		})
	}
	for _, t := range s.Troubled {
		p.Troubled = append(p.Troubled, &antipodev1.TroubledRepository{
			Name: t.Name, Held: t.Held, Reason: t.Reason, UnsyncedSince: timeProto(t.UnsyncedSince),
			FailedAt: timeProto(t.FailedAt), Failures: t.Failures, NextAttemptAt: timeProto(t.NextAttemptAt),
		})
	}
	return p
}

func statusFromProto(p *antipodev1.NodeStatus) node.Status {
	counts := p.GetRepositories()
	s := node.Status{
		Version: p.GetVersion(), StartedAt: timeFromProto(p.GetStartedAt()), Uptime: p.GetUptime().AsDuration(),
		Paused: p.GetPaused(), Connected: p.GetConnected(), FeedID: p.GetFeedId(), CursorRevision: p.GetCursorRevision(),
		CursorMovedAt: timeFromProto(p.GetCursorMovedAt()), HeadRevision: p.GetHeadRevision(),
		PrimaryHeardAt: timeFromProto(p.GetPrimaryHeardAt()), PromotedAt: timeFromProto(p.GetPromotedAt()), LagRevisions: p.GetLagRevisions(),
		Lag: p.GetLag().AsDuration(),
		Repositories: node.RepositoryCounts{
			Total: counts.GetTotal(), Synced: counts.GetSynced(), Pending: counts.GetPending(),
			Syncing: counts.GetSyncing(), Failed: counts.GetFailed(), Held: counts.GetHeld(),
			Verified: counts.GetVerified(), VerificationFailed: counts.GetVerificationFailed(),
			SyncedPercentage: counts.GetSyncedPercentage(), VerifiedPercentage: counts.GetVerifiedPercentage(),
		},
		RegistryReachable: p.GetRegistryReachable(), DatabaseReachable: p.GetDatabaseReachable(),
		LastSyncedAt: timeFromProto(p.GetLastSyncedAt()), BytesCopied: p.GetBytesCopied(), Problems: p.GetProblems(),
		CursorChangedAt: timeFromProto(p.GetCursorChangedAt()), HeadChangedAt: timeFromProto(p.GetHeadChangedAt()),
		Incarnation: p.GetIncarnation(),
	}
	if e := p.GetLastError(); e != nil {
		s.LastError = &node.SyncError{
			Repository: e.GetRepository(), Reference: e.GetReference(), Side: sideFromProto(e.GetSide()),
			Message: e.GetMessage(), OccurredAt: timeFromProto(e.GetOccurredAt()), Attempts: e.GetAttempts(),
		}
	}
	for _, a := range p.GetActive() {
		s.Active = append(s.Active, node.ActiveSync{
			Repository: a.GetRepository(), StartedAt: timeFromProto(a.GetStartedAt()), BytesDone: a.GetBytesDone(),
			BytesTotal: a.GetBytesTotal(), BytesPerSecond: a.GetBytesPerSecond(), Replica: a.GetReplica(),
		})
	}
	for _, r := range p.GetReplicas() {
		s.Replicas = append(s.Replicas, node.Replica{
			Name: r.GetName(), Version: r.GetVersion(), StartedAt: timeFromProto(r.GetStartedAt()),
			SeenAt: timeFromProto(r.GetSeenAt()), Leads: r.GetLeads(),
		})
	}
	for _, t := range p.GetTroubled() {
		s.Troubled = append(s.Troubled, node.Troubled{
			Name: t.GetName(), Held: t.GetHeld(), Reason: t.GetReason(), UnsyncedSince: timeFromProto(t.GetUnsyncedSince()),
			FailedAt: timeFromProto(t.GetFailedAt()), Failures: t.GetFailures(),
			NextAttemptAt: timeFromProto(t.GetNextAttemptAt()),
		})
	}
	return s
}

func sideFromProto(side antipodev1.Side) node.Side {
	for domain, code := range sideToProto {
		if code == side {
			return domain
		}
	}
	return node.SideUnspecified
}

func timeProto(t time.Time) *timestamppb.Timestamp {
	if t.IsZero() {
		return nil
	}
	return timestamppb.New(t)
}

// timeFromProto keeps an unset time unset: the zero time, not 1970.
func timeFromProto(t *timestamppb.Timestamp) time.Time {
	if t == nil {
		return time.Time{}
	}
	return t.AsTime()
}
