package transfer_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"slices"
	"sync"
	"testing"

	"go.uber.org/goleak"

	"github.com/antipode-registry/antipode/internal/registry"
	"github.com/antipode-registry/antipode/internal/registrytest"
	"github.com/antipode-registry/antipode/internal/transfer"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// memory is a registry without HTTP, for faults and orders that no real one can be made to show. It stores what it is
// given without checking digests, so that a test sees what would be committed. Safe for concurrent use.
type memory struct {
	mu        sync.Mutex
	blobs     map[string][]byte            // "repository@digest"
	manifests map[string]registry.Manifest // "repository@reference"
	log       []string
	// unreadable are digests of manifests that it cannot read until they are written again.
	unreadable map[string]bool

	// Hooks, called without the lock. A nil result lets the call go on.
	onBlob        func(ctx context.Context, desc registry.Descriptor, offset int64) (io.ReadCloser, error)
	onPutBlob     func(ctx context.Context, repository, digest, mountFrom string) error
	onPutManifest func(ctx context.Context, repository, reference string) error
}

func newMemory() *memory {
	return &memory{blobs: make(map[string][]byte), manifests: make(map[string]registry.Manifest)}
}

// push stores an image with all below it.
func (m *memory) push(repository string, img registrytest.Image, tags ...string) {
	for _, child := range img.Children {
		m.push(repository, child)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	for digest, body := range img.Blobs {
		m.blobs[repository+"@"+digest] = body
	}
	for _, reference := range append(tags, img.Digest) {
		m.manifests[repository+"@"+reference] = registry.Manifest{
			Descriptor: registry.Descriptor{
				MediaType: img.MediaType, Digest: img.Digest, Size: int64(len(img.Manifest)),
			},
			Bytes: img.Manifest,
		}
	}
}

func (m *memory) note(format string, args ...any) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.log = append(m.log, fmt.Sprintf(format, args...))
}

// calls returns the log and empties it.
func (m *memory) calls() []string {
	m.mu.Lock()
	defer m.mu.Unlock()
	log := m.log
	m.log = nil
	return log
}

func (m *memory) blob(repository, digest string) ([]byte, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	body, ok := m.blobs[repository+"@"+digest]
	return body, ok
}

// removeBlob takes a blob from the repository app.
func (m *memory) removeBlob(digest string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.blobs, "app@"+digest)
}

func (m *memory) tagged(repository, tag string) string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.manifests[repository+"@"+tag].Digest
}

func (m *memory) Manifest(_ context.Context, repository, reference string) (registry.Manifest, error) {
	m.note("GET manifest %s@%s", repository, short(reference))
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.unreadable[reference] {
		return registry.Manifest{}, &registry.Error{
			Op: "get manifest", Status: http.StatusInternalServerError, Code: "UNKNOWN", Err: registry.ErrUnavailable,
		}
	}
	got, ok := m.manifests[repository+"@"+reference]
	if !ok {
		return registry.Manifest{}, &registry.Error{Op: "get manifest", Err: registry.ErrNotFound}
	}
	return got, nil
}

func (m *memory) Blob(
	ctx context.Context, repository string, desc registry.Descriptor, offset int64,
) (io.ReadCloser, error) {
	m.note("GET blob %s@%s from %d", repository, short(desc.Digest), offset)
	if m.onBlob != nil {
		if body, err := m.onBlob(ctx, desc, offset); body != nil || err != nil {
			return body, err
		}
	}
	body, ok := m.blob(repository, desc.Digest)
	if !ok {
		return nil, &registry.Error{Op: "get blob", Err: registry.ErrNotFound}
	}
	return io.NopCloser(bytes.NewReader(body[offset:])), nil
}

