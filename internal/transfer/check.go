package transfer

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"

	"golang.org/x/sync/errgroup"

	"github.com/antipode-registry/antipode/internal/registry"
)

// Reader is the one registry that a Check looks at. *registry.Registry implements it. It must be safe for concurrent
// use.
type Reader interface {
	Manifest(ctx context.Context, repository, reference string) (registry.Manifest, error)
	HasBlob(ctx context.Context, repository, digest string) (size int64, found bool, err error)
	Blob(ctx context.Context, repository string, desc registry.Descriptor, offset int64) (io.ReadCloser, error)
}

// Damage is a manifest or a blob that is missing, or that is not what its digest says.
type Damage struct {
	Digest    string
	MediaType string   // as whoever refers to it says
	Problem   string   // for people
	Missing   bool     // it is not there at all, and another Copy with Repair brings it back; see Check about the rest
	Parents   []string // digests of the manifests that lead to it, the root first; empty for the root itself
}

// CheckOptions of a Check. The zero value checks the whole graph without reading blobs.
type CheckOptions struct {
	// Deep reads every blob and compares its digest. Otherwise a blob is right when the registry has it in the right
	// size; manifests are read and compared in any case.
	Deep bool

	// Seen tells what another Check of the same repository has seen to. Each digest is asked about once and, unless it
	// was seen, checked next, so that Seen may remember it in the same call; an error can come in between. A manifest
	// that was seen is skipped with all below it. Calls do not overlap within one Check. It may be nil.
	Seen func(digest string) bool
}

// Checked says what a Check has found.
type Checked struct {
	Manifests int      // looked at, the damaged ones included
	Blobs     int      // likewise
	Bytes     int64    // of all that is right
	Damages   []Damage // manifests first, then blobs, each in the order of the graph; nil = none
	Subject   string   // digest of the root's subject; "" = none, or the root could not be read
}

const (
	blobHeads = 8 // blobs asked for at once by one Check
	blobReads = 4 // blobs read at once by one deep Check
)

// Check walks the graph of root in one registry and says what of it is missing or damaged.
//
// Damage is no error. An error means that something could not be found out: the registry was not available or did not
// answer as registries do, or it matches ErrUnsupported when the references of a manifest are not known. What was found
// besides is in Checked in either case.
//
// That something is missing is believed when the registry says so in its own words. Wrong bytes, a download that ends
// too soon every time, and an internal error that the registry reports in its own words (which is how CNCF distribution
// answers for a manifest that it cannot decode) are damage only when the registry also shows that it is in order
// otherwise, by denying a digest that cannot be there: a storage that is down and a proxy's page are not taken for the
// loss of an image.
//
// Copying again, with Request.Repair, heals what is missing. It may not heal what is there with wrong bytes: CNCF
// distribution, for one, takes the upload and keeps the file that it has under that digest. Check again after a repair;
// what is still damaged then must first be removed from the registry's storage.
//
// Layers that are marked as non-distributable and name URLs are skipped, as Copy does.
func Check(
	ctx context.Context, from Reader, repository string, root registry.Tag, opts CheckOptions,
) (Checked, error) {
	if opts.Seen == nil {
		opts.Seen = func(string) bool { return false }
	}
	c := &check{from: from, repository: repository, opts: opts, graph: newGraph(root)}
	if err := c.run(ctx); err != nil {
		return c.result, fmt.Errorf("check %s@%s: %w", repository, root.Digest, err)
	}
	return c.result, nil
}

// check is one Check.
type check struct {
	from       Reader
	repository string
	opts       CheckOptions
	graph      *graph
	unknown    []error // manifests whose references are not known

	mu     sync.Mutex
	result Checked
}

func (c *check) run(ctx context.Context) error {
	root := c.graph.root
	if err := checkDigest(root.desc.Digest); err != nil {
		return err
	}
	if c.opts.Seen(root.desc.Digest) {
		return nil
	}
	if err := c.manifests(ctx); err != nil {
		return err
	}
	if err := c.blobs(ctx); err != nil {
		return err
	}
	return errors.Join(c.unknown...)
}

// manifests reads all manifests, one level after the other.
func (c *check) manifests(ctx context.Context) error {
	row := []*node{c.graph.root}
	for depth := 0; len(row) > 0; depth++ {
		if depth > maxDepth {
			return fmt.Errorf("%s: more than %d indexes within indexes: %w", row[0].path(), maxDepth, ErrUnsupported)
		}
		if err := c.readRow(ctx, row); err != nil {
			return err
		}
		var next []*node
		for _, n := range row {
			children, _, err := c.graph.expand(n)
			if err != nil {
				return fmt.Errorf("%s: %w", n.path(), err)
			}
			next = append(next, children...)
			n.document = document{} // large indexes need not be kept
		}
		row = slices.DeleteFunc(next, func(n *node) bool { return c.opts.Seen(n.desc.Digest) })
	}
	return nil
}

