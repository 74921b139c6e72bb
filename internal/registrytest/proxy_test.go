package registrytest_test

import (
	"bytes"
	"errors"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/antipode-registry/antipode/internal/registrytest"
)

func TestProxyRecordsAPush(t *testing.T) {
	t.Parallel()
	eachRegistry(t, func(t *testing.T, url string) {
		proxy := registrytest.NewProxy(t, url)
		ended := make(chan registrytest.Request, 100)
		proxy.Ended(func(r registrytest.Request) { ended <- r })
		img := registrytest.NewImage(1, 2, 300)
		registrytest.Push(t, proxy.URL(), "team/app", "v1", img)
		type line struct {
			Method, Kind, Repository string
			Status                   int
			RequestBytes             int64
		}
		var got, want []line
		for _, r := range proxy.Requests() {
			got = append(got, line{r.Method, r.Kind, r.Repository, r.Status, r.RequestBytes})
		}
		for _, digest := range slices.Sorted(maps.Keys(img.Blobs)) {
			want = append(want, line{"POST", "upload", "team/app", 202, 0},
				line{"PUT", "upload", "team/app", 201, int64(len(img.Blobs[digest]))})
		}
		want = append(want, line{"PUT", "manifest", "team/app", 201, int64(len(img.Manifest))})
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("requests (-want +got):\n%s", diff)
		}
		for range want {
			if r := <-ended; r.Status != http.StatusAccepted && r.Status != http.StatusCreated {
				t.Errorf("told of %s %s before its end", r.Method, r.Path)
			}
		}
		proxy.Ended(nil)
		if n := proxy.Connections(); n != 1 {
			t.Errorf("%d connections counted", n)
		}
		// The upload went on through the proxy, so its location pointed back at it; content is whole behind it.
		registrytest.AssertEqual(t, url, proxy.URL(), "team/app")
		if n := proxy.Count(http.MethodPut, "manifest"); n != 1 {
			t.Errorf("%d manifest writes counted", n)
		}
		proxy.Reset()
		if n := proxy.Count("", ""); n != 0 {
			t.Errorf("%d requests after a reset", n)
		}
	})
}

func TestProxyClassifies(t *testing.T) {
	t.Parallel()
	server := registrytest.InMemory(t, true)
	proxy := registrytest.NewProxy(t, server.URL())
	proxy.Fault(func(*http.Request) registrytest.Fault { return registrytest.Fault{Status: http.StatusTeapot} })
	tests := []struct{ path, kind, repository, reference string }{
		{"/v2/", "base", "", ""},
		{"/v2/_catalog", "catalog", "", ""},
		{"/v2/a/b/tags/list", "tags", "a/b", ""},
		{"/v2/a/manifests/v1", "manifest", "a", "v1"},
		{"/v2/manifests/manifests/manifests/v1", "manifest", "manifests/manifests", "v1"},
		{"/v2/a/blobs/sha256:1", "blob", "a", "sha256:1"},
		{"/v2/a/blobs/uploads/xyz", "upload", "a", "xyz"},
		{"/v2/a/blobs/uploads/", "upload", "a", ""},
		{"/v2/blobs/uploads/manifests/latest", "manifest", "blobs/uploads", "latest"},
		{"/v2/a/referrers/sha256:1", "referrers", "a", "sha256:1"},
		{"/auth/token", "token", "", ""},
		{"/elsewhere", "other", "", ""},
	}
	for _, test := range tests {
		proxy.Reset()
		if status, _ := get(t, proxy.URL()+test.path+"?n=1"); status != http.StatusTeapot {
			t.Errorf("%s: status %d", test.path, status)
		}
		r := proxy.Requests()[0]
		if r.Kind != test.kind || r.Repository != test.repository || r.Reference != test.reference || r.Query != "n=1" {
			t.Errorf("%s is %q of %q, reference %q, query %q", test.path, r.Kind, r.Repository, r.Reference, r.Query)
		}
	}
}

