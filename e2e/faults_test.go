package e2e

import (
	"context"
	"fmt"
	"maps"
	"net/http"
	"strings"
	"testing"

	antipodev1 "github.com/antipode-registry/antipode/gen/antipode/v1"
	"github.com/antipode-registry/antipode/internal/registrytest"
)

// fault is a way for the primary's registry to answer wrongly, and what the reason must name.
type fault struct {
	name, reason string
	registrytest.Fault
}

func faults() []fault {
	html := http.Header{"Content-Type": {"text/html"}}
	return []fault{
		{"server error", "500", registrytest.Fault{Status: http.StatusInternalServerError}},
		{"unauthorized", "401", registrytest.Fault{Status: http.StatusUnauthorized}},
		{"empty body", "", registrytest.Fault{Status: http.StatusOK}},
		{"web page", "", registrytest.Fault{Status: http.StatusOK, Header: html, Body: "<html><h1>It works!</h1></html>"}},
		{"not found page", "404", registrytest.Fault{Status: http.StatusNotFound, Header: html, Body: "<h1>Not found</h1>"}},
		{"connection reset", "", registrytest.Fault{Cut: -1}},
	}
}

// TestRegistryAnswersWrongly: whatever the primary's registry answers instead of the truth, the site keeps what it has,
// and says why it is not synced.
func TestRegistryAnswersWrongly(t *testing.T) {
	t.Parallel()
	eachSite(t, func(t *testing.T, site option) {
		p := newPair(t, site, withPrimaryProxy(), withSiteProxy())
		changeEverything(t, p, 1)
		p.Converges(t)
		for i, f := range faults() {
			t.Run(f.name, func(t *testing.T) { answersWrongly(t, p, f, i+2) })
		}
	})
}

func answersWrongly(t *testing.T, p *pair, f fault, round int) {
	before := siteTags(t, p)
	p.SiteProxy.Reset()
	p.Proxy.Fault(func(*http.Request) registrytest.Fault { return f.Fault })
	resyncAll(t, p)
	// The push goes around the fault; what it tells primaryd does not help.
	push(t, p, "heal/app-1", fmt.Sprintf("r%d-v0", round), image(int64(round)))
	push(t, p, "heal/app-2", "latest", image(int64(round)))
	failed(t, p, f.reason)
	if after := siteTags(t, p); !maps.Equal(before, after) {
		t.Errorf("the site's tags changed\nfrom %v\n  to %v", before, after)
	}
	for _, r := range p.SiteProxy.Requests() {
		if r.Method == http.MethodDelete {
			t.Errorf("the site was asked to delete: %s", r.Path)
		}
	}
	p.Proxy.Fault(nil)
	changeEverything(t, p, round)
	resyncAll(t, p)
	p.Converges(t)
	nodeIs(t, p, antipodev1.NodeState_NODE_STATE_HEALTHY)
}

// failed waits until every repository has failed, and the site and the primary both say why.
func failed(t *testing.T, p *pair, reason string) {
	t.Helper()
	eventually(t, func(ctx context.Context) error {
		s := p.Status(t)
		if counts := s.GetRepositories(); counts.GetFailed() != counts.GetTotal() {
			return fmt.Errorf("not all have failed: %v", counts)
		}
		e := s.GetLastError()
		if e.GetSide() != antipodev1.Side_SIDE_SOURCE && e.GetSide() != antipodev1.Side_SIDE_PRIMARY {
			return fmt.Errorf("the error is said to be of %s: %v", e.GetSide(), e)
		}
		if e.GetMessage() == "" || !strings.Contains(e.GetMessage(), reason) || len(s.GetProblems()) == 0 {
			return fmt.Errorf("the reason is not in %q (problems %q)", e.GetMessage(), s.GetProblems())
		}
		resp, err := p.Nodes().GetNode(ctx, &antipodev1.GetNodeRequest{Name: siteName})
		if err != nil {
			return err
		}
		node := resp.GetNode()
		if node.GetState() != antipodev1.NodeState_NODE_STATE_DEGRADED || len(node.GetReasons()) == 0 ||
			!strings.Contains(node.GetStatus().GetLastError().GetMessage(), reason) {
			return fmt.Errorf("primaryd says %s because %q", node.GetState(), node.GetReasons())
		}
		return nil
	})
	t.Logf("the reason: %s", p.Status(t).GetLastError().GetMessage())
}

// TestListingFailsHalfway: the worst moment for an error is after a part of the answer.
func TestListingFailsHalfway(t *testing.T) {
	t.Parallel()
	eachSite(t, func(t *testing.T, site option) {
		p := newPair(t, site, withPrimaryProxy())
		changeEverything(t, p, 1)
		p.Converges(t)
		before := siteTags(t, p)
		for name, f := range map[string]registrytest.Fault{
			"list cut":  {Cut: 20},
			"list html": {Status: http.StatusOK, Body: "<html>", Header: http.Header{"Content-Type": {"text/html"}}},
		} {
			t.Run(name, func(t *testing.T) {
				p.Proxy.Fault(func(r *http.Request) registrytest.Fault {
					if strings.HasSuffix(r.URL.Path, "/tags/list") {
						return f
					}
					return registrytest.Fault{}
				})
				resyncAll(t, p)
				failed(t, p, "")
				if after := siteTags(t, p); !maps.Equal(before, after) {
					t.Errorf("the site's tags changed\nfrom %v\n  to %v", before, after)
				}
				p.Proxy.Fault(nil)
				resyncAll(t, p)
				p.Converges(t)
			})
		}
		t.Run("one tag alone", func(t *testing.T) { oneTagBroken(t, p) })
	})
}

// oneTagBroken: one tag whose content cannot be read keeps its repository from being synced, and no sibling from being there.
func oneTagBroken(t *testing.T, p *pair) {
	broken := image(500)
	p.Proxy.Fault(func(r *http.Request) registrytest.Fault {
		// A blob: the manifest comes along with the listing.
		if _, digest, found := strings.Cut(r.URL.Path, "/blobs/"); found && broken.Blobs[digest] != nil {
			return registrytest.Fault{Status: http.StatusInternalServerError}
		}
		return registrytest.Fault{}
	})
	push(t, p, "heal/app-0", "broken", broken)
	push(t, p, "heal/app-0", "whole", image(501))
	arrives(t, p, "heal/app-0", "whole", image(501).Digest)
	registrytest.DeleteTag(t, p.Registry.URL(), "heal/app-0", "r1-v0")
	leaves(t, p, "heal/app-0", "r1-v0")
	eventually(t, func(context.Context) error {
		s := p.Status(t)
		if e := s.GetLastError(); s.GetRepositories().GetFailed() != 1 || !strings.Contains(e.GetMessage(), "500") {
			return fmt.Errorf("repositories %v, last error %v", s.GetRepositories(), e)
		}
		return nil
	})
	p.Proxy.Fault(nil)
	resyncAll(t, p)
	p.Converges(t)
}

// siteTags are all tags of the site, as REPOSITORY:TAG.
func siteTags(t *testing.T, p *pair) map[string]string {
	t.Helper()
	client := registrytest.NewClient(p.Site.URL())
	defer client.Close()
	repositories, err := client.Repositories(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	all := map[string]string{}
	for _, repository := range repositories {
		for tag, digest := range registrytest.Tags(t, p.Site.URL(), repository) {
			all[repository+":"+tag] = digest
		}
	}
	return all
}

func resyncAll(t *testing.T, p *pair) {
	t.Helper()
	if _, err := p.Replication().Resync(t.Context(), &antipodev1.ResyncRequest{All: true}); err != nil {
		t.Fatal(err)
	}
}
