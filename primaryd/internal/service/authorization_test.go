package service_test

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/antipode-registry/antipode/client"
	antipodev1 "github.com/antipode-registry/antipode/gen/antipode/v1"
	"github.com/antipode-registry/antipode/internal/authority"
	"github.com/antipode-registry/antipode/internal/link"
	"github.com/antipode-registry/antipode/primaryd/internal/service"
)

// who may call, by certificate: the node team with its grant team/**, operators, and everybody else.
type who int

const (
	stranger who = iota
	siteTeam
	operator
)

// identities are certificates that the authority signed, and what they count as.
func identities() map[string]struct {
	leaf authority.Leaf
	who  who
} {
	return map[string]struct {
		leaf authority.Leaf
		who  who
	}{
		"a node":                          {authority.Leaf{Role: link.RoleNode, Name: "team"}, siteTeam},
		"a node of an authority like any": {authority.Leaf{Name: "team"}, siteTeam},
		"an operator":                     {authority.Leaf{Role: link.RoleOperator, Name: "ops"}, operator},
		"an operator without a role":      {authority.Leaf{Name: "ops"}, operator},
		"the server itself":               {authority.Leaf{Role: link.RolePrimary, Name: "primary"}, operator},
		"another primary":                 {authority.Leaf{Role: link.RolePrimary, Name: "other"}, stranger},
		"a primary by an operator's name": {authority.Leaf{Role: link.RolePrimary, Name: "ops"}, stranger},
		"a node not configured":           {authority.Leaf{Role: link.RoleNode, Name: "asia"}, stranger},
		"an operator not configured":      {authority.Leaf{Role: link.RoleOperator, Name: "guest"}, stranger},
		"a node by an operator's name":    {authority.Leaf{Role: link.RoleNode, Name: "ops"}, stranger},
		"an operator by a node's name":    {authority.Leaf{Role: link.RoleOperator, Name: "team"}, stranger},
		"nobody by name":                  {authority.Leaf{Name: "monitor"}, stranger},
	}
}

