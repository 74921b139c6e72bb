package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/antipode-registry/antipode/internal/registrytest"
)

// The shape of the workload. A repository has few tags, so that each is moved and removed often. Half of the
// repositories are quiet: what is missed in one of those, its next change does not make up for soon.
const (
	repositories    = 12
	quiet           = 6
	tagNames        = 6
	referrerTags    = 3
	referrersListed = 3
	layerBytes      = 20_000
	sharedLayers    = 4
)

// workload changes the primary's registry: a goroutine for each repository makes one change after the other. What it
// does follows from the seed and from which changes the registry confirmed.
type workload struct {
	seed   uint64
	client *registrytest.Client
	ledger *ledger
	diary  *diary
	// api says that the registry lists referrers by itself. It is the one in memory, which tells nobody of changes and has
	// no folders; a manifest that is deleted by digest there leaves its tags behind.
	api bool
	// storage is the registry's folder of repositories; an administrator removes one by hand now and then.
	storage string
}

// Run works until ctx ends; the change that is going on then is brought to its end.
func (w *workload) Run(ctx context.Context) {
	var all sync.WaitGroup
	for i := range repositories {
		worker := &worker{
			workload: w, number: int64(i), repository: fmt.Sprintf("team-%d/app-%d", i%3, i),
			random: rand.New(rand.NewPCG(w.seed, 1000+uint64(i))), needed: map[string]bool{},
			images: map[string]registrytest.Image{}, referrers: map[string][]registrytest.Image{},
		}
		all.Go(func() { worker.run(ctx) })
	}
	all.Wait()
}

// worker changes one repository.
type worker struct {
	*workload
	number     int64
	repository string
	random     *rand.Rand
	made       int64
	images     map[string]registrytest.Image // all that was ever pushed here, by digest
	needed     map[string]bool               // what other manifests need: never deleted by digest, as nobody would

	referrers map[string][]registrytest.Image // what a list under a tag names, by the subject's digest
	untagged  []registrytest.Image            // referrers that no list but the registry's names
}

// run makes changes in bursts with pauses between them.
func (w *worker) run(ctx context.Context) {
	timer := time.NewTimer(time.Duration(w.random.IntN(1000)) * time.Millisecond)
	defer timer.Stop()
	for {
		select {
		case <-timer.C:
		case <-ctx.Done():
			return
		}
		for range 1 + w.random.IntN(4) {
			if ctx.Err() == nil {
				w.change(context.WithoutCancel(ctx))
			}
		}
		timer.Reset(w.pause())
	}
}

// pause is, of those that are not quiet, mostly short, now and then long enough for the site to come to rest, and sometimes for sweeps to go round.
func (w *worker) pause() time.Duration {
	least, most := 100, 1000
	switch n := w.random.IntN(40); {
	case w.number < quiet:
		least, most = 6000, 30_000
	case n < 6:
		least, most = 3000, 9000
	case n < 8:
		least, most = 12_000, 24_000
	}
	return time.Duration(least+w.random.IntN(most-least)) * time.Millisecond
}

// change makes one change. The registry may be dead, and then nobody knows whether it was made.
func (w *worker) change(ctx context.Context) {
	tags := w.ledger.Tags(w.repository)
	var what string
	var err error
	switch kind := w.random.IntN(100); {
	case kind < 3 && len(tags) > 2:
		what, err = "delete repository: tag by tag", w.deleteRepository(ctx, tags)
	case kind < 5 && len(tags) > 2 && !w.api:
		what, err = w.removeFolder()
	case kind < 16 && len(tags) > 0:
		what, err = w.deleteTag(ctx, tags)
	case kind < 21 && len(tags) > 0 && !w.api:
		what, err = w.deleteDigest(ctx, tags)
	case kind < 40 && len(tags) > 0:
		what, err = w.retag(ctx, tags)
	case kind < 52 && len(tags) > 0:
		what, err = w.refer(ctx, tags)
	case kind < 68:
		what, err = w.pushIndex(ctx)
	default:
		what, err = w.pushImage(ctx)
	}
	name, _, _ := strings.Cut(what, ":")
	if err != nil {
		w.diary.Count("unconfirmed: " + name)
		w.diary.Note("work", "%s %s: not confirmed: %v", w.repository, what, err)
		return
	}
	w.diary.Count("work: " + name)
	w.diary.Note("work", "%s %s", w.repository, what)
}

func (w *worker) tag() string { return fmt.Sprintf("v%d", w.random.IntN(tagNames)) }

// pick returns one of the tags that may be there, and a digest that it may have.
func (w *worker) pick(tags map[string][]string) (tag, digest string) {
	names := slices.Sorted(maps.Keys(tags))
	tag = names[w.random.IntN(len(names))]
	return tag, tags[tag][w.random.IntN(len(tags[tag]))]
}

// image makes a new image. Some share a layer with images of other repositories, some are in Docker's format.
func (w *worker) image() registrytest.Image {
	w.made++
	var opts []registrytest.ContentOption
	if w.random.IntN(2) == 0 {
		opts = append(opts, registrytest.WithLayers(registrytest.Bytes(-1, w.random.IntN(sharedLayers), 3*layerBytes)))
	}
	img := registrytest.NewImage(w.number*1_000_000+w.made, 1+w.random.IntN(2), 1+w.random.IntN(layerBytes), opts...)
	if w.random.IntN(6) == 0 {
		return img.Docker()
	}
	return img
}

func (w *worker) pushImage(ctx context.Context) (string, error) {
	return w.push(ctx, "push image", w.tag(), w.image())
}

