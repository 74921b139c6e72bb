package listing

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sync/errgroup"

	"github.com/antipode-registry/antipode/internal/registry"
)

// Bounds of the walk from tags to what refers to them.
const (
	referrersAtOnce = 8       // requests of one listing; the registry's budget bounds all listings together
	maxSubjects     = 200_000 // manifests looked at in one repository
)

// askAgain is how long a registry that has no referrers API is believed not to have it.
const askAgain = 10 * time.Minute

// Subject is a manifest and all that name it as their subject.
type Subject struct {
	Digest    string
	Referrers []registry.Descriptor // by digest
}

// referrersAPI remembers whether the registry has the API, so that listings of one without it cost nothing more.
type referrersAPI struct {
	mu      sync.Mutex
	present bool
	absent  time.Time     // when that was last seen; zero = never
	turn    chan struct{} // of one: held by the listing that finds out
}

func newReferrersAPI() referrersAPI { return referrersAPI{turn: make(chan struct{}, 1)} }

func (r *referrersAPI) isAbsent() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return !r.absent.IsZero() && time.Since(r.absent) < askAgain
}

func (r *referrersAPI) note(present bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.present, r.absent = present, time.Time{}
	if !present {
		r.absent = time.Now()
	}
}

func (r *referrersAPI) isPresent() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.present
}

// HasReferrersAPI says whether the registry may have the referrers API: false only where it was seen not to.
func (l *Lister) HasReferrersAPI() bool { return !l.referrers.isAbsent() }

// errNoAPI ends a walk at a registry that turns out not to have the API.
var errNoAPI = errors.New("the registry has no referrers API")

// extras are what a delta looks at besides the manifests of its tags.
type extras struct {
	pushed   []string // digests of manifests: one that has a subject brings that subject into the listing
	subjects []string // digests of manifests whose fallback tags were touched
}

// fallbackSubject returns the digest of the manifest for whose referrers a tag stands where there is no API
// (distribution specification v1.1, "Referrers Tag Schema").
func fallbackSubject(tag string) (digest string, ok bool) {
	encoded, ok := strings.CutPrefix(tag, "sha256-")
	if !ok || len(encoded) != 64 || strings.Trim(encoded, "0123456789abcdef") != "" {
		return "", false
	}
	return "sha256:" + encoded, true
}

// addSubjects finds the referrers of the listed tags' manifests, of the children of indexes among them, and of the
// referrers themselves, to any depth.
func (l *Lister) addSubjects(ctx context.Context, repository string, answer *Listing, also extras) error {
	if l.referrers.isAbsent() {
		return nil
	}
	w := &subjectWalk{
		lister: l, repository: repository, subjects: map[string][]registry.Descriptor{}, carried: map[string][]byte{},
	}
	for _, tag := range answer.Tags {
		if tag.Manifest != nil {
			w.carried[tag.Digest] = tag.Manifest
		}
	}
	first, err := w.subjectsOf(ctx, also.pushed)
	if err != nil {
		return err
	}
	for _, digest := range also.subjects {
		first = append(first, registry.Descriptor{Digest: digest})
	}
	for _, tag := range answer.Tags {
		first = append(first, registry.Descriptor{Digest: tag.Digest, MediaType: tag.MediaType})
	}
	err = w.run(ctx, first)
	if errors.Is(err, errNoAPI) {
		return nil
	}
	if err != nil {
		return err
	}
	answer.ReferrersAPI = l.referrers.isPresent()
	answer.Subjects = w.list(answer.Complete)
	return nil
}

// subjectWalk goes from manifests to their referrers, level by level.
type subjectWalk struct {
	lister     *Lister
	repository string
	carried    map[string][]byte // manifests that were read already, by digest
	mu         sync.Mutex
	subjects   map[string][]registry.Descriptor
}

// manifest returns the bytes of a manifest.
func (w *subjectWalk) manifest(ctx context.Context, digest string) ([]byte, error) {
	if known := w.carried[digest]; known != nil {
		return known, nil
	}
	m, err := w.lister.registry.Manifest(ctx, w.repository, digest)
	return m.Bytes, err
}

// subjectsOf reads manifests that were pushed and returns their subjects. One that is gone again has nothing to say.
func (w *subjectWalk) subjectsOf(ctx context.Context, pushed []string) ([]registry.Descriptor, error) {
	var subjects []registry.Descriptor
	for _, reference := range pushed {
		content, err := w.manifest(ctx, reference)
		if errors.Is(err, registry.ErrNotFound) {
			continue
		}
		if err != nil {
			return nil, err
		}
		var body struct {
			Subject *registry.Descriptor `json:"subject"`
		}
		if json.Unmarshal(content, &body) != nil || body.Subject == nil {
			continue
		}
		// A registry need not have looked at what it cannot resolve.
		if digest.Digest(body.Subject.Digest).Validate() == nil {
			subjects = append(subjects, *body.Subject)
		}
	}
	return subjects, nil
}

