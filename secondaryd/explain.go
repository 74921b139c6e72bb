package main

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/types/known/timestamppb"

	antipodev1 "github.com/antipode-registry/antipode/gen/antipode/v1"
	"github.com/antipode-registry/antipode/internal/cli"
)

func newExplain() *cobra.Command {
	var q query
	var size int32
	cmd := &cobra.Command{
		Use:   "explain [REPOSITORY[:TAG]]",
		Short: "What this site did with a repository or one of its tags, or what was done to the site as a whole, and why, in order",
		Args:  cli.Args(cobra.MaximumNArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error {
			ctx, cancel := cli.Call(cmd.Context())
			defer cancel()
			if len(args) == 0 {
				return q.explainSite(ctx, cmd.OutOrStdout(), size)
			}
			repository, tag, _ := strings.Cut(args[0], ":")
			return q.ask(func(api antipodev1.ReplicationServiceClient) error {
				resp, err := api.GetRepository(ctx, &antipodev1.GetRepositoryRequest{Repository: repository, JournalSize: size})
				if err != nil {
					return err
				}
				resp.Journal = about(resp.GetJournal(), tag)
				slices.Reverse(resp.Journal) // a story is told from its beginning
				slices.Reverse(resp.SiteJournal)
				return q.output.Print(cmd.OutOrStdout(), resp, func(w io.Writer) { printStory(w, resp) })
			})
		},
	}
	cmd.Flags().Int32Var(&size, "last", 500, "how many entries of the journal to look at, 500 at most")
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
	acts := resp.GetSiteJournal()
	for _, e := range resp.GetJournal() {
		for len(acts) > 0 && acts[0].GetAt().AsTime().Before(e.GetAt().AsTime()) {
			printAct(w, acts[0])
			acts = acts[1:]
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\n", moment(e.GetAt()), e.GetAction(), shortReference(e.GetReference()),
			short(e.GetDigest()), short(e.GetPreviousDigest()), e.GetDetail())
	}
	for _, act := range acts {
		printAct(w, act)
	}
}

// printAct tells within a repository's story what was done to the site as a whole.
func printAct(w io.Writer, act *antipodev1.SiteJournalEntry) {
	fmt.Fprintf(w, "%s\t%s\t%s\t\t\t%s\n", moment(act.GetAt()), act.GetAction(), "(the site)", words(act))
}

func words(act *antipodev1.SiteJournalEntry) string {
	parts := []string{act.GetDetail(), "asked for by " + act.GetAskedBy()}
	if act.GetAskedBy() == "" {
		parts = parts[:1]
	}
	return strings.TrimPrefix(strings.Join(parts, ", "), ", ")
}

// moment is a time in a journal.
func moment(at *timestamppb.Timestamp) string {
	return at.AsTime().Local().Format("2006-01-02 15:04:05.000")
}

// explainSite tells what was done to the site as a whole.
func (q *query) explainSite(ctx context.Context, out io.Writer, size int32) error {
	return q.ask(func(api antipodev1.ReplicationServiceClient) error {
		resp, err := api.GetSiteJournal(ctx, &antipodev1.GetSiteJournalRequest{JournalSize: size})
		if err != nil {
			return err
		}
		slices.Reverse(resp.Journal)
		return q.output.Print(out, resp, func(w io.Writer) {
			fmt.Fprintln(w, "WHEN\tWHAT\tASKED BY\tREVISION\tDETAIL")
			for _, act := range resp.GetJournal() {
				fmt.Fprintf(w, "%s\t%s\t%s\t%d of %d\t%s\n", moment(act.GetAt()), act.GetAction(), act.GetAskedBy(),
					act.GetCursorRevision(), act.GetHeadRevision(), act.GetDetail())
			}
		})
	})
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
