// Command secondaryd stands beside a registry that people pull from: it follows the primary's change feed and makes its
// own registry equal, tag by tag, digest by digest.
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
		Use:     "secondaryd",
		Short:   "A site's side of Antipode: changes in, an equal registry out",
		Version: telemetry.Version(),
	}
	root.AddCommand(newServe(), newStatus(), newRepositories(), newDiff(), newExplain(), newResync(), newVerify(),
		newRelease(), newRestore(), newPause(), newResume(), newWait(), newPromote(), newDemote(), newDoctor())
	return root
}

// configFlag adds --config to cmd.
func configFlag(cmd *cobra.Command, path *string) {
	cmd.Flags().StringVarP(path, "config", "c", "secondary.yaml", "the configuration file")
}

func userAgent() string { return "antipode-secondaryd/" + telemetry.Version() }
