package cli

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"
)

// wipe moves a terminal's cursor home and erases what is below.
const wipe = "\x1b[H\x1b[2J"

// leastWatch keeps a watch from being a flood of queries.
const leastWatch = 100 * time.Millisecond

// Watch is the --watch flag of a query.
type Watch struct{ every time.Duration }

// Flags adds the flag to cmd.
func (w *Watch) Flags(cmd *cobra.Command) {
	flags := cmd.Flags()
	flags.DurationVar(&w.every, "watch", 0, "ask again and again, by default every 2s (--watch=10s): redrawn on a terminal")
	flags.Lookup("watch").NoOptDefVal = "2s"
}

// Run makes the query once, or until the command is interrupted: on a terminal each answer takes the place of the one
// before, elsewhere it follows it. A first query that fails ends it; a later one is told, and asked again.
func (w *Watch) Run(cmd *cobra.Command, query func(ctx context.Context, out io.Writer) error) error {
	out := cmd.OutOrStdout()
	if w.every == 0 {
		return w.once(cmd.Context(), out, query)
	}
	if w.every < leastWatch {
		return Usage(fmt.Errorf("--watch is at least %v", leastWatch))
	}
	tick := time.NewTicker(w.every)
	defer tick.Stop()
	for first := true; ; first = false {
		answer := &screen{width: width(out)}
		err := w.once(cmd.Context(), answer, query)
		switch {
		case cmd.Context().Err() != nil:
			return nil // interrupted, as watches end
		case err != nil && first:
			return err
		case err != nil:
			fmt.Fprintln(answer, "error:", explain(err))
		}
		if answer.width > 0 {
			fmt.Fprint(out, wipe)
		}
		if _, err := out.Write(answer.Bytes()); err != nil {
			return err
		}
		select {
		case <-cmd.Context().Done():
			return nil
		case <-tick.C:
		}
	}
}

func (*Watch) once(ctx context.Context, out io.Writer, query func(ctx context.Context, out io.Writer) error) error {
	ctx, cancel := Call(ctx)
	defer cancel()
	return query(ctx, out)
}

// screen is an answer that is shown when it is complete.
type screen struct {
	bytes.Buffer

	width int // of the terminal that it is for; 0 for none
}
