// Package doctor finds what is wrong with a site, from its configuration and, where it runs, from the daemon itself.
//
// It guarantees that each part that replication rests on has a finding: certificates, the database, the primary and
// what it lets this site do, the primary's registry, and the site's own, into which it writes a small image that it
// deletes again by its tag, as a sync would. What it could not take back is a finding.
//
// It refuses to mend anything by itself.
package doctor

import (
	"context"
	"crypto/x509"
	"strings"

	"google.golang.org/grpc"

	antipodev1 "github.com/antipode-registry/antipode/gen/antipode/v1"
	"github.com/antipode-registry/antipode/internal/checkup"
	"github.com/antipode-registry/antipode/internal/link"
	"github.com/antipode-registry/antipode/internal/registry"
)

// Options say what to examine; all but SourceURL, the CA files and Doing are required.
type Options struct {
	Node     string // the site's name
	Database string // its URL

	Primary                                        func() (*grpc.ClientConn, error) // a connection, as the site
	PrimaryCertFile, PrimaryKeyFile, PrimaryCAFile string

	SourceURL    string // of the primary's registry; "" = what the primary says
	OpenSource   func(url string) (*registry.Registry, error)
	SourceCAFile string

	Registry       *registry.Registry
	RegistryCAFile string
	Repository     string // of the site's registry, reserved for probes

	CertFile, KeyFile, ClientCAFile string                           // of the daemon's own service
	Connect                         func() (*grpc.ClientConn, error) // to the daemon
	Version                         string                           // of this program

	Doing func(what string) // is told what is looked at next; nil where nobody wants to know
}

// examination is one visit.
type examination struct {
	Options

	report *checkup.Report
}

// Examine makes all checks, one after the other, and returns the findings. It takes about a minute where everything
// hangs, and seconds otherwise.
func Examine(ctx context.Context, opts Options) *checkup.Report {
	e := &examination{Options: opts, report: &checkup.Report{}}
	e.doing("certificates")
	e.report.CheckPair(checkup.Pair{
		Check: "primary.cert_file", CertFile: opts.PrimaryCertFile, KeyFile: opts.PrimaryKeyFile,
		Usage: x509.ExtKeyUsageClientAuth, Role: link.RoleNode, Name: opts.Node,
	})
	e.report.CheckAuthorities("primary.ca_file", opts.PrimaryCAFile)
	e.report.CheckPair(checkup.Pair{
		Check: "grpc.cert_file", CertFile: opts.CertFile, KeyFile: opts.KeyFile,
		Usage: x509.ExtKeyUsageServerAuth, Role: link.RoleNode,
	})
	e.report.CheckAuthorities("grpc.client_ca_file", opts.ClientCAFile)
	e.doing("the database")
	e.report.CheckDatabase(ctx, opts.Database, "tracking")
	site := checkup.Registry{Name: "registry", Handle: opts.Registry, CAFile: opts.RegistryCAFile}
	e.doing("the site's registry")
	if e.report.CheckRegistry(ctx, site) {
		e.report.CheckWrite(ctx, site, opts.Repository, checkup.ProbeTag(opts.Registry.URL()))
	}
	e.doing("the primary")
	e.checkPrimary(ctx)
	e.doing("the daemon")
	e.checkDaemon(ctx)
	return e.report
}

func (e *examination) doing(what string) {
	if e.Doing != nil {
		e.Doing(what)
	}
}

// checkDaemon looks at how the running daemon says it is.
func (e *examination) checkDaemon(ctx context.Context) {
	conn, err := e.Connect()
	if err != nil {
		e.report.Fail("daemon", "correct `grpc` in the configuration", "%v", err)
		return
	}
	defer func() { _ = conn.Close() }()
	ctx, cancel := checkup.Within(ctx)
	defer cancel()
	resp, err := antipodev1.NewReplicationServiceClient(conn).GetStatus(ctx, &antipodev1.GetStatusRequest{})
	if err != nil {
		e.report.Warn("daemon", "start it with secondaryd serve; if it runs, see its log", "it does not answer: %s", said(err))
		return
	}
	s := resp.GetStatus()
	switch {
	case s.GetPaused():
		e.report.Warn("daemon", "go on with secondaryd resume", "it is paused")
	case len(s.GetProblems()) > 0:
		e.report.Warn("daemon", "see secondaryd status, and secondaryd explain for a repository", "%s",
			strings.Join(s.GetProblems(), "; "))
	default:
		e.report.OK("daemon", "it answers; %d of %d repositories are synced",
			s.GetRepositories().GetSynced(), s.GetRepositories().GetTotal())
	}
	if s.GetVersion() != e.Version {
		e.report.Warn("daemon", "restart it, so that it runs what is installed", "it runs %s, this is %s", s.GetVersion(), e.Version)
	}
}