func (m *memory) PutBlob(
	ctx context.Context, repository string, desc registry.Descriptor, mountFrom string,
	content func() (io.ReadCloser, error),
) (bool, error) {
	m.note("PUT blob %s@%s mount %q", repository, short(desc.Digest), mountFrom)
	if m.onPutBlob != nil {
		if err := m.onPutBlob(ctx, repository, desc.Digest, mountFrom); err != nil {
			return false, err
		}
	}
	if body, ok := m.blob(mountFrom, desc.Digest); ok {
		m.mu.Lock()
		defer m.mu.Unlock()
		m.blobs[repository+"@"+desc.Digest] = body
		return true, nil
	}
	r, err := content()
	if err != nil {
		return false, err
	}
	defer func() { _ = r.Close() }()
	body, err := io.ReadAll(r)
	if err == nil && int64(len(body)) != desc.Size {
		err = errors.New("short")
	}
	if err != nil {
		return false, fmt.Errorf("content: %w", err)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.blobs[repository+"@"+desc.Digest] = body
	return false, nil
}

func (m *memory) PutManifest(ctx context.Context, repository, reference string, got registry.Manifest) error {
	m.note("PUT manifest %s@%s", repository, short(reference))
	if m.onPutManifest != nil {
		if err := m.onPutManifest(ctx, repository, reference); err != nil {
			return err
		}
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.unreadable, got.Digest)
	m.manifests[repository+"@"+reference] = got
	m.manifests[repository+"@"+got.Digest] = got
	return nil
}

// wants refuses, as registries do, manifests that refer to blobs that are not there.
func (m *memory) wants(img registrytest.Image) {
	m.onPutManifest = func(_ context.Context, repository, _ string) error {
		for digest := range img.Blobs {
			if _, ok := m.blob(repository, digest); !ok {
				return &registry.Error{Op: "put manifest", Err: registry.ErrBlobUnknown}
			}
		}
		return nil
	}
}

// short keeps logs readable.
func short(reference string) string {
	if len(reference) > len("sha256:")+8 {
		return reference[:len("sha256:")+8]
	}
	return reference
}

// index is a transfer.Index in memory.
type index struct {
	mu  sync.Mutex
	has map[string]map[string]bool // digest -> repositories
}

func newIndex() *index { return &index{has: make(map[string]map[string]bool)} }

func (x *index) Find(_ context.Context, repository string, digests ...string) (map[string]string, error) {
	x.mu.Lock()
	defer x.mu.Unlock()
	where := make(map[string]string)
	for _, digest := range digests {
		if x.has[digest][repository] {
			where[digest] = repository
			continue
		}
		for _, other := range slices.Sorted(maps.Keys(x.has[digest])) {
			where[digest] = other
			break
		}
	}
	return where, nil
}

func (x *index) Record(_ context.Context, repository string, digests ...string) error {
	x.mu.Lock()
	defer x.mu.Unlock()
	for _, digest := range digests {
		if x.has[digest] == nil {
			x.has[digest] = make(map[string]bool)
		}
		x.has[digest][repository] = true
	}
	return nil
}

func (x *index) Forget(_ context.Context, repository string, digests ...string) error {
	x.mu.Lock()
	defer x.mu.Unlock()
	for _, digest := range digests {
		delete(x.has[digest], repository)
	}
	return nil
}

// knows tells whether all of them are recorded of the repository app.
func (x *index) knows(digests ...string) bool {
	x.mu.Lock()
	defer x.mu.Unlock()
	for _, digest := range digests {
		if !x.has[digest]["app"] {
			return false
		}
	}
	return true
}

func rootOf(img registrytest.Image) registry.Tag {
	return registry.Tag{Digest: img.Digest, MediaType: img.MediaType, Size: int64(len(img.Manifest))}
}

// request is one for img between repositories of the same name.
func request(src transfer.Source, repository string, img registrytest.Image, tags ...string) transfer.Request {
	return transfer.Request{
		Source: src, SourceRepository: repository, Repository: repository, Root: rootOf(img), Tags: tags,
	}
}

// pair is a source and a destination in memory with a Copier between them.
type pair struct {
	src, dst *memory
	index    *index
	copier   *transfer.Copier
}

func newPair() *pair {
	p := &pair{src: newMemory(), dst: newMemory(), index: newIndex()}
	p.copier = transfer.New(p.dst, p.index, transfer.Options{})
	return p
}

// copy fails the test unless the copy succeeds.
func (p *pair) copy(t *testing.T, repository string, img registrytest.Image, tags ...string) transfer.Result {
	t.Helper()
	result, err := p.copier.Copy(t.Context(), request(p.src, repository, img, tags...))
	if err != nil {
		t.Fatalf("copy: %v", err)
	}
	return result
}
