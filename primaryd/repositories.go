package main

import (
	"fmt"
	"io"

	"github.com/spf13/cobra"

	antipodev1 "github.com/antipode-registry/antipode/gen/antipode/v1"
	"github.com/antipode-registry/antipode/internal/cli"
)

func newRepositories() *cobra.Command {
	var q query
	cmd := &cobra.Command{
		Use:   "repositories",
		Short: "The change feed: every repository with its newest revision",
		Args:  cli.Args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			conn, err := q.connect()
			if err != nil {
				return err
			}
			defer func() { _ = conn.Close() }()
			ctx, cancel := cli.Call(cmd.Context())
			defer cancel()
			all := &antipodev1.ListRepositoriesResponse{}
			for token := ""; ; {
				resp, err := antipodev1.NewFeedServiceClient(conn).ListRepositories(ctx,
					&antipodev1.ListRepositoriesRequest{PageSize: 1000, PageToken: token})
				if err != nil {
					return err
				}
				all.Repositories = append(all.Repositories, resp.GetRepositories()...)
				if token = resp.GetNextPageToken(); token == "" {
					break
				}
			}
			return q.output.List(cmd.OutOrStdout(), all, func(w io.Writer) { printRepositories(w, all.GetRepositories()) })
		},
	}
	q.flags(cmd)
	return cmd
}

func printRepositories(w io.Writer, rows []*antipodev1.Repository) {
	fmt.Fprintln(w, "REPOSITORY\tREVISION\tCHANGED\tSWEPT")
	for _, row := range rows {
		fmt.Fprintf(w, "%s\t%d\t%s\t%s\n", row.GetName(), row.GetRevision(), cli.Age(row.GetChangedAt().AsTime()),
			cli.Age(row.GetSweptAt().AsTime()))
	}
}
