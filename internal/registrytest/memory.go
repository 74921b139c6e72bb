package registrytest

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"cuelabs.dev/go/oci/ociregistry/ocimem"
	"cuelabs.dev/go/oci/ociregistry/ociserver"
)

// memoryPage is the size of a page of [InMemory]'s lists where the client asks for none.
const memoryPage = "100"

// Server is a registry in the test's own process. Its content is lost with the test.
type Server struct{ http *httptest.Server }

// InMemory starts a registry in this process, with the referrers API or without it. It deletes a tag alone, and its
// tag lists and catalog come in pages (of 100 unless asked otherwise) with a Link to the next.
func InMemory(t testing.TB, referrers bool) *Server {
	t.Helper()
	s := &Server{http: httptest.NewServer(MemoryHandler(referrers))}
	t.Cleanup(func() {
		s.http.CloseClientConnections()
		s.http.Close()
	})
	return s
}

// MemoryHandler is what [InMemory] serves, for who serves it otherwise.
func MemoryHandler(referrers bool) http.Handler {
	return paged(ociserver.New(ocimem.New(), &ociserver.Options{DisableReferrersAPI: !referrers}))
}

// URL is the registry's base URL, without a path.
func (s *Server) URL() string { return s.http.URL }

// Host is the registry's host and port.
func (s *Server) Host() string { return s.http.Listener.Addr().String() }

// paged gives lists a page size where the client set none: the library would answer all at once, and hosted registries
// do not.
func paged(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		list := strings.HasSuffix(r.URL.Path, "/tags/list") || r.URL.Path == "/v2/_catalog"
		if query := r.URL.Query(); list && !query.Has("n") {
			query.Set("n", memoryPage)
			r.URL.RawQuery = query.Encode()
		}
		next.ServeHTTP(w, r)
	})
}
