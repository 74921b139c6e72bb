package main

import (
	"context"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	antipodev1 "github.com/antipode-registry/antipode/gen/antipode/v1"
	"github.com/antipode-registry/antipode/internal/cli"
)

func newStatus() *cobra.Command {
	var q query
	var watch cli.Watch
	cmd := &cobra.Command{
		Use:   "status",
		Short: "How this site is",
		Args:  cli.Args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return q.ask(func(api antipodev1.ReplicationServiceClient) error {
				return watch.Run(cmd, func(ctx context.Context, out io.Writer) error {
					resp, err := api.GetStatus(ctx, &antipodev1.GetStatusRequest{})
					if err != nil {
						return err
					}
					return q.output.Print(out, resp, func(w io.Writer) { printStatus(w, resp) })
				})
			})
		},
	}
	watch.Flags(cmd)
	return q.flags(cmd)
}

func printStatus(w io.Writer, resp *antipodev1.GetStatusResponse) {
	s := resp.GetStatus()
	counts := s.GetRepositories()
	row := func(name, format string, args ...any) { fmt.Fprintf(w, name+"\t"+format+"\n", args...) }
	row("node", "%s", resp.GetNode())
	row("state", "%s", stateOf(s))
	for _, problem := range s.GetProblems() {
		row("problem", "%s", problem)
	}
	row("lag", "%s, %d revisions", cli.Duration(s.GetLag().AsDuration()), s.GetLagRevisions())
	row("cursor", "%d of %d, moved %s; primary heard %s", s.GetCursorRevision(), s.GetHeadRevision(),
		cli.Age(s.GetCursorMovedAt().AsTime()), cli.Age(s.GetPrimaryHeardAt().AsTime()))
	row("repositories", "%d: %d synced, %d pending, %d syncing, %d failed, %d held", counts.GetTotal(), counts.GetSynced(),
		counts.GetPending(), counts.GetSyncing(), counts.GetFailed(), counts.GetHeld())
	row("verified", "%d (%.2f%%), %d found damaged", counts.GetVerified(), counts.GetVerifiedPercentage(),
		counts.GetVerificationFailed())
	row("last sync", "%s", cli.Age(s.GetLastSyncedAt().AsTime()))
	row("reachable", "primary %t, registry %t, database %t", s.GetConnected(), s.GetRegistryReachable(), s.GetDatabaseReachable())
	row("version", "%s, up %s", s.GetVersion(), cli.Duration(s.GetUptime().AsDuration()))
	if e := s.GetLastError(); e != nil {
		row("last error", "%s", e.GetMessage())
		row("", "%s, attempt %d, %s; see: secondaryd explain %s", e.GetRepository(), e.GetAttempts(),
			cli.Age(e.GetOccurredAt().AsTime()), e.GetRepository())
	}
	for _, a := range s.GetActive() {
		row("syncing", "%s since %s, %s of %s, %s a second", a.GetRepository(), cli.Age(a.GetStartedAt().AsTime()),
			cli.Bytes(a.GetBytesDone()), cli.Bytes(a.GetBytesTotal()), cli.Bytes(a.GetBytesPerSecond()))
	}
	if len(s.GetReplicas()) < 2 {
		return
	}
	for _, r := range s.GetReplicas() {
		does := "syncs"
		if r.GetLeads() {
			does = "leads"
		}
		row("process", "%s %s, version %s, seen %s", r.GetName(), does, r.GetVersion(), cli.Age(r.GetSeenAt().AsTime()))
	}
}

func stateOf(s *antipodev1.NodeStatus) string {
	counts := s.GetRepositories()
	switch {
	case s.GetPromotedAt() != nil:
		return "promoted " + cli.Age(s.GetPromotedAt().AsTime()) + "; follow the primary again with: secondaryd demote"
	case s.GetPaused():
		return "paused; go on with: secondaryd resume"
	case len(s.GetProblems()) > 0:
		return "degraded"
	case counts.GetPending()+counts.GetSyncing() > 0:
		return "syncing"
	}
	return "healthy"
}