func TestFaultStatus(t *testing.T) {
	t.Parallel()
	proxy := registrytest.NewProxy(t, registrytest.InMemory(t, true).URL())
	proxy.Fault(func(r *http.Request) registrytest.Fault {
		return registrytest.Fault{Status: 429, Header: http.Header{"Retry-After": {"7"}}, Body: "<html>slow</html>"}
	})
	status, body := get(t, proxy.URL()+"/v2/")
	if status != 429 || body != "<html>slow</html>" {
		t.Errorf("answered %d %q", status, body)
	}
	proxy.Fault(nil)
	if status, _ := get(t, proxy.URL()+"/v2/"); status != http.StatusOK {
		t.Errorf("after the fault: %d", status)
	}
	var statuses []int
	for _, r := range proxy.Requests() {
		statuses = append(statuses, r.Status)
	}
	if diff := cmp.Diff([]int{429, 200}, statuses); diff != "" {
		t.Errorf("recorded statuses (-want +got):\n%s", diff)
	}
}

func TestFaultCutsTheResponse(t *testing.T) {
	t.Parallel()
	url := registrytest.Distribution(t).URL()
	proxy := registrytest.NewProxy(t, url)
	layer := registrytest.Bytes(1, 0, 1<<20)
	img := registrytest.NewImage(1, 0, 0, registrytest.WithLayers(layer))
	registrytest.Push(t, url, "app", "v1", img)
	blob := "/v2/app/blobs/" + registrytest.Digest(layer)

	for _, cut := range []int64{1, 1000, 1<<20 - 1} {
		proxy.Fault(func(*http.Request) registrytest.Fault { return registrytest.Fault{Cut: cut} })
		_, body, err := tryGet(t.Context(), proxy.URL()+blob)
		if !errors.Is(err, io.ErrUnexpectedEOF) || int64(len(body)) != cut {
			t.Errorf("cut at %d: %d bytes and %v", cut, len(body), err)
		}
	}
	proxy.Fault(func(*http.Request) registrytest.Fault { return registrytest.Fault{Cut: 1 << 20} })
	if _, body := get(t, proxy.URL()+blob); body != string(layer) {
		t.Errorf("a response that is no longer than the cut is damaged: %d bytes", len(body))
	}
	proxy.Fault(func(*http.Request) registrytest.Fault { return registrytest.Fault{Status: 200, Body: "half", Cut: 2} })
	if _, body, err := tryGet(t.Context(), proxy.URL()+blob); err == nil || body != "ha" {
		t.Errorf("a cut answer of the proxy's own: %q and %v", body, err)
	}
	proxy.Reset()
	proxy.Fault(func(*http.Request) registrytest.Fault { return registrytest.Fault{Cut: -1} })
	if _, _, err := tryGet(t.Context(), proxy.URL()+blob); !errors.Is(err, syscall.ECONNRESET) && !errors.Is(err, io.EOF) {
		t.Errorf("reset: %v", err)
	}
	if r := proxy.Requests(); len(r) != 1 || r[0].Status != 0 {
		t.Errorf("recorded of a reset: %+v", r)
	}
}

func TestFaultCutsTheRequest(t *testing.T) {
	t.Parallel()
	url := registrytest.Distribution(t).URL()
	proxy := registrytest.NewProxy(t, url)
	body := registrytest.Bytes(1, 0, 1<<20)
	c := registrytest.NewClient(proxy.URL())
	t.Cleanup(c.Close)
	for _, cut := range []int64{-1, 70_000} {
		proxy.Reset()
		proxy.Fault(func(r *http.Request) registrytest.Fault {
			if r.Method != http.MethodPut {
				return registrytest.Fault{}
			}
			return registrytest.Fault{CutRequest: cut}
		})
		if err := c.PutBlob(t.Context(), "app", registrytest.Digest(body), body); err == nil {
			t.Fatalf("an upload cut at %d succeeded", cut)
		}
		for _, r := range proxy.Requests() {
			if r.Method == http.MethodPut && r.RequestBytes != max(cut, 0) {
				t.Errorf("cut at %d: %d bytes went through", cut, r.RequestBytes)
			}
		}
		if _, err := c.BlobSize(t.Context(), "app", registrytest.Digest(body)); !registrytest.IsAbsent(err) {
			t.Errorf("after an upload cut at %d the blob is there: %v", cut, err)
		}
	}
	proxy.Fault(func(*http.Request) registrytest.Fault { return registrytest.Fault{CutRequest: 1 << 20} })
	if err := c.PutBlob(t.Context(), "app", registrytest.Digest(body), body); err != nil {
		t.Errorf("an upload no longer than the cut: %v", err)
	}
}

