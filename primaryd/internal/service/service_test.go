package service_test

import (
	"context"
	"fmt"
	"iter"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/test/bufconn"

	antipodev1 "github.com/antipode-registry/antipode/gen/antipode/v1"
	"github.com/antipode-registry/antipode/internal/database"
	"github.com/antipode-registry/antipode/internal/database/databasetest"
	"github.com/antipode-registry/antipode/internal/link"
	"github.com/antipode-registry/antipode/internal/registry"
	"github.com/antipode-registry/antipode/internal/telemetry"
	"github.com/antipode-registry/antipode/internal/telemetry/telemetrytest"
	"github.com/antipode-registry/antipode/primaryd/internal/feed"
	"github.com/antipode-registry/antipode/primaryd/internal/listing"
	"github.com/antipode-registry/antipode/primaryd/internal/node"
	"github.com/antipode-registry/antipode/primaryd/internal/request"
	"github.com/antipode-registry/antipode/primaryd/internal/service"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// heartbeats and reports are due at this interval.
const interval = 10 * time.Second

// parts are what the services are made of, on a database of their own.
type parts struct {
	db       *database.DB
	feed     *feed.Feed
	nodes    *node.Directory
	registry *stub
	access   service.Access
	stopping chan struct{}

	requests *request.Desk
	spans    *telemetrytest.Recorder

	feedService *service.FeedService
	nodeService *service.NodeService
}

// newParts configures the nodes eu, which may see everything, and team, which may see team/**, and the operator ops.
func newParts(t testing.TB, db *database.DB) *parts {
	t.Helper()
	p := &parts{db: db, registry: &stub{}, stopping: make(chan struct{}), spans: telemetrytest.NewRecorder()}
	tracer := telemetry.NewTracer(p.spans, "")
	var err error
	if p.feed, err = feed.Open(t.Context(), db, feed.Options{Tracer: tracer}); err != nil {
		t.Fatal(err)
	}
	p.nodes, err = node.Open(t.Context(), db, []node.Config{
		{Name: "eu", Repositories: []string{"**"}}, {Name: "team", Repositories: []string{"team/**"}},
	}, node.Options{ReportInterval: interval})
	if err != nil {
		t.Fatal(err)
	}
	if p.requests, err = request.Open(t.Context(), db, p.nodes); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	var running sync.WaitGroup
	for _, run := range []func(context.Context) error{p.feed.Run, p.nodes.Run} {
		running.Go(func() {
			if err := run(ctx); err != nil {
				t.Error(err)
			}
		})
	}
	t.Cleanup(func() {
		cancel()
		running.Wait()
	})
	p.access = service.Access{Nodes: p.nodes, Operators: service.NewOperators("ops")}
	p.feedService = service.NewFeedService(p.access, p.feed, listing.New(p.registry, p.feed), service.FeedOptions{
		Heartbeat: interval, RegistryURL: "http://primary:5000", Version: "v1", Stopping: p.stopping,
		Requests: p.requests, Tracer: tracer,
	})
	p.nodeService = service.NewNodeService(p.access, p.feed, service.NodeOptions{
		ReportWithin: interval, Stopping: p.stopping, Requests: p.requests,
		Locator: request.NewLocator(p.requests, p.nodes, p.registry),
	})
	return p
}

// push makes one change of each repository, each in a commit of its own.
func (p *parts) push(t *testing.T, repositories ...string) (head int64) {
	t.Helper()
	for _, repository := range repositories {
		var err error
		change := feed.Change{Repository: repository, Tags: []feed.Touch{{Tag: "v1"}}}
		if head, err = p.feed.Append(t.Context(), change); err != nil {
			t.Fatal(err)
		}
	}
	return head
}

// stub is a registry whose answer a test sets.
type stub struct {
	listing registry.Listing
	err     error
	during  func() // called in the middle of a walk; nil = nothing
}

func (s *stub) List(ctx context.Context, _ string) (registry.Listing, error) {
	if s.during != nil {
		s.during()
	}
	answer := s.listing
	answer.Tags = nil
	for _, tag := range s.listing.Tags {
		answer.Tags = append(answer.Tags, laden(ctx, tag))
	}
	return answer, s.err
}

// laden is the tag with its manifest where that is to come along.
func laden(ctx context.Context, tag registry.Tag) registry.Tag {
	if registry.CarriesManifests(ctx) {
		tag.Manifest = []byte(strings.Repeat("m", int(tag.Size)))
	}
	return tag
}

func (s *stub) Resolve(ctx context.Context, _ string, tags []string) (found []registry.Tag, absent []string, err error) {
	for _, tag := range s.listing.Tags {
		for _, name := range tags {
			if tag.Name == name {
				found = append(found, laden(ctx, tag))
			}
		}
	}
	return found, nil, s.err
}

func (s *stub) Glance(ctx context.Context, repository string, tags []string) ([]registry.Tag, error) {
	found, _, err := s.Resolve(ctx, repository, tags)
	return found, err
}

func (s *stub) Manifest(context.Context, string, string) (registry.Manifest, error) {
	return registry.Manifest{}, registry.ErrNotFound
}

func (s *stub) Referrers(context.Context, string, string) ([]registry.Descriptor, bool, error) {
	return nil, false, nil
}

// api reaches both services in memory.
type api struct {
	feed  antipodev1.FeedServiceClient
	nodes antipodev1.NodeServiceClient
}

// serve puts the services behind the checks and the error map that package link puts them behind; who calls is in the
// metadata, see as. It must be stopped before a bubble of synctest ends.
func (p *parts) serve() (c api, stop func()) {
	listener := bufconn.Listen(1 << 16)
	server := grpc.NewServer(
		grpc.UnaryInterceptor(func(ctx context.Context, req any, info *grpc.UnaryServerInfo, next grpc.UnaryHandler) (any, error) {
			ctx, err := p.admit(ctx, info.FullMethod)
			if err != nil {
				return nil, err
			}
			resp, err := next(ctx, req)
			return resp, mapped(err)
		}),
		grpc.StreamInterceptor(func(srv any, ss grpc.ServerStream, info *grpc.StreamServerInfo, next grpc.StreamHandler) error {
			ctx, err := p.admit(ss.Context(), info.FullMethod)
			if err != nil {
				return err
			}
			return mapped(next(srv, &identified{ServerStream: ss, ctx: ctx}))
		}),
	)
	antipodev1.RegisterFeedServiceServer(server, p.feedService)
	antipodev1.RegisterNodeServiceServer(server, p.nodeService)
	served := make(chan struct{})
	go func() {
		defer close(served)
		_ = server.Serve(listener)
	}()
	conn, err := grpc.NewClient("passthrough:///primary",
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return listener.DialContext(ctx) }))
	if err != nil {
		panic(err)
	}
	stop = func() {
		_ = conn.Close()
		server.Stop()
		<-served
	}
	return api{antipodev1.NewFeedServiceClient(conn), antipodev1.NewNodeServiceClient(conn)}, stop
}

