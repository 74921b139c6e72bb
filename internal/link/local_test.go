package link_test

import (
	"context"
	"errors"
	"log/slog"
	"testing"

	"google.golang.org/grpc/codes"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"

	"github.com/antipode-registry/antipode/internal/link"
)

// checker is a service that answers as a test says.
type checker struct {
	healthpb.UnimplementedHealthServer
	check func(ctx context.Context, req *healthpb.HealthCheckRequest) (*healthpb.HealthCheckResponse, error)
}

func (c checker) Check(ctx context.Context, req *healthpb.HealthCheckRequest) (*healthpb.HealthCheckResponse, error) {
	return c.check(ctx, req)
}

func TestLocalCallsGoThroughTheChain(t *testing.T) {
	t.Parallel()
	missing := errors.New("no such thing")
	cfg := link.ServerConfig{
		Logger: slog.New(slog.DiscardHandler),
		MapError: func(err error) error {
			if errors.Is(err, missing) {
				return status.Error(codes.NotFound, "mapped")
			}
			return err
		},
		Authorize: func(context.Context, string, link.Identity) error { return nil },
	}
	local := link.NewLocal(cfg, link.Identity{Role: link.RoleOperator, Name: "http"}, healthpb.Health_Check_FullMethodName)
	var seen link.Identity
	healthpb.RegisterHealthServer(local, checker{check: func(
		ctx context.Context, req *healthpb.HealthCheckRequest,
	) (*healthpb.HealthCheckResponse, error) {
		seen, _ = link.IdentityFrom(ctx)
		switch req.GetService() {
		case "missing":
			return nil, missing
		case "panic":
			panic("a bug")
		}
		req.Service = "changed" // the caller's message is not the handler's
		return &healthpb.HealthCheckResponse{Status: healthpb.HealthCheckResponse_SERVING}, nil
	}})
	client := healthpb.NewHealthClient(local)
	req := &healthpb.HealthCheckRequest{Service: "mine"}
	resp, err := client.Check(t.Context(), req)
	if err != nil || resp.GetStatus() != healthpb.HealthCheckResponse_SERVING || req.GetService() != "mine" {
		t.Error(resp, err, req)
	}
	if want := (link.Identity{Role: link.RoleOperator, Name: "http"}); seen != want {
		t.Errorf("called as %v", seen)
	}
	for service, want := range map[string]codes.Code{"missing": codes.NotFound, "panic": codes.Internal} {
		if _, err := client.Check(t.Context(), &healthpb.HealthCheckRequest{Service: service}); status.Code(err) != want {
			t.Errorf("%s: %v", service, err)
		}
	}
	if _, err := client.List(t.Context(), &healthpb.HealthListRequest{}); status.Code(err) != codes.Unimplemented {
		t.Errorf("an RPC that is not listed: %v", err)
	}
	if _, err := client.Watch(t.Context(), req); status.Code(err) != codes.Unimplemented {
		t.Errorf("a stream: %v", err)
	}
}
