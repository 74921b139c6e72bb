package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	antipodev1 "github.com/antipode-registry/antipode/gen/antipode/v1"
	"github.com/antipode-registry/antipode/internal/cli"
)

func newRepositories() *cobra.Command {
	var q query
	var watch cli.Watch
	var state string
	cmd := &cobra.Command{
		Use:   "repositories",
		Short: "The tracked repositories with their states",
		Args:  cli.Args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			filter, ok := antipodev1.RepositoryState_value["REPOSITORY_STATE_"+strings.ToUpper(state)]
			if state != "" && !ok {
				return fmt.Errorf("--state is pending, syncing, synced, failed or held, not %q", state)
			}
			return q.ask(func(api antipodev1.ReplicationServiceClient) error {
				return watch.Run(cmd, func(ctx context.Context, out io.Writer) error {
					all, err := listAll(ctx, api, antipodev1.RepositoryState(filter))
					if err != nil {
						return err
					}
					return q.output.List(out, all, func(w io.Writer) { printRepositories(w, all.GetRepositories()) })
				})
			})
		},
	}
	watch.Flags(cmd)
	cmd.Flags().StringVar(&state, "state", "", "only those that are pending, syncing, synced, failed or held")
	return q.flags(cmd)
}

func listAll(
	ctx context.Context, api antipodev1.ReplicationServiceClient, state antipodev1.RepositoryState,
) (*antipodev1.ReplicationServiceListRepositoriesResponse, error) {
	all := &antipodev1.ReplicationServiceListRepositoriesResponse{}
	for token := ""; ; {
		page, err := api.ListRepositories(ctx, &antipodev1.ReplicationServiceListRepositoriesRequest{
			State: state, PageSize: 1000, PageToken: token,
		})
		if err != nil {
			return nil, err
		}
		all.Repositories = append(all.Repositories, page.GetRepositories()...)
		if token = page.GetNextPageToken(); token == "" {
			return all, nil
		}
	}
}

func printRepositories(w io.Writer, rows []*antipodev1.TrackedRepository) {
	fmt.Fprintln(w, "REPOSITORY\tSTATE\tTAGS\tSYNCED/WANTED\tLAST SYNC\tFAILURES\tWHY")
	for _, row := range rows {
		why := row.GetHeldReason()
		if e := row.GetLastError(); e != nil {
			why = e.GetMessage()
		}
		fmt.Fprintf(w, "%s\t%s\t%d\t%d/%d\t%s\t%d\t%s\n", row.GetName(), stateName(row.GetState()), row.GetTagCount(),
			row.GetSyncedRevision(), row.GetWantedRevision(), cli.Age(row.GetLastSyncedAt().AsTime()), row.GetFailures(), why)
	}
}

func stateName(s antipodev1.RepositoryState) string {
	return strings.ToLower(strings.TrimPrefix(s.String(), "REPOSITORY_STATE_"))
}

func newDiff() *cobra.Command {
	var q query
	var timeout time.Duration
	cmd := &cobra.Command{
		Use:   "diff REPOSITORY",
		Short: "What a sync of a repository would do now; changes nothing",
		Args:  cli.Args(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error {
			ctx, cancel := context.WithTimeout(cmd.Context(), timeout)
			defer cancel()
			return q.ask(func(api antipodev1.ReplicationServiceClient) error {
				stop := q.output.Line(cmd).Follow(ctx, comparing(api, args[0]))
				resp, err := api.DiffRepository(ctx, &antipodev1.DiffRepositoryRequest{Repository: args[0]})
				stop()
				if err != nil {
					return err
				}
				return q.output.Print(cmd.OutOrStdout(), resp, func(w io.Writer) { printDiff(w, resp) })
			})
		},
	}
	cmd.Flags().DurationVar(&timeout, "timeout", 5*time.Minute, "how long to wait for the listings of both sides")
	return q.flags(cmd)
}

// comparing says for how long both sides have been listed, and how much there is to list here.
func comparing(api antipodev1.ReplicationServiceClient, repository string) func(context.Context) (string, error) {
	began, tags := time.Now(), ""
	return func(ctx context.Context) (string, error) {
		if tags == "" {
			resp, err := api.GetRepository(ctx, &antipodev1.GetRepositoryRequest{Repository: repository, JournalSize: 1})
			if tags = " "; err == nil {
				tags = fmt.Sprintf(" (%d tags on this site)", resp.GetRepository().GetTagCount())
			}
		}
		return fmt.Sprintf("listing %s on both sides%s: %s", repository, tags, cli.Duration(time.Since(began).Round(time.Second))), nil
	}
}

func printDiff(w io.Writer, resp *antipodev1.DiffRepositoryResponse) {
	for _, step := range resp.GetSteps() {
		kind := strings.ToLower(strings.TrimPrefix(step.GetKind().String(), "STEP_KIND_"))
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\n", kind, step.GetTag(), orNone(step.GetPreviousDigest()),
			"-> "+orNone(step.GetDigest()), step.GetReason())
	}
	if resp.GetHeldReason() != "" {
		fmt.Fprintf(w, "held: %s\n", resp.GetHeldReason())
	}
	fmt.Fprintf(w, "%d tags are equal, %d differ\n", resp.GetEqualTags(), len(resp.GetSteps()))
}

func orNone(digest string) string {
	if digest == "" {
		return "none"
	}
	return digest
}

func newResync() *cobra.Command {
	var q query
	var all bool
	after := await{doing: "syncing"}
	cmd := &cobra.Command{
		Use:   "resync REPOSITORY | --all",
		Short: "Compare and sync a repository, or all of them, now and completely",
		Args:  cli.Args(cobra.MaximumNArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error {
			if all == (len(args) == 1) {
				return errors.New("name a repository, or give --all")
			}
			req := &antipodev1.ResyncRequest{All: all}
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
				resp, err := api.Resync(ctx, req)
				if err != nil {
					return err
				}
				if err := after.done(ctx, api, q.output.Line(cmd)); err != nil {
					return err
				}
				return q.output.Print(cmd.OutOrStdout(), resp, func(w io.Writer) {
					if after.wait {
						fmt.Fprintf(w, "%d repositories are synced\n", resp.GetRepositories())
						return
					}
					fmt.Fprintf(w, "%d repositories are due now\n", resp.GetRepositories())
				})
			})
		},
	}
	after.flags(cmd)
	cmd.Flags().BoolVar(&all, "all", false, "every tracked repository")
	return q.flags(cmd)
}
