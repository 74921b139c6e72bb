package main

import (
	"errors"
	"net"

	"github.com/spf13/cobra"
	"google.golang.org/grpc"

	"github.com/antipode-registry/antipode/internal/checkup"
	"github.com/antipode-registry/antipode/internal/cli"
	"github.com/antipode-registry/antipode/internal/config"
	"github.com/antipode-registry/antipode/internal/registry"
	"github.com/antipode-registry/antipode/internal/telemetry"
	"github.com/antipode-registry/antipode/primaryd/internal/doctor"
)

func newDoctor() *cobra.Command {
	var q query
	var probe bool
	cmd := &cobra.Command{
		Use:   "doctor",
		Short: "Find what is wrong, whether the daemon runs or not, and how to mend it",
		Args:  cli.Args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := q.output.Check(); err != nil {
				return err
			}
			doing, stop := q.output.Line(cmd).Doing(cmd.Context(), "examining")
			report, err := q.examine(cmd, doing, probe)
			stop()
			if err != nil {
				return err
			}
			return errors.Join(q.output.Print(cmd.OutOrStdout(), report, report.Table), report.Err())
		},
	}
	q.flags(cmd)
	cmd.Flags().BoolVar(&probe, "probe", false, "push a small image, wait for its notification, and delete it again")
	return cmd
}

// examine reads the configuration and has everything in it examined. A file that cannot be used is itself the finding.
func (q *query) examine(cmd *cobra.Command, doing func(string), probe bool) (*checkup.Report, error) {
	cfg, err := loadSettings(q.config)
	if problems, ours := errors.AsType[*config.Error](err); ours {
		report := &checkup.Report{}
		for _, problem := range problems.Problems {
			report.Fail("configuration", "correct it; docs/configuration.md has all keys", "%s", problem)
		}
		return report, nil
	}
	if err != nil {
		return nil, err
	}
	source, err := registry.Open(registry.Config{
		URL: cfg.Registry.URL, Side: registry.Source, UserAgent: userAgent(), CAFile: cfg.Registry.CAFile,
	})
	if err != nil {
		return nil, err
	}
	defer source.Close()
	return doctor.Examine(cmd.Context(), doctor.Options{
		Doing:    doing,
		Database: cfg.Database, Registry: source, RegistryCAFile: cfg.Registry.CAFile, Repository: cfg.Doctor.Repository,
		Probe: probe, SecretFile: cfg.Notifications.SecretFile, Secret: (&daemon{cfg: cfg}).secret,
		CertFile: cfg.GRPC.CertFile, KeyFile: cfg.GRPC.KeyFile, ClientCAFile: cfg.GRPC.ClientCAFile,
		HTTP: baseURL(cfg.HTTP.Listen), Version: telemetry.Version(),
		Connect: func() (*grpc.ClientConn, error) {
			return q.target.Connect(cfg.GRPC.Listen, cfg.GRPC.CertFile, cfg.GRPC.KeyFile, userAgent())
		},
	}), nil
}

// baseURL is where the daemon's HTTP is reached from this machine; "" where it listens on any free port.
func baseURL(listen string) string {
	if _, port, err := net.SplitHostPort(listen); err != nil || port == "0" {
		return ""
	}
	return "http://" + cli.Local(listen)
}