// calls are the RPCs as they are documented: what a node and an operator get. A stranger gets UNAUTHENTICATED.
//
//nolint:funlen // a table
func calls() map[string]struct {
	call           func(ctx context.Context, conn *grpc.ClientConn) error
	node, operator codes.Code
} {
	type row = struct {
		call           func(ctx context.Context, conn *grpc.ClientConn) error
		node, operator codes.Code
	}
	feeds, nodes := antipodev1.NewFeedServiceClient, antipodev1.NewNodeServiceClient
	listTags := func(repository string) func(context.Context, *grpc.ClientConn) error {
		return func(ctx context.Context, conn *grpc.ClientConn) error {
			return first(feeds(conn).ListTags(ctx, &antipodev1.ListTagsRequest{Repository: repository}))
		}
	}
	getNode := func(name string) func(context.Context, *grpc.ClientConn) error {
		return func(ctx context.Context, conn *grpc.ClientConn) error {
			_, err := nodes(conn).GetNode(ctx, &antipodev1.GetNodeRequest{Name: name})
			return err
		}
	}
	history := func(name string) func(context.Context, *grpc.ClientConn) error {
		return func(ctx context.Context, conn *grpc.ClientConn) error {
			_, err := nodes(conn).GetNodeHistory(ctx, &antipodev1.GetNodeHistoryRequest{Name: name})
			return err
		}
	}
	report := func(name string) func(context.Context, *grpc.ClientConn) error {
		return func(ctx context.Context, conn *grpc.ClientConn) error {
			_, err := nodes(conn).ReportStatus(ctx, &antipodev1.ReportStatusRequest{Node: name, Status: &antipodev1.NodeStatus{}})
			return err
		}
	}
	subscribe := func(name string) func(context.Context, *grpc.ClientConn) error {
		return func(ctx context.Context, conn *grpc.ClientConn) error {
			return first(feeds(conn).Subscribe(ctx, &antipodev1.SubscribeRequest{Node: name}))
		}
	}
	answer := func(id string) func(context.Context, *grpc.ClientConn) error {
		return func(ctx context.Context, conn *grpc.ClientConn) error {
			_, err := nodes(conn).AnswerRequest(ctx, &antipodev1.AnswerRequestRequest{Id: id, Answer: &antipodev1.SiteAnswer{
				Outcome: &antipodev1.SiteAnswer_Pause{Pause: &antipodev1.PauseResponse{}},
			}})
			return err
		}
	}
	locate := func(repository string) func(context.Context, *grpc.ClientConn) error {
		return func(ctx context.Context, conn *grpc.ClientConn) error {
			_, err := nodes(conn).LocateReference(ctx, &antipodev1.LocateReferenceRequest{Repository: repository, Reference: "v1"})
			return err
		}
	}
	return map[string]row{
		"FeedService/Subscribe":                 {subscribe(""), codes.OK, codes.OK},
		"FeedService/Subscribe as another":      {subscribe("eu"), codes.PermissionDenied, codes.PermissionDenied},
		"FeedService/ListTags":                  {listTags("team/a"), codes.OK, codes.OK},
		"FeedService/ListTags of another's":     {listTags("other/a"), codes.PermissionDenied, codes.OK},
		"FeedService/ListTags of none":          {listTags("other/none"), codes.PermissionDenied, codes.OK},
		"NodeService/ReportStatus":              {report(""), codes.OK, codes.PermissionDenied},
		"NodeService/ReportStatus as another":   {report("eu"), codes.PermissionDenied, codes.PermissionDenied},
		"NodeService/GetNode":                   {getNode("team"), codes.OK, codes.OK},
		"NodeService/GetNode of another":        {getNode("eu"), codes.PermissionDenied, codes.OK},
		"NodeService/GetNode of none":           {getNode("none"), codes.PermissionDenied, codes.NotFound},
		"NodeService/GetNodeHistory":            {history("team"), codes.OK, codes.OK},
		"NodeService/GetNodeHistory of another": {history("eu"), codes.PermissionDenied, codes.OK},
		"NodeService/GetNodeHistory of none":    {history("none"), codes.PermissionDenied, codes.NotFound},
		"NodeService/AskNode": {func(ctx context.Context, conn *grpc.ClientConn) error {
			_, err := nodes(conn).AskNode(ctx, &antipodev1.AskNodeRequest{Node: "none", Request: &antipodev1.SiteRequest{
				Ask: &antipodev1.SiteRequest_Pause{Pause: &antipodev1.PauseRequest{}},
			}})
			return err
		}, codes.PermissionDenied, codes.NotFound},
		"NodeService/AnswerRequest":             {answer("team/1"), codes.OK, codes.PermissionDenied},
		"NodeService/AnswerRequest for another": {answer("eu/1"), codes.NotFound, codes.PermissionDenied},
		"NodeService/LocateReference":           {locate("team/a"), codes.NotFound, codes.NotFound},
		"NodeService/LocateReference elsewhere": {locate("other/a"), codes.PermissionDenied, codes.NotFound},
		"FeedService/ListRepositories": {func(ctx context.Context, conn *grpc.ClientConn) error {
			_, err := feeds(conn).ListRepositories(ctx, &antipodev1.ListRepositoriesRequest{})
			return err
		}, codes.OK, codes.OK},
		"NodeService/ListNodes": {func(ctx context.Context, conn *grpc.ClientConn) error {
			_, err := nodes(conn).ListNodes(ctx, &antipodev1.ListNodesRequest{})
			return err
		}, codes.OK, codes.OK},
		"NodeService/WatchNodes": {func(ctx context.Context, conn *grpc.ClientConn) error {
			return first(nodes(conn).WatchNodes(ctx, &antipodev1.WatchNodesRequest{}))
		}, codes.OK, codes.OK},
	}
}

// first reads a stream's first message.
func first[M any](stream grpc.ServerStreamingClient[M], err error) error {
	if err != nil {
		return err
	}
	if _, err = stream.Recv(); errors.Is(err, io.EOF) {
		return nil
	}
	return err
}

func TestAuthorization(t *testing.T) {
	t.Parallel()
	server := startTLS(t, sqlite(t))
	table := calls()
	for identity, is := range identities() {
		t.Run(identity, func(t *testing.T) {
			t.Parallel()
			conn := server.connect(t, is.leaf)
			for name, rpc := range table {
				want := map[who]codes.Code{stranger: codes.Unauthenticated, siteTeam: rpc.node, operator: rpc.operator}[is.who]
				ctx, cancel := context.WithCancel(deadline(t)) // ends the stream
				if err := rpc.call(ctx, conn); status.Code(err) != want {
					t.Errorf("%s: %v, want %v", name, err, want)
				}
				cancel()
			}
		})
	}
}

