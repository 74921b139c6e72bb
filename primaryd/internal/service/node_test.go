package service_test

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/testing/protocmp"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	antipodev1 "github.com/antipode-registry/antipode/gen/antipode/v1"
)

// full is a status with every field set.
func full() *antipodev1.NodeStatus {
	at := func(seconds int64) *timestamppb.Timestamp { return &timestamppb.Timestamp{Seconds: seconds} }
	return &antipodev1.NodeStatus{
		Version: "v2", StartedAt: at(1), Uptime: durationpb.New(time.Minute), Paused: true, Connected: true, FeedId: "f",
		CursorRevision: 2, CursorMovedAt: at(3), HeadRevision: 4, PrimaryHeardAt: at(5), PromotedAt: at(15), LagRevisions: 6,
		Lag: durationpb.New(7), RegistryReachable: true, DatabaseReachable: true, LastSyncedAt: at(8), BytesCopied: 9,
		Repositories: &antipodev1.RepositoryCounts{
			Total: 15, Synced: 1, Pending: 2, Syncing: 3, Failed: 4, Held: 5,
			Verified: 6, VerificationFailed: 7, SyncedPercentage: 6.7, VerifiedPercentage: 40,
		},
		Problems: []string{"disk full"},
		LastError: &antipodev1.SyncError{
			Repository: "a", Reference: "v1", Side: antipodev1.Side_SIDE_SOURCE, Message: "no", OccurredAt: at(10), Attempts: 11,
		},
		Active:          []*antipodev1.ActiveSync{{Repository: "a", StartedAt: at(12), BytesDone: 13, BytesTotal: 14, BytesPerSecond: 16, Replica: "one/1"}},
		CursorChangedAt: at(17), HeadChangedAt: at(18), Incarnation: "incarnation-1",
		Replicas: []*antipodev1.Replica{{Name: "one/1", Version: "v1", StartedAt: at(19), SeenAt: at(20), Leads: true}},
		Troubled: []*antipodev1.TroubledRepository{{
			Name: "a", Held: true, Reason: "too many", UnsyncedSince: at(16), FailedAt: at(17), Failures: 18, NextAttemptAt: at(19),
		}},
	}
}

func TestReportedStatusComesBackWhole(t *testing.T) {
	t.Parallel()
	p := sqlite(t)
	c := p.run(t)
	sent := full()
	message := sent.ProtoReflect()
	for i := range message.Descriptor().Fields().Len() {
		if field := message.Descriptor().Fields().Get(i); !message.Has(field) {
			t.Errorf("the test does not set %s", field.Name())
		}
	}
	for _, want := range []*antipodev1.NodeStatus{sent, {Repositories: &antipodev1.RepositoryCounts{}}} {
		resp, err := c.nodes.ReportStatus(as(deadline(t), "node/eu"), &antipodev1.ReportStatusRequest{Status: want})
		if err != nil || resp.GetNextReportWithin().AsDuration() != interval {
			t.Fatal(resp, err)
		}
		got, err := c.nodes.GetNode(as(deadline(t), "node/eu"), &antipodev1.GetNodeRequest{Name: "eu"})
		if err != nil {
			t.Fatal(err)
		}
		// Unset durations come back as zero.
		if want.GetUptime() == nil {
			want.Uptime, want.Lag = durationpb.New(0), durationpb.New(0)
		}
		if diff := cmp.Diff(want, got.GetNode().GetStatus(), protocmp.Transform()); diff != "" {
			t.Error(diff)
		}
	}
}