func (w *subjectWalk) run(ctx context.Context, level []registry.Descriptor) error {
	for len(level) > 0 {
		fresh := w.unseen(level)
		if len(w.subjects) > maxSubjects {
			return fmt.Errorf("%s has more than %d manifests to look at for referrers", w.repository, maxSubjects)
		}
		next := make([][]registry.Descriptor, len(fresh))
		left := 0
		if len(fresh) > 0 && !w.lister.referrers.isPresent() {
			var err error
			if next[0], err = w.findOut(ctx, fresh[0]); err != nil {
				return err
			}
			left = 1
		}
		group, ctx := errgroup.WithContext(ctx)
		group.SetLimit(referrersAtOnce)
		for i := left; i < len(fresh); i++ {
			group.Go(func() (err error) {
				next[i], err = w.visit(ctx, fresh[i])
				return err
			})
		}
		if err := group.Wait(); err != nil {
			return err
		}
		level = slices.Concat(next...)
	}
	return nil
}

// unseen returns the manifests that were not visited yet, each once, and notes them as visited.
func (w *subjectWalk) unseen(level []registry.Descriptor) []registry.Descriptor {
	var fresh []registry.Descriptor
	for _, manifest := range level {
		if _, seen := w.subjects[manifest.Digest]; !seen {
			w.subjects[manifest.Digest] = nil
			fresh = append(fresh, manifest)
		}
	}
	return fresh
}

// findOut is the visit that shows whether the registry has the API. Other listings wait for it, so that where there is
// none one request shows it to all.
func (w *subjectWalk) findOut(ctx context.Context, manifest registry.Descriptor) ([]registry.Descriptor, error) {
	api := &w.lister.referrers
	select {
	case api.turn <- struct{}{}:
		defer func() { <-api.turn }()
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	if api.isAbsent() {
		return nil, errNoAPI
	}
	next, err := w.visit(ctx, manifest)
	if err == nil {
		api.note(true)
	}
	return next, err
}

// visit asks for one manifest's referrers and returns where to go on: to them, and to the children of an index.
func (w *subjectWalk) visit(ctx context.Context, manifest registry.Descriptor) ([]registry.Descriptor, error) {
	found, supported, err := w.lister.registry.Referrers(ctx, w.repository, manifest.Digest)
	if err != nil {
		return nil, err
	}
	if !supported {
		w.lister.referrers.note(false)
		return nil, errNoAPI
	}
	slices.SortFunc(found, func(a, b registry.Descriptor) int { return strings.Compare(a.Digest, b.Digest) })
	w.mu.Lock()
	w.subjects[manifest.Digest] = found
	w.mu.Unlock()
	children, err := w.children(ctx, manifest)
	return slices.Concat(found, children), err
}

// children returns what an index lists, if it is one. One that is gone meanwhile has no children.
func (w *subjectWalk) children(ctx context.Context, manifest registry.Descriptor) ([]registry.Descriptor, error) {
	if !strings.Contains(manifest.MediaType, "image.index") && !strings.Contains(manifest.MediaType, "manifest.list") {
		return nil, nil
	}
	content, err := w.manifest(ctx, manifest.Digest)
	if errors.Is(err, registry.ErrNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var index struct {
		Manifests []registry.Descriptor `json:"manifests"`
	}
	if err := json.Unmarshal(content, &index); err != nil {
		return nil, fmt.Errorf("index %s@%s cannot be read: %w", w.repository, manifest.Digest, err)
	}
	// BuildKit's caches list blobs; a registry answers for them as for any digest that nothing refers to.
	return slices.DeleteFunc(index.Manifests, func(d registry.Descriptor) bool {
		return !strings.Contains(d.MediaType, "manifest") && !strings.Contains(d.MediaType, "image.index")
	}), nil
}

// list returns the subjects by digest, in a complete listing only those that have referrers.
func (w *subjectWalk) list(complete bool) []Subject {
	var subjects []Subject
	for digest, referrers := range w.subjects {
		if len(referrers) > 0 || !complete {
			subjects = append(subjects, Subject{Digest: digest, Referrers: referrers})
		}
	}
	slices.SortFunc(subjects, func(a, b Subject) int { return cmp.Compare(a.Digest, b.Digest) })
	return subjects
}