// readRow reads manifests that do not depend on each other. What cannot be followed is noted, and the others go on.
func (c *check) readRow(ctx context.Context, row []*node) error {
	damages, unknown := make([]*Damage, len(row)), make([]error, len(row))
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(manifestReads)
	for i, n := range row {
		group.Go(func() error {
			problem, err := c.readManifest(ctx, n)
			switch {
			case errors.Is(err, ErrUnsupported):
				unknown[i] = fmt.Errorf("%s: %w", n.path(), err)
			case err != nil:
				return fmt.Errorf("%s: %w", n.path(), err)
			case problem != "":
				damages[i] = damageOf(n.desc, problem, n.parent)
			}
			return nil
		})
	}
	err := group.Wait()
	c.add(damages)
	c.unknown = append(c.unknown, slices.DeleteFunc(unknown, func(err error) bool { return err == nil })...)
	return err
}

// readManifest looks at one manifest and learns what it refers to.
func (c *check) readManifest(ctx context.Context, n *node) (problem string, err error) {
	if shapeOf(bareType(n.desc.MediaType)) == shapeSchema1 {
		return "", errSchema1 // signed ones have another digest than that of their bytes, so nothing can be compared
	}
	var m registry.Manifest
	problem, err = c.settle(ctx, c.deniesManifest, func(ctx context.Context) (found finding, err error) {
		m, err = c.from.Manifest(ctx, c.repository, n.desc.Digest)
		return judge(err)
	})
	if err != nil {
		return "", err
	}
	if problem == "" {
		if wrong := verify(m.Bytes, n.desc.Digest, n.desc.Size); wrong != nil {
			problem = wrong.Error()
		}
	}
	c.count(&c.result.Manifests, int64(len(m.Bytes)), problem)
	if problem != "" {
		return problem, nil
	}
	n.document, err = parse(m.Bytes, m.MediaType, n.desc.MediaType)
	if n == c.graph.root {
		c.result.Subject = n.document.subject // the root is the only one of its row
	}
	return "", err
}

// blobs looks at all blobs, several at a time.
func (c *check) blobs(ctx context.Context) error {
	damages := make([]*Damage, len(c.graph.order))
	group, groupCtx := errgroup.WithContext(ctx)
	look, limit := c.lookAtBlob, blobHeads
	if c.opts.Deep {
		look, limit = c.readBlob, blobReads
	}
	group.SetLimit(limit)
	for i, b := range c.graph.order {
		if groupCtx.Err() != nil {
			break
		}
		if c.opts.Seen(b.desc.Digest) {
			continue
		}
		group.Go(func() error {
			problem, err := look(groupCtx, b.desc)
			if err != nil {
				return fmt.Errorf("%s: %w", b.path(), err)
			}
			c.count(&c.result.Blobs, b.desc.Size, problem)
			if problem != "" {
				damages[i] = damageOf(b.desc, problem, b.parent)
			}
			return nil
		})
	}
	err := group.Wait()
	c.add(damages)
	if err == nil && ctx.Err() != nil {
		err = context.Cause(ctx) // some were not begun
	}
	return err
}

// lookAtBlob compares a blob's size.
func (c *check) lookAtBlob(ctx context.Context, desc registry.Descriptor) (problem string, err error) {
	size, found, err := c.from.HasBlob(ctx, c.repository, desc.Digest)
	switch {
	case err != nil:
		return "", err
	case !found:
		return missing, nil
	case size != desc.Size:
		return fmt.Sprintf("has %d bytes instead of %d", size, desc.Size), nil
	}
	return "", nil
}

// count adds one that was looked at.
func (c *check) count(kind *int, bytes int64, problem string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	*kind++
	if problem == "" {
		c.result.Bytes += bytes
	}
}

func (c *check) add(damages []*Damage) {
	for _, damage := range damages {
		if damage != nil {
			c.result.Damages = append(c.result.Damages, *damage)
		}
	}
}

func damageOf(desc registry.Descriptor, problem string, parent *node) *Damage {
	damage := &Damage{Digest: desc.Digest, MediaType: desc.MediaType, Problem: problem, Missing: problem == missing}
	for n := parent; n != nil; n = n.parent {
		damage.Parents = append(damage.Parents, n.desc.Digest)
	}
	slices.Reverse(damage.Parents)
	return damage
}
