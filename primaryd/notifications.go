package main

import (
	"encoding/json"
	"fmt"
	"net"
	"net/url"

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
			secret, err := (&daemon{cfg: cfg}).secret()
			if err != nil {
				return err
			}
			remark := ""
			if endpoint == "" {
				endpoint, remark = defaultEndpoint(cfg.HTTP.Listen)
			}
			_, err = fmt.Fprintf(cmd.OutOrStdout(), block, remark, quoted(endpoint), quoted("Bearer "+string(secret)))
			return err
		},
	}
	configFlag(cmd, &path)
	cmd.Flags().StringVar(&endpoint, "url", "", "where the registry reaches primaryd (default: http.listen of the config)")
	return cmd
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
		remark = "      # http.listen is on all interfaces: put the name here that the registry reaches primaryd by\n"
	}
	if port == "0" {
		remark += "      # http.listen takes any free port: fix it, and put it here\n"
	}
	return (&url.URL{Scheme: "http", Host: net.JoinHostPort(host, port), Path: "/notifications"}).String(), remark
}

// quoted is a text as a YAML double-quoted scalar, of which JSON's strings are a part (YAML 1.2, section 1.3).
func quoted(text string) string {
	scalar, _ := json.Marshal(text) // a string always can be
	return string(scalar)
}

// block is the endpoint in the registry's configuration: a remark, the URL, the header. Pulls and blobs say nothing
// about tags; leaving them out keeps the registry's queue short. A time-out below the commit's own would only send
// events twice.
const block = `notifications:
  endpoints:
    - name: antipode
%s      url: %s
      headers:
        Authorization: [%s]
      timeout: 5s
      threshold: 10
      backoff: 1s
      ignore:
        actions: [pull]
        mediatypes: [application/octet-stream]
`
