package replicate_test

import (
	"encoding/json"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/antipode-registry/antipode/client"
	"github.com/antipode-registry/antipode/internal/registrytest"
)

// world is what the model knows: both registries as it has made them, and what the site may be held to. Its methods
// that change a registry are the steps of the model.
type world struct {
	t      testing.TB
	rng    *rand.Rand
	source *hand
	site   *hand
	ledger *ledger

	mu     sync.Mutex   // the ledger asks from the engine's goroutines
	step   atomic.Int64 // listings note it, from the engine's goroutines
	repos  map[string]*repo
	images int64    // made so far
	layers [][]byte // shared between images
	story  []string // the last steps
	began  time.Time
	mail   []func() // notifications that have not arrived
	jammed bool     // they queue up
}

// repo is a repository.
type repo struct {
	name string
	// source
	tags      map[string]*tagState
	manifests map[string]registrytest.Image
	subjects  map[string][]string // digest to the referrers that were attached
	changes   int                 // how often any of it changed
	untold    map[string]bool     // names that changed without the feed being told yet
	// site
	touched map[string]int // tags changed behind the site's back, and in which step
	broken  time.Time      // when content was last taken away there
	listing *listingState
}

// tagState is a tag at the source.
type tagState struct {
	digest string // "" = the source does not have it
	had    map[string]bool
	// armed: a listing has begun since the source last got the tag, so no older one can make it go from the site.
	armed, onSite bool
}

// listingState is the source as the site was last told of it.
type listingState struct {
	step     int
	at       time.Time
	complete bool
	valid    bool // the source did not change in the middle
	tags     map[string]string
	untold   map[string]bool
}

func (w *world) repo(name string) *repo {
	r := w.repos[name]
	if r == nil {
		r = &repo{
			name: name, tags: map[string]*tagState{}, manifests: map[string]registrytest.Image{},
			subjects: map[string][]string{}, untold: map[string]bool{}, touched: map[string]int{},
		}
		w.repos[name] = r
	}
	return r
}

func (r *repo) tag(name string) *tagState {
	t := r.tags[name]
	if t == nil {
		t = &tagState{had: map[string]bool{}}
		r.tags[name] = t
	}
	return t
}

// living returns the tags that the source has, in order.
func (r *repo) living() []string {
	var names []string
	for _, name := range slices.Sorted(maps.Keys(r.tags)) {
		if r.tags[name].digest != "" {
			names = append(names, name)
		}
	}
	return names
}

// note records a step.
func (w *world) note(format string, args ...any) {
	w.story = append(w.story, fmt.Sprintf("%4d %8s  ", w.step.Load(), time.Since(w.began).Round(time.Millisecond))+
		fmt.Sprintf(format, args...))
	if len(w.story) > 500 {
		w.story = w.story[1:]
	}
}

// fatalf ends the model with the seed and what led here.
func (w *world) fatalf(format string, args ...any) {
	w.t.Helper()
	w.t.Fatalf("%s\nthe last steps:\n%s", fmt.Sprintf(format, args...), strings.Join(w.story, "\n"))
}

func (w *world) must(err error) {
	w.t.Helper()
	if err != nil {
		w.fatalf("the step itself failed: %v", err)
	}
}

// short makes digests readable.
func short(digest string) string {
	_, encoded, found := strings.Cut(digest, ":")
	if !found {
		return digest
	}
	return encoded[:min(8, len(encoded))]
}

func pick[T any](w *world, from []T) T { return from[w.rng.IntN(len(from))] }

func (w *world) chance(percent int) bool { return w.rng.IntN(100) < percent }

func repositories() []string { return []string{"app", "team/app", "team/base", "deep/er/app"} }

func tagNames() []string {
	return []string{"latest", "v1", "v2", "v3", "main", "edge"}
}

func (w *world) anyRepo() *repo { return w.repo(pick(w, repositories())) }

// newImage makes an image that shares layers with others, of either kind, or an index.
func (w *world) newImage() registrytest.Image {
	if w.chance(30) {
		children := []registrytest.Image{w.plainImage()}
		for w.chance(50) && len(children) < 3 {
			children = append(children, w.plainImage())
		}
		if w.chance(20) {
			children = append(children, registrytest.NewIndex(w.plainImage()))
		}
		index := registrytest.NewIndex(children...)
		if w.chance(30) {
			index = index.Docker()
		}
		return index
	}
	return w.plainImage()
}

