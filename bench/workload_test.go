package bench

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sync/errgroup"

	"github.com/antipode-registry/antipode/internal/registrytest"
)

// inFlight is how many pushes fill a source at once.
const inFlight = 8

// workload is what the source holds.
type workload struct {
	name, what string
	fill       func(ctx context.Context, to *registrytest.Client) error
	// goesOn says that unchangedName and oneNewTagName are measured on what the program has copied.
	goesOn bool
	// sharesManifests says that several tags name one manifest.
	sharesManifests bool
	// referrersAPI has both sides on registries with the referrers API, which are filled anew for each run.
	referrersAPI bool
}

// What is measured where W1 has been copied.
const (
	unchangedName = "W5"
	oneNewTagName = "W6"
)

const sharedPool = 128 // layers that W1's and W3's images draw from

var workloads = []workload{
	{
		name: "W1", what: "100 repositories x 20 tags, three layers of 10 to 200 KiB, half of them shared", fill: fillSmall,
		goesOn: true,
	},
	{name: "W2", what: "5 images of 4 x 128 MiB", fill: fillLarge},
	{name: "W3", what: "one repository, 5,000 tags on 500 images", fill: fillTags, sharesManifests: true},
	{name: "W4", what: "50 x 5 multi-arch (4 platforms), signatures and SBOMs under fallback tags", fill: fillMulti(false)},
	{
		name: "W4r", what: "50 x 5 multi-arch (4 platforms), signatures and SBOMs by the referrers API", fill: fillMulti(true),
		referrersAPI: true,
	},
}

func (w workload) chosen() bool {
	list := "ANTIPODE_BENCH_WORKLOADS"
	return chosen(list, w.name) || w.goesOn && (chosen(list, unchangedName) || chosen(list, oneNewTagName))
}

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

// scaled is n, or the part of it that ANTIPODE_BENCH_SCALE asks for: for a first look at something.
func scaled(n int) int {
	share, err := strconv.ParseFloat(value("ANTIPODE_BENCH_SCALE", "1"), 64)
	if err != nil {
		panic(err)
	}
	return max(1, int(float64(n)*share))
}

func fillSmall(ctx context.Context, to *registrytest.Client) error {
	return parallel(ctx, scaled(100)*20, func(ctx context.Context, i int) error {
		return to.Push(ctx, repository(i/20), fmt.Sprintf("v%d", i%20), image(2, i))
	})
}

func repository(n int) string { return fmt.Sprintf("team-%d/service-%02d", n%7, n) }

func fillLarge(ctx context.Context, to *registrytest.Client) error {
	for n := range scaled(5) {
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
	const each = 10
	return parallel(ctx, scaled(500), func(ctx context.Context, n int) error {
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

func fillMulti(referrersAPI bool) func(context.Context, *registrytest.Client) error {
	return func(ctx context.Context, to *registrytest.Client) error {
		return parallel(ctx, scaled(50)*5, func(ctx context.Context, n int) error {
			var children []registrytest.Image
			for platform := range 4 {
				children = append(children, image(5, n*4+platform))
			}
			index := registrytest.NewIndex(children...)
			repository := fmt.Sprintf("multi/app-%02d", n/5)
			if err := to.Push(ctx, repository, fmt.Sprintf("v%d", n%5), index); err != nil {
				return err
			}
			seed, subject := 6_000_000+int64(n*2), registrytest.WithSubject(index)
			artifacts := []registrytest.Image{
				registrytest.NewArtifact(seed, "application/vnd.dev.cosign.artifact.sig.v1+json", subject),
				registrytest.NewArtifact(seed+1, "application/spdx+json", subject),
			}
			if !referrersAPI {
				return pushReferrers(ctx, to, repository, index, artifacts...)
			}
			for _, artifact := range artifacts {
				if err := to.Push(ctx, repository, "", artifact); err != nil {
					return err
				}
			}
			return nil
		})
	}
}

// pushReferrers pushes artifacts as a client does whose registry has no referrers API (distribution specification v1.1,
// "Pushing manifests with a subject"): by digest, and listed in the index that the subject's fallback tag names.
func pushReferrers(
	ctx context.Context, to *registrytest.Client, repository string, subject registrytest.Image,
	artifacts ...registrytest.Image,
) error {
	return to.Push(ctx, repository, "sha256-"+strings.TrimPrefix(subject.Digest, "sha256:"), registrytest.NewIndex(artifacts...))
}

// newImage makes image n of those that are pushed when W1 is there: all of its layers are new.
func newImage(n int) registrytest.Image {
	return registrytest.NewImage(7_000_000+int64(n), 0, 0,
		registrytest.WithLayers(layer(8, n*3+3), layer(8, n*3+4), layer(8, n*3+5)))
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

// registries starts both sides: the source with the workload's content, which is made at its first use and kept in dir,
// and an empty destination. Where the source will change, it gets a copy of its own.
func (w workload) registries(t testing.TB, dir string, notify ...registrytest.Option) (source, destination registry) {
	t.Helper()
	fill := func(at registry) {
		to := registrytest.NewClient(at.URL())
		defer to.Close()
		if err := w.fill(t.Context(), to); err != nil {
			t.Fatalf("fill the source of %s: %v", w.name, err)
		}
	}
	if w.referrersAPI {
		memory := registrytest.InMemory(t, true)
		fill(memory)
		return memory, registrytest.InMemory(t, true)
	}
	if _, err := os.Stat(dir); err != nil {
		filling := registrytest.Distribution(t, registrytest.WithStorage(dir))
		fill(filling)
		filling.Kill()
	}
	if w.goesOn {
		own := filepath.Join(t.TempDir(), "source")
		if err := os.CopyFS(own, os.DirFS(dir)); err != nil {
			t.Fatal(err)
		}
		dir = own
	}
	return registrytest.Distribution(t, append(notify, registrytest.WithStorage(dir))...), registrytest.Distribution(t)
}