func TestReportRefusals(t *testing.T) {
	t.Parallel()
	c := sqlite(t).run(t)
	tests := map[string]struct {
		identity string
		req      *antipodev1.ReportStatusRequest
		want     codes.Code
	}{
		"as itself":   {"node/eu", &antipodev1.ReportStatusRequest{Node: "eu", Status: full()}, codes.OK},
		"as another":  {"node/eu", &antipodev1.ReportStatusRequest{Node: "team", Status: full()}, codes.PermissionDenied},
		"an operator": {"operator/ops", &antipodev1.ReportStatusRequest{Status: full()}, codes.PermissionDenied},
		"the primary": {"primary/primary", &antipodev1.ReportStatusRequest{Status: full()}, codes.PermissionDenied},
		"nothing":     {"node/eu", &antipodev1.ReportStatusRequest{}, codes.InvalidArgument},
		"too long a text": {"node/eu", &antipodev1.ReportStatusRequest{
			Status: &antipodev1.NodeStatus{Version: strings.Repeat("x", 5000)},
		}, codes.InvalidArgument},
		"too long a reason": {"node/eu", &antipodev1.ReportStatusRequest{
			Status: &antipodev1.NodeStatus{Troubled: []*antipodev1.TroubledRepository{{Reason: strings.Repeat("x", 5000)}}},
		}, codes.InvalidArgument},
		"too many in trouble": {"node/eu", &antipodev1.ReportStatusRequest{
			Status: &antipodev1.NodeStatus{Troubled: make([]*antipodev1.TroubledRepository, 65)},
		}, codes.InvalidArgument},
	}
	for name, test := range tests {
		if _, err := c.nodes.ReportStatus(as(deadline(t), test.identity), test.req); status.Code(err) != test.want {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestNodesSeeThemselvesAlone(t *testing.T) {
	t.Parallel()
	p := sqlite(t)
	head := p.push(t, "a", "b")
	c := p.run(t)
	for identity, want := range map[string][]string{
		"operator/ops": {"eu", "team"}, "primary/primary": {"eu", "team"}, "node/eu": {"eu"}, "node/team": {"team"},
	} {
		resp, err := c.nodes.ListNodes(as(deadline(t), identity), &antipodev1.ListNodesRequest{})
		if err != nil || resp.GetHeadRevision() != head {
			t.Error(resp, err)
		}
		var got []string
		for _, n := range resp.GetNodes() {
			got = append(got, n.GetName())
			if n.GetState() != antipodev1.NodeState_NODE_STATE_UNKNOWN || n.GetReportedAt() != nil || n.GetStatus() != nil {
				t.Errorf("never reported: %v", n)
			}
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s: %s", identity, diff)
		}
	}
	for _, test := range []struct {
		identity, name string
		want           codes.Code
	}{
		{"operator/ops", "eu", codes.OK},
		{"operator/ops", "none", codes.NotFound},
		{"operator/ops", "", codes.InvalidArgument},
		{"node/eu", "eu", codes.OK},
		{"node/eu", "team", codes.PermissionDenied},
		{"node/eu", "none", codes.PermissionDenied},
	} {
		got, err := c.nodes.GetNode(as(deadline(t), test.identity), &antipodev1.GetNodeRequest{Name: test.name})
		if status.Code(err) != test.want || err == nil && got.GetNode().GetName() != test.name {
			t.Errorf("%+v: %v, %v", test, got, err)
		}
	}
}

type watcher struct {
	grpc.ServerStreamingClient[antipodev1.WatchNodesResponse]
}

func watch(t *testing.T, c api, identity string) watcher {
	t.Helper()
	stream, err := c.nodes.WatchNodes(as(t.Context(), identity), &antipodev1.WatchNodesRequest{})
	if err != nil {
		t.Fatal(err)
	}
	return watcher{stream}
}

// expect reads nodes as "name state".
func (w watcher) expect(t *testing.T, want ...string) {
	t.Helper()
	for _, want := range want {
		resp, err := w.Recv()
		if err != nil {
			t.Fatal(err)
		}
		state := strings.ToLower(strings.TrimPrefix(resp.GetNode().GetState().String(), "NODE_STATE_"))
		if got := resp.GetNode().GetName() + " " + state; got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}

func TestWatchNodes(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		p := sqlite(t)
		c, stop := p.serve()
		defer stop()
		report := func(node string, status *antipodev1.NodeStatus) {
			t.Helper()
			_, err := c.nodes.ReportStatus(as(t.Context(), "node/"+node), &antipodev1.ReportStatusRequest{Status: status})
			if err != nil {
				t.Fatal(err)
			}
		}
		healthy := &antipodev1.NodeStatus{Connected: true, RegistryReachable: true, DatabaseReachable: true}
		report("eu", healthy)
		all, own := watch(t, c, "operator/ops"), watch(t, c, "node/team")
		all.expect(t, "eu healthy", "team unknown")
		own.expect(t, "team unknown")
		<-time.After(time.Second)
		report("team", healthy)
		all.expect(t, "team healthy")
		own.expect(t, "team healthy") // and never anything of eu
		<-time.After(time.Second)
		report("eu", &antipodev1.NodeStatus{Connected: true, RegistryReachable: false, DatabaseReachable: true})
		all.expect(t, "eu degraded")
		// Time alone: three missed reports, then five minutes.
		all.expect(t, "team stale", "eu stale", "team down", "eu down")
		own.expect(t, "team stale", "team down")
	})
}

func TestNodeHistory(t *testing.T) {
	t.Parallel()
	c := sqlite(t).run(t)
	for _, bytes := range []int64{100, 350} {
		report := &antipodev1.ReportStatusRequest{Status: &antipodev1.NodeStatus{
			StartedAt: timestamppb.New(time.Unix(1, 0)), BytesCopied: bytes, LagRevisions: 3,
			Lag: durationpb.New(5 * time.Second), Repositories: &antipodev1.RepositoryCounts{Failed: 1, Held: 2},
		}}
		if _, err := c.nodes.ReportStatus(as(deadline(t), "node/eu"), report); err != nil {
			t.Fatal(err)
		}
	}
	ask := func(since time.Duration) (*antipodev1.GetNodeHistoryResponse, error) {
		return c.nodes.GetNodeHistory(as(deadline(t), "operator/ops"),
			&antipodev1.GetNodeHistoryRequest{Name: "eu", Since: durationpb.New(since)})
	}
	resp, err := ask(0)
	if err != nil {
		t.Fatal(err)
	}
	// The two reports may fall into two minutes.
	last := resp.GetSamples()[len(resp.GetSamples())-1]
	want := &antipodev1.NodeSample{
		At: last.GetAt(), Lag: durationpb.New(5 * time.Second), LagRevisions: 3, BytesCopied: 250, Failed: 1, Held: 2,
	}
	if diff := cmp.Diff(want, last, protocmp.Transform()); diff != "" || last.GetAt().AsTime().Second() != 0 {
		t.Error(diff, last.GetAt())
	}
	if _, err := ask(-time.Second); status.Code(err) != codes.InvalidArgument {
		t.Errorf("a negative time: %v", err)
	}
}
