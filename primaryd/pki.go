package main

import (
	"fmt"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/antipode-registry/antipode/internal/authority"
	"github.com/antipode-registry/antipode/internal/cli"
	"github.com/antipode-registry/antipode/internal/link"
)

func newPKI() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "pki",
		Short: "A small certificate authority, for trying Antipode and for tests",
	}
	cmd.AddCommand(newPKIInit(), newPKIIssue())
	return cmd
}

func newPKIInit() *cobra.Command {
	var dir string
	cmd := &cobra.Command{
		Use:   "init --dir D",
		Short: "Make an authority: ca.crt and ca.key",
		Args:  cli.Args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := authority.Init(dir); err != nil {
				return err
			}
			fmt.Fprintf(cmd.OutOrStdout(), "made %s; keep %s to yourself\n",
				filepath.Join(dir, "ca.crt"), filepath.Join(dir, "ca.key"))
			return nil
		},
	}
	cmd.Flags().StringVar(&dir, "dir", ".", "where the authority is kept")
	return cmd
}

func newPKIIssue() *cobra.Command {
	var dir, name, role string
	var hosts []string
	cmd := &cobra.Command{
		Use:   "issue --dir D --name N --role primary|node|operator [--host H,...]",
		Short: "Issue a certificate for a year: N.crt and N.key",
		Args:  cli.Args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := authority.Issue(dir, name, link.Role(role), hosts); err != nil {
				return err
			}
			fmt.Fprintf(cmd.OutOrStdout(), "made %s and its key\n", filepath.Join(dir, name+".crt"))
			return nil
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&dir, "dir", ".", "where the authority is kept")
	flags.StringVar(&name, "name", "", "the node's or operator's name, as in the configuration")
	flags.StringVar(&role, "role", "", "primary, node or operator")
	flags.StringSliceVar(&hosts, "host", nil, "names and addresses that the daemon is reached at (default localhost,127.0.0.1,::1)")
	_, _ = cmd.MarkFlagRequired("name"), cmd.MarkFlagRequired("role")
	return cmd
}
