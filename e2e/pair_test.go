package e2e

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"testing"

	"google.golang.org/grpc"

	"github.com/antipode-registry/antipode/client"
	antipodev1 "github.com/antipode-registry/antipode/gen/antipode/v1"
	"github.com/antipode-registry/antipode/internal/authority"
	"github.com/antipode-registry/antipode/internal/link"
	"github.com/antipode-registry/antipode/internal/registrytest"
)

// Names in every pair's configuration.
const (
	siteName     = "eu-west"
	operatorName = "ops"
	secret       = "a shared secret of the tests"
)

// pair is a primary and a site, complete: two registries and the two daemons.
//
//	primary registry --(Hook)--> primaryd <-- secondaryd --(SiteProxy)--> site registry
//	        ^--------(Proxy)--------'-------------'
//
// Its methods are for the goroutine of the test that made it.
type pair struct {
	t                testing.TB
	dir, pki         string
	Registry, Site   *registrytest.Process
	Primary          *daemon             // nil in a fleet, which has several
	Secondary        *daemon             // the same
	Hook             *registrytest.Proxy // before POST /notifications
	Proxy, SiteProxy *registrytest.Proxy // nil unless asked for
	connections      map[string]*grpc.ClientConn
	nodesAt, siteAt  func() string // where the services of primaryd and of secondaryd answer now
}

// newPair starts a pair for the length of the test and returns once both daemons are ready. Nothing is in the
// registries but what withContent put there.
func newPair(t testing.TB, opts ...option) *pair {
	t.Helper()
	o := gather(opts)
	// The registry's configuration names primaryd and primaryd's names the registry: the port is fixed beforehand.
	httpAddress, grpcAddress := reserve(t), reserve(t)
	p := newRegistries(t, &o, httpAddress)
	p.Primary = newDaemon(t, "primaryd", p.dir, p.primaryConfig(&o, httpAddress, grpcAddress))
	p.Secondary = newDaemon(t, "secondaryd", p.dir, p.secondaryConfig(&o, grpcAddress))
	p.nodesAt, p.siteAt = p.Primary.GRPC, p.Secondary.GRPC
	p.Primary.Start()
	p.Secondary.Start()
	return p
}

// newRegistries makes a pair without its daemons; notifications go to the address.
func newRegistries(t testing.TB, o *options, httpAddress string) *pair {
	t.Helper()
	dir := t.TempDir()
	p := &pair{t: t, dir: dir, pki: filepath.Join(dir, "pki"), connections: map[string]*grpc.ClientConn{}}
	p.certificates()
	p.write("notify.secret", secret+"\n")
	p.Hook = registrytest.NewProxy(t, "http://"+httpAddress)
	p.Notifications(!o.notificationsOff)
	if o.before != nil {
		o.primaryRegistry = append(o.primaryRegistry, registrytest.WithStorage(stored(t, o.before)))
	}
	notify := registrytest.WithNotifications(p.Hook.URL()+"/notifications", secret)
	p.Registry = registrytest.Distribution(t, append([]registrytest.Option{notify}, o.primaryRegistry...)...)
	p.Site = o.site(t, o.siteRegistry...)
	if o.primaryProxy {
		p.Proxy = registrytest.NewProxy(t, p.Registry.URL())
	}
	if o.siteProxy {
		p.SiteProxy = registrytest.NewProxy(t, p.Site.URL())
	}
	return p
}

// reserve picks an address on loopback for the length of the test.
func reserve(t testing.TB) string {
	t.Helper()
	return fmt.Sprintf("127.0.0.1:%d", registrytest.ReservePort(t))
}

func (p *pair) certificates() {
	p.t.Helper()
	if err := errors.Join(
		authority.Init(p.pki),
		authority.Issue(p.pki, "primary", link.RolePrimary, nil),
		authority.Issue(p.pki, siteName, link.RoleNode, nil),
		authority.Issue(p.pki, operatorName, link.RoleOperator, nil),
	); err != nil {
		p.t.Fatal(err)
	}
}

func (p *pair) primaryConfig(o *options, httpAddress, grpcAddress string) map[string]any {
	url := p.Registry.URL()
	if p.Proxy != nil {
		url = p.Proxy.URL()
	}
	config := map[string]any{
		"database":      "sqlite:primary.db",
		"registry":      map[string]any{"url": url},
		"notifications": map[string]any{"secret_file": filepath.Join(p.dir, "notify.secret")},
		"http":          map[string]any{"listen": httpAddress},
		"grpc":          p.grpcConfig("primary", grpcAddress, map[string]any{"heartbeat": "1s"}),
		"nodes":         []any{map[string]any{"name": siteName, "repositories": []string{"**"}}},
		"operators":     []string{operatorName},
		"log":           map[string]any{"level": "debug"},
	}
	for _, edit := range o.primaryConfig {
		edit(config)
	}
	return config
}

