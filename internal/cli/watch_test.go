package cli

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/spf13/cobra"
)

// watched runs a query with --watch for a while and returns what was written.
func watched(t *testing.T, flag string, during time.Duration, query func(round int, out io.Writer) error) (text string, err error) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		var watch Watch
		var out bytes.Buffer
		round := 0
		cmd := &cobra.Command{Use: "ask", SilenceErrors: true, SilenceUsage: true, RunE: func(cmd *cobra.Command, _ []string) error {
			return watch.Run(cmd, func(_ context.Context, out io.Writer) error {
				round++
				return query(round, out)
			})
		}}
		watch.Flags(cmd)
		cmd.SetArgs(strings.Fields(flag))
		cmd.SetOut(&out)
		ctx, cancel := context.WithTimeout(t.Context(), during)
		defer cancel()
		err = cmd.ExecuteContext(ctx)
		text = out.String()
	})
	return text, err
}

func TestWatchAsksAgain(t *testing.T) {
	t.Parallel()
	say := func(round int, out io.Writer) error {
		_, err := fmt.Fprintln(out, "round", round)
		return err
	}
	for flag, want := range map[string]string{
		"": "round 1\n", "--watch": "round 1\nround 2\nround 3\n", "--watch=4s": "round 1\nround 2\n",
	} {
		if text, err := watched(t, flag, 5*time.Second, say); err != nil || text != want {
			t.Errorf("%q: %q, %v", flag, text, err)
		}
	}
	fails := func(round int, out io.Writer) error {
		if round == 2 {
			return errors.New("gone for a moment")
		}
		return say(round, out)
	}
	if text, err := watched(t, "--watch", 5*time.Second, fails); err != nil || text != "round 1\nerror: gone for a moment\nround 3\n" {
		t.Errorf("%q, %v", text, err)
	}
	if _, err := watched(t, "--watch", time.Second, func(int, io.Writer) error { return errors.New("never there") }); err == nil {
		t.Error("a first query that failed was not told")
	}
	if _, err := watched(t, "--watch=1ms", time.Second, say); exitCode(err) != ExitUsage {
		t.Errorf("a flood was allowed: %v", err)
	}
}

func TestListsFitATerminalAlone(t *testing.T) {
	t.Parallel()
	list := func(w io.Writer) string {
		o := &Output{format: "table"}
		if err := o.List(w, nil, func(w io.Writer) { fmt.Fprint(w, "NAME\tWHY\né\ta long reason\n") }); err != nil {
			t.Fatal(err)
		}
		return fmt.Sprint(w)
	}
	if got := list(&bytes.Buffer{}); got != "NAME  WHY\né     a long reason\n" {
		t.Errorf("piped: %q", got)
	}
	narrow := &screen{width: 12}
	if list(narrow); narrow.String() != "NAME  WHY\né     a lon…\n" {
		t.Errorf("on a terminal: %q", narrow.String())
	}
}
