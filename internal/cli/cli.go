// Package cli is what the command lines of both daemons share: the way to a running daemon, and the two forms of
// output.
//
// Exit codes are the Exit constants. Results go to standard output, everything else to standard error.
package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"text/tabwriter"
	"time"
	"unicode"

	"github.com/spf13/cobra"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	"github.com/antipode-registry/antipode/client"
)

// callTimeout bounds one query, the connection included.
const callTimeout = 30 * time.Second

// Exit codes of both command lines, a contract with scripts; docs/commands.md lists them.
const (
	ExitDone   = 0 // what was asked for was done
	ExitFailed = 1 // it could not be done, or something that was checked is wrong
	ExitUsage  = 2 // the command line is wrong; nothing was tried
	ExitNotYet = 3 // asked and answered: what was asked about is not so, or not so yet
)

// usageError is a mistake in the command line.
type usageError struct{ error }

// notYet is an answer that is no.
type notYet struct{ error }

// NotYet makes a command that returns err exit with ExitNotYet: everything worked, and the answer is that something is
// not so (yet).
func NotYet(err error) error { return notYet{err} }

// Unwrap returns the reason.
func (n notYet) Unwrap() error { return n.error }

// Execute runs the command until it ends or the process is told to stop (SIGINT, SIGTERM), and returns the exit code.
func Execute(root *cobra.Command) int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	root.SilenceUsage, root.SilenceErrors = true, true
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return usageError{err} })
	err := root.ExecuteContext(ctx)
	if err == nil {
		return ExitDone
	}
	fmt.Fprintln(os.Stderr, "error:", explain(err))
	return exitCode(err)
}

func exitCode(err error) int {
	if _, answered := errors.AsType[notYet](err); answered {
		return ExitNotYet
	}
	_, usage := errors.AsType[usageError](err)
	if usage || strings.HasPrefix(err.Error(), "unknown command") ||
		strings.HasPrefix(err.Error(), "required flag(s)") { // cobra has no types for these two
		return ExitUsage
	}
	return ExitFailed
}

// explain strips gRPC's wording from what a daemon answered.
func explain(err error) string {
	if s, ok := status.FromError(err); ok {
		if s.Code() == codes.Unavailable && strings.Contains(s.Message(), "connection error") {
			return "the daemon cannot be reached; is it running, and does it listen at this address? (" + s.Message() + ")"
		}
		return fmt.Sprintf("%s (%s)", s.Message(), s.Code())
	}
	return err.Error()
}

// Args wraps cobra's check of the arguments so that a mistake exits with 2.
func Args(check cobra.PositionalArgs) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if err := check(cmd, args); err != nil {
			return usageError{err}
		}
		return nil
	}
}

// Target is how a command reaches its daemon. Empty fields come from the daemon's configuration file.
type Target struct {
	Address, CertFile, KeyFile, CAFile string
}

// Flags adds the target's flags to cmd.
func (t *Target) Flags(cmd *cobra.Command) {
	flags := cmd.Flags()
	flags.StringVar(&t.Address, "address", "", "host:port of the daemon's gRPC service (default: grpc.listen of the config)")
	flags.StringVar(&t.CertFile, "cert", "", "client certificate (default: the daemon's own)")
	flags.StringVar(&t.KeyFile, "key", "", "key of the client certificate")
	flags.StringVar(&t.CAFile, "ca", "", "authorities that the daemon's certificate must come from (with --cert)")
}

// Connect connects to the daemon: with the given certificate, or with the daemon's own, which the daemon takes for its
// operator and which it must then present itself.
func (t *Target) Connect(listen, certFile, keyFile, userAgent string) (*grpc.ClientConn, error) {
	cfg := client.Config{Address: t.Address, CertFile: certFile, KeyFile: keyFile, OwnCertificate: true, UserAgent: userAgent}
	if cfg.Address == "" {
		cfg.Address = Local(listen)
	}
	if t.CertFile != "" || t.KeyFile != "" || t.CAFile != "" {
		if t.CertFile == "" || t.KeyFile == "" || t.CAFile == "" {
			return nil, usageError{errors.New("--cert, --key and --ca go together")}
		}
		cfg.CertFile, cfg.KeyFile, cfg.CAFile, cfg.OwnCertificate = t.CertFile, t.KeyFile, t.CAFile, false
	}
	return client.Connect(cfg)
}

