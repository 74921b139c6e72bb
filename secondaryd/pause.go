package main

import (
	"fmt"
	"io"

	"github.com/spf13/cobra"

	antipodev1 "github.com/antipode-registry/antipode/gen/antipode/v1"
	"github.com/antipode-registry/antipode/internal/cli"
)

func newPause() *cobra.Command {
	var q query
	return q.flags(&cobra.Command{
		Use:   "pause",
		Short: "Begin nothing new; what is under way is finished, and the cursor keeps moving",
		Args:  cli.Args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			ctx, cancel := cli.Call(cmd.Context())
			defer cancel()
			return q.ask(func(api antipodev1.ReplicationServiceClient) error {
				resp, err := api.Pause(ctx, &antipodev1.PauseRequest{})
				if err != nil {
					return err
				}
				return q.output.Print(cmd.OutOrStdout(), resp, func(w io.Writer) {
					fmt.Fprintln(w, "paused; it stays so over restarts until: secondaryd resume")
				})
			})
		},
	})
}

func newResume() *cobra.Command {
	var q query
	return q.flags(&cobra.Command{
		Use:   "resume",
		Short: "Go on after a pause, and catch up",
		Args:  cli.Args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			ctx, cancel := cli.Call(cmd.Context())
			defer cancel()
			return q.ask(func(api antipodev1.ReplicationServiceClient) error {
				resp, err := api.Resume(ctx, &antipodev1.ResumeRequest{})
				if err != nil {
					return err
				}
				return q.output.Print(cmd.OutOrStdout(), resp, func(w io.Writer) { fmt.Fprintln(w, "running") })
			})
		},
	})
}
