package transfer_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/antipode-registry/antipode/internal/registry"
	"github.com/antipode-registry/antipode/internal/registrytest"
	"github.com/antipode-registry/antipode/internal/transfer"
)

// site is two real registries, a recording proxy in front of each, and a Copier between the proxies.
type site struct {
	source, destination string // URLs without the proxies
	src, dst            *registrytest.Proxy
	from, to            *registry.Registry
	index               *index
	copier              *transfer.Copier
}

// kinds are the registries that a test runs against, as both sides.
var kinds = map[string]func(t testing.TB) string{
	"distribution": func(t testing.TB) string { t.Helper(); return registrytest.Distribution(t).URL() },
	"debian":       func(t testing.TB) string { t.Helper(); return registrytest.Debian(t).URL() },
	"memory":       func(t testing.TB) string { t.Helper(); return registrytest.InMemory(t, true).URL() },
}

// eachRegistry runs fn with a fresh registry of each kind as the destination of a CNCF distribution.
func eachRegistry(t *testing.T, fn func(t *testing.T, kind string, s *site)) {
	t.Helper()
	for kind, start := range kinds {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			fn(t, kind, newSite(t, registrytest.Distribution(t).URL(), start(t)))
		})
	}
}

func newSite(t *testing.T, source, destination string) *site {
	t.Helper()
	s := &site{source: source, destination: destination, index: newIndex()}
	s.src, s.dst = registrytest.NewProxy(t, source), registrytest.NewProxy(t, destination)
	s.from, s.to = open(t, s.src, registry.Source), open(t, s.dst, registry.Destination)
	s.copier = transfer.New(s.to, s.index, transfer.Options{})
	return s
}

func open(t *testing.T, proxy *registrytest.Proxy, side registry.Side) *registry.Registry {
	t.Helper()
	r, err := registry.Open(registry.Config{URL: proxy.URL(), Side: side})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(r.Close)
	return r
}

func (s *site) push(t *testing.T, repository, tag string, img registrytest.Image) {
	t.Helper()
	registrytest.Push(t, s.source, repository, tag, img)
}

// copy copies and compares, and returns what it took at both sides.
func (s *site) copy(t *testing.T, repository string, img registrytest.Image, tags ...string) transfer.Result {
	t.Helper()
	s.src.Reset()
	s.dst.Reset()
	result, err := s.copier.Copy(t.Context(), request(s.from, repository, img, tags...))
	if err != nil {
		t.Fatalf("copy: %v", err)
	}
	for tag, err := range result.TagErrors {
		t.Errorf("tag %s: %v", tag, err)
	}
	return result
}

// wantCounts compares the numbers of requests at both sides.
func (s *site) wantCounts(t *testing.T, src, dst int) {
	t.Helper()
	for _, side := range []struct {
		name  string
		proxy *registrytest.Proxy
		want  int
	}{{"source", s.src, src}, {"destination", s.dst, dst}} {
		if got := side.proxy.Count("", ""); got != side.want {
			t.Errorf("%s: %d requests, want %d:%s", side.name, got, side.want, lines(side.proxy))
		}
		if heads := side.proxy.Count("HEAD", ""); heads != 0 {
			t.Errorf("%s: %d HEADs", side.name, heads)
		}
	}
}

func lines(proxy *registrytest.Proxy) string {
	var b strings.Builder
	for _, r := range proxy.Requests() {
		fmt.Fprintf(&b, "\n  %s %s?%s %d", r.Method, r.Path, r.Query, r.Status)
	}
	return b.String()
}