// run serves until the test ends.
func (p *parts) run(t *testing.T) api {
	t.Helper()
	c, stop := p.serve()
	t.Cleanup(stop)
	return c
}

func (p *parts) admit(ctx context.Context, method string) (context.Context, error) {
	values := metadata.ValueFromIncomingContext(ctx, "as")
	role, name, _ := strings.Cut(values[0], "/")
	id := link.Identity{Role: link.Role(role), Name: name, Self: name == "primary"}
	return link.ContextWithIdentity(ctx, id), p.access.Authorize(ctx, method, id)
}

func mapped(err error) error {
	if _, ok := status.FromError(err); ok {
		return err
	}
	return service.MapError(err)
}

type identified struct {
	grpc.ServerStream
	ctx context.Context
}

func (s *identified) Context() context.Context { return s.ctx }

// as makes calls those of an identity, "role/name".
func as(ctx context.Context, identity string) context.Context {
	return metadata.AppendToOutgoingContext(ctx, "as", identity)
}

// deadline bounds what a test waits for; it only matters when the test fails.
func deadline(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	t.Cleanup(cancel)
	return ctx
}

// received reads a stream to its end.
func received[M any](stream grpc.ServerStreamingClient[M]) iter.Seq2[*M, error] {
	return func(yield func(*M, error) bool) {
		for {
			message, err := stream.Recv()
			if !yield(message, err) || err != nil {
				return
			}
		}
	}
}

func sqlite(t *testing.T) *parts {
	t.Helper()
	return newParts(t, databasetest.OpenSQLite(t))
}

func TestErrorsBecomeCodes(t *testing.T) {
	t.Parallel()
	failed := func(err error) error { return &registry.Error{Host: "registry", Op: "list", Err: err} }
	tests := map[string]struct {
		err  error
		want codes.Code
	}{
		"database gone":        {database.ErrUnavailable, codes.Unavailable},
		"registry gone":        {failed(registry.ErrUnavailable), codes.Unavailable},
		"registry refuses":     {failed(registry.ErrUnauthorized), codes.Unavailable},
		"no listing":           {failed(registry.ErrMalformed), codes.FailedPrecondition},
		"not found after all":  {failed(registry.ErrNotFound), codes.FailedPrecondition},
		"another refusal":      {failed(fmt.Errorf("refused")), codes.FailedPrecondition},
		"walk took too long":   {failed(context.DeadlineExceeded), codes.Unavailable},
		"status too large":     {node.ErrInvalidStatus, codes.InvalidArgument},
		"what nobody expected": {fmt.Errorf("secret"), codes.Unknown}, // package link hides it
	}
	for name, test := range tests {
		if got := status.Code(service.MapError(fmt.Errorf("wrapped: %w", test.err))); got != test.want {
			t.Errorf("%s: %v, want %v", name, got, test.want)
		}
	}
}
