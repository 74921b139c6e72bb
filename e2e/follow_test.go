package e2e

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/antipode-registry/antipode/internal/registrytest"
)

// Short names for what nearly every test pushes.
func push(t testing.TB, p *pair, repository, tag string, img registrytest.Image) {
	t.Helper()
	registrytest.Push(t, p.Registry.URL(), repository, tag, img)
}

func image(seed int64) registrytest.Image { return registrytest.NewImage(seed, 2, 2000) }

// arrives waits until the site answers the tag with the digest; leaves, until it answers that there is none.
func arrives(t testing.TB, p *pair, repository, tag, digest string) {
	t.Helper()
	site := registrytest.NewClient(p.Site.URL())
	defer site.Close()
	eventually(t, func(ctx context.Context) error {
		m, err := site.Manifest(ctx, repository, tag)
		if err == nil && m.Digest != digest {
			return fmt.Errorf("%s:%s is %s on the site", repository, tag, m.Digest)
		}
		return err
	})
}

func leaves(t testing.TB, p *pair, repository, tag string) {
	t.Helper()
	site := registrytest.NewClient(p.Site.URL())
	defer site.Close()
	eventually(t, func(ctx context.Context) error {
		_, err := site.Manifest(ctx, repository, tag)
		switch {
		case registrytest.IsAbsent(err):
			return nil
		case err != nil:
			return err
		}
		return fmt.Errorf("%s:%s is still on the site", repository, tag)
	})
}

// empties waits until the site answers that the repository has no tags. Meanwhile docker-registry 2.8 answers 500 for a tag
// whose manifest goes between two of its own reads.
func empties(t testing.TB, p *pair, repository string) {
	t.Helper()
	site := registrytest.NewClient(p.Site.URL())
	defer site.Close()
	eventually(t, func(ctx context.Context) error {
		tags, err := site.Tags(ctx, repository)
		if err == nil && len(tags) > 0 {
			return fmt.Errorf("still on the site: %v", tags)
		}
		return err
	})
}

// tagsAre fails the test unless the site's repository has exactly these tags.
func tagsAre(t testing.TB, p *pair, repository string, want map[string]string) {
	t.Helper()
	got := registrytest.Tags(t, p.Site.URL(), repository)
	if fmt.Sprint(got) != fmt.Sprint(want) { // maps print sorted
		t.Errorf("tags of %s on the site:\n got %v\nwant %v", repository, got, want)
	}
}

// TestFollow takes the site through everything that happens to a repository at the primary. What is seen to arrive
// comes by notification, except where a subtest says so: sweeps wait an hour.
func TestFollow(t *testing.T) {
	t.Parallel()
	eachSite(t, func(t *testing.T, site option) {
		p := newPair(t, site)
		for name, test := range map[string]func(*testing.T, *pair){
			"push": followPush, "retag": followRetag, "delete tag": followDeleteTag, "delete digest": followDeleteDigest,
			"index": followIndex, "artifact": followArtifact, "delete repository": followDeleteRepository,
		} {
			t.Run(name, func(t *testing.T) { test(t, p) })
		}
		p.Equal(t)
	})
}

func followPush(t *testing.T, p *pair) {
	img := image(1)
	push(t, p, "team/push", "v1", img)
	arrives(t, p, "team/push", "v1", img.Digest)
	arrives(t, p, "team/push", img.Digest, img.Digest)
	p.Equal(t, "team/push")
	old := image(2).Docker()
	push(t, p, "team/push", "docker", old)
	arrives(t, p, "team/push", "docker", old.Digest)
	p.Equal(t, "team/push")
}

func followRetag(t *testing.T, p *pair) {
	one, two := image(3), image(4)
	push(t, p, "team/retag", "latest", one)
	push(t, p, "team/retag", "v1", one)
	arrives(t, p, "team/retag", "latest", one.Digest)
	push(t, p, "team/retag", "latest", two)
	arrives(t, p, "team/retag", "latest", two.Digest)
	// And back: what is on the site already is only tagged anew.
	registrytest.Retag(t, p.Registry.URL(), "team/retag", one.Digest, "latest")
	arrives(t, p, "team/retag", "latest", one.Digest)
	arrives(t, p, "team/retag", "v1", one.Digest)
	p.Converges(t, "team/retag")
}

