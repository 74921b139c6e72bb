package registrytest_test

import (
	"os"
	"testing"

	"go.uber.org/goleak"

	"github.com/antipode-registry/antipode/internal/registrytest"
)

func TestMain(m *testing.M) {
	if helper := os.Getenv(orphanEnv); helper != "" {
		os.Exit(m.Run()) // the orphaned helper is killed, not checked
	}
	goleak.VerifyTestMain(m)
}

// eachRegistry runs fn on every registry that content can be pushed to.
func eachRegistry(t *testing.T, fn func(t *testing.T, url string)) {
	t.Helper()
	kinds := []struct {
		name  string
		start func(t *testing.T) string
	}{
		{"distribution", func(t *testing.T) string { return registrytest.Distribution(t).URL() }},
		{"debian", func(t *testing.T) string { return registrytest.Debian(t).URL() }},
		{"memory", func(t *testing.T) string { return registrytest.InMemory(t, true).URL() }},
	}
	for _, kind := range kinds {
		t.Run(kind.name, func(t *testing.T) {
			t.Parallel()
			fn(t, kind.start(t))
		})
	}
}