// An RPC that is added must be added to the table.
func TestAuthorizationKnowsEveryRPC(t *testing.T) {
	t.Parallel()
	table := calls()
	for _, desc := range []grpc.ServiceDesc{antipodev1.FeedService_ServiceDesc, antipodev1.NodeService_ServiceDesc} {
		var names []string
		for _, method := range desc.Methods {
			names = append(names, method.MethodName)
		}
		for _, stream := range desc.Streams {
			names = append(names, stream.StreamName)
		}
		for _, name := range names {
			if _, known := table[desc.ServiceName[len("antipode.v1."):]+"/"+name]; !known {
				t.Errorf("%s/%s is not in the table", desc.ServiceName, name)
			}
		}
	}
}

// server is both services as primaryd serves them, over TLS.
type server struct {
	address, dir string
	authority    *authority.Authority
}

func startTLS(t *testing.T, p *parts) *server {
	t.Helper()
	ca, err := authority.New()
	if err != nil {
		t.Fatal(err)
	}
	s := &server{dir: t.TempDir(), authority: ca}
	if err := os.WriteFile(filepath.Join(s.dir, "ca.crt"), ca.CertificatePEM(), 0o600); err != nil {
		t.Fatal(err)
	}
	cert, key := s.issue(t, authority.Leaf{Role: link.RolePrimary, Name: "primary", Hosts: []string{"127.0.0.1"}})
	listener, err := link.Listen(link.ServerConfig{
		Listen: "127.0.0.1:0", CertFile: cert, KeyFile: key, ClientCAFile: filepath.Join(s.dir, "ca.crt"),
		Logger: slog.New(slog.DiscardHandler), Authorize: p.access.Authorize, MapError: service.MapError,
	})
	if err != nil {
		t.Fatal(err)
	}
	antipodev1.RegisterFeedServiceServer(listener.GRPC(), p.feedService)
	antipodev1.RegisterNodeServiceServer(listener.GRPC(), p.nodeService)
	s.address = listener.Addr().String()
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	done := make(chan error, 1)
	go func() { done <- listener.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return s
}

// issue writes a pair. The server's own is made once: who asks for it again gets the same.
func (s *server) issue(t *testing.T, leaf authority.Leaf) (cert, key string) {
	t.Helper()
	base := filepath.Join(s.dir, string(leaf.Role)+"-"+leaf.Name)
	cert, key = base+".crt", base+".key"
	if _, err := os.Stat(cert); err == nil {
		return cert, key
	}
	pair, err := s.authority.Issue(leaf)
	if err != nil {
		t.Fatal(err)
	}
	if err := authority.Write(pair, cert, key); err != nil {
		t.Fatal(err)
	}
	return cert, key
}

func (s *server) connect(t *testing.T, leaf authority.Leaf) *grpc.ClientConn {
	t.Helper()
	cert, key := s.issue(t, leaf)
	conn, err := client.Connect(client.Config{
		Address: s.address, CertFile: cert, KeyFile: key, CAFile: filepath.Join(s.dir, "ca.crt"),
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := conn.Close(); err != nil {
			t.Error(err)
		}
	})
	return conn
}

// What docs/security.md says of each RPC is what the table has, whose rows are tried out above.
func TestAuthorizationIsAsDocumented(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("../../../docs/security.md")
	if err != nil {
		t.Fatal(err)
	}
	table, rows := calls(), 0
	for line := range strings.Lines(string(text)) {
		cells := strings.Split(line, " | ")
		name := strings.Trim(cells[0], "| `")
		rpc, known := table[name]
		if len(cells) != 4 || !known {
			continue
		}
		rows++
		for column, code := range map[int]codes.Code{1: rpc.node, 2: rpc.operator, 3: rpc.operator} {
			if says := strings.Trim(cells[column], " |\n"); (says == "no") != (code == codes.PermissionDenied) {
				t.Errorf("%s: the table of the document says %q, the one tried out %v", name, says, code)
			}
		}
	}
	described := 0
	for _, desc := range []grpc.ServiceDesc{antipodev1.FeedService_ServiceDesc, antipodev1.NodeService_ServiceDesc} {
		described += len(desc.Methods) + len(desc.Streams)
	}
	if rows != described {
		t.Errorf("the document has rows for %d of %d RPCs", rows, described)
	}
}
