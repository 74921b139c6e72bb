package service_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/dynamicpb"

	"github.com/antipode-registry/antipode/client"
	antipodev1 "github.com/antipode-registry/antipode/gen/antipode/v1"
	"github.com/antipode-registry/antipode/internal/authority"
	"github.com/antipode-registry/antipode/internal/database"
	"github.com/antipode-registry/antipode/internal/database/databasetest"
	"github.com/antipode-registry/antipode/internal/link"
	"github.com/antipode-registry/antipode/internal/registry"
	"github.com/antipode-registry/antipode/secondaryd/internal/plan"
	"github.com/antipode-registry/antipode/secondaryd/internal/replicate"
	"github.com/antipode-registry/antipode/secondaryd/internal/service"
	"github.com/antipode-registry/antipode/secondaryd/internal/tracking"
)

// idle is a site on which nothing happens.
type idle struct{}

func (idle) Ping(context.Context) error                               { return nil }
func (idle) Connected() (bool, error)                                 { return false, errors.New("idle") }
func (idle) Active() []*replicate.Active                              { return nil }
func (idle) Diff(context.Context, string) (plan.Plan, error)          { return plan.Plan{}, nil }
func (idle) DiffDirect(context.Context, string) (plan.Plan, error)    { return plan.Plan{}, nil }
func (idle) SourceAnswers(context.Context) error                      { return nil }
func (idle) LookHere(context.Context, string, string) (string, error) { return "", nil }
func (idle) Nodes(context.Context) ([]*antipodev1.Node, error)        { return nil, nil }
func (idle) Look(context.Context, string, string) (primary, site string, err error) {
	return "", "", nil
}

// admitted is what each RPC answers to an empty request of who may call. An RPC that is not here fails the test: it must
// be considered who may call it.
func admitted() map[string]codes.Code {
	return map[string]codes.Code{
		"GetStatus": codes.OK, "GetSiteJournal": codes.OK, "ListRepositories": codes.OK, "Pause": codes.OK, "Resume": codes.OK,
		"GetRepository": codes.InvalidArgument, "DiffRepository": codes.InvalidArgument, "Resync": codes.InvalidArgument,
		"Release": codes.InvalidArgument, "Restore": codes.InvalidArgument, "Verify": codes.InvalidArgument,
		"Inspect": codes.InvalidArgument, "Wait": codes.InvalidArgument, "Demote": codes.OK,
		"Promote": codes.OK,
		// Of health and reflection, which are open to every certificate of the authority. Reflection refuses the empty
		// request within its stream.
		"Check": codes.OK, "List": codes.OK, "Watch": codes.OK, "ServerReflectionInfo": codes.InvalidArgument,
	}
}

// identity is a certificate, and whether it may call where operators are named, and where they are not.
type identity struct {
	leaf           authority.Leaf
	byName, byRole bool
}

// identities are certificates of the site's authority.
func identities() map[string]identity {
	leaf := func(role link.Role, name string) authority.Leaf { return authority.Leaf{Role: role, Name: name} }
	return map[string]identity{
		"the site's own certificate":    {authority.Leaf{Role: link.RoleNode, Name: "eu-west", Hosts: []string{"127.0.0.1"}}, true, true},
		"a renewed one of the site":     {leaf(link.RoleNode, "eu-west"), true, true},
		"the operator":                  {leaf(link.RoleOperator, "ops"), true, true},
		"another operator":              {leaf(link.RoleOperator, "guest"), false, true},
		"the operator, without a role":  {leaf("", "ops"), true, false},
		"another site":                  {leaf(link.RoleNode, "asia"), false, false},
		"a site by the operator's name": {leaf(link.RoleNode, "ops"), false, false},
		"the primary":                   {leaf(link.RolePrimary, "primary"), false, false},
		"a primary by the site's name":  {leaf(link.RolePrimary, "eu-west"), false, false},
		"nobody by name":                {leaf("", "monitor"), false, false},
	}
}

// modes are the two ways to configure operators.
var modes = map[string][]string{"operators named": {"ops"}, "operators by role": nil}

