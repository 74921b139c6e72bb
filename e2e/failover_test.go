package e2e

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"google.golang.org/grpc"

	antipodev1 "github.com/antipode-registry/antipode/gen/antipode/v1"
	"github.com/antipode-registry/antipode/internal/registrytest"
)

// swapped is the pair the other way round: daemons of its own, a primary over what was the site's registry and a site over
// what was the primary's. No notifications reach the new primary; its sweep finds what is pushed.
func (p *pair) swapped() *pair {
	p.t.Helper()
	dir := filepath.Join(p.dir, "swapped")
	if err := os.Mkdir(dir, 0o700); err != nil {
		p.t.Fatal(err)
	}
	q := &pair{t: p.t, dir: dir, pki: p.pki, Registry: p.Site, Site: p.Registry, connections: map[string]*grpc.ClientConn{}}
	q.write("notify.secret", secret+"\n")
	o := gather([]option{withPrimaryConfig("sweep.interval", "1s")})
	listen := reserve(p.t)
	q.Primary = newDaemon(p.t, "primaryd", dir, q.primaryConfig(&o, "127.0.0.1:0", listen))
	q.Secondary = newDaemon(p.t, "secondaryd", dir, q.secondaryConfig(&o, listen))
	q.nodesAt, q.siteAt = q.Primary.GRPC, q.Secondary.GRPC
	return q
}

// TestFailoverAndBack loses the primary, goes on at the site, takes the old primary back as a site, and then goes back as
// planned.
func TestFailoverAndBack(t *testing.T) {
	t.Parallel()
	p := newPair(t, withSecondaryConfig("grpc.listen", reserve(t)))
	push(t, p, "app", "v1", image(1))
	p.Converges(t)
	if out := succeeds(t, p.Secondary, "wait", "app:v1", "--timeout", "1m"); contains(out, "is on this site") != nil {
		t.Error(out)
	}
	if out := succeeds(t, p.Primary, "wait", "app:v1", "--nodes", "all", "--timeout", "1m"); contains(out, "1 sites") != nil {
		t.Error(out)
	}
	if _, _, code := p.Secondary.Command("wait", "app:v2", "--timeout", "1s"); code != 3 {
		t.Errorf("waiting for what is not there: exit code %d", code)
	}

	// The operator at the primary pauses the site over its own subscription; then the primary is lost with work undone.
	asked, err := p.Nodes().AskNode(t.Context(), &antipodev1.AskNodeRequest{Node: siteName, Request: &antipodev1.SiteRequest{
		Ask: &antipodev1.SiteRequest_Pause{Pause: &antipodev1.PauseRequest{}},
	}})
	if err != nil || asked.GetAnswer().GetPause() == nil || !p.Status(t).GetPaused() {
		t.Fatalf("paused by way of the primary: %v, %v", asked, err)
	}
	push(t, p, "app", "v2", image(2))
	v2 := image(2).Digest
	eventually(t, func(context.Context) error {
		if n := p.Status(t).GetRepositories().GetPending(); n != 1 {
			return fmt.Errorf("%d repositories are due", n)
		}
		return nil
	})
	// While the primary answers it is compared with; when primaryd is gone its registry is; and when nobody answers, what
	// was announced is told.
	if out := succeeds(t, p.Secondary, "promote", "--dry-run"); contains(out, "rehearsal", "compared just now with what primaryd lists",
		"app:v2", "missing", v2[:19], "is not known here") != nil {
		t.Error(out)
	}
	p.Primary.Kill()
	if out := succeeds(t, p.Secondary, "promote", "--dry-run"); contains(out, "the primary's registry itself", "app:v2", "missing") != nil {
		t.Error(out)
	}
	p.Registry.Kill()
	if out := succeeds(t, p.Secondary, "promote", "--dry-run"); contains(out, "rehearsal", "nobody at the primary answers",
		"pending", "app:v2", "missing", v2[:19], "as the primary announced") != nil {
		t.Error(out)
	}
	if out := succeeds(t, p.Secondary, "promote", "--output", "json"); contains(out, `"promoted": true`, `"tag": "v2"`,
		`"difference": "missing"`, v2, `"compared_with": "nobody"`) != nil {
		t.Error(out)
	}
	if out := succeeds(t, p.Secondary, "explain"); contains(out, "pause", operatorName+", at the primary", "promote",
		siteName+", on the site", "unplanned: 1 repositories were not synced") != nil {
		t.Error(out)
	}
	p.Registry.Start()
	p.Secondary.Restart()
	if out := succeeds(t, p.Secondary, "status"); contains(out, "promoted") != nil {
		t.Error(out)
	}
	p.Secondary.Stop()

	q := p.swapped()
	registrytest.Push(t, p.Site.URL(), "app", "v3", image(3))
	q.Primary.Start()
	q.Secondary.Start()
	q.Converges(t, "app") // v3 went to the old primary, and the v2 that only that had is gone

	// Back, as planned: the old primary's registry, a site now, is equal and stops.
	q.Secondary.Stop()
	q.Secondary.Configure(q.secondaryConfig(new(gather([]option{withSecondaryConfig("grpc.listen", reserve(t))})), q.Primary.GRPC()))
	q.Secondary.Start()
	if stdout, stderr, code := q.Secondary.Command("promote", "--planned", "--timeout", "2m"); code != 0 ||
		contains(stdout, "promoted", "nothing is missing") != nil {
		t.Fatalf("planned: exit code %d\n%s%s", code, stdout, stderr)
	}
	q.Secondary.Stop()
	q.Primary.Stop()
	p.Primary.Start()
	p.Secondary.Start()
	succeeds(t, p.Secondary, "demote")
	if _, err := p.Replication().Resume(t.Context(), &antipodev1.ResumeRequest{}); err != nil {
		t.Fatal(err)
	}
	push(t, p, "app", "v4", image(4))
	p.Converges(t, "app")
}
