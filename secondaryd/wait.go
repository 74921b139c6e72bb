package main

import (
	"context"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	antipodev1 "github.com/antipode-registry/antipode/gen/antipode/v1"
	"github.com/antipode-registry/antipode/internal/cli"
)

func newWait() *cobra.Command {
	var q query
	var timeout time.Duration
	cmd := &cobra.Command{
		Use:   "wait REPOSITORY:TAG | REPOSITORY@DIGEST",
		Short: "Return when the site has what the primary has: the gate before a deployment; exit code 3 when it does not in time",
		Args:  cli.Args(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error {
			repository, reference, err := cli.Image(args[0])
			if err != nil {
				return err
			}
			ctx, cancel := context.WithTimeout(cmd.Context(), timeout)
			defer cancel()
			return q.ask(func(api antipodev1.ReplicationServiceClient) error {
				stop := q.output.Line(cmd).Follow(ctx, awaiting(api, args[0], repository))
				resp, err := api.Wait(ctx, &antipodev1.WaitRequest{Repository: repository, Reference: reference})
				stop()
				if status.Code(err) == codes.DeadlineExceeded {
					return cli.NotYet(fmt.Errorf("the site does not have what the primary has at %s after %s; see: "+
						"secondaryd explain %s", args[0], timeout, repository))
				}
				if err != nil {
					return err
				}
				return q.output.Print(cmd.OutOrStdout(), resp, func(w io.Writer) {
					fmt.Fprintf(w, "%s is on this site: %s\n", args[0], resp.GetDigest())
				})
			})
		},
	}
	cmd.Flags().DurationVar(&timeout, "timeout", 5*time.Minute, "how long to wait")
	return q.flags(cmd)
}

// awaiting says why an image is not here yet.
func awaiting(api antipodev1.ReplicationServiceClient, image, repository string) func(context.Context) (string, error) {
	var pace cli.Pace
	return func(ctx context.Context) (string, error) {
		resp, err := api.GetRepository(ctx, &antipodev1.GetRepositoryRequest{Repository: repository, JournalSize: 1})
		if status.Code(err) == codes.NotFound {
			return "waiting for " + image + ": this site has not heard of the repository yet", nil
		}
		if err != nil {
			return "", err
		}
		row := resp.GetRepository()
		site, err := api.GetStatus(ctx, &antipodev1.GetStatusRequest{})
		text := copying(site.GetStatus(), repository, &pace)
		if site.GetStatus().GetPaused() {
			text += "; the site is paused"
		}
		if failure := row.GetLastError(); failure != nil {
			text += "; " + failure.GetMessage()
		}
		return fmt.Sprintf("waiting for %s: the repository is %s%s", image, stateName(row.GetState()), text), err
	}
}
