package main

import (
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	antipodev1 "github.com/antipode-registry/antipode/gen/antipode/v1"
	"github.com/antipode-registry/antipode/internal/cli"
)

func newVerify() *cobra.Command {
	var q query
	var all, deep bool
	after := await{doing: "verifying"}
	cmd := &cobra.Command{
		Use:   "verify REPOSITORY | --all",
		Short: "Check every manifest and blob that the site should hold, and copy again what is missing or damaged",
		Args:  cli.Args(cobra.MaximumNArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error {
			if all == (len(args) == 1) {
				return errors.New("name a repository, or give --all")
			}
			req := &antipodev1.VerifyRequest{All: all, Deep: deep}
			if !all {
				req.Repository = args[0]
			}
			after.repository = req.GetRepository()
			ctx, cancel := after.call(cmd.Context())
			defer cancel()
			return q.ask(func(api antipodev1.ReplicationServiceClient) error {
				if err := after.begin(ctx, api); err != nil {
					return err
				}
				resp, err := api.Verify(ctx, req)
				if err != nil {
					return err
				}
				if err := after.done(ctx, api, q.output.Line(cmd)); err != nil {
					return err
				}
				return q.output.Print(cmd.OutOrStdout(), resp, func(w io.Writer) {
					if after.wait {
						fmt.Fprintf(w, "%d repositories are verified, and whole\n", resp.GetRepositories())
						return
					}
					fmt.Fprintf(w, "%d repositories are being verified; see: secondaryd explain REPOSITORY\n", resp.GetRepositories())
				})
			})
		},
	}
	after.flags(cmd)
	cmd.Flags().BoolVar(&all, "all", false, "every tracked repository")
	cmd.Flags().BoolVar(&deep, "deep", false, "read every blob and compare its digest, instead of its size alone")
	return q.flags(cmd)
}

func newRelease() *cobra.Command {
	var q query
	return q.flags(&cobra.Command{
		Use:   "release REPOSITORY",
		Short: "Let the next sync of a held repository remove what the brake withheld; look first: secondaryd diff REPOSITORY",
		Args:  cli.Args(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error {
			ctx, cancel := cli.Call(cmd.Context())
			defer cancel()
			return q.ask(func(api antipodev1.ReplicationServiceClient) error {
				resp, err := api.Release(ctx, &antipodev1.ReleaseRequest{Repository: args[0]})
				if err != nil {
					return err
				}
				return q.output.Print(cmd.OutOrStdout(), resp, func(w io.Writer) {
					fmt.Fprintln(w, "released; what is removed can be brought back with: secondaryd restore", args[0])
				})
			})
		},
	})
}

func newRestore() *cobra.Command {
	var q query
	var forget bool
	cmd := &cobra.Command{
		Use:   "restore REPOSITORY[:TAG]",
		Short: "Bring back removed tags, and keep them until the primary has them again",
		Args:  cli.Args(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error {
			repository, tag, named := strings.Cut(args[0], ":")
			req := &antipodev1.RestoreRequest{Repository: repository, Forget: forget}
			if named {
				req.Tags = []string{tag}
			}
			ctx, cancel := cli.Call(cmd.Context())
			defer cancel()
			return q.ask(func(api antipodev1.ReplicationServiceClient) error {
				resp, err := api.Restore(ctx, req)
				if err != nil {
					return err
				}
				return q.output.Print(cmd.OutOrStdout(), resp, func(w io.Writer) {
					what := "kept from now on"
					if forget {
						what = "no longer kept"
					}
					fmt.Fprintf(w, "%d tags are %s: %s\n", len(resp.GetTags()), what, strings.Join(resp.GetTags(), ", "))
				})
			})
		},
	}
	cmd.Flags().BoolVar(&forget, "forget", false, "undo an earlier restore: follow the primary again")
	return q.flags(cmd)
}