// Local turns a listen address into one that can be dialled: a daemon that listens everywhere is asked on loopback.
func Local(listen string) string {
	host, port, err := net.SplitHostPort(listen)
	if err != nil {
		return listen
	}
	if ip := net.ParseIP(host); host == "" || ip != nil && ip.IsUnspecified() {
		host = "127.0.0.1"
	}
	return net.JoinHostPort(host, port)
}

// Call bounds a query in time.
func Call(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(ctx, callTimeout)
}

// Output is the --output flag of a query.
type Output struct{ format string }

// Flags adds the flag to cmd.
func (o *Output) Flags(cmd *cobra.Command) {
	cmd.Flags().StringVarP(&o.format, "output", "o", "table", "table or json")
}

// Check refuses an unknown format; call it before the query is made.
func (o *Output) Check() error {
	if o.format != "table" && o.format != "json" {
		return usageError{fmt.Errorf("--output is table or json, not %q", o.format)}
	}
	return nil
}

// Print writes value as JSON, or what table writes: cells separated by tabs.
func (o *Output) Print(w io.Writer, value any, table func(io.Writer)) error {
	if o.format == "json" {
		return printJSON(w, value)
	}
	tw := tabwriter.NewWriter(printable{w}, 0, 0, 2, ' ', 0)
	table(tw)
	return tw.Flush()
}

// List is Print for a table whose last column may be long: on a terminal it is cut to what fits, never elsewhere.
func (o *Output) List(w io.Writer, value any, table func(io.Writer)) error {
	if o.format == "json" {
		return printJSON(w, value)
	}
	var whole bytes.Buffer
	if err := o.Print(&whole, value, table); err != nil {
		return err
	}
	_, err := fitted{w, width(w)}.Write(whole.Bytes())
	return err
}

// printable keeps what a registry or a site said from commanding the operator's terminal: of the control characters it
// lets through only those that make a table.
type printable struct{ io.Writer }

func (p printable) Write(text []byte) (int, error) {
	shown := bytes.Map(func(r rune) rune {
		if unicode.IsControl(r) && r != '\n' && r != '\t' {
			return unicode.ReplacementChar
		}
		return r
	}, text)
	_, err := p.Writer.Write(shown)
	return len(text), err
}

func printJSON(w io.Writer, value any) error {
	var text []byte
	var err error
	if message, ok := value.(proto.Message); ok {
		text, err = protojson.MarshalOptions{Multiline: true, EmitUnpopulated: true}.Marshal(message)
	} else {
		text, err = json.MarshalIndent(value, "", "  ")
	}
	if err != nil {
		return err
	}
	_, err = fmt.Fprintln(w, string(text))
	return err
}

// Age words how long ago something was, to two units: "never" for the zero time.
func Age(at time.Time) string {
	if at.IsZero() || at.Unix() == 0 {
		return "never"
	}
	return Duration(time.Since(at)) + " ago"
}

// Duration words a duration to two units. A negative one, of clocks that differ, is none.
func Duration(d time.Duration) string {
	switch d = max(d, 0); {
	case d < time.Second:
		return d.Round(time.Millisecond).String()
	case d < time.Minute:
		return d.Round(time.Second / 10).String()
	case d < time.Hour:
		return fmt.Sprintf("%dm%ds", int(d.Minutes()), int(d.Seconds())%60)
	case d < 48*time.Hour:
		return fmt.Sprintf("%dh%dm", int(d.Hours()), int(d.Minutes())%60)
	}
	return fmt.Sprintf("%dd%dh", int(d.Hours())/24, int(d.Hours())%24)
}
