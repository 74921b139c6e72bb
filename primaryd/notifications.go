package main

import (
	"fmt"
	"net/url"
	"strings"

	"github.com/spf13/cobra"

	"github.com/antipode-registry/antipode/internal/cli"
)

func newNotifications() *cobra.Command {
	var path, endpoint string
	cmd := &cobra.Command{
		Use:   "notifications",
		Short: "Print the block that the registry's own configuration needs (CNCF distribution 2.x and 3.x)",
		Args:  cli.Args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := loadSettings(path)
			if err != nil {
				return err
			}
			if endpoint == "" {
				endpoint = (&url.URL{Scheme: "http", Host: cfg.HTTP.Listen, Path: "/notifications"}).String()
			}
			secret, err := (&daemon{cfg: cfg}).secret()
			if err != nil {
				return err
			}
			_, err = fmt.Fprint(cmd.OutOrStdout(), strings.NewReplacer("URL", endpoint, "SECRET", string(secret)).Replace(block))
			return err
		},
	}
	configFlag(cmd, &path)
	cmd.Flags().StringVar(&endpoint, "url", "", "where the registry reaches primaryd (default: http.listen of the config)")
	return cmd
}

// block is the endpoint in the registry's configuration. Pulls and blobs say nothing about tags; leaving them out keeps
// the registry's queue short. A time-out below the commit's own would only send events twice.
const block = `notifications:
  endpoints:
    - name: antipode
      url: URL
      headers:
        Authorization: ["Bearer SECRET"]
      timeout: 5s
      threshold: 10
      backoff: 1s
      ignore:
        actions: [pull]
        mediatypes: [application/octet-stream]
`
