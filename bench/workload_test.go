package bench

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"golang.org/x/sync/errgroup"

	"github.com/antipode-registry/antipode/internal/registrytest"
)

// inFlight is how many pushes fill a source at once.
const inFlight = 8

// workload is what the source holds, and what is measured of it.
type workload struct {
	name, what string
	fill       func(ctx context.Context, to *registrytest.Client) error
	// before has everything copied by the program that is measured, and change then changes the source: what is
	// measured is the copying of that.
	before bool
	change func(ctx context.Context, to *registrytest.Client) error
}

var (
	small = workload{
		name: "W1", what: "100 repositories x 20 tags, three layers of 10 to 200 KiB, half of them shared", fill: fillSmall,
	}
	large      = workload{name: "W2", what: "5 images of 4 x 128 MiB", fill: fillLarge}
	tags       = workload{name: "W3", what: "one repository, 5,000 tags on 500 images", fill: fillTags}
	multi      = workload{name: "W4", what: "50 x 5 multi-arch (4 platforms) with signature and SBOM referrers", fill: fillMulti}
	unchanged  = workload{name: "W5", what: "W1, nothing changed", fill: fillSmall, before: true}
	oneNewTag  = workload{name: "W6", what: "W1, one new tag", fill: fillSmall, before: true, change: pushOne}
	workloads  = []workload{small, large, tags, multi, unchanged, oneNewTag}
	sharedPool = 128 // layers that W1's and W3's images draw from
)

// layer makes layer n of 10 to 200 KiB.
func layer(seed int64, n int) []byte {
	return registrytest.Bytes(seed, n, 10<<10+(n*7919)%(190<<10))
}

// image makes image n: of its three layers one is its own, one is shared, and one is either by turns.
func image(seed int64, n int) registrytest.Image {
	shared := [][]byte{layer(1, n%sharedPool)}
	own := 2
	if n%2 == 0 {
		shared, own = append(shared, layer(1, (n*31+17)%sharedPool)), 1
	}
	var layers [][]byte
	for i := range own {
		layers = append(layers, layer(seed, n*2+i))
	}
	return registrytest.NewImage(seed*1_000_000+int64(n), 0, 0, registrytest.WithLayers(append(layers, shared...)...))
}

func fillSmall(ctx context.Context, to *registrytest.Client) error {
	return parallel(ctx, 100*20, func(ctx context.Context, i int) error {
		return to.Push(ctx, repository(i/20), fmt.Sprintf("v%d", i%20), image(2, i))
	})
}

func repository(n int) string { return fmt.Sprintf("team-%d/service-%02d", n%7, n) }

func fillLarge(ctx context.Context, to *registrytest.Client) error {
	for n := range 5 {
		var layers [][]byte
		for i := range 4 {
			layers = append(layers, registrytest.Bytes(3, n*4+i, 128<<20))
		}
		img := registrytest.NewImage(3_000_000+int64(n), 0, 0, registrytest.WithLayers(layers...))
		if err := to.Push(ctx, "large/model", fmt.Sprintf("v%d", n), img); err != nil {
			return err
		}
	}
	return nil
}

func fillTags(ctx context.Context, to *registrytest.Client) error {
	const images, each = 500, 10
	return parallel(ctx, images, func(ctx context.Context, n int) error {
		img := image(4, n)
		if err := to.Push(ctx, "ci/build", fmt.Sprintf("build-%d-0", n), img); err != nil {
			return err
		}
		for i := 1; i < each; i++ {
			if err := to.PutManifest(ctx, "ci/build", fmt.Sprintf("build-%d-%d", n, i), img.MediaType, img.Manifest); err != nil {
				return err
			}
		}
		return nil
	})
}

func fillMulti(ctx context.Context, to *registrytest.Client) error {
	return parallel(ctx, 50*5, func(ctx context.Context, n int) error {
		var children []registrytest.Image
		for platform := range 4 {
			children = append(children, image(5, n*4+platform))
		}
		index := registrytest.NewIndex(children...)
		repository := fmt.Sprintf("multi/app-%02d", n/5)
		if err := to.Push(ctx, repository, fmt.Sprintf("v%d", n%5), index); err != nil {
			return err
		}
		return pushReferrers(ctx, to, repository, index,
			registrytest.NewArtifact(6_000_000+int64(n*2), "application/vnd.dev.cosign.artifact.sig.v1+json", registrytest.WithSubject(index)),
			registrytest.NewArtifact(6_000_001+int64(n*2), "application/spdx+json", registrytest.WithSubject(index)))
	})
}

// pushReferrers pushes artifacts as a client does whose registry has no referrers API (distribution specification v1.1,
// "Pushing manifests with a subject"): by digest, and listed in the index that the subject's fallback tag names.
func pushReferrers(
	ctx context.Context, to *registrytest.Client, repository string, subject registrytest.Image,
	artifacts ...registrytest.Image,
) error {
	return to.Push(ctx, repository, "sha256-"+strings.TrimPrefix(subject.Digest, "sha256:"), registrytest.NewIndex(artifacts...))
}

func pushOne(ctx context.Context, to *registrytest.Client) error {
	return to.Push(ctx, repository(42), "new", image(7, 1))
}

// parallel calls do for 0 to count-1, a few at a time.
func parallel(ctx context.Context, count int, do func(ctx context.Context, i int) error) error {
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(inFlight)
	for i := range count {
		group.Go(func() error { return do(ctx, i) })
	}
	return group.Wait()
}

// source starts a registry with a workload's content, which is made at its first use and kept in dir.
func (w workload) source(t testing.TB, dir string, notify ...registrytest.Option) *registrytest.Process {
	t.Helper()
	made := !exists(dir)
	registry := registrytest.Distribution(t, append(notify, registrytest.WithStorage(dir))...)
	if made {
		to := registrytest.NewClient(registry.URL())
		defer to.Close()
		if err := w.fill(t.Context(), to); err != nil {
			t.Fatalf("fill the source of %s: %v", w.name, err)
		}
	}
	return registry
}
