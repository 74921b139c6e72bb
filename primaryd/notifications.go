package main

import (
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/antipode-registry/antipode/internal/cli"
	"github.com/antipode-registry/antipode/primaryd/internal/setup"
)

// notifications is the command's flags.
type notifications struct {
	config, endpoint, registry, file string
	output                           cli.Output
}

func newNotifications() *cobra.Command {
	var n notifications
	cmd := &cobra.Command{
		Use:   "notifications",
		Short: "Print what the registry's own configuration needs, or check a file for it",
		Args:  cli.Args(cobra.NoArgs),
		RunE:  func(cmd *cobra.Command, _ []string) error { return n.run(cmd) },
	}
	configFlag(cmd, &n.config)
	n.output.Flags(cmd)
	flags := cmd.Flags()
	flags.StringVar(&n.endpoint, "url", "", "where the registry reaches primaryd (default: http.listen of the config)")
	flags.StringVar(&n.registry, "registry", "distribution", "the kind of registry: "+strings.Join(setup.Kinds(), ", "))
	flags.StringVar(&n.file, "check", "", "a configuration file of the registry to check instead, of: "+strings.Join(setup.Checkable(), ", "))
	cli.Complete(cmd, "registry", func(*cobra.Command) []string { return setup.Kinds() })
	return cmd
}

func (n *notifications) run(cmd *cobra.Command) error {
	if err := n.output.Check(); err != nil {
		return err
	}
	want, err := n.want()
	if err != nil {
		return err
	}
	text, known := setup.Block(n.registry, want)
	if !known {
		return cli.Usage(fmt.Errorf("--registry is one of %s, not %q", strings.Join(setup.Kinds(), ", "), n.registry))
	}
	if n.file == "" {
		_, err = fmt.Fprint(cmd.OutOrStdout(), text)
		return err
	}
	if !slices.Contains(setup.Checkable(), n.registry) {
		return cli.Usage(fmt.Errorf("--check has no file of %s to read, which is configured by its page or its API; see what is "+
			"printed without --check", n.registry))
	}
	content, err := os.ReadFile(n.file)
	if err != nil {
		return err
	}
	report := setup.Check(n.registry, content, want)
	return errors.Join(n.output.Print(cmd.OutOrStdout(), report, report.Table), report.Err())
}

// want is what the registry must have.
func (n *notifications) want() (setup.Endpoint, error) {
	cfg, err := loadSettings(n.config)
	if err != nil {
		return setup.Endpoint{}, err
	}
	secret, err := (&daemon{cfg: cfg}).secret()
	if err != nil {
		return setup.Endpoint{}, err
	}
	want := setup.Endpoint{URL: n.endpoint, Secret: string(secret)}
	if want.URL == "" {
		want.URL, want.Remark = defaultEndpoint(cfg.HTTP.Listen)
	}
	return want, nil
}

// defaultEndpoint makes the URL that the registry is to notify from the address that primaryd listens on, and a remark
// where that leaves something to fill in: all interfaces are nowhere that a registry could reach.
func defaultEndpoint(listen string) (endpoint, remark string) {
	host, port, err := net.SplitHostPort(listen)
	if err != nil { // checked with the rest of the file
		host, port = listen, ""
	}
	if ip := net.ParseIP(host); host == "" || ip != nil && ip.IsUnspecified() {
		host = "primaryd.example.com"
		remark = "http.listen is on all interfaces: put the name here that the registry reaches primaryd by\n"
	}
	if port == "0" {
		remark += "http.listen takes any free port: fix it, and put it here\n"
	}
	return (&url.URL{Scheme: "http", Host: net.JoinHostPort(host, port), Path: "/notifications"}).String(), remark
}