// TestCostOfAnImage asserts the floor: N+2 requests at the source; POST and PUT for each blob and one PUT per tag at
// the destination.
func TestCostOfAnImage(t *testing.T) {
	t.Parallel()
	eachRegistry(t, func(t *testing.T, kind string, s *site) {
		const layers = 4
		upload := 2
		if kind == "memory" { // it answers 404 where 202 should open the upload
			upload = 3
		}
		img := registrytest.NewImage(1, layers, 4096)
		s.push(t, "team/app", "v1", img)
		result := s.copy(t, "team/app", img, "v1")
		s.wantCounts(t, layers+2, upload*(layers+1)+1)
		if result.BlobsCopied != layers+1 {
			t.Errorf("result %+v", result)
		}
		registrytest.AssertEqual(t, s.source, s.destination, "team/app")

		// More tags on it: the manifest is read nearby, and written once for each.
		tags := []string{"v1.0", "v1.0.0", "latest"}
		for _, tag := range tags {
			registrytest.Retag(t, s.source, "team/app", img.Digest, tag)
		}
		s.copy(t, "team/app", img, tags...)
		s.wantCounts(t, 0, 1+len(tags))

		// Several tags on a new image: one graph.
		docker := registrytest.NewImage(2, 2, 4096).Docker()
		s.push(t, "team/app", "docker", docker)
		registrytest.Retag(t, s.source, "team/app", docker.Digest, "docker-2")
		s.copy(t, "team/app", docker, "docker", "docker-2")
		s.wantCounts(t, 2+2, upload*3+2)
		registrytest.AssertEqual(t, s.source, s.destination)
	})
}

func TestMountFromAnotherRepository(t *testing.T) {
	t.Parallel()
	eachRegistry(t, func(t *testing.T, _ string, s *site) {
		base := registrytest.Bytes(7, 0, 1<<20)
		one := registrytest.NewImage(1, 1, 4096, registrytest.WithLayers(base))
		two := registrytest.NewImage(2, 1, 4096, registrytest.WithLayers(base))
		s.push(t, "a", "latest", one)
		s.push(t, "b", "latest", two)
		s.push(t, "c", "latest", one)
		s.copy(t, "a", one, "latest")

		result := s.copy(t, "b", two, "latest") // shares the base
		if result.BlobsMounted != 1 || s.src.Count("GET", "blob") != 2 || result.Bytes > 64<<10 {
			t.Errorf("result %+v with %d downloads, want the base mounted", result, s.src.Count("GET", "blob"))
		}
		s.copy(t, "c", one, "latest") // is all there: one manifest read nearby, 3 mounts, one tag
		s.wantCounts(t, 0, 1+3+1)
		registrytest.AssertEqual(t, s.source, s.destination)
	})
}

// TestBlobThereWithoutOurKnowledge: the POST that opens the upload finds it.
func TestBlobThereWithoutOurKnowledge(t *testing.T) {
	t.Parallel()
	eachRegistry(t, func(t *testing.T, _ string, s *site) {
		img := registrytest.NewImage(1, 3, 4096)
		s.push(t, "app", "latest", img)
		registrytest.Push(t, s.destination, "app", "latest", img)
		result := s.copy(t, "app", img, "latest")
		s.wantCounts(t, 1, 4+1)
		if result.BlobsMounted != 4 || result.Bytes != 0 {
			t.Errorf("result %+v, want all mounted", result)
		}
	})
}

func TestTwoCopiesDownloadABlobOnce(t *testing.T) {
	t.Parallel()
	eachRegistry(t, func(t *testing.T, _ string, s *site) {
		base := registrytest.Bytes(7, 0, 1<<20)
		hold, arrived := make(chan struct{}), make(chan struct{}, 8)
		s.src.Fault(func(r *http.Request) registrytest.Fault {
			if strings.HasSuffix(r.URL.Path, registrytest.Digest(base)) {
				arrived <- struct{}{}
				return registrytest.Fault{Delay: hold}
			}
			return registrytest.Fault{}
		})
		errs := make(chan error, 4)
		for i := range 4 {
			repository := fmt.Sprintf("app%d", i)
			img := registrytest.NewImage(int64(i), 0, 0, registrytest.WithLayers(base))
			s.push(t, repository, "latest", img)
			go func() {
				_, err := s.copier.Copy(t.Context(), request(s.from, repository, img, "latest"))
				errs <- err
			}()
		}
		<-arrived
		// The others have everything else when their configs are there; then they wait or have yet to ask.
		registrytest.Eventually(t, waitTimeout, func(context.Context) error {
			if n := s.dst.Count("PUT", "upload"); n < 4 {
				return fmt.Errorf("%d uploads", n)
			}
			return nil
		})
		close(hold)
		for range 4 {
			if err := <-errs; err != nil {
				t.Error(err)
			}
		}
		downloads := 0
		for _, r := range s.src.Requests() {
			if r.Reference == registrytest.Digest(base) {
				downloads++
			}
		}
		if downloads != 1 {
			t.Errorf("%d downloads of one blob", downloads)
		}
		registrytest.AssertEqual(t, s.source, s.destination)
	})
}

