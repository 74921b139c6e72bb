package doctor

import (
	"context"
	"fmt"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/antipode-registry/antipode/client"
	antipodev1 "github.com/antipode-registry/antipode/gen/antipode/v1"
	"github.com/antipode-registry/antipode/internal/checkup"
)

// checkPrimary looks at the primary as the site sees it, and at the registry that it points to.
func (e *examination) checkPrimary(ctx context.Context) {
	conn, err := e.Primary()
	if err != nil {
		e.report.Fail("primary", "correct `primary` in the configuration", "%v", err)
		return
	}
	defer func() { _ = conn.Close() }()
	if !e.checkHello(ctx, conn) {
		if e.SourceURL != "" {
			e.checkSource(ctx, e.SourceURL, image{})
		}
		return
	}
	found, err := e.findImage(ctx, conn)
	switch {
	case err != nil:
		e.report.Fail("primary", "see primaryd doctor at the primary", "it does not list tags: %s", said(err))
	case found.source == "" && e.SourceURL == "":
		e.report.Warn("primary's registry", "push something there, and see that primaryd's `nodes` grants it to this site",
			"the primary has nothing for this site yet, so its registry cannot be looked at")
		return
	}
	if e.SourceURL != "" {
		found.source = e.SourceURL
	}
	if found.source != "" {
		e.checkSource(ctx, found.source, found)
	}
}

// checkHello opens a subscription, as the follower does: the connection, both certificates, the name and the version.
func (e *examination) checkHello(ctx context.Context, conn *grpc.ClientConn) bool {
	ctx, cancel := checkup.Within(ctx)
	defer cancel()
	hello, err := hello(ctx, conn, e.Node)
	if err != nil {
		e.report.Fail("primary", mendPrimary(err), "%s", said(err))
		return false
	}
	e.report.OK("primary", "it takes this site for %s; it runs %s, and its feed is at revision %d", e.Node, hello.GetVersion(),
		hello.GetHeadRevision())
	if theirs := hello.GetVersion(); theirs != e.Version {
		e.report.Warn("primary", "bring both ends to the same version", "it runs %s, this is %s", theirs, e.Version)
	}
	return true
}

func hello(ctx context.Context, conn *grpc.ClientConn, node string) (*antipodev1.Hello, error) {
	stream, err := antipodev1.NewFeedServiceClient(conn).Subscribe(ctx, &antipodev1.SubscribeRequest{Node: node})
	if err != nil {
		return nil, err
	}
	first, err := stream.Recv()
	return first.GetHello(), err
}

func mendPrimary(err error) string {
	switch status.Code(err) {
	case codes.Unauthenticated, codes.PermissionDenied:
		return "add the site to `nodes` of primaryd's configuration, or present the certificate that names it"
	case codes.Unavailable, codes.DeadlineExceeded:
		return "start primaryd, and see that primary.address leads to it; where TLS fails, that primary.ca_file is its " +
			"authority and that its certificate is for that host"
	default:
		return "see primaryd's log"
	}
}

// said is what the other end answered, without gRPC's wording.
func said(err error) string {
	if s, ok := status.FromError(err); ok {
		return fmt.Sprintf("%s (%s)", s.Message(), s.Code())
	}
	return err.Error()
}

// image is something that can be read.
type image struct {
	source          string // URL of the registry it is in
	repository, tag string // "" where there is none
}

// findImage looks for a tag that the site is granted, and so for the address of the primary's registry.
func (e *examination) findImage(ctx context.Context, conn *grpc.ClientConn) (image, error) {
	ctx, cancel := checkup.Within(ctx)
	defer cancel()
	const most = 20 // repositories that are looked at
	rows, err := antipodev1.NewFeedServiceClient(conn).ListRepositories(ctx, &antipodev1.ListRepositoriesRequest{PageSize: most})
	if err != nil {
		return image{}, err
	}
	primary := client.New(conn)
	var found image
	for _, row := range rows.GetRepositories() {
		listing, err := primary.Tags(ctx, row.GetName(), client.Position{})
		if err != nil {
			return found, err
		}
		found.source = listing.RegistryURL
		if len(listing.Tags) > 0 {
			found.repository, found.tag = row.GetName(), listing.Tags[0].Name
			break
		}
	}
	return found, nil
}

// checkSource asks the primary's registry, and reads an image where there is one.
func (e *examination) checkSource(ctx context.Context, url string, found image) {
	handle, err := e.OpenSource(url)
	if err != nil {
		e.report.Fail("primary's registry", "correct registry.advertise_url at the primary, or primary.registry_url here", "%v", err)
		return
	}
	defer handle.Close()
	source := checkup.Registry{Name: "primary's registry", Handle: handle, CAFile: e.SourceCAFile}
	if e.report.CheckRegistry(ctx, source) && found.tag != "" {
		e.report.CheckRead(ctx, source, found.repository, found.tag)
	}
}
