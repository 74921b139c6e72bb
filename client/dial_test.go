package client_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"

	"github.com/antipode-registry/antipode/client"
	antipodev1 "github.com/antipode-registry/antipode/gen/antipode/v1"
	"github.com/antipode-registry/antipode/internal/authority"
	"github.com/antipode-registry/antipode/internal/link"
)

// files are a pair and a CA file on disk.
type files struct{ cert, key, ca string }

func newFiles(t testing.TB, issuer, trusted *authority.Authority, leaf authority.Leaf) files {
	t.Helper()
	dir := t.TempDir()
	f := files{filepath.Join(dir, "x.crt"), filepath.Join(dir, "x.key"), filepath.Join(dir, "ca.crt")}
	f.issue(t, issuer, leaf)
	f.trust(t, trusted)
	return f
}

func (f files) issue(t testing.TB, issuer *authority.Authority, leaf authority.Leaf) {
	t.Helper()
	pair, err := issuer.Issue(leaf)
	if err != nil {
		t.Fatal(err)
	}
	if err := authority.Write(pair, f.cert, f.key); err != nil {
		t.Fatal(err)
	}
}

func (f files) trust(t testing.TB, a *authority.Authority) {
	t.Helper()
	write(t, f.ca, string(a.CertificatePEM()))
}

func write(t testing.TB, path, content string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
}

func newAuthority(t testing.TB) *authority.Authority {
	t.Helper()
	a, err := authority.New()
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func primaryLeaf() authority.Leaf {
	return authority.Leaf{Name: "primary", Role: link.RolePrimary, Hosts: []string{"127.0.0.1"}}
}

func nodeLeaf(name string) authority.Leaf { return authority.Leaf{Name: name, Role: link.RoleNode} }

// mirror is a NodeService of one node, whose GetNode answers with who asks.
type mirror struct {
	antipodev1.UnimplementedNodeServiceServer
}

func (mirror) ListNodes(context.Context, *antipodev1.ListNodesRequest) (*antipodev1.ListNodesResponse, error) {
	node := &antipodev1.Node{Name: "eu-west", State: antipodev1.NodeState_NODE_STATE_HEALTHY}
	return &antipodev1.ListNodesResponse{Nodes: []*antipodev1.Node{node}}, nil
}

func (mirror) GetNode(ctx context.Context, _ *antipodev1.GetNodeRequest) (*antipodev1.GetNodeResponse, error) {
	id, _ := link.IdentityFrom(ctx)
	return &antipodev1.GetNodeResponse{Node: &antipodev1.Node{Name: id.String()}}, nil
}

// serve runs a server that ends its connections quickly, so that a client shows rotations without being told.
func serve(t testing.TB, ca *authority.Authority) (address string, own files) {
	t.Helper()
	own = newFiles(t, ca, ca, primaryLeaf())
	server, err := link.Listen(link.ServerConfig{
		Listen: "127.0.0.1:0", CertFile: own.cert, KeyFile: own.key, ClientCAFile: own.ca,
		MaxConnectionAge: 20 * time.Millisecond, Logger: slog.New(slog.DiscardHandler),
		Authorize: func(context.Context, string, link.Identity) error { return nil },
	})
	if err != nil {
		t.Fatal(err)
	}
	antipodev1.RegisterNodeServiceServer(server.GRPC(), mirror{})
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- server.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("stop: %v", err)
		}
	})
	return server.Addr().String(), own
}

func connect(t testing.TB, address string, as files, options ...func(*client.Config)) *grpc.ClientConn {
	t.Helper()
	cfg := client.Config{Address: address, CertFile: as.cert, KeyFile: as.key, CAFile: as.ca}
	for _, option := range options {
		option(&cfg)
	}
	conn, err := client.Connect(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := conn.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	return conn
}

// deadline bounds what a test waits for; it only matters when the test fails.
func deadline(t testing.TB) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	t.Cleanup(cancel)
	return ctx
}

// whoami asks the server who we are, and looks who it is.
func whoami(ctx context.Context, conn *grpc.ClientConn) (name, server string, err error) {
	var from peer.Peer
	answer, err := antipodev1.NewNodeServiceClient(conn).GetNode(ctx, &antipodev1.GetNodeRequest{}, grpc.Peer(&from))
	if info, ok := from.AuthInfo.(credentials.TLSInfo); ok {
		server = info.State.PeerCertificates[0].Subject.CommonName
	}
	return answer.GetNode().GetName(), server, err
}

// until asks again, each time on whatever connection there is, until done is content.
func until(t testing.TB, conn *grpc.ClientConn, done func(name, server string, err error) bool) {
	t.Helper()
	ctx := deadline(t)
	for {
		name, server, err := whoami(ctx, conn)
		if done(name, server, err) {
			return
		}
		if ctx.Err() != nil {
			t.Fatalf("never came: last %q from %q, %v", name, server, err)
		}
	}
}

