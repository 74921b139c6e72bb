package bench

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sync/errgroup"

	"github.com/antipode-registry/antipode/internal/registrytest"
)

// floorInFlight is how many requests the floor has under way.
const floorInFlight = 16

// route is all that the floor has to know: each distinct blob is downloaded once and uploaded once, and mounted wherever
// else it is used; each distinct manifest of a repository is read once and written under each of its references.
type route struct {
	Blobs     []blobRoute
	Manifests [][]manifestRoute // in steps: what refers to others comes in a later one
	ByTag     bool              // a manifest is read by each of its references, as by who does not know their digests
}

type blobRoute struct {
	Digest, Repository string
	Mounts             []string // the other repositories
}

type manifestRoute struct {
	Repository, Digest, MediaType string
	References                    []string // tags, or the digest where nothing tags it
}

// survey walks the source and plans the floor's way: for everything, or for one tag.
func survey(t testing.TB, run run, repository, tag string) route {
	t.Helper()
	from := registrytest.NewClient(run.direct)
	defer from.Close()
	s := surveyor{from: from, run: run, seen: map[string]int{}, blobs: map[string]int{}}
	if tag != "" {
		m, err := from.Manifest(t.Context(), repository, tag)
		if err == nil {
			err = s.visit(t.Context(), repository, m.Digest, tag)
		}
		if err != nil {
			t.Fatal(err)
		}
		return s.route()
	}
	repositories, err := from.Repositories(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, repository := range repositories {
		tags, err := from.Tags(t.Context(), repository)
		if err != nil {
			t.Fatal(err)
		}
		for tag, digest := range tags {
			if err := s.visit(t.Context(), repository, digest, tag); err != nil {
				t.Fatal(err)
			}
		}
	}
	return s.route()
}

type surveyor struct {
	from      *registrytest.Client
	run       run
	seen      map[string]int // repository@digest -> place in manifests
	manifests []manifestRoute
	depths    []int
	blobs     map[string]int // digest -> place in found
	found     []blobRoute
}

// references are what a manifest refers to.
type references struct {
	Config    *struct{ Digest string }
	Layers    []struct{ Digest string }
	Manifests []struct{ Digest string }
}

func (s *surveyor) visit(ctx context.Context, repository, digest, tag string) error {
	key := repository + "@" + digest
	if at, ok := s.seen[key]; ok {
		if tag != "" {
			s.manifests[at].References = append(s.manifests[at].References, tag)
		}
		return nil
	}
	manifest, err := s.from.Manifest(ctx, repository, digest)
	if err != nil {
		return err
	}
	var refers references
	if err := json.Unmarshal(manifest.Bytes, &refers); err != nil {
		return err
	}
	depth := 0
	for _, child := range refers.Manifests {
		if err := s.visit(ctx, repository, child.Digest, ""); err != nil {
			return err
		}
		depth = max(depth, s.depths[s.seen[repository+"@"+child.Digest]]+1)
	}
	if refers.Config != nil {
		s.blob(repository, refers.Config.Digest)
	}
	for _, layer := range refers.Layers {
		s.blob(repository, layer.Digest)
	}
	s.seen[key] = len(s.manifests)
	route := manifestRoute{Repository: repository, Digest: digest, MediaType: manifest.MediaType}
	if tag != "" {
		route.References = []string{tag}
	}
	s.manifests, s.depths = append(s.manifests, route), append(s.depths, depth)
	return s.referrers(ctx, repository, digest)
}

// referrers visits what refers to a manifest, where the registry is asked for that.
func (s *surveyor) referrers(ctx context.Context, repository, digest string) error {
	if !s.run.referrersAPI {
		return nil
	}
	all, err := referrersOf(ctx, s.run.direct, repository, digest)
	if err != nil {
		return err
	}
	for _, referrer := range all {
		if err := s.visit(ctx, repository, referrer, ""); err != nil {
			return err
		}
	}
	return nil
}

func (s *surveyor) blob(repository, digest string) {
	at, ok := s.blobs[digest]
	if !ok {
		s.blobs[digest] = len(s.found)
		s.found = append(s.found, blobRoute{Digest: digest, Repository: repository})
		return
	}
	b := &s.found[at]
	if b.Repository != repository && !slices.Contains(b.Mounts, repository) {
		b.Mounts = append(b.Mounts, repository)
	}
}

func (s *surveyor) route() route {
	r := route{Blobs: s.found}
	for i, manifest := range s.manifests {
		if len(manifest.References) == 0 {
			manifest.References = []string{manifest.Digest}
		}
		for len(r.Manifests) <= s.depths[i] {
			r.Manifests = append(r.Manifests, nil)
		}
		r.Manifests[s.depths[i]] = append(r.Manifests[s.depths[i]], manifest)
	}
	return r
}

// floor is the copier itself; the test binary runs it as a process of its own when ANTIPODE_BENCH_FLOOR names a route.
type floor struct {
	http     *http.Client
	from, to string
}

func runFloor(path, from, to string) error {
	text, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	var r route
	if err := json.Unmarshal(text, &r); err != nil {
		return err
	}
	f := floor{from: from, to: to, http: &http.Client{Transport: &http.Transport{
		MaxIdleConnsPerHost: floorInFlight, DisableCompression: true, WriteBufferSize: 64 << 10, ReadBufferSize: 64 << 10,
	}}}
	ctx := context.Background()
	if err := each(ctx, r.Blobs, f.blob); err != nil {
		return err
	}
	copyManifest := f.manifest
	if r.ByTag {
		copyManifest = f.manifestByTag
	}
	for _, step := range r.Manifests {
		if err := each(ctx, step, copyManifest); err != nil {
			return err
		}
	}
	return nil
}

func each[T any](ctx context.Context, list []T, do func(context.Context, T) error) error {
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(floorInFlight)
	for _, item := range list {
		group.Go(func() error { return do(ctx, item) })
	}
	return group.Wait()
}

func (f floor) blob(ctx context.Context, b blobRoute) error {
	source, err := f.do(ctx, http.MethodGet, f.from+"/v2/"+b.Repository+"/blobs/"+b.Digest, nil, -1, "")
	if err != nil {
		return err
	}
	defer source.Body.Close()
	begun, err := f.do(ctx, http.MethodPost, f.to+"/v2/"+b.Repository+"/blobs/uploads/", nil, 0, "")
	if err != nil {
		return err
	}
	drain(begun)
	location, err := begun.Request.URL.Parse(begun.Header.Get("Location"))
	if err != nil {
		return err
	}
	query := location.Query()
	query.Set("digest", b.Digest)
	location.RawQuery = query.Encode()
	written, err := f.do(ctx, http.MethodPut, location.String(), source.Body, source.ContentLength, "application/octet-stream")
	if err != nil {
		return err
	}
	drain(written)
	for _, other := range b.Mounts {
		query := url.Values{"mount": {b.Digest}, "from": {b.Repository}}
		mounted, err := f.do(ctx, http.MethodPost, f.to+"/v2/"+other+"/blobs/uploads/?"+query.Encode(), nil, 0, "")
		if err != nil {
			return err
		}
		drain(mounted)
	}
	return nil
}

func (f floor) manifestByTag(ctx context.Context, m manifestRoute) error {
	for _, reference := range m.References {
		one := m
		one.Digest, one.References = reference, []string{reference}
		if err := f.manifest(ctx, one); err != nil {
			return err
		}
	}
	return nil
}

func (f floor) manifest(ctx context.Context, m manifestRoute) error {
	source, err := f.do(ctx, http.MethodGet, f.from+"/v2/"+m.Repository+"/manifests/"+m.Digest, nil, -1, "")
	if err != nil {
		return err
	}
	body, err := io.ReadAll(source.Body)
	drain(source)
	if err != nil {
		return err
	}
	for _, reference := range m.References {
		written, err := f.do(ctx, http.MethodPut, f.to+"/v2/"+m.Repository+"/manifests/"+reference,
			bytes.NewReader(body), int64(len(body)), m.MediaType)
		if err != nil {
			return err
		}
		drain(written)
	}
	return nil
}

func (f floor) do(
	ctx context.Context, method, target string, body io.Reader, length int64, mediaType string,
) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, method, target, body)
	if err != nil {
		return nil, err
	}
	if mediaType != "" {
		req.Header.Set("Content-Type", mediaType)
	}
	if strings.Contains(target, "/manifests/") {
		req.Header.Set("Accept", strings.Join([]string{
			registrytest.OCIManifest, registrytest.OCIIndex, registrytest.DockerManifest, registrytest.DockerList,
		}, ", "))
	}
	if length >= 0 {
		req.ContentLength = length
	}
	resp, err := f.http.Do(req)
	if err != nil {
		return nil, err
	}
	if resp.StatusCode >= http.StatusBadRequest {
		defer drain(resp)
		text, _ := io.ReadAll(io.LimitReader(resp.Body, 1024))
		return nil, fmt.Errorf("%s %s: %s: %s", method, target, resp.Status, text)
	}
	return resp, nil
}

func drain(resp *http.Response) {
	_, _ = io.Copy(io.Discard, resp.Body)
	_ = resp.Body.Close()
}
