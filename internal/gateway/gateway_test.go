package gateway_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"path"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	antipodev1 "github.com/antipode-registry/antipode/gen/antipode/v1"
	"github.com/antipode-registry/antipode/internal/gateway"
)

// conn answers calls with what it is given, and keeps the last one.
type conn struct {
	grpc.ClientConnInterface
	method string
	args   proto.Message
	reply  proto.Message
	err    error
}

func (c *conn) Invoke(_ context.Context, method string, args, reply any, _ ...grpc.CallOption) error {
	c.method, c.args = method, proto.Clone(args.(proto.Message))
	if c.reply != nil {
		proto.Merge(reply.(proto.Message), c.reply)
	}
	return c.err
}

func ask(t *testing.T, handler http.Handler, method, target string) (int, map[string]any) {
	t.Helper()
	answer := httptest.NewRecorder()
	handler.ServeHTTP(answer, httptest.NewRequestWithContext(t.Context(), method, target, nil))
	var body map[string]any
	if strings.HasPrefix(answer.Header().Get("Content-Type"), "application/json") {
		if err := json.Unmarshal(answer.Body.Bytes(), &body); err != nil {
			t.Errorf("%s: %v: %s", target, err, answer.Body)
		}
	}
	return answer.Code, body
}

func TestPathsAreCalls(t *testing.T) {
	t.Parallel()
	tests := []struct {
		make           func(context.Context, grpc.ClientConnInterface) (http.Handler, error)
		target, method string
		args           proto.Message
	}{
		{gateway.Primary, "/api/v1/nodes", antipodev1.NodeService_ListNodes_FullMethodName, &antipodev1.ListNodesRequest{}},
		{
			gateway.Primary, "/api/v1/nodes/eu-west", antipodev1.NodeService_GetNode_FullMethodName,
			&antipodev1.GetNodeRequest{Name: "eu-west"},
		},
		{
			gateway.Primary, "/api/v1/nodes/eu/history?since=3600s", antipodev1.NodeService_GetNodeHistory_FullMethodName,
			&antipodev1.GetNodeHistoryRequest{Name: "eu", Since: durationpb.New(time.Hour)},
		},
		{
			gateway.Primary, "/api/v1/locate?repository=prod/api&reference=1.2&nodes=a&nodes=b",
			antipodev1.NodeService_LocateReference_FullMethodName,
			&antipodev1.LocateReferenceRequest{Repository: "prod/api", Reference: "1.2", Nodes: []string{"a", "b"}},
		},
		{
			gateway.Primary, "/api/v1/repositories?pageSize=5&page_token=x", antipodev1.FeedService_ListRepositories_FullMethodName,
			&antipodev1.ListRepositoriesRequest{PageSize: 5, PageToken: "x"},
		},
		{gateway.Secondary, "/api/v1/status", antipodev1.ReplicationService_GetStatus_FullMethodName, &antipodev1.GetStatusRequest{}},
		{
			gateway.Secondary, "/api/v1/repositories?state=REPOSITORY_STATE_FAILED",
			antipodev1.ReplicationService_ListRepositories_FullMethodName,
			&antipodev1.ReplicationServiceListRepositoriesRequest{State: antipodev1.RepositoryState_REPOSITORY_STATE_FAILED},
		},
		{
			gateway.Secondary, "/api/v1/repositories/team/app/web?journalSize=3",
			antipodev1.ReplicationService_GetRepository_FullMethodName,
			&antipodev1.GetRepositoryRequest{Repository: "team/app/web", JournalSize: 3},
		},
		{
			gateway.Secondary, "/api/v1/journal?journalSize=5", antipodev1.ReplicationService_GetSiteJournal_FullMethodName,
			&antipodev1.GetSiteJournalRequest{JournalSize: 5},
		},
		{
			gateway.Secondary, "/api/v1/repositories/app", antipodev1.ReplicationService_GetRepository_FullMethodName,
			&antipodev1.GetRepositoryRequest{Repository: "app"},
		},
	}
	for _, test := range tests {
		c := &conn{}
		handler, err := test.make(t.Context(), c)
		if err != nil {
			t.Fatal(err)
		}
		if code, _ := ask(t, handler, http.MethodGet, test.target); code != http.StatusOK || c.method != test.method ||
			!proto.Equal(c.args, test.args) {
			t.Errorf("%s: %d %s(%v)", test.target, code, c.method, c.args)
		}
		c.method = ""
		if code, _ := ask(t, handler, http.MethodPost, test.target); code < 400 || c.method != "" {
			t.Errorf("POST %s: %d %s", test.target, code, c.method)
		}
	}
}

func TestErrorsHaveTheirStatus(t *testing.T) {
	t.Parallel()
	for code, want := range map[codes.Code]int{
		codes.NotFound: 404, codes.InvalidArgument: 400, codes.Unavailable: 503, codes.PermissionDenied: 403, codes.Internal: 500,
	} {
		handler, err := gateway.Primary(t.Context(), &conn{err: status.Error(code, "why")})
		if err != nil {
			t.Fatal(err)
		}
		if got, body := ask(t, handler, http.MethodGet, "/api/v1/nodes/x"); got != want || body["message"] != "why" {
			t.Errorf("%s: %d %v", code, got, body)
		}
	}
}

// What is documented is what can be called.
func TestDocumentsNameEveryMethod(t *testing.T) {
	t.Parallel()
	for _, daemon := range []struct {
		make    func(context.Context, grpc.ClientConnInterface) (http.Handler, error)
		methods []string
	}{{gateway.Primary, gateway.PrimaryMethods}, {gateway.Secondary, gateway.SecondaryMethods}} {
		handler, err := daemon.make(t.Context(), &conn{})
		if err != nil {
			t.Fatal(err)
		}
		_, document := ask(t, handler, http.MethodGet, "/api/openapi.json")
		paths, _ := document["paths"].(map[string]any)
		text := fmt.Sprint(paths)
		for _, method := range daemon.methods {
			service, name := path.Split(strings.TrimPrefix(method, "/antipode.v1."))
			if id := strings.TrimSuffix(service, "/") + "_" + name; !strings.Contains(text, id) {
				t.Errorf("%s is not described", id)
			}
		}
	}
}
