package service_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
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
func (idle) LookHere(context.Context, string, string) (string, error) { return "", nil }
func (idle) Nodes(context.Context) ([]*antipodev1.Node, error)        { return nil, nil }
func (idle) Look(context.Context, string, string) (primary, site string, err error) {
	return "", "", nil
}

// admitted is what each RPC answers to an empty request of who may call. An RPC that is not here fails the test: it must
// be considered who may call it.
func admitted() map[string]codes.Code {
	return map[string]codes.Code{
		"GetStatus": codes.OK, "ListRepositories": codes.OK, "Pause": codes.OK, "Resume": codes.OK,
		"GetRepository": codes.InvalidArgument, "DiffRepository": codes.InvalidArgument, "Resync": codes.InvalidArgument,
		"Release": codes.InvalidArgument, "Restore": codes.InvalidArgument, "Verify": codes.InvalidArgument,
		"Inspect": codes.InvalidArgument, "Wait": codes.InvalidArgument, "Demote": codes.OK,
		"Promote": codes.OK,
	}
}

func TestAuthorization(t *testing.T) {
	t.Parallel()
	leaf := func(role link.Role, name string) authority.Leaf { return authority.Leaf{Role: role, Name: name} }
	tests := map[string]struct {
		leaf           authority.Leaf
		byName, byRole bool // may it call where operators are named, and where they are not
	}{
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
	for config, operators := range map[string][]string{"operators named": {"ops"}, "operators by role": nil} {
		t.Run(config, func(t *testing.T) {
			t.Parallel()
			site := serveSite(t, operators)
			for name, test := range tests {
				conn := site.connect(t, test.leaf)
				may := test.byRole
				if operators != nil {
					may = test.byName
				}
				callAll(t, name, conn, may)
			}
		})
	}
}

// callAll calls every RPC of the service with an empty request.
func callAll(t *testing.T, who string, conn *grpc.ClientConn, may bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	table := admitted()
	desc := antipodev1.File_antipode_v1_replication_service_proto.Services().Get(0)
	for i := range desc.Methods().Len() {
		method := desc.Methods().Get(i)
		want, known := table[string(method.Name())]
		if !known {
			t.Errorf("%s is not in the table", method.Name())
		}
		if !may {
			want = codes.Unauthenticated
		}
		err := conn.Invoke(ctx, "/"+string(desc.FullName())+"/"+string(method.Name()),
			dynamicpb.NewMessage(method.Input()), dynamicpb.NewMessage(method.Output()))
		if status.Code(err) != want {
			t.Errorf("%s: %s: %v, want %v", who, method.Name(), err, want)
		}
	}
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
