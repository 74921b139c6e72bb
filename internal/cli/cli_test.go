package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	antipodev1 "github.com/antipode-registry/antipode/gen/antipode/v1"
	"github.com/antipode-registry/antipode/internal/authority"
	"github.com/antipode-registry/antipode/internal/link"
)

func TestDuration(t *testing.T) {
	t.Parallel()
	for d, want := range map[time.Duration]string{
		-5 * time.Minute:                "0s",
		0:                               "0s",
		1234 * time.Microsecond:         "1ms",
		1234 * time.Millisecond:         "1.2s",
		59 * time.Second:                "59s",
		time.Minute:                     "1m0s",
		5*time.Minute + 30*time.Second:  "5m30s",
		59*time.Minute + 59*time.Second: "59m59s",
		90 * time.Minute:                "1h30m",
		47*time.Hour + 59*time.Minute:   "47h59m",
		50 * time.Hour:                  "2d2h",
	} {
		if got := Duration(d); got != want {
			t.Errorf("%v: %q, want %q", d, got, want)
		}
	}
}

func TestAge(t *testing.T) {
	t.Parallel()
	for at, want := range map[time.Time]string{
		{}: "never", time.Unix(0, 0): "never", time.Now().Add(-3 * time.Hour): "3h0m ago", time.Now().Add(time.Hour): "0s ago",
	} {
		if got := Age(at); got != want {
			t.Errorf("%v: %q, want %q", at, got, want)
		}
	}
}

func TestLocal(t *testing.T) {
	t.Parallel()
	for listen, want := range map[string]string{
		":7443": "127.0.0.1:7443", "0.0.0.0:7443": "127.0.0.1:7443", "[::]:7443": "127.0.0.1:7443",
		"10.0.0.1:7443": "10.0.0.1:7443", "primary:7443": "primary:7443", "[fd00::1]:1": "[fd00::1]:1",
	} {
		if got := Local(listen); got != want {
			t.Errorf("%s: %q, want %q", listen, got, want)
		}
	}
}

// run runs a command line of one command, whose RunE is given.
func run(args []string, runE func(*cobra.Command, []string) error) (code int, out string) {
	root := &cobra.Command{Use: "daemon"}
	cmd := &cobra.Command{Use: "ask", Args: Args(cobra.MaximumNArgs(1)), RunE: runE}
	cmd.Flags().String("name", "", "")
	_ = cmd.MarkFlagRequired("name")
	root.AddCommand(cmd)
	root.SetArgs(args)
	var text bytes.Buffer
	root.SetOut(&text)
	root.SetErr(&text)
	return Execute(root), text.String()
}

func TestExitCodes(t *testing.T) {
	t.Parallel()
	ask := []string{"ask", "--name", "x"}
	for name, test := range map[string]struct {
		args []string
		err  error
		want int
	}{
		"done":               {ask, nil, 0},
		"help":               {[]string{"ask", "--help"}, errors.New("not run"), 0},
		"failed":             {ask, errors.New("no"), 1},
		"refused":            {ask, status.Error(codes.NotFound, "no"), 1},
		"not yet":            {ask, fmt.Errorf("asked: %w", NotYet(errors.New("not there"))), 3},
		"unknown command":    {[]string{"frob"}, nil, 2},
		"unknown flag":       {append(ask, "--frob"), nil, 2},
		"too many arguments": {append(ask, "a", "b"), nil, 2},
		"flag missing":       {[]string{"ask"}, nil, 2},
		"usage":              {ask, (&Output{format: "xml"}).Check(), 2},
	} {
		if code, out := run(test.args, func(*cobra.Command, []string) error { return test.err }); code != test.want {
			t.Errorf("%s: %d, want %d: %s", name, code, test.want, out)
		}
	}
}

func TestExplain(t *testing.T) {
	t.Parallel()
	for want, err := range map[string]error{
		"no such node (NotFound)": status.Error(codes.NotFound, "no such node"),
		"plain":                   errors.New("plain"),
	} {
		if got := explain(err); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}

func TestPrintJSON(t *testing.T) {
	t.Parallel()
	for name, value := range map[string]any{
		"a message": &antipodev1.Node{Name: "eu", LagRevisions: 3}, "a struct": map[string]any{"name": "eu", "lagRevisions": "3"},
	} {
		var out bytes.Buffer
		if err := (&Output{format: "json"}).Print(&out, value, nil); err != nil {
			t.Fatal(err)
		}
		var got map[string]any
		if err := json.Unmarshal(out.Bytes(), &got); err != nil || got["name"] != "eu" || got["lagRevisions"] != "3" {
			t.Errorf("%s: %s, %v", name, out.String(), err)
		}
	}
}

// What a site said of itself must not command the operator's terminal.
func TestPrintTable(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	err := (&Output{format: "table"}).Print(&out, nil, func(w io.Writer) {
		fmt.Fprintln(w, "NODE\tWHY")
		fmt.Fprintln(w, "eu-west\tgrün\x1b]0;owned\x07 \u009b2J\rgone")
	})
	if err != nil {
		t.Fatal(err)
	}
	if got := out.String(); strings.ContainsAny(got, "\x1b\x07\u009b\r\t") || !strings.Contains(got, "grün") ||
		!strings.HasPrefix(got, "NODE     WHY\neu-west  ") {
		t.Errorf("%q", got)
	}
	if err := (&Output{format: "table"}).Print(failing{}, nil, func(w io.Writer) { fmt.Fprintln(w, "x") }); err == nil {
		t.Error("a full disk went unnoticed")
	}
}

type failing struct{}

func (failing) Write([]byte) (int, error) { return 0, errors.New("disk full") }

func TestTarget(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if err := errors.Join(authority.Init(dir), authority.Issue(dir, "primary", link.RolePrimary, nil)); err != nil {
		t.Fatal(err)
	}
	cert, key, ca := filepath.Join(dir, "primary.crt"), filepath.Join(dir, "primary.key"), filepath.Join(dir, "ca.crt")
	for name, test := range map[string]struct {
		target Target
		want   string // where it would connect
		usage  bool
	}{
		"the daemon of the config": {Target{}, "dns:///127.0.0.1:7443", false},
		"elsewhere":                {Target{Address: "primary:1"}, "dns:///primary:1", false},
		"as an operator":           {Target{CertFile: cert, KeyFile: key, CAFile: ca}, "dns:///127.0.0.1:7443", false},
		"a certificate alone":      {Target{CertFile: cert}, "", true},
		"no authorities":           {Target{CertFile: cert, KeyFile: key}, "", true},
	} {
		conn, err := test.target.Connect(":7443", cert, key, "test")
		var usage usageError
		if errors.As(err, &usage) != test.usage || err == nil && conn.Target() != test.want {
			t.Errorf("%s: %v, %v", name, conn, err)
		}
		if err == nil {
			_ = conn.Close()
		}
	}
}

func TestCallIsBounded(t *testing.T) {
	t.Parallel()
	ctx, cancel := Call(context.Background())
	defer cancel()
	if at, ok := ctx.Deadline(); !ok || time.Until(at) > callTimeout {
		t.Errorf("%v, %t", at, ok)
	}
}