// followDeleteTag: a registry that deletes by digest alone would take the sibling along.
func followDeleteTag(t *testing.T, p *pair) {
	img := image(5)
	push(t, p, "team/delete", "keep", img)
	registrytest.Retag(t, p.Registry.URL(), "team/delete", img.Digest, "drop")
	arrives(t, p, "team/delete", "keep", img.Digest)
	arrives(t, p, "team/delete", "drop", img.Digest)
	registrytest.DeleteTag(t, p.Registry.URL(), "team/delete", "drop")
	leaves(t, p, "team/delete", "drop")
	p.Converges(t, "team/delete")
	tagsAre(t, p, "team/delete", map[string]string{"keep": img.Digest})
	arrives(t, p, "team/delete", img.Digest, img.Digest)
}

func followDeleteDigest(t *testing.T, p *pair) {
	gone, stays := image(6), image(7)
	push(t, p, "team/digest", "a", gone)
	push(t, p, "team/digest", "b", gone)
	push(t, p, "team/digest", "c", stays)
	p.Converges(t, "team/digest")
	registrytest.DeleteDigest(t, p.Registry.URL(), "team/digest", gone.Digest)
	leaves(t, p, "team/digest", "a")
	leaves(t, p, "team/digest", "b")
	p.Converges(t, "team/digest")
	tagsAre(t, p, "team/digest", map[string]string{"c": stays.Digest})
}

func followIndex(t *testing.T, p *pair) {
	amd, arm, shared := image(8), image(9), image(10)
	index := registrytest.NewIndex(amd, arm, shared)
	push(t, p, "team/multi", "v1", index)
	arrives(t, p, "team/multi", "v1", index.Digest)
	for _, child := range index.Children {
		arrives(t, p, "team/multi", child.Digest, child.Digest)
	}
	// Indexes of indexes are legal, and one child has a tag of its own, which may go while the index needs the child.
	nested := registrytest.NewIndex(index, registrytest.NewIndex(image(11)))
	push(t, p, "team/multi", "nested", nested)
	push(t, p, "team/multi", "child", shared)
	arrives(t, p, "team/multi", "nested", nested.Digest)
	arrives(t, p, "team/multi", "child", shared.Digest)
	registrytest.DeleteTag(t, p.Registry.URL(), "team/multi", "child")
	leaves(t, p, "team/multi", "child")
	p.Converges(t, "team/multi")
	arrives(t, p, "team/multi", shared.Digest, shared.Digest)
}

func followArtifact(t *testing.T, p *pair) {
	img := image(12)
	push(t, p, "team/artifact", "v1", img)
	chart := registrytest.NewArtifact(13, "application/vnd.cncf.helm.config.v1+json")
	push(t, p, "team/artifact", "chart", chart)
	signature := registrytest.NewArtifact(14, "application/vnd.example.signature", registrytest.WithSubject(img))
	push(t, p, "team/artifact", "v1.sig", signature)
	arrives(t, p, "team/artifact", "chart", chart.Digest)
	arrives(t, p, "team/artifact", "v1.sig", signature.Digest)
	p.Converges(t, "team/artifact")
}

func followDeleteRepository(t *testing.T, p *pair) {
	for i := range 8 {
		push(t, p, "team/gone", fmt.Sprintf("v%d", i), image(int64(20+i/2)))
	}
	p.Converges(t, "team/gone")
	for i := range 8 {
		registrytest.DeleteTag(t, p.Registry.URL(), "team/gone", fmt.Sprintf("v%d", i))
	}
	empties(t, p, "team/gone")
	p.Synced(t)
}

// TestRepositoryRemovedFromStorage is what an administrator does by hand: no registry sends a notification of it, the
// sweep finds it.
func TestRepositoryRemovedFromStorage(t *testing.T) {
	t.Parallel()
	eachSite(t, func(t *testing.T, site option) {
		p := newPair(t, site, withPrimaryConfig("sweep.interval", "1s"))
		for i := range 6 {
			push(t, p, "old/service", fmt.Sprintf("v%d", i), image(int64(i)))
			push(t, p, "new/service", fmt.Sprintf("v%d", i), image(int64(i)))
		}
		p.Converges(t, "old/service", "new/service")
		folder := filepath.Join(p.Registry.Dir(), "docker/registry/v2/repositories/old/service")
		if err := os.RemoveAll(folder); err != nil {
			t.Fatal(err)
		}
		empties(t, p, "old/service")
		p.Converges(t, "old/service", "new/service")
		if tags := registrytest.Tags(t, p.Site.URL(), "new/service"); len(tags) != 6 {
			t.Errorf("the other repository has %v", tags)
		}
	})
}
