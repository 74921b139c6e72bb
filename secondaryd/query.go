package main

import (
	"strings"

	"github.com/spf13/cobra"

	antipodev1 "github.com/antipode-registry/antipode/gen/antipode/v1"
	"github.com/antipode-registry/antipode/internal/cli"
)

// query is a command that asks the running daemon.
type query struct {
	config string
	target cli.Target
	output cli.Output
}

func (q *query) flags(cmd *cobra.Command) *cobra.Command {
	configFlag(cmd, &q.config)
	q.target.Flags(cmd)
	q.output.Flags(cmd)
	if strings.Contains(cmd.Use, "REPOSITORY") {
		cli.CompleteArgument(cmd, q.repositoryNames)
	}
	return cmd
}

// repositoryNames asks the daemon, for the shell's completion; nothing where it does not answer.
func (q *query) repositoryNames(cmd *cobra.Command) (names []string) {
	ctx, cancel := cli.Brief(cmd.Context())
	defer cancel()
	_ = q.ask(func(api antipodev1.ReplicationServiceClient) error { // who types is not told
		all, err := listAll(ctx, api, antipodev1.RepositoryState_REPOSITORY_STATE_UNSPECIFIED)
		for _, row := range all.GetRepositories() {
			names = append(names, row.GetName())
		}
		return err
	})
	return names
}

// ask connects to the daemon, runs do, and disconnects.
func (q *query) ask(do func(antipodev1.ReplicationServiceClient) error) error {
	if err := q.output.Check(); err != nil {
		return err
	}
	cfg, err := loadSettings(q.config)
	if err != nil {
		return err
	}
	conn, err := q.target.Connect(cfg.GRPC.Listen, cfg.GRPC.CertFile, cfg.GRPC.KeyFile, userAgent())
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close() }()
	return do(antipodev1.NewReplicationServiceClient(conn))
}
