package main

import (
	"context"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	antipodev1 "github.com/antipode-registry/antipode/gen/antipode/v1"
	"github.com/antipode-registry/antipode/internal/cli"
)

func newPromote() *cobra.Command {
	var q query
	req := &antipodev1.PromoteRequest{}
	var timeout time.Duration
	cmd := &cobra.Command{
		Use:   "promote",
		Short: "Stop following the primary for good, so that the site's registry can be pushed to; says what may be missing",
		Args:  cli.Args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			ctx, cancel := context.WithTimeout(cmd.Context(), timeout)
			defer cancel()
			return q.ask(func(api antipodev1.ReplicationServiceClient) error {
				stream, err := api.Promote(ctx, req)
				if err != nil {
					return err
				}
				line := q.output.Line(cmd)
				result, err := readPromotion(stream, promoting(line))
				line.Clear()
				if err != nil {
					return err
				}
				return q.output.Print(cmd.OutOrStdout(), result, func(w io.Writer) { printPromotion(w, req, result) })
			})
		},
	}
	cmd.Flags().BoolVar(&req.Planned, "planned", false, "wait first until the site equals the primary, and change nothing if it cannot")
	cmd.Flags().BoolVar(&req.DryRun, "dry-run", false, "change nothing: say what a promotion now would come to")
	cmd.Flags().DurationVar(&timeout, "timeout", 10*time.Minute, "how long to wait")
	return q.flags(cmd)
}

// promoting shows how far a planned promotion is.
func promoting(line *cli.Line) func(*antipodev1.PromoteProgress) {
	var syncs, comparisons cli.Pace
	return func(p *antipodev1.PromoteProgress) {
		if p.GetToCompare() > 0 {
			line.Show("comparing with the primary's registry: %d of %d repositories%s", p.GetCompared(), p.GetToCompare(),
				comparisons.Left(p.GetCompared(), p.GetToCompare()))
			return
		}
		synced := p.GetTotal() - p.GetUnsynced()
		line.Show("waiting until the site equals the primary: revision %d of %d, %d of %d repositories synced%s",
			p.GetCursorRevision(), p.GetHeadRevision(), synced, p.GetTotal(), syncs.Left(synced, p.GetTotal()))
	}
}

func newDemote() *cobra.Command {
	var q query
	return q.flags(&cobra.Command{
		Use:   "demote",
		Short: "Follow the primary again after a promotion; everything is compared anew, and removals are braked as ever",
		Args:  cli.Args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			ctx, cancel := cli.Call(cmd.Context())
			defer cancel()
			return q.ask(func(api antipodev1.ReplicationServiceClient) error {
				resp, err := api.Demote(ctx, &antipodev1.DemoteRequest{})
				if err != nil {
					return err
				}
				return q.output.Print(cmd.OutOrStdout(), resp, func(w io.Writer) {
					fmt.Fprintln(w, "the site follows its primary again and compares everything anew; what only the site has is "+
						"removed unless deletions.keep_stray or a brake keeps it: see secondaryd repositories")
				})
			})
		},
	})
}
