package main

import (
	"context"
	"errors"
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
				resp, err := api.Wait(ctx, &antipodev1.WaitRequest{Repository: repository, Reference: reference})
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
				result, err := readPromotion(stream, cmd.ErrOrStderr())
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

// promotionResult is what came of a promotion, for the output.
type promotionResult struct {
	Promoted       bool                 `json:"promoted"`
	CursorRevision int64                `json:"cursor_revision"`
	HeadRevision   int64                `json:"head_revision"`
	PrimaryHeardAt time.Time            `json:"primary_heard_at,omitzero"`
	Lag            string               `json:"lag"`
	Behind         []promotionBehindRow `json:"behind"`
}

type promotionBehindRow struct {
	Repository       string    `json:"repository"`
	State            string    `json:"state"`
	Wanted           int64     `json:"wanted_revision"`
	Synced           int64     `json:"synced_revision"`
	OldestUnsyncedAt time.Time `json:"oldest_unsynced_at,omitzero"`
	LastError        string    `json:"last_error,omitempty"`
}

func readPromotion(
	stream interface {
		Recv() (*antipodev1.PromoteResponse, error)
	}, progress io.Writer,
) (result promotionResult, err error) {
	result.Behind = []promotionBehindRow{}
	for {
		message, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return result, errors.New("the site ended the promotion without its report; see: secondaryd status")
		}
		if err != nil {
			return result, err
		}
		switch kind := message.GetKind().(type) {
		case *antipodev1.PromoteResponse_Progress:
			p := kind.Progress
			fmt.Fprintf(progress, "revision %d of %d, %d repositories not synced yet\n",
				p.GetCursorRevision(), p.GetHeadRevision(), p.GetUnsynced())
		case *antipodev1.PromoteResponse_Behind:
			b := kind.Behind
			row := promotionBehindRow{
				Repository: b.GetName(), State: stateName(b.GetState()), Wanted: b.GetWantedRevision(), Synced: b.GetSyncedRevision(),
				LastError: b.GetLastError().GetMessage(),
			}
			if at := b.GetOldestUnsyncedAt(); at != nil {
				row.OldestUnsyncedAt = at.AsTime()
			}
			result.Behind = append(result.Behind, row)
		case *antipodev1.PromoteResponse_Report:
			r := kind.Report
			result.Promoted, result.CursorRevision, result.HeadRevision = r.GetPromoted(), r.GetCursorRevision(), r.GetHeadRevision()
			result.Lag = cli.Duration(r.GetLag().AsDuration())
			if at := r.GetPrimaryHeardAt(); at != nil {
				result.PrimaryHeardAt = at.AsTime()
			}
			return result, nil
		}
	}
}

func printPromotion(w io.Writer, req *antipodev1.PromoteRequest, r promotionResult) {
	if r.Promoted {
		fmt.Fprintln(w, "promoted: the site follows its primary no more, also after a restart; undo it with: secondaryd demote")
	} else {
		fmt.Fprintln(w, "a rehearsal: nothing was changed")
	}
	fmt.Fprintf(w, "read up to revision %d of %d; the primary was last heard from %s\n",
		r.CursorRevision, r.HeadRevision, cli.Age(r.PrimaryHeardAt))
	if len(r.Behind) == 0 {
		fmt.Fprintln(w, "nothing is missing that the site knows of")
	} else {
		fmt.Fprintf(w, "%d repositories may lack changes, the oldest of %s ago:\n\n", len(r.Behind), r.Lag)
		fmt.Fprintln(w, "REPOSITORY\tSTATE\tSYNCED/WANTED\tCHANGED\tLAST ERROR")
		for _, b := range r.Behind {
			fmt.Fprintf(w, "%s\t%s\t%d/%d\t%s\t%s\n", b.Repository, b.State, b.Synced, b.Wanted, cli.Age(b.OldestUnsyncedAt), b.LastError)
		}
	}
	if !req.GetPlanned() {
		fmt.Fprintln(w, "what changed at the primary after it was last heard from is not known here")
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
