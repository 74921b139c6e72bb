package e2e

import (
	"context"
	"errors"
	"fmt"
	"testing"

	antipodev1 "github.com/antipode-registry/antipode/gen/antipode/v1"
	"github.com/antipode-registry/antipode/internal/registrytest"
)

// changeEverything pushes, retags and deletes in several repositories.
func changeEverything(t *testing.T, p *pair, round int) {
	t.Helper()
	url := p.Registry.URL()
	for r := range 3 {
		name := fmt.Sprintf("heal/app-%d", r)
		seed := int64(1000*round + 10*r)
		for i := range 3 {
			push(t, p, name, fmt.Sprintf("r%d-v%d", round, i), image(seed+int64(i)))
		}
		push(t, p, name, "latest", image(seed+2))
		registrytest.Retag(t, url, name, image(seed).Digest, "stable")
		registrytest.DeleteTag(t, url, name, fmt.Sprintf("r%d-v1", round))
	}
}

// TestNotificationsLost: a registry that was told that its notifications arrived does not send them again.
func TestNotificationsLost(t *testing.T) {
	t.Parallel()
	eachSite(t, func(t *testing.T, site option) {
		p := newPair(t, site, withPrimaryConfig("sweep.interval", "2s"))
		changeEverything(t, p, 1)
		p.Converges(t)
		p.Notifications(false)
		changeEverything(t, p, 2)
		// One repository keeps all its tags but one: the deletion alone must be seen.
		registrytest.DeleteTag(t, p.Registry.URL(), "heal/app-0", "r1-v0")
		push(t, p, "heal/new", "v1", registrytest.NewIndex(image(1), image(2)))
		p.Converges(t)
		p.Notifications(true)
		changeEverything(t, p, 3)
		p.Converges(t)
	})
}

// TestRegistryRestartLosesItsQueue: CNCF distribution keeps undelivered notifications in memory. The first one after its
// restart tells primaryd, which does not wait for its next sweep (here, an hour).
func TestRegistryRestartLosesItsQueue(t *testing.T) {
	t.Parallel()
	eachSite(t, func(t *testing.T, site option) {
		p := newPair(t, site, withContent(func(ctx context.Context, to *registrytest.Client) error {
			return errors.Join(to.Push(ctx, "heal/old", "v1", image(1)), to.Push(ctx, "heal/old", "v2", image(2)))
		}))
		changeEverything(t, p, 1)
		p.Converges(t)
		p.RefuseNotifications()
		push(t, p, "heal/app-0", "r2-v0", image(2000))
		registrytest.DeleteTag(t, p.Registry.URL(), "heal/old", "v1")
		push(t, p, "heal/old", "v2", image(3))
		push(t, p, "heal/app-3", "r2-v0", image(2001))
		p.Registry.Kill()
		p.Registry.Start()
		p.Notifications(true)
		push(t, p, "heal/sign", "of-life", image(1))
		p.Converges(t)
	})
}

// TestSiteDamaged: what is done to a site's registry behind secondaryd's back is undone.
func TestSiteDamaged(t *testing.T) {
	t.Parallel()
	eachSite(t, func(t *testing.T, site option) {
		p := newPair(t, site, withSecondaryConfig("sweep.interval", "1s"))
		changeEverything(t, p, 1)
		p.Converges(t)
		gone := image(1000).Digest
		registrytest.DeleteDigest(t, p.Site.URL(), "heal/app-0", gone)
		registrytest.Push(t, p.Site.URL(), "heal/app-1", "latest", image(77))
		registrytest.Push(t, p.Site.URL(), "heal/app-2", "stray", image(78))
		p.Converges(t)
	})
}

// TestPause: a paused site begins nothing and forgets nothing, whatever is restarted meanwhile.
func TestPause(t *testing.T) {
	t.Parallel()
	eachSite(t, func(t *testing.T, site option) {
		p := newPair(t, site)
		changeEverything(t, p, 1)
		p.Converges(t)
		if _, err := p.Replication().Pause(t.Context(), &antipodev1.PauseRequest{}); err != nil {
			t.Fatal(err)
		}
		before := registrytest.Tags(t, p.Site.URL(), "heal/app-0")
		changeEverything(t, p, 2)
		cursorAtHead(t, p)
		p.Secondary.Restart()
		changeEverything(t, p, 3)
		cursorAtHead(t, p)
		s := p.Status(t)
		if !s.GetPaused() || s.GetRepositories().GetPending() != 3 || s.GetLag().AsDuration() <= 0 {
			t.Errorf("paused %t, repositories %v, lag %s", s.GetPaused(), s.GetRepositories(), s.GetLag().AsDuration())
		}
		tagsAre(t, p, "heal/app-0", before)
		nodeIs(t, p, antipodev1.NodeState_NODE_STATE_PAUSED)
		if _, err := p.Replication().Resume(t.Context(), &antipodev1.ResumeRequest{}); err != nil {
			t.Fatal(err)
		}
		p.Converges(t)
		nodeIs(t, p, antipodev1.NodeState_NODE_STATE_HEALTHY)
		p.Secondary.Restart()
		if p.Status(t).GetPaused() {
			t.Error("paused again after a restart")
		}
	})
}

// cursorAtHead waits until every change so far has been heard of. The notifications of the last ones may be on their way:
// the head must have reached all of primaryd's repositories, and the cursor the head.
func cursorAtHead(t *testing.T, p *pair) {
	t.Helper()
	eventually(t, func(ctx context.Context) error {
		list, err := p.Nodes().ListNodes(ctx, &antipodev1.ListNodesRequest{}, patiently)
		if err != nil {
			return err
		}
		s := p.Status(t)
		if s.GetCursorRevision() != list.GetHeadRevision() || s.GetRepositories().GetPending() == 0 {
			return fmt.Errorf("cursor %d of %d, repositories %v", s.GetCursorRevision(), list.GetHeadRevision(), s.GetRepositories())
		}
		return nil
	})
}

// nodeIs waits until primaryd says so of the site.
func nodeIs(t *testing.T, p *pair, want antipodev1.NodeState) {
	t.Helper()
	eventually(t, func(ctx context.Context) error {
		resp, err := p.Nodes().GetNode(ctx, &antipodev1.GetNodeRequest{Name: siteName}, patiently)
		if err != nil {
			return err
		}
		if got := resp.GetNode().GetState(); got != want {
			return fmt.Errorf("the site is %s because %q, not %s", got, resp.GetNode().GetReasons(), want)
		}
		return nil
	})
}
