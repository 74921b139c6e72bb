package link_test

import (
	"bytes"
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"
	"google.golang.org/grpc"

	"github.com/antipode-registry/antipode/client"
	antipodev1 "github.com/antipode-registry/antipode/gen/antipode/v1"
	"github.com/antipode-registry/antipode/internal/authority"
	"github.com/antipode-registry/antipode/internal/link"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// files are a pair and a CA file on disk.
type files struct{ cert, key, ca string }

// newFiles writes a pair that issuer signs and a CA file that trusts trusted.
func newFiles(t *testing.T, issuer, trusted *authority.Authority, leaf authority.Leaf) files {
	t.Helper()
	dir := t.TempDir()
	f := files{filepath.Join(dir, "x.crt"), filepath.Join(dir, "x.key"), filepath.Join(dir, "ca.crt")}
	f.issue(t, issuer, leaf)
	f.trust(t, trusted)
	return f
}

func (f files) issue(t *testing.T, issuer *authority.Authority, leaf authority.Leaf) {
	t.Helper()
	pair, err := issuer.Issue(leaf)
	if err != nil {
		t.Fatal(err)
	}
	if err := authority.Write(pair, f.cert, f.key); err != nil {
		t.Fatal(err)
	}
}

func (f files) trust(t *testing.T, authorities ...*authority.Authority) {
	t.Helper()
	var content []byte
	for _, a := range authorities {
		content = append(content, a.CertificatePEM()...)
	}
	if err := os.WriteFile(f.ca, content, 0o600); err != nil {
		t.Fatal(err)
	}
}

func newAuthority(t *testing.T) *authority.Authority {
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

// service is a NodeService whose methods a test sets. By default GetNode answers with who asks.
type service struct {
	antipodev1.UnimplementedNodeServiceServer
	calls atomic.Int64
	get   func(context.Context) error
	watch func(stream grpc.ServerStreamingServer[antipodev1.WatchNodesResponse]) error
}

func (s *service) GetNode(ctx context.Context, _ *antipodev1.GetNodeRequest) (*antipodev1.GetNodeResponse, error) {
	s.calls.Add(1)
	if s.get != nil {
		if err := s.get(ctx); err != nil {
			return nil, err
		}
	}
	id, _ := link.IdentityFrom(ctx)
	name := id.String()
	if id.Self {
		name += " self"
	}
	return &antipodev1.GetNodeResponse{Node: &antipodev1.Node{Name: name}}, nil
}

func (s *service) WatchNodes(
	_ *antipodev1.WatchNodesRequest, stream grpc.ServerStreamingServer[antipodev1.WatchNodesResponse],
) error {
	s.calls.Add(1)
	return s.watch(stream)
}

// fixture is a running server with its certificates and its log.
type fixture struct {
	ca      *authority.Authority
	files   files
	service *service
	server  *link.Server
	log     *logBook
	stop    func() error // once; also done by the test's cleanup
}

func serve(t *testing.T, options ...func(*link.ServerConfig, *service)) *fixture {
	t.Helper()
	ca := newAuthority(t)
	f := &fixture{ca: ca, files: newFiles(t, ca, ca, primaryLeaf()), service: &service{}, log: newLogBook()}
	cfg := link.ServerConfig{
		Listen: "127.0.0.1:0", CertFile: f.files.cert, KeyFile: f.files.key, ClientCAFile: f.files.ca,
		Logger:    f.log.logger(),
		Authorize: func(context.Context, string, link.Identity) error { return nil },
	}
	for _, option := range options {
		option(&cfg, f.service)
	}
	var err error
	if f.server, err = link.Listen(cfg); err != nil {
		t.Fatal(err)
	}
	antipodev1.RegisterNodeServiceServer(f.server.GRPC(), f.service)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- f.server.Run(ctx) }()
	f.stop = sync.OnceValue(func() error {
		cancel()
		return <-done
	})
	t.Cleanup(func() {
		if err := f.stop(); err != nil {
			t.Errorf("stop: %v", err)
		}
	})
	return f
}

// node returns the files of a node that the server's CA signed.
func (f *fixture) node(t *testing.T, name string) files {
	t.Helper()
	return newFiles(t, f.ca, f.ca, nodeLeaf(name))
}

// dial connects as the holder of the files.
func (f *fixture) dial(t *testing.T, as files) *grpc.ClientConn {
	t.Helper()
	conn, err := client.Connect(client.Config{
		Address: f.server.Addr().String(), CertFile: as.cert, KeyFile: as.key, CAFile: as.ca,
	})
	if err != nil {
		t.Fatal(err)
	}
	closeAtEnd(t, conn)
	return conn
}

func closeAtEnd(t *testing.T, conn *grpc.ClientConn) {
	t.Helper()
	t.Cleanup(func() {
		if err := conn.Close(); err != nil {
			t.Errorf("closing a connection: %v", err)
		}
	})
}

// whoami asks the server who we are.
func whoami(ctx context.Context, conn *grpc.ClientConn, options ...grpc.CallOption) (string, error) {
	answer, err := antipodev1.NewNodeServiceClient(conn).GetNode(ctx, &antipodev1.GetNodeRequest{}, options...)
	return answer.GetNode().GetName(), err
}

// deadline bounds what a test waits for; it only matters when the test fails.
func deadline(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	t.Cleanup(cancel)
	return ctx
}

// logBook keeps what was logged and wakes those who wait for a line.
type logBook struct {
	mu    sync.Mutex
	text  bytes.Buffer
	wrote chan struct{}
}

func newLogBook() *logBook { return &logBook{wrote: make(chan struct{})} }

func (b *logBook) Write(line []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	close(b.wrote)
	b.wrote = make(chan struct{})
	return b.text.Write(line)
}

func (b *logBook) logger() *slog.Logger {
	return slog.New(slog.NewTextHandler(b, &slog.HandlerOptions{Level: slog.LevelDebug}))
}

func (b *logBook) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.String()
}

// wait returns once every part is in the log.
func (b *logBook) wait(t *testing.T, parts ...string) {
	t.Helper()
	ctx := deadline(t)
	for {
		b.mu.Lock()
		text, wrote := b.text.String(), b.wrote
		b.mu.Unlock()
		if containsAll(text, parts) {
			return
		}
		select {
		case <-wrote:
		case <-ctx.Done():
			t.Fatalf("not all of %q in the log:\n%s", parts, text)
		}
	}
}

func containsAll(text string, parts []string) bool {
	for _, part := range parts {
		if !strings.Contains(text, part) {
			return false
		}
	}
	return true
}
