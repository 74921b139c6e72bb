package cli

import (
	"context"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
)

// Usage makes a command that returns err exit with ExitUsage.
func Usage(err error) error { return usageError{err} }

// Complete offers values for a flag to the shell.
func Complete(cmd *cobra.Command, flag string, values func(*cobra.Command) []string) {
	_ = cmd.RegisterFlagCompletionFunc(flag, offer(values)) // fails only where there is no such flag, or twice
}

// CompleteArgument offers values for the command's first argument to the shell. What it asks must be quick, and may say
// nothing when the daemon does not answer.
func CompleteArgument(cmd *cobra.Command, values func(*cobra.Command) []string) {
	complete := offer(values)
	cmd.ValidArgsFunction = func(cmd *cobra.Command, args []string, begun string) ([]string, cobra.ShellCompDirective) {
		if len(args) > 0 {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		return complete(cmd, args, begun)
	}
}

// offer keeps what begins with what is typed already, sorted.
func offer(values func(*cobra.Command) []string) cobra.CompletionFunc {
	return func(cmd *cobra.Command, _ []string, begun string) ([]string, cobra.ShellCompDirective) {
		fitting := slices.DeleteFunc(values(cmd), func(value string) bool { return !strings.HasPrefix(value, begun) })
		slices.Sort(fitting)
		return fitting, cobra.ShellCompDirectiveNoFileComp
	}
}

// Brief bounds what is asked for a completion: somebody is typing.
func Brief(ctx context.Context) (context.Context, context.CancelFunc) {
	if ctx == nil { // the shell's question comes without one
		ctx = context.Background()
	}
	return context.WithTimeout(ctx, 3*time.Second)
}
