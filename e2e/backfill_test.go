package e2e

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sync/errgroup"

	antipodev1 "github.com/antipode-registry/antipode/gen/antipode/v1"
	"github.com/antipode-registry/antipode/internal/registrytest"
)

// pushersAtOnce is how many goroutines fill a registry.
const pushersAtOnce = 4

// stored fills a registry by fill and returns its storage, for tests to start registries on: both kinds of registries
// keep their content in the same form.
func stored(t testing.TB, fill func(ctx context.Context, to *registrytest.Client) error) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "storage")
	registry := registrytest.Distribution(t, registrytest.WithStorage(dir))
	defer registry.Kill()
	client := registrytest.NewClient(registry.URL())
	defer client.Close()
	if err := fill(t.Context(), client); err != nil {
		t.Fatal(err)
	}
	return dir
}

// TestBackfill is the first day of a site: much is there before either daemon, and no notification tells of it.
func TestBackfill(t *testing.T) {
	t.Parallel()
	const repositories, images, tags = 100, 4, 20
	storage := stored(t, func(ctx context.Context, to *registrytest.Client) error {
		group, ctx := errgroup.WithContext(ctx)
		group.SetLimit(pushersAtOnce)
		for r := range repositories {
			group.Go(func() error {
				name := fmt.Sprintf("team-%d/app-%d", r%7, r)
				for i := range tags {
					img := registrytest.NewImage(int64(r*images+i%images), 1, 500)
					tag := fmt.Sprintf("v%d", i)
					var err error
					if i < images {
						err = to.Push(ctx, name, tag, img)
					} else {
						err = to.PutManifest(ctx, name, tag, img.MediaType, img.Manifest)
					}
					if err != nil {
						return err
					}
				}
				return nil
			})
		}
		return group.Wait()
	})
	eachSite(t, func(t *testing.T, site option) {
		p := newPair(t, site, withoutNotifications(), withPrimaryRegistry(registrytest.WithStorage(storage)))
		eventually(t, func(context.Context) error {
			if n := p.Status(t).GetRepositories().GetTotal(); n != repositories {
				return fmt.Errorf("the site knows %d repositories of %d", n, repositories)
			}
			return nil
		})
		p.Synced(t)
		p.Equal(t)
		if n := len(registrytest.Tags(t, p.Site.URL(), "team-1/app-99")); n != tags {
			t.Errorf("a repository has %d tags on the site, not %d", n, tags)
		}
	})
}

// TestPushCostsLittle pushes into a repository that has many tags, and counts every request that this costs the primary's
// registry: those of the push, of primaryd and of secondaryd.
func TestPushCostsLittle(t *testing.T) {
	t.Parallel()
	// The site has the content already: what is looked at is what comes after. One site after the other has it, too.
	primary, site := storedTags(t), storedTags(t)
	seed := int64(1000)
	for name, start := range map[string]option{
		"distribution": withSite(registrytest.Distribution), "debian": withSite(registrytest.Debian),
	} {
		t.Run(name, func(t *testing.T) {
			p := newPair(t, start, withPrimaryProxy(), withPrimaryRegistry(registrytest.WithStorage(primary)),
				withSiteRegistry(registrytest.WithStorage(site)))
			p.Synced(t)
			before := tagCount(t, p, "big/app")
			if before < manyTags {
				t.Fatalf("%d tags on the site", before)
			}
			for i := range 3 {
				seed++ // neither site may have anything of it
				pushCostsLittle(t, p, registrytest.NewImage(seed, 1, 5000), fmt.Sprintf("%s-%d", name, i))
			}
			if n := tagCount(t, p, "big/app"); n != before+3 {
				t.Errorf("%d tags on the site, not %d", n, before+3)
			}
		})
	}
}

// manyTags is how many tags the large repository has, and mostRequests what a push into it may cost.
const manyTags, mostRequests = 5000, 10

func pushCostsLittle(t *testing.T, p *pair, img registrytest.Image, tag string) {
	t.Helper()
	p.Proxy.Reset()
	registrytest.Push(t, p.Proxy.URL(), "big/app", tag, img)
	arrives(t, p, "big/app", tag, img.Digest)
	p.Synced(t)
	requests := p.Proxy.Requests()
	// The registry announces a tag before it writes it. That it is asked for too early once is in the price; that it takes
	// a registry on a busy machine more than a twentieth of a second to go on is not.
	early := 0
	for _, r := range requests {
		if r.Reference == tag && r.Status == http.StatusNotFound {
			early++
		}
	}
	t.Logf("a push with a config and one layer: %d requests, %d of them before the tag was written", len(requests), early)
	if len(requests)-max(0, early-1) <= mostRequests {
		return
	}
	t.Errorf("more than %d requests:", mostRequests)
	for _, r := range requests {
		t.Logf("%s %s %d by %s", r.Method, r.Path, r.Status, r.Header.Get("User-Agent"))
	}
}

// storedTags returns a storage whose big/app has ten images and many tags on them. The registry writes ten of the tags
// and the others are copies of their folders.
func storedTags(t *testing.T) string {
	t.Helper()
	const images = 10
	storage := stored(t, func(ctx context.Context, to *registrytest.Client) error {
		for i := range images {
			if err := to.Push(ctx, "big/app", fmt.Sprintf("v%d", i), image(int64(i))); err != nil {
				return err
			}
		}
		return nil
	})
	tags := filepath.Join(storage, "docker/registry/v2/repositories/big/app/_manifests/tags")
	for i := images; i < manyTags; i++ {
		original := os.DirFS(filepath.Join(tags, fmt.Sprintf("v%d", i%images)))
		if err := os.CopyFS(filepath.Join(tags, fmt.Sprintf("v%d", i)), original); err != nil {
			t.Fatal(err)
		}
	}
	return storage
}

func tagCount(t *testing.T, p *pair, repository string) int64 {
	t.Helper()
	resp, err := p.Replication().GetRepository(t.Context(), &antipodev1.GetRepositoryRequest{Repository: repository})
	if err != nil {
		t.Fatal(err)
	}
	return resp.GetRepository().GetTagCount()
}
