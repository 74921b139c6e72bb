// Package gateway answers the RPCs that only look as JSON over HTTP, for those without gRPC, and the OpenAPI documents
// that describe this.
//
// It adds nothing to what the RPCs say and takes nothing away: it turns requests into calls, through whatever
// authorization the connection has. It refuses every method but GET. Who may ask at all is decided before it.
package gateway

import (
	"context"
	"embed"
	"fmt"
	"net/http"

	"github.com/grpc-ecosystem/grpc-gateway/v2/runtime"
	"google.golang.org/grpc"

	antipodev1 "github.com/antipode-registry/antipode/gen/antipode/v1"
)

//go:embed openapi
var documents embed.FS

// Methods that Primary and Secondary call.
var (
	PrimaryMethods = []string{
		antipodev1.NodeService_ListNodes_FullMethodName, antipodev1.NodeService_GetNode_FullMethodName,
		antipodev1.NodeService_GetNodeHistory_FullMethodName, antipodev1.NodeService_LocateReference_FullMethodName,
		antipodev1.FeedService_ListRepositories_FullMethodName,
	}
	SecondaryMethods = []string{
		antipodev1.ReplicationService_GetStatus_FullMethodName,
		antipodev1.ReplicationService_ListRepositories_FullMethodName,
		antipodev1.ReplicationService_GetRepository_FullMethodName,
		antipodev1.ReplicationService_GetSiteJournal_FullMethodName,
	}
)

// Primary returns the handler of primaryd's paths below /api/.
func Primary(ctx context.Context, conn grpc.ClientConnInterface) (http.Handler, error) {
	mux := newMux()
	if err := antipodev1.RegisterNodeServiceHandlerClient(ctx, mux, antipodev1.NewNodeServiceClient(conn)); err != nil {
		return nil, fmt.Errorf("gateway: %w", err)
	}
	if err := antipodev1.RegisterFeedServiceHandlerClient(ctx, mux, antipodev1.NewFeedServiceClient(conn)); err != nil {
		return nil, fmt.Errorf("gateway: %w", err)
	}
	return handler(mux, "primaryd")
}

// Secondary returns the handler of secondaryd's paths below /api/.
func Secondary(ctx context.Context, conn grpc.ClientConnInterface) (http.Handler, error) {
	mux := newMux()
	client := antipodev1.NewReplicationServiceClient(conn)
	if err := antipodev1.RegisterReplicationServiceHandlerClient(ctx, mux, client); err != nil {
		return nil, fmt.Errorf("gateway: %w", err)
	}
	return handler(mux, "secondaryd")
}

// newMux returns a mux that passes nothing of the HTTP request on but its path and query.
func newMux() *runtime.ServeMux {
	nothing := func(string) (string, bool) { return "", false }
	return runtime.NewServeMux(runtime.WithIncomingHeaderMatcher(nothing), runtime.WithDisablePathLengthFallback())
}

// handler puts the daemon's OpenAPI document beside its paths.
func handler(api http.Handler, daemon string) (http.Handler, error) {
	document, err := documents.ReadFile("openapi/" + daemon + ".swagger.json")
	if err != nil {
		return nil, fmt.Errorf("gateway: %w", err)
	}
	mux := http.NewServeMux()
	mux.Handle("GET /api/v1/", api)
	mux.HandleFunc("GET /api/openapi.json", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_, _ = w.Write(document)
	})
	return mux, nil
}
