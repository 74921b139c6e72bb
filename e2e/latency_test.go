package e2e

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/antipode-registry/antipode/internal/registrytest"
)

// The promise: half of all pushes are on the site within promised after the push's own answer. On a machine that is
// busy with others, where a push alone takes long, an arrival may take slowness times as long as a push does.
const (
	measuredPushes = 100
	promised       = 300 * time.Millisecond
	slowness       = 3
)

// TestLatency measures a pair that has nothing else to do: it does not run in parallel, and so before all that do.
func TestLatency(t *testing.T) {
	for name, site := range map[string]option{
		"distribution": withSite(registrytest.Distribution), "debian": withSite(registrytest.Debian),
	} {
		t.Run(name, func(t *testing.T) {
			p := newPair(t, site)
			primary, replica := registrytest.NewClient(p.Registry.URL()), registrytest.NewClient(p.Site.URL())
			defer primary.Close()
			defer replica.Close()
			var pushes, arrivals []time.Duration
			for i := range measuredPushes {
				img, tag := registrytest.NewImage(int64(i), 2, 20_000), fmt.Sprintf("v%d", i)
				began := time.Now()
				if err := primary.Push(t.Context(), "team/app", tag, img); err != nil {
					t.Fatal(err)
				}
				pushed := time.Now()
				pushes = append(pushes, pushed.Sub(began))
				arrivals = append(arrivals, arrival(t, replica, "team/app", tag, img.Digest).Sub(pushed))
			}
			p.Converges(t)
			slices.Sort(pushes)
			slices.Sort(arrivals)
			middle, last := len(arrivals)/2, len(arrivals)*99/100
			t.Logf("%d pushes, each took p50 %s; on the site after p50 %s, p99 %s, least %s, most %s", len(arrivals),
				pushes[middle], arrivals[middle], arrivals[last], arrivals[0], arrivals[len(arrivals)-1])
			if limit := max(promised, slowness*pushes[middle]); arrivals[middle] >= limit {
				t.Errorf("half of the pushes are on the site after %s, not within %s", arrivals[middle], limit)
			}
		})
	}
}

// arrival returns when the registry first answered the tag with the digest.
func arrival(t *testing.T, replica *registrytest.Client, repository, tag, digest string) time.Time {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	tick := time.NewTicker(3 * time.Millisecond)
	defer tick.Stop()
	for {
		m, err := replica.Manifest(ctx, repository, tag)
		if err == nil && m.Digest == digest {
			return time.Now()
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatalf("%s did not arrive: %v", tag, err)
		}
	}
}