func (p *pair) secondaryConfig(o *options, primary string) map[string]any {
	url := p.Site.URL()
	if p.SiteProxy != nil {
		url = p.SiteProxy.URL()
	}
	config := map[string]any{
		"node":     siteName,
		"database": "sqlite:secondary.db",
		"primary": map[string]any{
			"address": primary, "cert_file": p.cert(siteName), "key_file": p.key(siteName), "ca_file": p.ca(),
		},
		"registry": map[string]any{"url": url},
		"http":     map[string]any{"listen": "127.0.0.1:0"},
		"grpc":     p.grpcConfig(siteName, "127.0.0.1:0", nil),
		"log":      map[string]any{"level": "debug"},
	}
	for _, edit := range o.secondaryConfig {
		edit(config)
	}
	return config
}

func (p *pair) grpcConfig(name, listen string, more map[string]any) map[string]any {
	config := map[string]any{
		"listen": listen, "cert_file": p.cert(name), "key_file": p.key(name), "client_ca_file": p.ca(),
	}
	maps.Copy(config, more)
	return config
}

func (p *pair) cert(name string) string { return filepath.Join(p.pki, name+".crt") }
func (p *pair) key(name string) string  { return filepath.Join(p.pki, name+".key") }
func (p *pair) ca() string              { return filepath.Join(p.pki, "ca.crt") }

func (p *pair) write(name, text string) {
	p.t.Helper()
	if err := os.WriteFile(filepath.Join(p.dir, name), []byte(text), 0o600); err != nil {
		p.t.Fatal(err)
	}
}

// Notifications lets the registry's notifications through, or loses them: the registry is told that they arrived.
func (p *pair) Notifications(on bool) {
	if on {
		p.Hook.Fault(nil)
		return
	}
	p.Hook.Fault(func(*http.Request) registrytest.Fault { return registrytest.Fault{Status: http.StatusOK} })
}

// RefuseNotifications answers 503 to the registry's notifications, which keeps and repeats them.
func (p *pair) RefuseNotifications() {
	p.Hook.Fault(func(*http.Request) registrytest.Fault {
		return registrytest.Fault{Status: http.StatusServiceUnavailable}
	})
}

// connect dials a daemon with one of the pair's certificates, once for each address and certificate.
func (p *pair) connect(address, name string) *grpc.ClientConn {
	p.t.Helper()
	if conn, ok := p.connections[address+name]; ok {
		return conn
	}
	conn, err := client.Connect(client.Config{
		Address: address, CertFile: p.cert(name), KeyFile: p.key(name), CAFile: p.ca(),
	})
	if err != nil {
		p.t.Fatal(err)
	}
	p.t.Cleanup(func() { _ = conn.Close() })
	p.connections[address+name] = conn
	return conn
}

// Nodes is primaryd's node service as the operator sees it. Like Replication it is for the daemon's present life.
func (p *pair) Nodes() antipodev1.NodeServiceClient {
	return antipodev1.NewNodeServiceClient(p.connect(p.nodesAt(), operatorName))
}

// Replication is secondaryd's service as the operator sees it.
func (p *pair) Replication() antipodev1.ReplicationServiceClient {
	return antipodev1.NewReplicationServiceClient(p.connect(p.siteAt(), operatorName))
}

// patiently makes a call wait for a daemon that has just been started again, and whose old connection is still failing.
var patiently = grpc.WaitForReady(true)

// Status asks secondaryd how the site is.
func (p *pair) Status(t testing.TB) *antipodev1.NodeStatus {
	t.Helper()
	resp, err := p.Replication().GetStatus(t.Context(), &antipodev1.GetStatusRequest{}, patiently)
	if err != nil {
		t.Fatal(err)
	}
	return resp.GetStatus()
}

// Synced waits until the site has all that primaryd knows: the cursor is at the primary's head and every repository
// that the feed names is synced. A notification on its way is not known yet; see Converges.
func (p *pair) Synced(t testing.TB) {
	t.Helper()
	nodes, replication := p.Nodes(), p.Replication()
	eventually(t, func(ctx context.Context) error { return synced(ctx, nodes, replication) })
}

func synced(ctx context.Context, nodes antipodev1.NodeServiceClient, site antipodev1.ReplicationServiceClient) error {
	list, err := nodes.ListNodes(ctx, &antipodev1.ListNodesRequest{}, patiently)
	if err != nil {
		return err
	}
	resp, err := site.GetStatus(ctx, &antipodev1.GetStatusRequest{}, patiently)
	if err != nil {
		return err
	}
	s, counts := resp.GetStatus(), resp.GetStatus().GetRepositories()
	if !s.GetConnected() || s.GetCursorRevision() < list.GetHeadRevision() || counts.GetSynced() != counts.GetTotal() {
		return fmt.Errorf("connected %t, cursor %d of %d, repositories %v, last error %v, problems %q", s.GetConnected(),
			s.GetCursorRevision(), list.GetHeadRevision(), counts, s.GetLastError(), s.GetProblems())
	}
	return nil
}

// Equal fails the test unless both registries hold the same in these repositories, or in all.
func (p *pair) Equal(t testing.TB, repositories ...string) {
	t.Helper()
	registrytest.AssertEqual(t, p.Registry.URL(), p.Site.URL(), repositories...)
}

// Converges waits until both registries hold the same in these repositories, or in all, and the site says so too.
func (p *pair) Converges(t testing.TB, repositories ...string) {
	t.Helper()
	eventually(t, func(ctx context.Context) error {
		return registrytest.Equal(ctx, p.Registry.URL(), p.Site.URL(), repositories...)
	})
	p.Synced(t)
}