func TestAuthorization(t *testing.T) {
	t.Parallel()
	for config, operators := range modes {
		t.Run(config, func(t *testing.T) {
			t.Parallel()
			site := serveSite(t, operators)
			for name, is := range identities() {
				may := is.byRole
				if operators != nil {
					may = is.byName
				}
				callAll(t, name, site.connect(t, is.leaf), func(method protoreflect.MethodDescriptor) codes.Code {
					if code := admitted()[string(method.Name())]; may || open(method) {
						return code
					}
					return codes.Unauthenticated
				})
			}
			for name, conn := range map[string]*grpc.ClientConn{
				"none":                          site.dial(t),
				"the site of another authority": site.dial(t, forged(t, authority.Leaf{Role: link.RoleNode, Name: "eu-west"})),
				"an operator of another":        site.dial(t, forged(t, authority.Leaf{Role: link.RoleOperator, Name: "ops"})),
			} {
				callAll(t, name, conn, func(protoreflect.MethodDescriptor) codes.Code { return codes.Unavailable })
			}
		})
	}
}

// open says whether every certificate of the authority may call.
func open(method protoreflect.MethodDescriptor) bool {
	return method.ParentFile().Package() != "antipode.v1"
}

// callAll calls every RPC that the site serves with an empty request.
func callAll(t *testing.T, who string, conn *grpc.ClientConn, want func(protoreflect.MethodDescriptor) codes.Code) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel() // which ends the streams
	for _, method := range methods(t) {
		if _, known := admitted()[string(method.Name())]; !known {
			t.Errorf("%s is not in the table", method.FullName())
		}
		if err := call(ctx, conn, method); status.Code(err) != want(method) {
			t.Errorf("%s: %s: %v, want %v", who, method.FullName(), err, want(method))
		}
	}
}

// methods are the RPCs of all services of the contract but those of primaryd, and of health and reflection.
func methods(t *testing.T) (all []protoreflect.MethodDescriptor) {
	t.Helper()
	for _, name := range []protoreflect.FullName{"antipode.v1", "grpc.health.v1", "grpc.reflection.v1"} {
		protoregistry.GlobalFiles.RangeFilesByPackage(name, func(file protoreflect.FileDescriptor) bool {
			for i := range file.Services().Len() {
				service := file.Services().Get(i)
				if service.Name() == "FeedService" || service.Name() == "NodeService" {
					continue
				}
				for j := range service.Methods().Len() {
					all = append(all, service.Methods().Get(j))
				}
			}
			return true
		})
	}
	if len(all) <= len(antipodev1.ReplicationService_ServiceDesc.Methods) {
		t.Fatalf("there are %d RPCs", len(all))
	}
	return all
}

// call makes one RPC, of either kind, and returns the first error.
func call(ctx context.Context, conn *grpc.ClientConn, method protoreflect.MethodDescriptor) error {
	stream, err := conn.NewStream(ctx, &grpc.StreamDesc{
		ServerStreams: method.IsStreamingServer(), ClientStreams: method.IsStreamingClient(),
	}, "/"+string(method.Parent().FullName())+"/"+string(method.Name()))
	if err != nil {
		return err
	}
	if err := stream.SendMsg(dynamicpb.NewMessage(method.Input())); err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	return stream.RecvMsg(dynamicpb.NewMessage(method.Output()))
}

// forged is a certificate of an authority that the site does not know.
func forged(t *testing.T, leaf authority.Leaf) tls.Certificate {
	t.Helper()
	other, err := authority.New()
	if err != nil {
		t.Fatal(err)
	}
	made, err := other.Issue(leaf)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	cert, key := filepath.Join(dir, "forged.crt"), filepath.Join(dir, "forged.key")
	if err := authority.Write(made, cert, key); err != nil {
		t.Fatal(err)
	}
	pair, err := tls.LoadX509KeyPair(cert, key)
	if err != nil {
		t.Fatal(err)
	}
	return pair
}

// site is the service as secondaryd serves it.
type site struct {
	address, dir string
	authority    *authority.Authority
}

