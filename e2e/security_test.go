package e2e

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/status"

	"github.com/antipode-registry/antipode/client"
	antipodev1 "github.com/antipode-registry/antipode/gen/antipode/v1"
	"github.com/antipode-registry/antipode/internal/authority"
	"github.com/antipode-registry/antipode/internal/link"
	"github.com/antipode-registry/antipode/internal/registrytest"
)

// A second node with a narrow grant, and one that has a certificate and no place in the configuration.
const narrowName, strangerName = "us-east", "nowhere"

// newGuardedPair is a pair whose primary has a public repository and a private one.
func newGuardedPair(t *testing.T) *pair {
	t.Helper()
	p := newPair(t, withPrimaryConfig("nodes", []any{
		map[string]any{"name": siteName, "repositories": []string{"**"}},
		map[string]any{"name": narrowName, "repositories": []string{"public/**"}},
	}))
	if err := errors.Join(
		authority.Issue(p.pki, narrowName, link.RoleNode, nil),
		authority.Issue(p.pki, strangerName, link.RoleNode, nil),
	); err != nil {
		t.Fatal(err)
	}
	push(t, p, "public/app", "v1", image(1))
	push(t, p, "private/app", "v1", image(2))
	p.Converges(t)
	return p
}

// TestStrangers: whoever cannot prove to be a configured node or operator learns nothing, and is logged.
func TestStrangers(t *testing.T) {
	t.Parallel()
	p := newGuardedPair(t)
	forged := filepath.Join(p.dir, "forged")
	if err := errors.Join(authority.Init(forged), authority.Issue(forged, siteName, link.RoleNode, nil),
		authority.Issue(forged, operatorName, link.RoleOperator, nil)); err != nil {
		t.Fatal(err)
	}
	pair := func(dir, name string) []tls.Certificate { return loadPair(t, dir, name) }
	hour, now := time.Hour, time.Now()
	odd := func(change func(*authority.Leaf)) []tls.Certificate { return p.oddPair(t, change) }
	const handshake = codes.Unavailable
	for name, c := range map[string]struct {
		certificates []tls.Certificate
		code         codes.Code
		logged       string
	}{
		"no certificate":                {nil, handshake, "client didn't provide a certificate"},
		"node of another authority":     {pair(forged, siteName), handshake, "unknown authority"},
		"operator of another authority": {pair(forged, operatorName), handshake, "unknown authority"},
		"unknown node":                  {pair(p.pki, strangerName), codes.Unauthenticated, "node=" + strangerName},
		"expired": {odd(func(l *authority.Leaf) {
			l.NotBefore, l.NotAfter = now.Add(-2*hour), now.Add(-hour)
		}), handshake, " is after "},
		"not yet valid": {odd(func(l *authority.Leaf) { l.NotBefore = now.Add(hour) }), handshake, " is before "},
		"for servers alone": {odd(func(l *authority.Leaf) {
			l.Usages = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
		}), handshake, "incompatible key usage"},
		"a name that is none": {odd(func(l *authority.Leaf) {
			l.Role, l.ExtraURIs = "", []*url.URL{{Scheme: "antipode", Host: "node", Path: "/../ops"}}
		}), handshake, "is not a name"},
		"two names": {odd(func(l *authority.Leaf) {
			l.ExtraURIs = []*url.URL{{Scheme: "antipode", Host: "operator", Path: "/ops"}}
		}), handshake, "more than one antipode URI"},
	} {
		t.Run(name, func(t *testing.T) {
			for call, err := range callPrimary(t.Context(), p.dialAs(t, p.Primary.GRPC(), c.certificates)) {
				refused(t, call, err, c.code)
			}
			for call, err := range callSecondary(t.Context(), p.dialAs(t, p.Secondary.GRPC(), c.certificates)) {
				refused(t, call, err, c.code)
			}
			p.bothLog(t, c.logged)
		})
	}
	t.Run("TLS 1.2", func(t *testing.T) { p.refusesOldTLS(t, pair(p.pki, operatorName)) })
}

// refusesOldTLS offers TLS 1.2 to both daemons, with a certificate that is good.
func (p *pair) refusesOldTLS(t *testing.T, certificates []tls.Certificate) {
	t.Helper()
	for _, d := range []*daemon{p.Primary, p.Secondary} {
		dialer := &tls.Dialer{Config: &tls.Config{
			MinVersion: tls.VersionTLS12, MaxVersion: tls.VersionTLS12, Certificates: certificates, RootCAs: p.roots(t),
		}}
		conn, err := dialer.DialContext(t.Context(), "tcp", d.GRPC())
		if err == nil {
			_ = conn.Close()
			t.Errorf("%s speaks TLS 1.2", d.name)
		} else if !strings.Contains(err.Error(), "protocol version not supported") {
			t.Errorf("%s: %v", d.name, err)
		}
	}
	p.bothLog(t, "client offered only unsupported versions")
}

