package main

import (
	"context"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"
	"google.golang.org/grpc"

	antipodev1 "github.com/antipode-registry/antipode/gen/antipode/v1"
	"github.com/antipode-registry/antipode/internal/cli"
)

// query is a command that asks the running daemon.
type query struct {
	config string
	target cli.Target
	output cli.Output
}

func (q *query) flags(cmd *cobra.Command) {
	configFlag(cmd, &q.config)
	q.target.Flags(cmd)
	q.output.Flags(cmd)
}

func (q *query) connect() (*grpc.ClientConn, error) {
	if err := q.output.Check(); err != nil {
		return nil, err
	}
	cfg, err := loadSettings(q.config)
	if err != nil {
		return nil, err
	}
	return q.target.Connect(cfg.GRPC.Listen, cfg.GRPC.CertFile, cfg.GRPC.KeyFile, userAgent())
}

func newNodes() *cobra.Command {
	var q query
	var watch cli.Watch
	cmd := &cobra.Command{
		Use:   "nodes [NAME]",
		Short: "How the sites are, as they last reported",
		Args:  cli.Args(cobra.MaximumNArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error {
			conn, err := q.connect()
			if err != nil {
				return err
			}
			defer func() { _ = conn.Close() }()
			api := antipodev1.NewNodeServiceClient(conn)
			return watch.Run(cmd, func(ctx context.Context, out io.Writer) error {
				if len(args) == 1 {
					return q.showNode(ctx, out, api, args[0])
				}
				return q.showNodes(ctx, out, api)
			})
		},
	}
	q.flags(cmd)
	watch.Flags(cmd)
	cli.CompleteArgument(cmd, q.nodeNames)
	return cmd
}

func (q *query) showNode(ctx context.Context, out io.Writer, api antipodev1.NodeServiceClient, name string) error {
	resp, err := api.GetNode(ctx, &antipodev1.GetNodeRequest{Name: name})
	if err != nil {
		return err
	}
	return q.output.Print(out, resp.GetNode(), func(w io.Writer) { printNode(w, resp.GetNode()) })
}

func (q *query) showNodes(ctx context.Context, out io.Writer, api antipodev1.NodeServiceClient) error {
	resp, err := api.ListNodes(ctx, &antipodev1.ListNodesRequest{})
	if err != nil {
		return err
	}
	return q.output.List(out, resp, func(w io.Writer) { printNodes(w, resp.GetNodes()) })
}

// nodeNames asks the daemon, for the shell's completion; nothing where it does not answer.
func (q *query) nodeNames(cmd *cobra.Command) (names []string) {
	conn, err := q.connect()
	if err != nil {
		return nil
	}
	defer func() { _ = conn.Close() }()
	ctx, cancel := cli.Brief(cmd.Context())
	defer cancel()
	resp, err := antipodev1.NewNodeServiceClient(conn).ListNodes(ctx, &antipodev1.ListNodesRequest{})
	if err != nil {
		return nil
	}
	for _, n := range resp.GetNodes() {
		names = append(names, n.GetName())
	}
	return names
}

func printNodes(w io.Writer, nodes []*antipodev1.Node) {
	fmt.Fprintln(w, "NODE\tSTATE\tLAG\tCURSOR/HEAD\tSYNCED\tPENDING\tSYNCING\tFAILED\tHELD\tREPORTED\tWHY")
	for _, n := range nodes {
		counts := n.GetStatus().GetRepositories()
		fmt.Fprintf(w, "%s\t%s\t%s\t%d/%d\t%d/%d\t%d\t%d\t%d\t%d\t%s\t%s\n",
			n.GetName(), stateName(n.GetState()), cli.Duration(n.GetLag().AsDuration()),
			n.GetStatus().GetCursorRevision(), n.GetHeadRevision(), counts.GetSynced(), counts.GetTotal(),
			counts.GetPending(), counts.GetSyncing(), counts.GetFailed(), counts.GetHeld(),
			cli.Age(n.GetReportedAt().AsTime()), strings.Join(n.GetReasons(), "; "))
	}
}

func printNode(w io.Writer, n *antipodev1.Node) {
	s := n.GetStatus()
	counts := s.GetRepositories()
	row := func(name, format string, args ...any) { fmt.Fprintf(w, name+"\t"+format+"\n", args...) }
	row("node", "%s", n.GetName())
	row("state", "%s", stateName(n.GetState()))
	for _, reason := range n.GetReasons() {
		row("because", "%s", reason)
	}
	row("lag", "%s, %d revisions", cli.Duration(n.GetLag().AsDuration()), n.GetLagRevisions())
	row("cursor", "%d of %d, moved %s; the newest change it heard of happened %s", s.GetCursorRevision(), n.GetHeadRevision(),
		cli.Age(s.GetCursorMovedAt().AsTime()), cli.Age(s.GetHeadChangedAt().AsTime()))
	row("repositories", "%d: %d synced, %d pending, %d syncing, %d failed, %d held", counts.GetTotal(), counts.GetSynced(),
		counts.GetPending(), counts.GetSyncing(), counts.GetFailed(), counts.GetHeld())
	row("synced", "%.2f%%, the last one %s", counts.GetSyncedPercentage(), cli.Age(s.GetLastSyncedAt().AsTime()))
	row("verified", "%d (%.2f%%), %d found damaged", counts.GetVerified(), counts.GetVerifiedPercentage(),
		counts.GetVerificationFailed())
	row("reported", "%s", cli.Age(n.GetReportedAt().AsTime()))
	row("version", "%s, up %s", s.GetVersion(), cli.Duration(s.GetUptime().AsDuration()))
	row("reachable", "subscribed %t, registry %t, database %t", s.GetConnected(), s.GetRegistryReachable(), s.GetDatabaseReachable())
	for _, a := range s.GetActive() {
		row("syncing", "%s since %s, %s of %s, %s a second", a.GetRepository(), cli.Age(a.GetStartedAt().AsTime()),
			cli.Bytes(a.GetBytesDone()), cli.Bytes(a.GetBytesTotal()), cli.Bytes(a.GetBytesPerSecond()))
	}
	if e := s.GetLastError(); e != nil {
		row("last error", "%s", e.GetMessage())
		row("", "%s, attempt %d, %s; on the site: secondaryd explain %s", e.GetRepository(), e.GetAttempts(),
			cli.Age(e.GetOccurredAt().AsTime()), e.GetRepository())
	}
	row("granted", "%s", strings.Join(n.GetRepositories(), ", "))
}

func stateName(s antipodev1.NodeState) string {
	return strings.ToLower(strings.TrimPrefix(s.String(), "NODE_STATE_"))
}
