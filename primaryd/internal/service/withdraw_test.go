package service_test

import (
	"fmt"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	antipodev1 "github.com/antipode-registry/antipode/gen/antipode/v1"
	"github.com/antipode-registry/antipode/internal/registry"
	"github.com/antipode-registry/antipode/primaryd/internal/node"
)

// granted are the nodes of these tests as they are configured at first.
func granted() []node.Config {
	return []node.Config{{Name: "eu", Repositories: []string{"**"}}, {Name: "team", Repositories: []string{"team/**"}}}
}

func (p *parts) reconfigure(t *testing.T, nodes []node.Config, operators ...string) {
	t.Helper()
	if err := p.access.Reconfigure(nodes, operators); err != nil {
		t.Fatal(err)
	}
}

func wantCode(t *testing.T, what string, err error, want codes.Code) {
	t.Helper()
	if status.Code(err) != want {
		t.Errorf("%s ended with %v, want %v", what, err, want)
	}
}

func TestAChangedGrantEndsTheSubscription(t *testing.T) {
	t.Parallel()
	p := sqlite(t)
	p.push(t, "team/a", "other")
	c := p.run(t)
	team := subscribe(deadline(t), t, c, "node/team", &antipodev1.SubscribeRequest{})
	team.expect(t, "hello 2", "team/a:1 cursor 2 head 2")
	eu := subscribe(deadline(t), t, c, "node/eu", &antipodev1.SubscribeRequest{})
	eu.expect(t, "hello 2", "team/a:1 other:2 cursor 2 head 2")

	nodes := granted()
	nodes[1].Repositories = []string{"other"}
	p.reconfigure(t, nodes, "ops")
	_, err := team.Recv()
	wantCode(t, "the subscription of the old grant", err, codes.OutOfRange)

	// It begins again with what it may see now; whose grant is as it was hears on.
	p.push(t, "team/a", "other")
	team = subscribe(deadline(t), t, c, "node/team", &antipodev1.SubscribeRequest{})
	team.expect(t, "hello 4", "other:4 cursor 4 head 4")
	for heard := int64(2); heard < 4; {
		message, err := eu.Recv()
		if err != nil {
			t.Fatal(err)
		}
		heard = max(heard, message.GetChanges().GetCursorRevision())
	}
}

func TestAWithdrawnNameEndsItsStreams(t *testing.T) {
	t.Parallel()
	p := sqlite(t)
	p.push(t, "team/a")
	c := p.run(t)
	for _, identity := range []string{"node/team", "operator/ops"} {
		s := subscribe(deadline(t), t, c, identity, &antipodev1.SubscribeRequest{})
		s.expect(t, "hello 1", "team/a:1 cursor 1 head 1")
		watch, err := c.nodes.WatchNodes(as(deadline(t), identity), &antipodev1.WatchNodesRequest{})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := watch.Recv(); err != nil {
			t.Fatal(err)
		}
		p.reconfigure(t, granted()[:1]) // neither team nor ops
		_, err = s.Recv()
		wantCode(t, identity+"'s subscription", err, codes.Unauthenticated)
		for err = nil; err == nil; { // what it was sent before
			_, err = watch.Recv()
		}
		wantCode(t, identity+"'s watch", err, codes.Unauthenticated)
		_, err = c.feed.ListRepositories(as(deadline(t), identity), &antipodev1.ListRepositoriesRequest{})
		wantCode(t, identity+"'s next call", err, codes.Unauthenticated)
		p.reconfigure(t, granted(), "ops")
	}
}

// A walk that began while the repository was granted ends without a page.
func TestAGrantWithdrawnDuringAWalk(t *testing.T) {
	t.Parallel()
	p := sqlite(t)
	p.push(t, "team/a")
	c := p.run(t)
	p.registry.during = func() {
		nodes := granted()
		nodes[1].Repositories = []string{"other"}
		p.reconfigure(t, nodes, "ops")
	}
	list, err := c.feed.ListTags(as(deadline(t), "node/team"), &antipodev1.ListTagsRequest{Repository: "team/a"})
	if err != nil {
		t.Fatal(err)
	}
	message, err := list.Recv()
	wantCode(t, "the listing", err, codes.PermissionDenied)
	if message != nil {
		t.Errorf("it was told %v", message)
	}
}

func TestAConfigurationWithAMistakeChangesNothing(t *testing.T) {
	t.Parallel()
	p := sqlite(t)
	c := p.run(t)
	broken := []node.Config{{Name: "team", Repositories: []string{"["}}}
	if err := p.access.Reconfigure(broken, nil); err == nil {
		t.Fatal("it was taken")
	}
	for _, identity := range []string{"node/team", "node/eu", "operator/ops"} {
		if _, err := c.feed.ListRepositories(as(deadline(t), identity), &antipodev1.ListRepositoriesRequest{}); err != nil {
			t.Errorf("%s: %v", identity, err)
		}
	}
}

// A listing that is being sent when the grant goes ends with the page that was on its way: the caller reads slowly, so
// most of it was not.
func TestAGrantWithdrawnBetweenPages(t *testing.T) {
	t.Parallel()
	p := sqlite(t)
	p.push(t, "team/a")
	const pages = 20
	for i := range pages * 1000 {
		tag := registry.Tag{Name: fmt.Sprintf("v%05d", i), Digest: "sha256:" + strings.Repeat("0", 64), MediaType: "m", Size: 1}
		p.registry.listing.Tags = append(p.registry.listing.Tags, tag)
	}
	p.registry.listing.Present = true
	list, err := p.run(t).feed.ListTags(as(deadline(t), "node/team"), &antipodev1.ListTagsRequest{Repository: "team/a"})
	if err != nil {
		t.Fatal(err)
	}
	received := 0
	for ; err == nil; received++ {
		if _, err = list.Recv(); received == 0 {
			nodes := granted()
			nodes[1].Repositories = []string{"other"}
			p.reconfigure(t, nodes, "ops")
		}
	}
	wantCode(t, "the listing", err, codes.PermissionDenied)
	if received > pages {
		t.Errorf("all %d pages came", pages)
	}
}
