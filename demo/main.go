// Command demo shows the whole of Antipode on one machine: two real registries, the pair with the embedded database and
// mutual TLS, an image that is pushed, retagged, joined by a multi-arch index, and deleted, each seen to arrive through
// the registries' own API. `make demo` runs it; with ONESHOT=1 it ends by itself, with exit code 0 when all was seen.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"

	"github.com/antipode-registry/antipode/internal/registry"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Getenv("ONESHOT") == "1"); err != nil {
		fmt.Fprintln(os.Stderr, "demo:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, oneshot bool) error {
	dir, err := filepath.Abs(".demo")
	if err != nil {
		return err
	}
	fmt.Println("Antipode demo: a primary registry, a site's registry, and the pair between them, in", dir)
	s, err := prepare(ctx, dir)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	defer s.stop()
	if err := s.start(ctx, cancel); err != nil {
		return err
	}
	if err := show(ctx, s); err != nil {
		if cause := context.Cause(ctx); cause != nil {
			err = cause
		}
		return fmt.Errorf("%w\nthe logs are in %s", err, dir)
	}
	fmt.Println("\nAll of it was seen on both sides.")
	if oneshot {
		return nil
	}
	s.whereToLook()
	<-ctx.Done()
	if cause := context.Cause(ctx); !errors.Is(cause, context.Canceled) {
		return cause
	}
	fmt.Println("\nstopping")
	return nil
}

// show pushes, retags and deletes at the primary, and waits for each on the site.
func show(ctx context.Context, s *stage) error {
	primary, err := registry.Open(registry.Config{URL: s.primaryURL(), Side: registry.Source})
	if err != nil {
		return err
	}
	site, err := registry.Open(registry.Config{URL: s.siteURL(), Side: registry.Destination})
	if err != nil {
		return err
	}
	const repository = "demo/app"
	w := witness{primary: primary, site: site, repository: repository}
	one, two := newImage("one", "amd64"), newImage("two", "arm64")
	w.step("push demo/app:v1", func() error { return push(ctx, primary, repository, one, "v1") })
	w.arrives(ctx, "v1", one.manifest.Digest)
	w.step("push demo/app:v2", func() error { return push(ctx, primary, repository, two, "v2") })
	w.arrives(ctx, "v2", two.manifest.Digest)
	w.step("move demo/app:v1 to v2's image", func() error {
		return primary.PutManifest(ctx, repository, "v1", two.manifest)
	})
	w.arrives(ctx, "v1", two.manifest.Digest)
	index := newIndex(one, two)
	w.step("push the multi-arch demo/app:multi", func() error {
		if err := push(ctx, primary, repository, one, one.manifest.Digest); err != nil {
			return err
		}
		return primary.PutManifest(ctx, repository, "multi", index)
	})
	w.arrives(ctx, "multi", index.Digest)
	w.pullable(ctx, one.manifest.Digest, two.manifest.Digest)
	w.step("delete demo/app:v1", func() error { return primary.DeleteTag(ctx, repository, "v1") })
	w.leaves(ctx, "v1")
	w.arrives(ctx, "v2", two.manifest.Digest)
	return w.err
}
