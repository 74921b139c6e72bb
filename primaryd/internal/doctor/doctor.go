// Package doctor finds what is wrong with a primary, from its configuration and, where it runs, from the daemon itself.
//
// It guarantees that each part that replication rests on has a finding: secrets and certificates, the database, the
// registry and what its account may do, whether notifications arrive, and how the sites are. Without [Options.Probe] it
// writes nothing anywhere; with it, what it wrote is deleted again, or a finding says that it could not be.
//
// It refuses to mend anything by itself.
package doctor

import (
	"context"
	"crypto/x509"
	"time"

	"google.golang.org/grpc"

	"github.com/antipode-registry/antipode/client"
	"github.com/antipode-registry/antipode/internal/checkup"
	"github.com/antipode-registry/antipode/internal/link"
	"github.com/antipode-registry/antipode/internal/registry"
)

// arrival is how long a probe's notification may take: what registries wait before they try again is a few seconds.
const arrival = 15 * time.Second

// Options say what to examine; all but Probe, Arrival and Doing are required.
type Options struct {
	Database string // its URL

	Registry       *registry.Registry
	RegistryCAFile string
	Repository     string // reserved for probes
	Probe          bool   // push something and wait for its notification
	Arrival        time.Duration

	SecretFile string
	Secret     func() ([]byte, error) // of the notifications

	CertFile, KeyFile, ClientCAFile string

	HTTP    string                           // where the daemon's HTTP is, as a URL; "" where that cannot be known
	Connect func() (*grpc.ClientConn, error) // to the daemon's gRPC
	Version string                           // of this program

	Doing func(what string) // is told what is looked at next; nil where nobody wants to know
}

// examination is one visit.
type examination struct {
	Options

	report *checkup.Report
	source checkup.Registry
	client *client.Client // of the daemon; nil when it does not run
}

// Examine makes all checks, one after the other, and returns the findings. It takes well under a minute whatever hangs.
func Examine(ctx context.Context, opts Options) *checkup.Report {
	if opts.Arrival == 0 {
		opts.Arrival = arrival
	}
	e := &examination{
		Options: opts, report: &checkup.Report{},
		source: checkup.Registry{Name: "registry", Handle: opts.Registry, CAFile: opts.RegistryCAFile},
	}
	e.doing("secrets and certificates")
	e.report.CheckSecret("secret", opts.SecretFile, opts.Secret)
	e.report.CheckPair(checkup.Pair{
		Check: "grpc.cert_file", CertFile: opts.CertFile, KeyFile: opts.KeyFile,
		Usage: x509.ExtKeyUsageServerAuth, Role: link.RolePrimary,
	})
	e.report.CheckAuthorities("grpc.client_ca_file", opts.ClientCAFile)
	e.doing("the database")
	e.report.CheckDatabase(ctx, opts.Database, "feed", "node")
	e.doing("the registry")
	answers := e.report.CheckRegistry(ctx, e.source)
	if answers {
		e.checkContent(ctx)
	}
	e.doing("the daemon")
	e.checkDaemon(ctx, answers)
	return e.report
}

func (e *examination) doing(what string) {
	if e.Doing != nil {
		e.Doing(what)
	}
}

// checkContent makes sure that the sweep can walk the catalog, and sites can read what is in it.
func (e *examination) checkContent(ctx context.Context) {
	ctx, cancel := checkup.Within(ctx)
	defer cancel()
	const most = 20 // repositories that are looked at for a tag
	seen := 0
	for name, err := range e.Registry.Repositories(ctx) {
		if err != nil {
			e.report.Warn("registry", "give the account the right to list the catalog: without it the sweep does not find "+
				"what no notification told of", "%v", err)
			return
		}
		if seen++; seen > most || e.checkRepository(ctx, name) {
			break
		}
	}
	if seen == 0 {
		e.report.OK("registry", "its catalog can be listed, and is empty")
	}
}

// checkRepository reads one image of a repository, if it has any.
func (e *examination) checkRepository(ctx context.Context, repository string) bool {
	tags, present, err := e.Registry.TagNames(ctx, repository)
	if err != nil {
		e.report.Fail("registry", "give the account the right to pull "+repository, "%v", err)
		return true
	}
	if !present || len(tags) == 0 {
		return false
	}
	e.report.OK("registry", "its catalog and its tags can be listed")
	e.report.CheckRead(ctx, e.source, repository, tags[0])
	if found, _, err := e.Registry.Resolve(ctx, repository, tags[:1]); err == nil && len(found) == 1 {
		e.report.CheckReferrers(ctx, e.source, repository, found[0].Digest)
	}
	return true
}

// checkDaemon looks at what only the running daemon can tell.
func (e *examination) checkDaemon(ctx context.Context, registryAnswers bool) {
	conn, err := e.Connect()
	if err != nil {
		e.report.Fail("daemon", "correct `grpc` in the configuration", "%v", err)
		return
	}
	defer func() { _ = conn.Close() }()
	e.client = client.New(conn)
	head, ok := e.checkGRPC(ctx)
	if !ok {
		return
	}
	e.checkNodes(ctx)
	if e.HTTP == "" {
		e.report.Warn("notifications", "set a fixed port in `http.listen`: a registry could not be told where to notify",
			"http.listen takes any free port")
		return
	}
	if e.checkHook(ctx) {
		e.checkNotifications(ctx, head, registryAnswers)
	}
}

// checkGRPC asks the daemon for the head of the feed.
func (e *examination) checkGRPC(ctx context.Context) (client.Position, bool) {
	ctx, cancel := checkup.Within(ctx)
	defer cancel()
	for event, err := range e.client.Subscribe(ctx, "", client.Position{}) {
		if err != nil {
			e.report.Warn("daemon", "start it with primaryd serve, and ask again: whether notifications arrive and how the "+
				"sites are can be seen only then", "it does not answer: %v", err)
			break
		}
		e.report.OK("daemon", "it answers; the feed is at revision %d", event.Head)
		return client.Position{FeedID: event.FeedID, Revision: event.Head}, true
	}
	return client.Position{}, false
}
