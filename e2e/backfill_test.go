package e2e

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sync/errgroup"

	antipodev1 "github.com/antipode-registry/antipode/gen/antipode/v1"
	"github.com/antipode-registry/antipode/internal/registrytest"
)

// pushersAtOnce is how many goroutines fill a registry.
const pushersAtOnce = 4

// stored fills a registry by fill and returns its storage, for the tests to start registries on copies of it: both kinds
// of registries keep their content in the same form.
func stored(t *testing.T, fill func(ctx context.Context, to *registrytest.Client) error) string {
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

// storageCopy is a registry's storage with the content of another.
func storageCopy(t *testing.T, of string) registrytest.Option {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "storage")
	if err := os.CopyFS(dir, os.DirFS(of)); err != nil {
		t.Fatal(err)
	}
	return registrytest.WithStorage(dir)
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
	const many, images, most = 5000, 10, 10
	storage := stored(t, func(ctx context.Context, to *registrytest.Client) error {
		group, ctx := errgroup.WithContext(ctx)
		group.SetLimit(pushersAtOnce)
		for i := range images {
			img := image(int64(i))
			if err := to.Push(ctx, "big/app", fmt.Sprintf("v%d", i), img); err != nil {
				return err
			}
			group.Go(func() error {
				for n := i + images; n < many; n += images {
					if err := to.PutManifest(ctx, "big/app", fmt.Sprintf("v%d", n), img.MediaType, img.Manifest); err != nil {
						return err
					}
				}
				return nil
			})
		}
		return group.Wait()
	})
	eachSite(t, func(t *testing.T, site option) {
		// The site has the content already: what is looked at is what comes after.
		p := newPair(t, site, withPrimaryProxy(), withPrimaryRegistry(storageCopy(t, storage)),
			withSiteRegistry(storageCopy(t, storage)))
		p.Synced(t)
		for i := range 3 {
			p.Proxy.Reset()
			img, tag := registrytest.NewImage(int64(100+i), 1, 5000), fmt.Sprintf("new-%d", i)
			registrytest.Push(t, p.Proxy.URL(), "big/app", tag, img)
			arrives(t, p, "big/app", tag, img.Digest)
			p.Synced(t)
			requests := p.Proxy.Requests()
			if len(requests) > most {
				t.Errorf("%d requests, more than %d:", len(requests), most)
				for _, r := range requests {
					t.Logf("%s %s %d by %s", r.Method, r.Path, r.Status, r.Header.Get("User-Agent"))
				}
			}
		}
		resp, err := p.Replication().GetRepository(t.Context(), &antipodev1.GetRepositoryRequest{Repository: "big/app"})
		if err != nil {
			t.Fatal(err)
		}
		if n := resp.GetRepository().GetTagCount(); n != many+3 {
			t.Errorf("%d tags on the site, not %d", n, many+3)
		}
	})
}
