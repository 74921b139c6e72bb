package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

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
	return q.flags(&cobra.Command{
		Use:   "diff REPOSITORY",
		Short: "What a sync of a repository would do now; changes nothing",
		Args:  cli.Args(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error {
			ctx, cancel := cli.Call(cmd.Context())
			defer cancel()
			return q.ask(func(api antipodev1.ReplicationServiceClient) error {
				resp, err := api.DiffRepository(ctx, &antipodev1.DiffRepositoryRequest{Repository: args[0]})
				if err != nil {
					return err
				}
				return q.output.Print(cmd.OutOrStdout(), resp, func(w io.Writer) { printDiff(w, resp) })
			})
		},
	})
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

func newExplain() *cobra.Command {
	var q query
	var size int32
	cmd := &cobra.Command{
		Use:   "explain REPOSITORY[:TAG]",
		Short: "What this site did with a repository, or with one of its tags, and why, in order",
		Args:  cli.Args(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error {
			repository, tag, _ := strings.Cut(args[0], ":")
			ctx, cancel := cli.Call(cmd.Context())
			defer cancel()
			return q.ask(func(api antipodev1.ReplicationServiceClient) error {
				resp, err := api.GetRepository(ctx, &antipodev1.GetRepositoryRequest{Repository: repository, JournalSize: size})
				if err != nil {
					return err
				}
				resp.Journal = about(resp.GetJournal(), tag)
				slices.Reverse(resp.Journal) // a story is told from its beginning
				return q.output.Print(cmd.OutOrStdout(), resp, func(w io.Writer) { printStory(w, resp) })
			})
		},
	}
	cmd.Flags().Int32Var(&size, "last", 500, "how many entries of the repository's journal to look at, 500 at most")
	return q.flags(cmd)
}

// about keeps the entries about a tag and those about the repository as a whole.
func about(entries []*antipodev1.JournalEntry, tag string) []*antipodev1.JournalEntry {
	if tag == "" {
		return entries
	}
	var kept []*antipodev1.JournalEntry
	for _, e := range entries {
		if e.GetReference() == tag || e.GetReference() == "" {
			kept = append(kept, e)
		}
	}
	return kept
}

func printStory(w io.Writer, resp *antipodev1.GetRepositoryResponse) {
	printRepositories(w, []*antipodev1.TrackedRepository{resp.GetRepository()})
	fmt.Fprintln(w, "\nWHEN\tWHAT\tREFERENCE\tDIGEST\tBEFORE\tDETAIL")
	for _, e := range resp.GetJournal() {
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\n", e.GetAt().AsTime().Local().Format("2006-01-02 15:04:05.000"),
			e.GetAction(), shortReference(e.GetReference()), short(e.GetDigest()), short(e.GetPreviousDigest()), e.GetDetail())
	}
}

// short cuts a digest to what tells it from others on a screen.
func short(digest string) string {
	const enough = 19
	return digest[:min(len(digest), enough)]
}

// shortReference cuts a reference that is a digest, and no tag.
func shortReference(reference string) string {
	if strings.Contains(reference, ":") {
		return short(reference)
	}
	return reference
}

func newResync() *cobra.Command {
	var q query
	var all bool
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
			ctx, cancel := cli.Call(cmd.Context())
			defer cancel()
			return q.ask(func(api antipodev1.ReplicationServiceClient) error {
				resp, err := api.Resync(ctx, req)
				if err != nil {
					return err
				}
				return q.output.Print(cmd.OutOrStdout(), resp, func(w io.Writer) {
					fmt.Fprintf(w, "%d repositories are due now\n", resp.GetRepositories())
				})
			})
		},
	}
	cmd.Flags().BoolVar(&all, "all", false, "every tracked repository")
	return q.flags(cmd)
}
