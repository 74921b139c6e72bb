package service_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	reflectionpb "google.golang.org/grpc/reflection/grpc_reflection_v1"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"

	"github.com/antipode-registry/antipode/client"
	antipodev1 "github.com/antipode-registry/antipode/gen/antipode/v1"
	"github.com/antipode-registry/antipode/internal/authority"
	"github.com/antipode-registry/antipode/internal/link"
	"github.com/antipode-registry/antipode/primaryd/internal/service"
)

// who may call, by certificate: the node team with its grant team/**, operators, everybody else of our authority, and who
// gets no further than the handshake.
type who int

const (
	stranger who = iota
	siteTeam
	operator
	kept // out
)

// identity is a certificate, and what it counts as.
type identity struct {
	leaf authority.Leaf
	who  who
}

// identities are certificates that the authority signed, those of another one, and none.
func identities() map[string]identity {
	return map[string]identity{
		"none":                            {authority.Leaf{}, kept},
		"a node of another authority":     {authority.Leaf{Role: link.RoleNode, Name: "team"}, kept},
		"an operator of another":          {authority.Leaf{Role: link.RoleOperator, Name: "ops"}, kept},
		"a primary of another":            {authority.Leaf{Role: link.RolePrimary, Name: "primary"}, kept},
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

// row is one RPC, and what a node and an operator get.
type row struct {
	call           func(ctx context.Context, conn *grpc.ClientConn) error
	node, operator codes.Code
}

// want is what an identity gets: a stranger nothing but what is open to all of the authority.
func (r row) want(name string, who who) codes.Code {
	switch {
	case who == kept:
		return codes.Unavailable
	case who == siteTeam:
		return r.node
	case who == operator || strings.HasPrefix(name, "grpc."):
		return r.operator
	}
	return codes.Unauthenticated
}

// calls are the RPCs as they are documented. A stranger gets UNAUTHENTICATED.
//
//nolint:funlen // a table
func calls() map[string]row {
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
		"grpc.health.v1.Health/Check": {func(ctx context.Context, conn *grpc.ClientConn) error {
			_, err := healthpb.NewHealthClient(conn).Check(ctx, &healthpb.HealthCheckRequest{})
			return err
		}, codes.OK, codes.OK},
		"grpc.health.v1.Health/List": {func(ctx context.Context, conn *grpc.ClientConn) error {
			_, err := healthpb.NewHealthClient(conn).List(ctx, &healthpb.HealthListRequest{})
			return err
		}, codes.OK, codes.OK},
		"grpc.health.v1.Health/Watch": {func(ctx context.Context, conn *grpc.ClientConn) error {
			return first(healthpb.NewHealthClient(conn).Watch(ctx, &healthpb.HealthCheckRequest{}))
		}, codes.OK, codes.OK},
		"grpc.reflection.v1.ServerReflection/ServerReflectionInfo":      {describe("v1"), codes.OK, codes.OK},
		"grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo": {describe("v1alpha"), codes.OK, codes.OK},
	}
}

// describe asks for the names of the services, in either version of the reflection, whose messages are the same.
func describe(version string) func(context.Context, *grpc.ClientConn) error {
	return func(ctx context.Context, conn *grpc.ClientConn) error {
		stream, err := conn.NewStream(ctx, &grpc.StreamDesc{ServerStreams: true, ClientStreams: true},
			"/grpc.reflection."+version+".ServerReflection/ServerReflectionInfo")
		if err != nil {
			return err
		}
		if err := stream.SendMsg(&reflectionpb.ServerReflectionRequest{
			MessageRequest: &reflectionpb.ServerReflectionRequest_ListServices{},
		}); err != nil && !errors.Is(err, io.EOF) {
			return err
		}
		return stream.RecvMsg(&reflectionpb.ServerReflectionResponse{})
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
	for name, is := range identities() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			conn := server.connect(t, is)
			for name, rpc := range table {
				want := rpc.want(name, is.who)
				ctx, cancel := context.WithCancel(deadline(t)) // ends the stream
				if err := rpc.call(ctx, conn); status.Code(err) != want {
					t.Errorf("%s: %v, want %v", name, err, want)
				}
				cancel()
			}
		})
	}
}