func connected(_, _ string, err error) bool { return err == nil }

func TestConnectRefusesServers(t *testing.T) {
	t.Parallel()
	ca, now := newAuthority(t), time.Now()
	tests := map[string]struct {
		issuer *authority.Authority
		change func(*authority.Leaf)
		tls12  bool
		want   string
	}{
		"wrong CA": {newAuthority(t), func(*authority.Leaf) {}, false, "unknown authority"},
		"expired": {ca, func(l *authority.Leaf) {
			l.NotBefore, l.NotAfter = now.Add(-2*time.Hour), now.Add(-time.Hour)
		}, false, "expired"},
		"not yet valid": {ca, func(l *authority.Leaf) { l.NotBefore = now.Add(time.Hour) }, false, "not yet valid"},
		"another host":  {ca, func(l *authority.Leaf) { l.Hosts = []string{"192.0.2.1", "localhost"} }, false, "not 127.0.0.1"},
		"wrong usage": {ca, func(l *authority.Leaf) {
			l.Usages = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}
		}, false, "incompatible key usage"},
		"a node's": {ca, func(l *authority.Leaf) { l.Role = link.RoleNode }, false, "that of a node, not of a primary"},
		"TLS 1.2":  {ca, func(*authority.Leaf) {}, true, "protocol version not supported"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			leaf := primaryLeaf()
			test.change(&leaf)
			f := newFiles(t, test.issuer, ca, leaf)
			pair, err := tls.LoadX509KeyPair(f.cert, f.key)
			if err != nil {
				t.Fatal(err)
			}
			config := &tls.Config{Certificates: []tls.Certificate{pair}, NextProtos: []string{"h2"}}
			if test.tls12 {
				config.MaxVersion = tls.VersionTLS12
			}
			conn := connect(t, listenTLS(t, config), newFiles(t, ca, ca, nodeLeaf("eu-west")), fromPrimary)
			_, _, err = whoami(deadline(t), conn)
			if status.Code(err) != codes.Unavailable || !strings.Contains(err.Error(), test.want) {
				t.Errorf("got %v", err)
			}
		})
	}
}

func fromPrimary(cfg *client.Config) { cfg.ServerRole = string(link.RolePrimary) }

// listenTLS is a TLS server that gets no further than the handshake.
func listenTLS(t testing.TB, config *tls.Config) (address string) {
	t.Helper()
	inner, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	listener := tls.NewListener(inner, config)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			_, _ = conn.Read(make([]byte, 1)) // drives the handshake, which is to fail
			_ = conn.Close()
		}
	}()
	t.Cleanup(func() {
		if err := listener.Close(); err != nil {
			t.Error(err)
		}
		<-done
	})
	return inner.Addr().String()
}

func TestOwnCertificateIsPinned(t *testing.T) {
	t.Parallel()
	ca := newAuthority(t)
	address, own := serve(t, ca)
	pinned := func(cfg *client.Config) { cfg.OwnCertificate, cfg.CAFile = true, "" }
	// A certificate without any host: nothing but the pin can let it pass.
	own.issue(t, ca, authority.Leaf{Name: "primary", Role: link.RolePrimary})
	conn := connect(t, address, own, pinned)
	until(t, conn, connected)
	// The same name and CA, another certificate.
	_, _, err := whoami(deadline(t), connect(t, address, newFiles(t, ca, ca, primaryLeaf()), pinned))
	if status.Code(err) != codes.Unavailable || !strings.Contains(err.Error(), "does not present our own certificate") {
		t.Errorf("with another pair: %v", err)
	}
	_, _, err = whoami(deadline(t), connect(t, address, newFiles(t, ca, ca, nodeLeaf("eu"))))
	if status.Code(err) != codes.Unavailable {
		t.Errorf("a server without hosts was taken without the pin: %v", err)
	}
	own.issue(t, ca, authority.Leaf{Name: "renewed", Role: link.RolePrimary})
	until(t, conn, func(name, server string, err error) bool {
		return err == nil && name == "primary/renewed" && server == "renewed"
	})
}

func TestCertificateRotatesUnfelt(t *testing.T) {
	t.Parallel()
	ca := newAuthority(t)
	address, own := serve(t, ca)
	node := newFiles(t, ca, ca, nodeLeaf("eu-west"))
	conn := connect(t, address, node)
	until(t, conn, func(name, _ string, err error) bool { return err == nil && name == "node/eu-west" })
	node.issue(t, ca, nodeLeaf("eu-north"))
	renewed := primaryLeaf()
	renewed.Name = "renewed"
	own.issue(t, ca, renewed)
	until(t, conn, func(name, server string, err error) bool {
		if err != nil {
			t.Fatalf("a rotation was felt: %v", err)
		}
		return name == "node/eu-north" && server == "renewed"
	})
}