// pushIndex pushes images of several platforms, now and then with an index within the index.
func (w *worker) pushIndex(ctx context.Context) (string, error) {
	index := registrytest.NewIndex(w.image(), w.image())
	if w.random.IntN(4) == 0 {
		index = registrytest.NewIndex(w.image(), index)
	}
	return w.push(ctx, "push index", w.tag(), index)
}

// refer pushes an artifact about one of the tags in one of the ways that signers have, or removes one when there are too
// many in the repository.
func (w *worker) refer(ctx context.Context, tags map[string][]string) (string, error) {
	_, digest := w.pick(tags)
	var about []string
	for name := range tags {
		if strings.HasPrefix(name, "sha256-") {
			about = append(about, name)
		}
	}
	switch {
	case len(about) >= referrerTags:
		slices.Sort(about)
		return w.remove(ctx, "delete tag", about[0])
	case len(w.untagged) >= referrerTags:
		return w.deleteUntagged(ctx)
	}
	w.made++
	w.needed[digest] = true
	referrer := registrytest.NewArtifact(-w.number*1_000_000-w.made, "application/vnd.example.signature",
		registrytest.WithSubject(w.images[digest]))
	tag := strings.Replace(digest, ":", "-", 1)
	switch {
	case w.random.IntN(2) == 0: // by a tag of its own
		return w.push(ctx, "push signature", tag+".sig", referrer)
	case w.api:
		w.untagged = append(w.untagged, referrer)
		return fmt.Sprintf("push referrer: %s of %s", short(referrer.Digest), short(digest)),
			w.ledger.Untagged(w.repository, func() error { return w.client.Push(ctx, w.repository, "", referrer) })
	default: // where the registry does not list it, the signer keeps the list
		list := append(w.referrers[digest], referrer)
		w.referrers[digest] = list[max(0, len(list)-referrersListed):]
		return w.push(ctx, "push referrer", tag, registrytest.NewIndex(w.referrers[digest]...))
	}
}

// deleteUntagged deletes the oldest referrer that only the registry lists.
func (w *worker) deleteUntagged(ctx context.Context) (string, error) {
	referrer := w.untagged[0]
	w.untagged = w.untagged[1:]
	return "delete referrer: " + short(referrer.Digest), w.ledger.Untagged(w.repository, func() error {
		return present(w.client.Delete(ctx, w.repository, referrer.Digest))
	})
}

func (w *worker) push(ctx context.Context, what, tag string, img registrytest.Image) (string, error) {
	w.remember(img)
	return fmt.Sprintf("%s: %s = %s", what, tag, short(img.Digest)),
		w.ledger.Put(w.repository, tag, img.Digest, func() error { return w.client.Push(ctx, w.repository, tag, img) })
}

func (w *worker) remember(img registrytest.Image) {
	w.images[img.Digest] = img
	for _, child := range img.Children {
		w.needed[child.Digest] = true
		w.remember(child)
	}
}

// retag pushes what the repository has, or had, under another tag.
func (w *worker) retag(ctx context.Context, tags map[string][]string) (string, error) {
	_, digest := w.pick(tags)
	tag, img := w.tag(), w.images[digest]
	return fmt.Sprintf("retag: %s = %s", tag, short(digest)), w.ledger.Put(w.repository, tag, digest, func() error {
		err := w.client.PutManifest(ctx, w.repository, tag, img.MediaType, img.Manifest)
		if err != nil && !w.broken(err) {
			// What an unconfirmed deletion took is missing: pushed again.
			err = w.client.Push(ctx, w.repository, tag, img)
		}
		return err
	})
}

func (w *worker) deleteTag(ctx context.Context, tags map[string][]string) (string, error) {
	tag, _ := w.pick(tags)
	return w.remove(ctx, "delete tag", tag)
}

func (w *worker) remove(ctx context.Context, what, tag string) (string, error) {
	return what + ": " + tag, w.ledger.Remove(w.repository, []string{tag}, absent, true, func() error {
		return present(w.client.Delete(ctx, w.repository, tag))
	})
}

// deleteDigest deletes a manifest, and with it every tag on it.
func (w *worker) deleteDigest(ctx context.Context, tags map[string][]string) (string, error) {
	tag, digest := w.pick(tags)
	if w.needed[digest] {
		return w.remove(ctx, "delete tag", tag)
	}
	var on []string
	for _, name := range slices.Sorted(maps.Keys(tags)) {
		if slices.Contains(tags[name], digest) {
			on = append(on, name)
		}
	}
	return fmt.Sprintf("delete digest: %s of %v", short(digest), on),
		w.ledger.Remove(w.repository, on, digest, true, func() error {
			return present(w.client.Delete(ctx, w.repository, digest))
		})
}

// deleteRepository deletes every tag, one after the other.
func (w *worker) deleteRepository(ctx context.Context, tags map[string][]string) error {
	for _, tag := range slices.Sorted(maps.Keys(tags)) {
		if _, err := w.remove(ctx, "delete repository", tag); err != nil {
			return err
		}
	}
	return nil
}

// removeFolder removes the repository from the registry's storage, of which the registry tells nobody.
func (w *worker) removeFolder() (string, error) {
	return "remove repository: its folder", w.ledger.Remove(w.repository, w.ledger.Known(w.repository), absent, false,
		func() error {
			return os.RemoveAll(filepath.Join(w.storage, "docker/registry/v2/repositories", filepath.FromSlash(w.repository)))
		})
}

// broken says whether the registry gave no answer: it is dead, or died.
func (w *worker) broken(err error) bool {
	var network interface{ Timeout() bool } // *url.Error among them
	return errors.As(err, &network)
}

// present forgives a deletion of what is not there.
func present(err error) error {
	if registrytest.IsAbsent(err) {
		return nil
	}
	return err
}

func short(digest string) string {
	_, hex, _ := strings.Cut(digest, ":")
	return hex[:min(12, len(hex))]
}