func (w *world) plainImage() registrytest.Image {
	w.images++
	var shared [][]byte
	for range w.rng.IntN(3) {
		shared = append(shared, pick(w, w.layers))
	}
	img := registrytest.NewImage(w.images, w.rng.IntN(3), 1+w.rng.IntN(300), registrytest.WithLayers(shared...))
	if w.chance(30) {
		img = img.Docker()
	}
	return img
}

// whole says whether the source has all of a manifest.
func (r *repo) whole(digest string) bool {
	img, found := r.manifests[digest]
	for _, child := range img.Children {
		found = found && r.whole(child.Digest)
	}
	return found
}

// wholes lists the manifests that a tag could name.
func (r *repo) wholes() []string {
	return slices.DeleteFunc(slices.Sorted(maps.Keys(r.manifests)), func(digest string) bool { return !r.whole(digest) })
}

// inUse says whether a tagged index lists the manifest.
func (r *repo) inUse(digest string) bool {
	var lists func(img registrytest.Image) bool
	lists = func(img registrytest.Image) bool {
		return slices.ContainsFunc(img.Children, func(child registrytest.Image) bool {
			return child.Digest == digest || lists(child)
		})
	}
	for _, name := range r.living() {
		if lists(r.manifests[r.tags[name].digest]) {
			return true
		}
	}
	return false
}

// keep notes that the source has an image.
func (r *repo) keep(img registrytest.Image) {
	for _, child := range img.Children {
		r.keep(child)
	}
	r.manifests[img.Digest] = img
}

// set notes what a tag of the source names from now on.
func (r *repo) set(name, digest string) {
	t := r.tag(name)
	if t.digest == "" || digest == "" {
		t.armed, t.onSite = false, false
	}
	t.digest = digest
	if digest != "" {
		t.had[digest] = true
	}
	r.changes++
	r.untold[name] = true
}

// tell is a notification: it arrives, some day, or not.
func (w *world) tell(r *repo, touches map[string]touch) {
	arrive := func() {
		w.ledger.announce(r.name, touches)
		for name := range touches {
			delete(r.untold, name)
		}
	}
	w.send(r, arrive)
}

// tellUnknown is a notification that does not say what changed.
func (w *world) tellUnknown(r *repo) {
	w.send(r, func() {
		w.ledger.unknown(r.name)
		clear(r.untold)
	})
}

func (w *world) send(r *repo, arrive func()) {
	switch {
	case w.chance(4):
		w.note("  the notification of %s is lost", r.name)
	case w.jammed || w.chance(8):
		w.jammed = true
		w.mail = append(w.mail, arrive)
	default:
		arrive()
	}
}

// watch is the ledger's: what it is about to list is what the site will be held to.
func (w *world) watch(refuse func(repository string) error) func(repository string) func(client.Listing, error) error {
	return func(repository string) func(client.Listing, error) error {
		w.mu.Lock()
		defer w.mu.Unlock()
		r := w.repo(repository)
		now := &listingState{
			step: int(w.step.Load()), at: time.Now(), tags: map[string]string{}, untold: maps.Clone(r.untold),
		}
		for _, name := range r.living() {
			now.tags[name] = r.tags[name].digest
			r.tags[name].armed = true
		}
		changes := r.changes
		return func(listing client.Listing, err error) error {
			w.mu.Lock()
			defer w.mu.Unlock()
			now.complete, now.valid = listing.Complete, err == nil && changes == r.changes
			r.listing = now
			return refuse(repository)
		}
	}
}

// contents reads what a manifest refers to.
func contents(body []byte) (children []listedManifest, blobs []string, err error) {
	var doc struct {
		Config    *listedManifest  `json:"config"`
		Layers    []listedManifest `json:"layers"`
		Manifests []listedManifest `json:"manifests"`
	}
	if err := json.Unmarshal(body, &doc); err != nil {
		return nil, nil, err
	}
	if doc.Config != nil {
		blobs = append(blobs, doc.Config.Digest)
	}
	for _, layer := range doc.Layers {
		blobs = append(blobs, layer.Digest)
	}
	return doc.Manifests, blobs, nil
}

func namesIn(body []byte, key string) (names []string, err error) {
	var page map[string]json.RawMessage
	if err := json.Unmarshal(body, &page); err != nil {
		return nil, err
	}
	return names, json.Unmarshal(page[key], &names)
}