// An authority that the client no longer trusts ends its connections until the server has another certificate.
func TestCAFileRotates(t *testing.T) {
	t.Parallel()
	ca, second := newAuthority(t), newAuthority(t)
	address, own := serve(t, ca)
	node := newFiles(t, ca, ca, nodeLeaf("eu-west"))
	conn := connect(t, address, node)
	until(t, conn, connected)
	node.trust(t, second)
	until(t, conn, func(_, _ string, err error) bool {
		return err != nil && strings.Contains(err.Error(), "unknown authority")
	})
	own.issue(t, second, primaryLeaf())
	conn.ResetConnectBackoff()
	until(t, conn, connected)
}

func TestBrokenFilesKeepTheOldOnes(t *testing.T) {
	t.Parallel()
	ca := newAuthority(t)
	address, _ := serve(t, ca)
	node := newFiles(t, ca, ca, nodeLeaf("eu-west"))
	log := &lockedBuffer{}
	conn := connect(t, address, node, func(cfg *client.Config) { cfg.Logger = slog.New(slog.NewTextHandler(log, nil)) })
	key, err := os.ReadFile(node.key)
	if err != nil {
		t.Fatal(err)
	}
	for _, damage := range []func(){
		func() { write(t, node.key, string(key)[:len(key)/2]) },
		func() { newFiles(t, ca, ca, nodeLeaf("other")).moveKey(t, node.key) }, // half of a replaced pair
		func() { write(t, node.ca, "") },
		func() {
			write(t, node.ca, string(ca.CertificatePEM())+"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")
		},
		func() { _ = os.Remove(node.cert) },
	} {
		damage()
		first := local(t, conn)
		until(t, conn, func(name, _ string, err error) bool {
			if err != nil || name != "node/eu-west" {
				t.Fatalf("%q, %v", name, err)
			}
			return local(t, conn) != first // a handshake with the damaged files
		})
	}
	if text := log.String(); !strings.Contains(text, "cannot be used") || strings.Contains(text, strings.Split(string(key), "\n")[1]) {
		t.Errorf("log: %s", text)
	}
}

func (f files) moveKey(t testing.TB, to string) {
	t.Helper()
	if err := os.Rename(f.key, to); err != nil {
		t.Fatal(err)
	}
}

// local is our end of the present connection, which tells one connection from the next.
func local(t testing.TB, conn *grpc.ClientConn) string {
	t.Helper()
	var from peer.Peer
	_, err := antipodev1.NewNodeServiceClient(conn).GetNode(deadline(t), &antipodev1.GetNodeRequest{}, grpc.Peer(&from))
	if err != nil {
		t.Fatal(err)
	}
	return from.LocalAddr.String()
}

func TestUnusableSettingsFailAtOnce(t *testing.T) {
	t.Parallel()
	ca := newAuthority(t)
	good, other := newFiles(t, ca, ca, primaryLeaf()), newFiles(t, ca, ca, primaryLeaf())
	tests := map[string]client.Config{
		"no address":          {Address: ""},
		"no port":             {Address: "primary"},
		"no host":             {Address: ":7443"},
		"a URL":               {Address: "https://primary:7443"},
		"missing certificate": {CertFile: good.cert + "x"},
		"missing key":         {KeyFile: good.key + "x"},
		"missing CA":          {CAFile: good.ca + "x"},
		"another's key":       {KeyFile: other.key},
		"key as certificate":  {CertFile: good.key},
		"certificate as key":  {KeyFile: good.cert},
		"key as CA":           {CAFile: good.key},
		"empty CA":            {CAFile: os.DevNull},
	}
	for name, cfg := range tests {
		if !strings.HasPrefix(name, "no ") && name != "a URL" {
			cfg.Address = "a:1"
		}
		for field, value := range map[*string]string{&cfg.CertFile: good.cert, &cfg.KeyFile: good.key, &cfg.CAFile: good.ca} {
			if *field == "" {
				*field = value
			}
		}
		if conn, err := client.Connect(cfg); err == nil {
			t.Errorf("%s: taken", name)
			_ = conn.Close()
		}
	}
}

func TestOutdatedCertificateIsToldOf(t *testing.T) {
	t.Parallel()
	ca, now := newAuthority(t), time.Now()
	for want, leaf := range map[string]authority.Leaf{
		"has expired":         {Name: "a", NotBefore: now.Add(-2 * time.Hour), NotAfter: now.Add(-time.Hour)},
		"is not valid before": {Name: "a", NotBefore: now.Add(time.Hour)},
	} {
		log := &lockedBuffer{}
		connect(t, "127.0.0.1:1", newFiles(t, ca, ca, leaf), func(cfg *client.Config) {
			cfg.Logger = slog.New(slog.NewTextHandler(log, nil))
		})
		if !strings.Contains(log.String(), want) {
			t.Errorf("log: %s", log.String())
		}
	}
}

// lockedBuffer is a log that handshakes write while the test reads.
type lockedBuffer struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.String()
}
