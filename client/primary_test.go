package client_test

import (
	"context"
	"net"
	"slices"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/test/bufconn"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/antipode-registry/antipode/client"
	antipodev1 "github.com/antipode-registry/antipode/gen/antipode/v1"
)

type (
	subscribeStream = grpc.ServerStreamingServer[antipodev1.SubscribeResponse]
	listStream      = grpc.ServerStreamingServer[antipodev1.ListTagsResponse]
)

// primary is a FeedService whose faults a test chooses, and a NodeService that locates as it is told.
type primary struct {
	antipodev1.UnimplementedFeedServiceServer
	antipodev1.UnimplementedNodeServiceServer
	locate    func(*antipodev1.LocateReferenceRequest) (*antipodev1.LocateReferenceResponse, error)
	subscribe func(*antipodev1.SubscribeRequest, subscribeStream) error
	list      func(*antipodev1.ListTagsRequest, listStream) error
}

func (p *primary) Subscribe(req *antipodev1.SubscribeRequest, stream subscribeStream) error {
	return p.subscribe(req, stream)
}

func (p *primary) ListTags(req *antipodev1.ListTagsRequest, stream listStream) error {
	return p.list(req, stream)
}

func (p *primary) LocateReference(
	_ context.Context, req *antipodev1.LocateReferenceRequest,
) (*antipodev1.LocateReferenceResponse, error) {
	return p.locate(req)
}

// start serves in memory until stop, which also ends the client's connection.
func (p *primary) start() (c *client.Client, stop func()) {
	listener := bufconn.Listen(1 << 16)
	server := grpc.NewServer()
	antipodev1.RegisterFeedServiceServer(server, p)
	antipodev1.RegisterNodeServiceServer(server, p)
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
	return client.New(conn), func() {
		_ = conn.Close()
		server.Stop()
		<-served
	}
}

// run serves until the test ends.
func (p *primary) run(t testing.TB) *client.Client {
	t.Helper()
	c, stop := p.start()
	t.Cleanup(stop)
	return c
}

func hello(feedID string, head int64, heartbeat time.Duration) *antipodev1.SubscribeResponse {
	return &antipodev1.SubscribeResponse{Kind: &antipodev1.SubscribeResponse_Hello{Hello: &antipodev1.Hello{
		FeedId: feedID, HeadRevision: head, HeartbeatInterval: durationpb.New(heartbeat),
	}}}
}

func changes(head, cursor int64, repositories ...string) *antipodev1.SubscribeResponse {
	batch := &antipodev1.ChangeBatch{HeadRevision: head, CursorRevision: cursor}
	for i, name := range repositories {
		batch.Changes = append(batch.Changes, &antipodev1.Change{
			Repository: name, Revision: cursor - int64(len(repositories)-1-i), ChangedAt: timestamppb.New(time.Unix(1000, 0)),
		})
	}
	return &antipodev1.SubscribeResponse{Kind: &antipodev1.SubscribeResponse_Changes{Changes: batch}}
}

func heartbeat(head, cursor int64) *antipodev1.SubscribeResponse {
	return &antipodev1.SubscribeResponse{Kind: &antipodev1.SubscribeResponse_Heartbeat{Heartbeat: &antipodev1.Heartbeat{
		HeadRevision: head, CursorRevision: cursor,
	}}}
}

// send sends the messages and returns end.
func send[M any](stream interface{ Send(*M) error }, end error, messages ...*M) error {
	for message := range slices.Values(messages) {
		if err := stream.Send(message); err != nil {
			return err
		}
	}
	return end
}

// idle sends the messages and then nothing until the caller leaves.
func idle(stream subscribeStream, messages ...*antipodev1.SubscribeResponse) error {
	if err := send(stream, nil, messages...); err != nil {
		return err
	}
	<-stream.Context().Done()
	return stream.Context().Err()
}
