package service_test

import (
	"fmt"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/antipode-registry/antipode/client"
	antipodev1 "github.com/antipode-registry/antipode/gen/antipode/v1"
	"github.com/antipode-registry/antipode/internal/authority"
	"github.com/antipode-registry/antipode/internal/link"
	"github.com/antipode-registry/antipode/primaryd/internal/node"
)

// problems is a list of so many texts of so many bytes.
func problems(count, bytes int) []string {
	list := make([]string, count)
	for i := range list {
		list[i] = strings.Repeat("x", bytes)
	}
	return list
}

// A report of absurd size is refused, with the reason, and the one before it stands.
func TestReportsOfAbsurdSize(t *testing.T) {
	t.Parallel()
	server := startTLS(t, sqlite(t))
	c := antipodev1.NewNodeServiceClient(server.connect(t, identity{authority.Leaf{Role: link.RoleNode, Name: "team"}, siteTeam}))
	report := func(st *antipodev1.NodeStatus) error {
		_, err := c.ReportStatus(deadline(t), &antipodev1.ReportStatusRequest{Status: st})
		return err
	}
	if err := report(&antipodev1.NodeStatus{Version: "good"}); err != nil {
		t.Fatal(err)
	}
	var active []*antipodev1.ActiveSync
	for range 64 {
		active = append(active, &antipodev1.ActiveSync{Repository: strings.Repeat("r", 4096), Replica: "one"})
	}
	for name, test := range map[string]struct {
		status *antipodev1.NodeStatus
		code   codes.Code
		says   string
	}{
		"many problems":  {&antipodev1.NodeStatus{Problems: problems(65, 1)}, codes.InvalidArgument, "more than 64"},
		"a long problem": {&antipodev1.NodeStatus{Problems: problems(1, 4097)}, codes.InvalidArgument, "more than 4096 bytes"},
		"all at its limit": {
			&antipodev1.NodeStatus{Problems: problems(64, 4096), Active: active}, codes.InvalidArgument,
			"and 262144 are taken",
		},
		"a time that is none": {
			&antipodev1.NodeStatus{StartedAt: &timestamppb.Timestamp{Seconds: 1 << 60}},
			codes.InvalidArgument, "invalid status",
		},
		"mebibytes": {&antipodev1.NodeStatus{Problems: problems(64, 20_000)}, codes.ResourceExhausted, "larger than max"},
	} {
		err := report(test.status)
		wantCode(t, name, err, test.code)
		if err == nil || !strings.Contains(err.Error(), test.says) {
			t.Errorf("%s: %v", name, err)
		}
	}
	got, err := c.GetNode(deadline(t), &antipodev1.GetNodeRequest{Name: "team"})
	if err != nil || got.GetNode().GetStatus().GetVersion() != "good" {
		t.Errorf("what is kept: %v %v", got, err)
	}
}

// However much some sites report, all of them are seen in one list.
func TestMuchReportedByManySites(t *testing.T) {
	t.Parallel()
	p := sqlite(t)
	server := startTLS(t, p)
	nodes := []node.Config{{Name: "quiet", Repositories: []string{"**"}}}
	for i := range 20 {
		nodes = append(nodes, node.Config{Name: fmt.Sprintf("loud-%02d", i), Repositories: []string{"**"}})
	}
	p.reconfigure(t, nodes, "ops")
	for _, n := range nodes {
		st := node.Status{Version: "v1", Problems: []string{"little"}}
		if n.Name != "quiet" {
			st.Problems = problems(50, 4096)
		}
		if err := p.nodes.Report(deadline(t), n.Name, st); err != nil {
			t.Fatal(err)
		}
	}
	ops := client.New(server.connect(t, identity{authority.Leaf{Role: link.RoleOperator, Name: "ops"}, operator}))
	all, err := ops.Nodes(deadline(t))
	if err != nil || len(all) != len(nodes) {
		t.Fatalf("%d nodes, %v", len(all), err)
	}
	for _, n := range all {
		st := n.GetStatus()
		if st.GetVersion() != "v1" || len(st.GetProblems()) != 1 || proto.Size(n) > 4096 {
			t.Errorf("%s: %d problems in %d bytes", n.GetName(), len(st.GetProblems()), proto.Size(n))
		}
		if n.GetName() == "quiet" && st.GetProblems()[0] != "little" {
			t.Errorf("the quiet one says %q", st.GetProblems())
		}
	}
}
