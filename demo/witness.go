package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/antipode-registry/antipode/internal/registry"
)

// patience is how long something may take to arrive before the demo gives up; it takes well under a second.
const patience = 30 * time.Second

// witness does things at the primary and watches the site. After the first error it does nothing more.
type witness struct {
	primary, site *registry.Registry
	repository    string
	done          time.Time
	err           error
}

func (w *witness) step(what string, do func() error) {
	if w.err != nil {
		return
	}
	fmt.Printf("  %-40s", what)
	if err := do(); err != nil {
		w.fail(fmt.Errorf("%s: %w", what, err))
		return
	}
	w.done = time.Now()
}

// arrives waits until both registries answer the digest for the tag.
func (w *witness) arrives(ctx context.Context, tag, digest string) {
	w.wait(ctx, "arrive", tag, func(found []registry.Tag) bool { return len(found) == 1 && found[0].Digest == digest })
}

// leaves waits until neither registry knows the tag.
func (w *witness) leaves(ctx context.Context, tag string) {
	w.wait(ctx, "leave", tag, func(found []registry.Tag) bool { return len(found) == 0 })
}

func (w *witness) wait(ctx context.Context, what, tag string, seen func([]registry.Tag) bool) {
	if w.err != nil {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	ticker := time.NewTicker(10 * time.Millisecond)
	defer ticker.Stop()
	for {
		here, err := w.has(ctx, w.primary, tag, seen)
		if err == nil && here {
			if here, err = w.has(ctx, w.site, tag, seen); err == nil && here {
				break
			}
		}
		select {
		case <-ticker.C:
		case <-ctx.Done():
			w.fail(fmt.Errorf("%s:%s did not %s within %s: %w", w.repository, tag, what, patience,
				errors.Join(err, ctx.Err())))
			return
		}
	}
	if !w.done.IsZero() {
		fmt.Printf("on the site after %s\n", time.Since(w.done).Round(time.Millisecond))
		w.done = time.Time{}
	}
}

func (w *witness) has(ctx context.Context, r *registry.Registry, tag string, seen func([]registry.Tag) bool) (bool, error) {
	found, _, err := r.Resolve(ctx, w.repository, []string{tag})
	return err == nil && seen(found), err
}

// pullable checks that the site has manifests by their digests, with the primary's very bytes.
func (w *witness) pullable(ctx context.Context, digests ...string) {
	for _, digest := range digests {
		if w.err != nil {
			return
		}
		if _, err := w.site.Manifest(ctx, w.repository, digest); err != nil {
			w.fail(err)
		}
	}
}

func (w *witness) fail(err error) {
	fmt.Println("FAILED")
	w.err = err
}
