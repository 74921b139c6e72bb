package registry

import (
	"errors"
	"net/http"
	"testing"

	"github.com/antipode-registry/antipode/internal/registrytest"
)

// A glance costs one request for each tag, there or not; what is no answer about the tag is an error still.
func TestGlance(t *testing.T) {
	t.Parallel()
	eachRegistry(t, func(t *testing.T, _ registryKind, url string) {
		img := registrytest.NewImage(1, 1, 64)
		registrytest.Push(t, url, repo, "v1", img)
		proxy := registrytest.NewProxy(t, url)
		r := open(t, proxy.URL())
		found, err := r.Glance(t.Context(), repo, []string{"v1", "v2"})
		if err != nil || len(found) != 1 || found[0].Name != "v1" || found[0].Digest != img.Digest {
			t.Errorf("%v, %v", found, err)
		}
		if n := len(proxy.Requests()); n != 2 {
			t.Errorf("%d requests for two tags", n)
		}
		proxy.Fault(func(*http.Request) registrytest.Fault { return registrytest.Fault{Status: http.StatusUnauthorized} })
		if _, err := r.Glance(t.Context(), repo, []string{"v2"}); !errors.Is(err, ErrUnauthorized) {
			t.Errorf("%v, not %v", err, ErrUnauthorized)
		}
	})
}
