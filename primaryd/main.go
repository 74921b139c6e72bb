// Command primaryd stands beside the registry that people push to: it takes the registry's notifications into a change
// feed, streams changes to the sites, and answers what a repository's tags are now.
package main

import (
	"os"

	"github.com/spf13/cobra"

	"github.com/antipode-registry/antipode/internal/cli"
	"github.com/antipode-registry/antipode/internal/telemetry"
)

func main() {
	os.Exit(cli.Execute(newRoot()))
}

func newRoot() *cobra.Command {
	root := &cobra.Command{
		Use:     "primaryd",
		Short:   "The primary's side of Antipode: registry notifications in, changes to the sites out",
		Version: telemetry.Version(),
	}
	root.AddCommand(newServe(), newNodes(), newRepositories(), newNotifications(), newWait(), newDoctor(), newPKI())
	return root
}

// configFlag adds --config to cmd.
func configFlag(cmd *cobra.Command, path *string) {
	cmd.Flags().StringVarP(path, "config", "c", "primary.yaml", "the configuration file")
}