func TestFaultDelays(t *testing.T) {
	t.Parallel()
	proxy := registrytest.NewProxy(t, registrytest.InMemory(t, true).URL())
	gate, arrived := make(chan struct{}), make(chan struct{}, 1)
	proxy.Fault(func(*http.Request) registrytest.Fault {
		arrived <- struct{}{}
		return registrytest.Fault{Delay: gate}
	})
	done := make(chan error, 1)
	go func() {
		_, _, err := tryGet(t.Context(), proxy.URL()+"/v2/")
		done <- err
	}()
	await(t, arrived)
	select {
	case err := <-done:
		t.Fatalf("answered before the gate opened: %v", err)
	default:
	}
	if r := proxy.Requests(); len(r) != 1 || r[0].Status != 0 {
		t.Errorf("recorded while held: %+v", r)
	}
	close(gate)
	if err := await(t, done); err != nil {
		t.Errorf("after the gate opened: %v", err)
	}
}

func TestProxyIsClosedWithARequestHeld(t *testing.T) {
	t.Parallel()
	done := make(chan error, 1)
	t.Run("held", func(t *testing.T) {
		arrived := make(chan struct{}, 1)
		proxy := registrytest.NewProxy(t, registrytest.InMemory(t, true).URL())
		proxy.Fault(func(*http.Request) registrytest.Fault {
			arrived <- struct{}{}
			return registrytest.Fault{Delay: make(chan struct{})}
		})
		ctx := t.Context()
		go func() {
			_, _, err := tryGet(ctx, proxy.URL()+"/v2/")
			done <- err
		}()
		await(t, arrived)
	})
	if err := await(t, done); err == nil {
		t.Error("a request that was held for ever got an answer")
	}
}

func TestProxyBreaksWhereTheRegistryIsDead(t *testing.T) {
	t.Parallel()
	p := registrytest.Distribution(t)
	proxy := registrytest.NewProxy(t, p.URL())
	p.Kill()
	if _, _, err := tryGet(t.Context(), proxy.URL()+"/v2/"); err == nil {
		t.Error("the proxy answers for a dead registry")
	}
	p.Start()
	if status, _ := get(t, proxy.URL()+"/v2/"); status != http.StatusOK {
		t.Errorf("after the start: %d", status)
	}
}

func TestProxyStreams(t *testing.T) {
	t.Parallel()
	gate := make(chan struct{})
	backend := newStreamingServer(t, gate)
	proxy := registrytest.NewProxy(t, backend)
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, proxy.URL()+"/v2/", http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	first := make([]byte, 5)
	if _, err := io.ReadFull(resp.Body, first); err != nil || string(first) != "first" {
		t.Fatalf("before the answer is complete: %q, %v", first, err)
	}
	close(gate) // the rest is sent only now
	rest, err := io.ReadAll(resp.Body)
	if err != nil || !bytes.Equal(rest, []byte(" second")) {
		t.Errorf("rest: %q, %v", rest, err)
	}
	if r := proxy.Requests()[0]; r.ResponseBytes != int64(len("first second")) {
		t.Errorf("%d bytes counted", r.ResponseBytes)
	}
}

func TestProxyKeepsEncodedPathsAndHeaders(t *testing.T) {
	t.Parallel()
	proxy := registrytest.NewProxy(t, registrytest.InMemory(t, true).URL())
	registrytest.Push(t, proxy.URL(), "app", "v1", registrytest.NewImage(1, 1, 16))
	registrytest.Tags(t, proxy.URL(), "app")
	for _, r := range proxy.Requests() {
		if r.Method == http.MethodHead && !slices.ContainsFunc(r.Header["Accept"], func(v string) bool {
			return strings.Contains(v, registrytest.OCIIndex)
		}) {
			t.Errorf("the recorded HEAD lost its Accept header: %v", r.Header)
		}
	}
}

// newStreamingServer sends half of its answer, and the rest when the gate opens.
func newStreamingServer(t *testing.T, gate <-chan struct{}) string {
	t.Helper()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, "first")
		_ = http.NewResponseController(w).Flush()
		<-gate
		_, _ = io.WriteString(w, " second")
	}))
	t.Cleanup(server.Close)
	return server.URL
}