// An RPC that is added must be added to the table, and so must a service: one of the contract is either served here or the
// site's, whose own test has it.
func TestAuthorizationKnowsEveryRPC(t *testing.T) {
	t.Parallel()
	table, served := calls(), startTLS(t, sqlite(t)).listener.GRPC().GetServiceInfo()
	for service, info := range served {
		for _, method := range info.Methods {
			if _, known := table[strings.TrimPrefix(service, "antipode.v1.")+"/"+method.Name]; !known {
				t.Errorf("%s/%s is not in the table", service, method.Name)
			}
		}
	}
	protoregistry.GlobalFiles.RangeFilesByPackage("antipode.v1", func(file protoreflect.FileDescriptor) bool {
		for i := range file.Services().Len() {
			name := file.Services().Get(i).FullName()
			if _, here := served[string(name)]; !here && name != "antipode.v1.ReplicationService" {
				t.Errorf("%s is not tried out", name)
			}
		}
		return true
	})
}

// server is both services as primaryd serves them, over TLS.
type server struct {
	address, dir       string
	authority, foreign *authority.Authority
	listener           *link.Server
}

func startTLS(t *testing.T, p *parts) *server {
	t.Helper()
	ca, err := authority.New()
	if err != nil {
		t.Fatal(err)
	}
	foreign, err := authority.New()
	if err != nil {
		t.Fatal(err)
	}
	s := &server{dir: t.TempDir(), authority: ca, foreign: foreign}
	if err := os.WriteFile(filepath.Join(s.dir, "ca.crt"), ca.CertificatePEM(), 0o600); err != nil {
		t.Fatal(err)
	}
	cert, key := s.issue(t, s.authority, authority.Leaf{Role: link.RolePrimary, Name: "primary", Hosts: []string{"127.0.0.1"}})
	listener, err := link.Listen(link.ServerConfig{
		Listen: "127.0.0.1:0", CertFile: cert, KeyFile: key, ClientCAFile: filepath.Join(s.dir, "ca.crt"),
		Logger: slog.New(slog.DiscardHandler), Authorize: p.access.Authorize, MapError: service.MapError,
	})
	if err != nil {
		t.Fatal(err)
	}
	antipodev1.RegisterFeedServiceServer(listener.GRPC(), p.feedService)
	antipodev1.RegisterNodeServiceServer(listener.GRPC(), p.nodeService)
	s.listener, s.address = listener, listener.Addr().String()
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
func (s *server) issue(t *testing.T, by *authority.Authority, leaf authority.Leaf) (cert, key string) {
	t.Helper()
	base := filepath.Join(s.dir, string(leaf.Role)+"-"+leaf.Name)
	if by != s.authority {
		base += "-foreign"
	}
	cert, key = base+".crt", base+".key"
	if _, err := os.Stat(cert); err == nil {
		return cert, key
	}
	pair, err := by.Issue(leaf)
	if err != nil {
		t.Fatal(err)
	}
	if err := authority.Write(pair, cert, key); err != nil {
		t.Fatal(err)
	}
	return cert, key
}

// connect is a connection with the certificate, or with none where the leaf has no name.
func (s *server) connect(t *testing.T, as identity) *grpc.ClientConn {
	t.Helper()
	conn, err := s.dial(t, as)
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

func (s *server) dial(t *testing.T, as identity) (*grpc.ClientConn, error) {
	t.Helper()
	if as.leaf.Name == "" {
		roots := x509.NewCertPool()
		roots.AppendCertsFromPEM(s.authority.CertificatePEM())
		return grpc.NewClient(s.address, grpc.WithTransportCredentials(credentials.NewTLS(&tls.Config{
			MinVersion: tls.VersionTLS13, RootCAs: roots,
		})))
	}
	by := s.authority
	if as.who == kept {
		by = s.foreign
	}
	cert, key := s.issue(t, by, as.leaf)
	return client.Connect(client.Config{
		Address: s.address, CertFile: cert, KeyFile: key, CAFile: filepath.Join(s.dir, "ca.crt"),
	})
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
