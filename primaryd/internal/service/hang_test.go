package service_test

import (
	"context"
	"testing"
	"time"

	"google.golang.org/grpc/codes"

	antipodev1 "github.com/antipode-registry/antipode/gen/antipode/v1"
	"github.com/antipode-registry/antipode/internal/database"
	"github.com/antipode-registry/antipode/internal/database/databasetest"
)

// RPCs of callers who would wait for ever are answered while the database stands still, and streams that need it end.
func TestADatabaseThatHangs(t *testing.T) {
	t.Parallel()
	databasetest.SkipWithoutPostgres(t)
	cluster := databasetest.NewCluster(t)
	url := databasetest.NewDatabase(t, cluster.URL("postgres"))
	patient := newParts(t, databasetest.Open(t, url))
	patient.push(t, "team/a")
	c := newParts(t, databasetest.Open(t, url, database.WithPatience(5*time.Second))).run(t)
	cluster.Freeze(t)
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context())) // without a deadline
	defer cancel()
	_, err := c.nodes.ListNodes(as(ctx, "operator/ops"), &antipodev1.ListNodesRequest{})
	wantCode(t, "ListNodes", err, codes.Unavailable)
	_, err = c.nodes.ReportStatus(as(ctx, "node/team"), &antipodev1.ReportStatusRequest{Status: &antipodev1.NodeStatus{}})
	wantCode(t, "ReportStatus", err, codes.Unavailable)
	stream, err := c.feed.Subscribe(as(ctx, "node/team"), &antipodev1.SubscribeRequest{})
	if err == nil {
		_, err = stream.Recv()
	}
	wantCode(t, "Subscribe", err, codes.Unavailable)
	cluster.Thaw(t)
	again := subscribe(deadline(t), t, patient.run(t), "node/team", &antipodev1.SubscribeRequest{})
	again.expect(t, "hello 1", "team/a:1 cursor 1 head 1")
}
