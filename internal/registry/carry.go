package registry

import (
	"context"
	"errors"
	"sync"
)

// maxCarried bounds one manifest that a listing carries along. Those of images have a few hundred bytes for each layer.
const maxCarried = 64 << 10

type carryKey struct{}

// WithManifests makes List, Resolve and Glance read the tags' manifests as they look at them, at the price of no further
// request (a GET in place of each HEAD), and put the bytes into Tag.Manifest: once for each digest, as long as they are
// small and together no more than room bytes. It is for who needs the manifests next. A room of 0 carries nothing.
func WithManifests(ctx context.Context, room int) context.Context {
	return context.WithValue(ctx, carryKey{}, &carriage{room: room, aboard: map[string]bool{}})
}

// CarriesManifests reports whether WithManifests applies.
func CarriesManifests(ctx context.Context) bool { return carriageOf(ctx) != nil }

func carriageOf(ctx context.Context) *carriage {
	if c, _ := ctx.Value(carryKey{}).(*carriage); c != nil && c.room > 0 {
		return c
	}
	return nil
}

// carriage is what one caller carries along. Safe for concurrent use.
type carriage struct {
	room int

	mu     sync.Mutex
	used   int
	aboard map[string]bool // by digest
}

func (c *carriage) full() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.used >= c.room
}

// take returns the bytes to carry for a manifest, which may be none.
func (c *carriage) take(m Manifest) []byte {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(m.Bytes) > maxCarried || c.used+len(m.Bytes) > c.room || c.aboard[m.Digest] {
		return nil
	}
	c.aboard[m.Digest] = true
	c.used += len(m.Bytes)
	return m.Bytes
}

// carry looks at one tag by reading its manifest, where that is to be carried along. Settled is false where a HEAD is to
// be sent instead: when nothing is to be carried, and when what came is no manifest that we could read, which need not
// keep the tag from being listed.
func (r *Registry) carry(ctx context.Context, repository, name string) (tag *Tag, settled bool, err error) {
	load := carriageOf(ctx)
	if load == nil || load.full() {
		return nil, false, nil
	}
	m, err := r.readManifest(ctx, repository, name, describedManifest)
	switch {
	case errors.Is(err, ErrNotFound):
		return nil, true, nil
	case errors.Is(err, ErrMalformed):
		return nil, false, nil
	case err != nil:
		return nil, true, err
	}
	return &Tag{Name: name, Digest: m.Digest, MediaType: m.MediaType, Size: m.Size, Manifest: load.take(m)}, true, nil
}