// bothLog waits for both daemons to log why they refused somebody: they do so after the caller has heard of it.
func (p *pair) bothLog(t *testing.T, why string) {
	t.Helper()
	for _, d := range []*daemon{p.Primary, p.Secondary} {
		eventually(t, func(context.Context) error {
			if !strings.Contains(d.Log(), why) {
				return fmt.Errorf("%s did not log %q", d.name, why)
			}
			return nil
		})
	}
}

func loadPair(t *testing.T, dir, name string) []tls.Certificate {
	t.Helper()
	pair, err := tls.LoadX509KeyPair(filepath.Join(dir, name+".crt"), filepath.Join(dir, name+".key"))
	if err != nil {
		t.Fatal(err)
	}
	return []tls.Certificate{pair}
}

// oddPair is a certificate of the pair's own authority, that of the site but for the change.
func (p *pair) oddPair(t *testing.T, change func(*authority.Leaf)) []tls.Certificate {
	t.Helper()
	ca, err := authority.Open(p.pki)
	if err != nil {
		t.Fatal(err)
	}
	leaf := authority.Leaf{Role: link.RoleNode, Name: siteName}
	change(&leaf)
	made, err := ca.Issue(leaf)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	if err := authority.Write(made, filepath.Join(dir, "odd.crt"), filepath.Join(dir, "odd.key")); err != nil {
		t.Fatal(err)
	}
	return loadPair(t, dir, "odd")
}

func (p *pair) roots(t *testing.T) *x509.CertPool {
	t.Helper()
	pem, err := os.ReadFile(p.ca())
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(pem)
	return roots
}

// dialAs connects with certificates that client.Connect might not accept.
func (p *pair) dialAs(t *testing.T, address string, certificates []tls.Certificate) *grpc.ClientConn {
	t.Helper()
	config := &tls.Config{MinVersion: tls.VersionTLS13, RootCAs: p.roots(t)}
	if len(certificates) > 0 { // shown even if it is of an authority that the server does not name
		config.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &certificates[0], nil }
	}
	conn, err := grpc.NewClient(address, grpc.WithTransportCredentials(credentials.NewTLS(config)))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return conn
}

// callPrimary makes the calls of a site and of an operator, and returns the error of each.
func callPrimary(ctx context.Context, conn *grpc.ClientConn) map[string]error {
	c := client.New(conn)
	_, nodes := c.Nodes(ctx)
	_, tags := c.Tags(ctx, "private/app", client.Position{})
	calls := map[string]error{
		"ListNodes": nodes, "ListTags": tags,
		"ReportStatus": c.Report(ctx, siteName, &antipodev1.NodeStatus{Version: "forged"}),
	}
	for _, err := range c.Subscribe(ctx, siteName, client.Position{}) {
		calls["Subscribe"] = err
		break
	}
	return calls
}

// callSecondary makes calls of an operator.
func callSecondary(ctx context.Context, conn *grpc.ClientConn) map[string]error {
	c := antipodev1.NewReplicationServiceClient(conn)
	_, state := c.GetStatus(ctx, &antipodev1.GetStatusRequest{})
	_, list := c.ListRepositories(ctx, &antipodev1.ReplicationServiceListRepositoriesRequest{})
	_, resync := c.Resync(ctx, &antipodev1.ResyncRequest{All: true})
	_, pause := c.Pause(ctx, &antipodev1.PauseRequest{})
	return map[string]error{"GetStatus": state, "ListRepositories": list, "Resync": resync, "Pause": pause}
}

// refused fails the test unless err has the code and tells nothing about what is behind it.
func refused(t *testing.T, call string, err error, want codes.Code) {
	t.Helper()
	if code := status.Code(err); code != want {
		t.Errorf("%s: %v, not %s", call, err, want)
	}
	for _, inner := range []string{".go:", "goroutine", "current time", "authority of", "key usage", "antipode URI", "sqlite", "SELECT", ".key", ".db", "sha256:", secret} {
		if strings.Contains(fmt.Sprint(err), inner) {
			t.Errorf("%s leaks %q: %v", call, inner, err)
		}
	}
}

