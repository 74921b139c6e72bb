package main

import (
	"errors"

	"github.com/spf13/cobra"
	"google.golang.org/grpc"

	"github.com/antipode-registry/antipode/client"
	"github.com/antipode-registry/antipode/internal/checkup"
	"github.com/antipode-registry/antipode/internal/cli"
	"github.com/antipode-registry/antipode/internal/config"
	"github.com/antipode-registry/antipode/internal/link"
	"github.com/antipode-registry/antipode/internal/registry"
	"github.com/antipode-registry/antipode/internal/telemetry"
	"github.com/antipode-registry/antipode/secondaryd/internal/doctor"
)

func newDoctor() *cobra.Command {
	var q query
	return q.flags(&cobra.Command{
		Use:   "doctor",
		Short: "Find what is wrong, whether the daemon runs or not, and how to mend it",
		Args:  cli.Args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := q.output.Check(); err != nil {
				return err
			}
			doing, stop := q.output.Line(cmd).Doing(cmd.Context(), "examining")
			report, err := q.examine(cmd, doing)
			stop()
			if err != nil {
				return err
			}
			return errors.Join(q.output.Print(cmd.OutOrStdout(), report, report.Table), report.Err())
		},
	})
}

// examine reads the configuration and has everything in it examined. A file that cannot be used is itself the finding.
func (q *query) examine(cmd *cobra.Command, doing func(string)) (*checkup.Report, error) {
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
	site, err := registry.Open(registry.Config{
		URL: cfg.Registry.URL, Side: registry.Destination, UserAgent: userAgent(), CAFile: cfg.Registry.CAFile,
	})
	if err != nil {
		return nil, err
	}
	defer site.Close()
	primary := cfg.Primary
	return doctor.Examine(cmd.Context(), doctor.Options{
		Doing: doing,
		Node:  cfg.Node, Database: cfg.Database, Version: telemetry.Version(),
		Primary: func() (*grpc.ClientConn, error) {
			return client.Connect(client.Config{
				Address: primary.Address, CertFile: primary.CertFile, KeyFile: primary.KeyFile, CAFile: primary.CAFile,
				ServerRole: string(link.RolePrimary), UserAgent: userAgent(),
			})
		},
		PrimaryCertFile: primary.CertFile, PrimaryKeyFile: primary.KeyFile, PrimaryCAFile: primary.CAFile,
		SourceURL: primary.RegistryURL, SourceCAFile: primary.RegistryCAFile,
		OpenSource: func(url string) (*registry.Registry, error) {
			return registry.Open(registry.Config{
				URL: url, Side: registry.Source, UserAgent: userAgent(), CAFile: primary.RegistryCAFile,
			})
		},
		Registry: site, RegistryCAFile: cfg.Registry.CAFile, Repository: cfg.Doctor.Repository,
		CertFile: cfg.GRPC.CertFile, KeyFile: cfg.GRPC.KeyFile, ClientCAFile: cfg.GRPC.ClientCAFile,
		Connect: func() (*grpc.ClientConn, error) {
			return q.target.Connect(cfg.GRPC.Listen, cfg.GRPC.CertFile, cfg.GRPC.KeyFile, userAgent())
		},
	}), nil
}
