package e2e

import (
	"testing"

	"github.com/antipode-registry/antipode/internal/registrytest"
)

func TestPair(t *testing.T) {
	eachSite(t, func(t *testing.T, site option) {
		p := newPair(t, site)
		registrytest.Push(t, p.Registry.URL(), "team/app", "v1", registrytest.NewImage(1, 2, 1000))
		p.Converges(t)
		p.Primary.Restart()
		p.Secondary.Restart()
		registrytest.Push(t, p.Registry.URL(), "team/app", "v2", registrytest.NewImage(2, 2, 1000))
		p.Converges(t)
	})
}