// TestGrants: a node sees what it was granted and itself, speaks for itself alone, and controls nothing.
func TestGrants(t *testing.T) {
	t.Parallel()
	p := newGuardedPair(t)
	conn := p.connect(p.Primary.GRPC(), narrowName)
	c, ctx := client.New(conn), t.Context()
	t.Run("listing", func(t *testing.T) {
		listing, err := c.Tags(ctx, "public/app", client.Position{})
		if err != nil || len(listing.Tags) != 1 {
			t.Errorf("what is granted: %v %v", listing, err)
		}
		_, real := c.Tags(ctx, "private/app", client.Position{})
		refused(t, "a repository that exists", real, codes.PermissionDenied)
		_, made := c.Tags(ctx, "private/xyz", client.Position{})
		refused(t, "a repository that does not", made, codes.PermissionDenied)
		if strings.ReplaceAll(fmt.Sprint(made), "xyz", "app") != fmt.Sprint(real) {
			t.Errorf("the answers tell which of them exists:\n%v\n%v", real, made)
		}
	})
	t.Run("feed", func(t *testing.T) { seesGranted(t, p, c) })
	t.Run("in another's name", func(t *testing.T) {
		for _, err := range c.Subscribe(ctx, siteName, client.Position{}) {
			refused(t, "Subscribe", err, codes.PermissionDenied)
			break
		}
		refused(t, "ReportStatus", c.Report(ctx, siteName, &antipodev1.NodeStatus{Version: "forged"}), codes.PermissionDenied)
		_, err := antipodev1.NewNodeServiceClient(conn).GetNode(ctx, &antipodev1.GetNodeRequest{Name: siteName})
		refused(t, "GetNode", err, codes.PermissionDenied)
		nodes, err := c.Nodes(ctx)
		if err != nil || len(nodes) != 1 || nodes[0].GetName() != narrowName {
			t.Errorf("it sees the nodes %v %v", nodes, err)
		}
		operator := client.New(p.connect(p.Primary.GRPC(), operatorName))
		refused(t, "an operator's ReportStatus", operator.Report(ctx, siteName, &antipodev1.NodeStatus{}), codes.PermissionDenied)
		if v := p.node(t).GetStatus().GetVersion(); v == "forged" {
			t.Error("the forged report was stored")
		}
	})
	t.Run("another site's controls", func(t *testing.T) {
		for call, err := range callSecondary(ctx, p.connect(p.Secondary.GRPC(), narrowName)) {
			refused(t, call, err, codes.Unauthenticated)
		}
		if p.Status(t).GetPaused() {
			t.Error("a node has paused another")
		}
	})
	for _, logged := range []string{"node=" + narrowName, "grpc.code=PermissionDenied"} {
		if !strings.Contains(p.Primary.Log(), logged) {
			t.Errorf("primaryd did not log %q", logged)
		}
	}
}

// seesGranted reads the feed from its beginning to its head.
func seesGranted(t *testing.T, p *pair, c *client.Client) {
	var seen []string
	for event, err := range c.Subscribe(t.Context(), narrowName, client.Position{}) {
		if err != nil {
			t.Fatal(err)
		}
		for _, change := range event.Changes {
			seen = append(seen, change.Repository)
		}
		if event.Cursor >= event.Head {
			break
		}
	}
	if len(seen) != 1 || seen[0] != "public/app" {
		t.Errorf("the feed shows %v", seen)
	}
	feed := antipodev1.NewFeedServiceClient(p.connect(p.Primary.GRPC(), narrowName))
	resp, err := feed.ListRepositories(t.Context(), &antipodev1.ListRepositoriesRequest{})
	if err != nil || len(resp.GetRepositories()) != 1 || resp.GetRepositories()[0].GetName() != "public/app" {
		t.Errorf("the list of repositories shows %v %v", resp, err)
	}
}

func (p *pair) node(t *testing.T) *antipodev1.Node {
	t.Helper()
	resp, err := p.Nodes().GetNode(t.Context(), &antipodev1.GetNodeRequest{Name: siteName})
	if err != nil {
		t.Fatal(err)
	}
	return resp.GetNode()
}

// TestCertificatesReplaced replaces the authority and every certificate under two running daemons.
func TestCertificatesReplaced(t *testing.T) {
	t.Parallel()
	p := newPair(t)
	push(t, p, "team/app", "v1", image(1))
	p.Converges(t)
	old := filepath.Join(p.dir, "old")
	if err := errors.Join(os.CopyFS(old, os.DirFS(p.pki)), os.RemoveAll(p.pki)); err != nil {
		t.Fatal(err)
	}
	p.certificates()
	clear(p.connections) // what was made with the old certificates goes on; new ones are to be seen
	if _, err := p.Nodes().ListNodes(t.Context(), &antipodev1.ListNodesRequest{}, patiently); err != nil {
		t.Errorf("primaryd does not know the new authority: %v", err)
	}
	if s := p.Status(t); !s.GetConnected() {
		t.Errorf("the site is not connected: %q", s.GetProblems())
	}
	_, err := client.New(p.dialAs(t, p.Primary.GRPC(), loadPair(t, old, operatorName))).Nodes(t.Context())
	refused(t, "the old operator", err, codes.Unavailable)
	// The site, which is not restarted, must show its new certificate when it has to connect again.
	p.Primary.Restart()
	push(t, p, "team/app", "v2", image(2))
	p.Converges(t)
	p.Secondary.Restart()
	push(t, p, "team/app", "v3", image(3))
	p.Converges(t)
}

// TestNarrowSite: a site that is granted a part of the primary has that part, and is synced.
func TestNarrowSite(t *testing.T) {
	t.Parallel()
	p := newPair(t, withPrimaryConfig("nodes", []any{
		map[string]any{"name": siteName, "repositories": []string{"public/**"}},
	}))
	push(t, p, "private/app", "v1", image(1))
	push(t, p, "public/app", "v1", image(2))
	arrives(t, p, "public/app", "v1", image(2).Digest)
	p.Synced(t)
	if tags := registrytest.Tags(t, p.Site.URL(), "private/app"); len(tags) > 0 {
		t.Errorf("the site has %v", tags)
	}
	nodeIs(t, p, antipodev1.NodeState_NODE_STATE_HEALTHY)
}
