package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/antipode-registry/antipode/client"
	antipodev1 "github.com/antipode-registry/antipode/gen/antipode/v1"
	"github.com/antipode-registry/antipode/internal/cli"
)

func newWait() *cobra.Command {
	var q query
	var timeout time.Duration
	var nodes []string
	cmd := &cobra.Command{
		Use:   "wait REPOSITORY:TAG | REPOSITORY@DIGEST",
		Short: "Return when the sites have what the primary has: the gate before a deployment; exit code 3 when they do not in time",
		Args:  cli.Args(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error {
			repository, reference, err := cli.Image(args[0])
			if err != nil {
				return err
			}
			conn, err := q.connect()
			if err != nil {
				return err
			}
			defer func() { _ = conn.Close() }()
			ctx, cancel := context.WithTimeout(cmd.Context(), timeout)
			defer cancel()
			if slices.Contains(nodes, "all") {
				nodes = nil
			}
			line := q.output.Line(cmd)
			var last *antipodev1.LocateReferenceResponse
			line.Show("waiting for %s: asking the primary's registry", args[0])
			_, err = client.New(conn).Wait(ctx, client.WaitOptions{
				Repository: repository, Reference: reference, Nodes: nodes,
				Progress: func(r *antipodev1.LocateReferenceResponse) {
					last = r
					line.Show("waiting for %s: on %d of %d sites; %s", args[0], equal(r), len(r.GetNodes()), lacking(r))
				},
			})
			line.Clear()
			if errors.Is(err, context.DeadlineExceeded) {
				err = cli.NotYet(fmt.Errorf("not there after %s: %s", timeout, lacking(last)))
			}
			if err != nil {
				return err
			}
			return q.output.Print(cmd.OutOrStdout(), last, func(w io.Writer) {
				fmt.Fprintf(w, "%s is on %d sites: %s\n", args[0], len(last.GetNodes()), last.GetDigest())
			})
		},
	}
	cmd.Flags().DurationVar(&timeout, "timeout", 5*time.Minute, "how long to wait")
	cmd.Flags().StringSliceVar(&nodes, "nodes", []string{"all"}, "the sites that must have it, or all that are granted it")
	q.flags(cmd)
	return cmd
}

// equal is how many sites have it.
func equal(r *antipodev1.LocateReferenceResponse) (n int) {
	for _, node := range r.GetNodes() {
		if node.GetEqual() {
			n++
		}
	}
	return n
}

// lacking words which sites lack it, and why.
func lacking(r *antipodev1.LocateReferenceResponse) string {
	if r == nil {
		return "the primary's registry does not have it, or could not be asked"
	}
	var all []string
	for _, n := range r.GetNodes() {
		row := n.GetFound().GetRepository()
		switch {
		case n.GetEqual():
			continue
		case n.GetProblem() != "":
			all = append(all, n.GetNode()+": "+n.GetProblem())
		case row.GetLastError() != nil:
			all = append(all, n.GetNode()+": "+row.GetLastError().GetMessage())
		default:
			state := strings.ToLower(strings.TrimPrefix(row.GetState().String(), "REPOSITORY_STATE_"))
			all = append(all, fmt.Sprintf("%s: %s is %s", n.GetNode(), row.GetName(), state))
		}
	}
	if len(all) == 0 {
		return "no site that was asked about is granted it"
	}
	return strings.Join(all, "; ")
}