func TestCutDownloadFetchesOnlyTheRest(t *testing.T) {
	t.Parallel()
	eachRegistry(t, func(t *testing.T, _ string, s *site) {
		const size, cut = 3 << 20, 1 << 20
		img := registrytest.NewImage(1, 1, size)
		s.push(t, "app", "latest", img)
		layer := img.Layers()[0]
		cuts := make(chan struct{}, 2) // tokens: cut twice
		cuts <- struct{}{}
		cuts <- struct{}{}
		s.src.Fault(func(r *http.Request) registrytest.Fault {
			if strings.HasSuffix(r.URL.Path, layer) {
				select {
				case <-cuts:
					return registrytest.Fault{Cut: cut}
				default:
				}
			}
			return registrytest.Fault{}
		})
		s.copy(t, "app", img, "latest")
		var bytes int64
		var ranges []string
		for _, r := range s.src.Requests() {
			if r.Reference == layer {
				bytes += r.ResponseBytes
				ranges = append(ranges, r.Header.Get("Range"))
			}
		}
		// Bytes in flight when the connection broke may be lost with it.
		if len(ranges) != 3 || ranges[0] != "" || ranges[1] == "" || bytes < size || bytes > size+(256<<10) {
			t.Errorf("%d bytes for %d by ranges %q", bytes, size, ranges)
		}
		if uploads := s.dst.Count("PUT", "upload"); uploads != 2 {
			t.Errorf("%d uploads for 2 blobs", uploads)
		}
		registrytest.AssertEqual(t, s.source, s.destination)
	})
}

// TestErrorNamesTheSide: whichever registry fails, the error says which.
func TestErrorNamesTheSide(t *testing.T) {
	t.Parallel()
	s := newSite(t, registrytest.InMemory(t, true).URL(), registrytest.InMemory(t, true).URL())
	img := registrytest.NewImage(1, 1, 1000)
	s.push(t, "app", "latest", img)
	denied := registrytest.Fault{Status: http.StatusForbidden, Body: `{"errors":[{"code":"DENIED"}]}`}
	for side, fail := range map[registry.Side]func(*http.Request) bool{
		registry.Source:      func(r *http.Request) bool { return strings.Contains(r.URL.Path, "/blobs/") },
		registry.Destination: func(r *http.Request) bool { return r.Method == http.MethodPut },
	} {
		proxy := map[registry.Side]*registrytest.Proxy{registry.Source: s.src, registry.Destination: s.dst}[side]
		proxy.Fault(func(r *http.Request) registrytest.Fault {
			if fail(r) {
				return denied
			}
			return registrytest.Fault{}
		})
		_, err := s.copier.Copy(t.Context(), request(s.from, "app", img, "latest"))
		var e *registry.Error
		if !errors.As(err, &e) || e.Side != side {
			t.Errorf("%s: error = %v", side, err)
		}
		proxy.Fault(nil)
	}
}

// waitTimeout bounds waits for what should come within moments.
const waitTimeout = 30 * time.Second

// TestOnePlaceAtEachRegistry: with one request at a time to either side, and downloads that break, all still moves.
func TestOnePlaceAtEachRegistry(t *testing.T) {
	t.Parallel()
	s := newSite(t, registrytest.InMemory(t, true).URL(), registrytest.InMemory(t, true).URL())
	var err error
	one := registry.Config{URL: s.src.URL(), Side: registry.Source, Concurrency: 1}
	if s.from, err = registry.Open(one); err != nil {
		t.Fatal(err)
	}
	defer s.from.Close()
	one.URL, one.Side = s.dst.URL(), registry.Destination
	if s.to, err = registry.Open(one); err != nil {
		t.Fatal(err)
	}
	defer s.to.Close()
	s.copier = transfer.New(s.to, s.index, transfer.Options{})
	img := registrytest.NewImage(1, 8, 256<<10)
	s.push(t, "app", "latest", img)
	s.src.Fault(func(r *http.Request) registrytest.Fault {
		if strings.Contains(r.URL.Path, "/blobs/") && r.Header.Get("Range") == "" {
			return registrytest.Fault{Cut: 100 << 10}
		}
		return registrytest.Fault{}
	})
	s.copy(t, "app", img, "latest")
	registrytest.AssertEqual(t, s.source, s.destination)
}