func serveSite(t *testing.T, operators []string) *site {
	t.Helper()
	ca, err := authority.New()
	if err != nil {
		t.Fatal(err)
	}
	s := &site{dir: t.TempDir(), authority: ca}
	if err := os.WriteFile(filepath.Join(s.dir, "ca.crt"), ca.CertificatePEM(), 0o600); err != nil {
		t.Fatal(err)
	}
	access := service.Access{Node: "eu-west", Operators: operators}
	cert, key := s.issue(t, "own", authority.Leaf{Role: link.RoleNode, Name: "eu-west", Hosts: []string{"127.0.0.1"}})
	server, err := link.Listen(link.ServerConfig{
		Listen: "127.0.0.1:0", CertFile: cert, KeyFile: key, ClientCAFile: filepath.Join(s.dir, "ca.crt"),
		Logger: slog.New(slog.DiscardHandler), Authorize: access.Authorize, MapError: service.MapError,
	})
	if err != nil {
		t.Fatal(err)
	}
	db := databasetest.OpenSQLite(t)
	store, err := tracking.Open(t.Context(), db, tracking.Options{})
	if err != nil {
		t.Fatal(err)
	}
	antipodev1.RegisterReplicationServiceServer(server.GRPC(), service.NewReplicationService(service.Parts{
		Node: "eu-west", Tracking: store, Engine: idle{}, Primary: idle{}, Logger: slog.New(slog.DiscardHandler),
		Wants: func(string) bool { return true },
		Status: service.NewStatus(service.StatusSources{
			Tracking: store, Database: db, Registry: idle{}, Replica: idle{}, Follower: idle{}, Engine: idle{},
			Bytes: func() int64 { return 0 },
		}),
	}))
	s.address = server.Addr().String()
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	done := make(chan error, 1)
	go func() { done <- server.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return s
}

func (s *site) issue(t *testing.T, file string, leaf authority.Leaf) (cert, key string) {
	t.Helper()
	pair, err := s.authority.Issue(leaf)
	if err != nil {
		t.Fatal(err)
	}
	cert, key = filepath.Join(s.dir, file+".crt"), filepath.Join(s.dir, file+".key")
	if err := authority.Write(pair, cert, key); err != nil {
		t.Fatal(err)
	}
	return cert, key
}

// connect connects with a new certificate, or with the site's own where the leaf is that of a server.
func (s *site) connect(t *testing.T, leaf authority.Leaf) *grpc.ClientConn {
	t.Helper()
	cert, key := filepath.Join(s.dir, "own.crt"), filepath.Join(s.dir, "own.key")
	if leaf.Hosts == nil {
		cert, key = s.issue(t, "peer", leaf)
	}
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

// dial connects with certificates that client.Connect might not accept, or with none.
func (s *site) dial(t *testing.T, certificates ...tls.Certificate) *grpc.ClientConn {
	t.Helper()
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(s.authority.CertificatePEM())
	config := &tls.Config{MinVersion: tls.VersionTLS13, RootCAs: roots}
	if len(certificates) > 0 { // shown even if it is of an authority that the server does not name
		config.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &certificates[0], nil }
	}
	conn, err := grpc.NewClient(s.address, grpc.WithTransportCredentials(credentials.NewTLS(config)))
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

// The primary's refusal of the site is not the site's refusal of its caller.
func TestErrorsBecomeCodes(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		err  error
		want codes.Code
	}{
		{status.Error(codes.Unauthenticated, "the certificate of eu-west"), codes.Unavailable},
		{status.Error(codes.PermissionDenied, "not granted"), codes.PermissionDenied},
		{status.Error(codes.Unavailable, "restarting"), codes.Unavailable},
		{database.ErrUnavailable, codes.Unavailable},
		{registry.ErrUnavailable, codes.Unavailable},
		{registry.ErrMalformed, codes.FailedPrecondition},
		{context.DeadlineExceeded, codes.Unavailable},
		{errors.New("secret"), codes.Unknown}, // package link hides it
	} {
		if got := status.Code(service.MapError(fmt.Errorf("list the primary: %w", test.err))); got != test.want {
			t.Errorf("%v: %v, want %v", test.err, got, test.want)
		}
	}
}

func (idle) Name() string                           { return "one/1" }
func (idle) Leads() bool                            { return true }
func (idle) Works() bool                            { return true }
func (idle) Leader(context.Context) (string, error) { return "one/1", nil }
