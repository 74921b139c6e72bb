package doctor

import (
	"context"
	"strings"

	antipodev1 "github.com/antipode-registry/antipode/gen/antipode/v1"
	"github.com/antipode-registry/antipode/internal/checkup"
)

// checkNodes looks at the sites, as they last reported.
func (e *examination) checkNodes(ctx context.Context) {
	ctx, cancel := checkup.Within(ctx)
	defer cancel()
	nodes, err := e.client.Nodes(ctx)
	switch {
	case err != nil:
		e.report.Fail("nodes", "look into the daemon's log", "%v", err)
	case len(nodes) == 0:
		e.report.Warn("nodes", "add each site to `nodes`", "there are none in the configuration: nothing is replicated")
	}
	for _, n := range nodes {
		e.checkNode(n)
	}
}

func (e *examination) checkNode(n *antipodev1.Node) {
	check := "node " + n.GetName()
	reasons := strings.Join(n.GetReasons(), "; ")
	switch n.GetState() {
	case antipodev1.NodeState_NODE_STATE_UNKNOWN:
		e.report.Warn(check, "start its secondaryd; secondaryd doctor there says what keeps it from here", "it has never reported")
		return
	case antipodev1.NodeState_NODE_STATE_STALE, antipodev1.NodeState_NODE_STATE_DOWN:
		e.report.Fail(check, "secondaryd doctor there says what keeps it from here", "%s", reasons)
		return
	case antipodev1.NodeState_NODE_STATE_DEGRADED, antipodev1.NodeState_NODE_STATE_PAUSED:
		e.report.Warn(check, "see primaryd nodes "+n.GetName()+", and secondaryd doctor there", "%s", reasons)
	default:
		e.report.OK(check, "%s, runs %s", strings.ToLower(strings.TrimPrefix(n.GetState().String(), "NODE_STATE_")),
			n.GetStatus().GetVersion())
	}
	if theirs := n.GetStatus().GetVersion(); theirs != e.Version {
		e.report.Warn(check, "bring both ends to the same version", "it runs %s, this is %s", theirs, e.Version)
	}
}
