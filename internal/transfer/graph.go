package transfer

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"

	"golang.org/x/sync/errgroup"

	"github.com/antipode-registry/antipode/internal/registry"
)

// Bounds of one graph. Digests make cycles impossible, but nothing keeps a graph from being built to exhaust who copies
// it. The largest that are known (a distribution's images for all platforms and versions) have a few thousand nodes.
const (
	maxDepth         = 16       // indexes in indexes below the root
	maxManifests     = 4096     // distinct
	maxBlobs         = 65536    // distinct
	maxManifestBytes = 64 << 20 // of all manifests together; they are held until they are written
	manifestReads    = 4        // manifests of one graph read, or written, at once
)

const (
	unsettled   = -1 // height that was not computed yet
	unknownSize = -1 // of a root, where the listing did not tell
)

// graph is what one manifest refers to, directly or not; each digest once.
type graph struct {
	root      *node
	manifests map[string]*node
	blobs     map[string]*blob
	order     []*blob // as found, so that copies begin with what comes first
	skipped   []string
	bytes     atomic.Int64
}

// node is a manifest.
type node struct {
	desc     registry.Descriptor
	parent   *node  // the first that was seen to refer to it
	known    bool   // there with all below it, so neither read nor written
	near     string // another repository of the destination that has it; "" = none is known
	manifest registry.Manifest
	document document
	children []*node
	height   int // above its lowest descendant; 0 = without children
}

// blob is a config, a layer or another opaque content.
type blob struct {
	desc   registry.Descriptor
	parent *node
}

func newGraph(root registry.Tag) *graph {
	n := &node{
		desc:   registry.Descriptor{MediaType: root.MediaType, Digest: root.Digest, Size: root.Size},
		height: unsettled,
	}
	if root.Size <= 0 {
		n.desc.Size = unknownSize
	}
	return &graph{root: n, manifests: map[string]*node{root.Digest: n}, blobs: make(map[string]*blob)}
}

// digests lists all that was discovered.
func (g *graph) digests() []string {
	list := make([]string, 0, len(g.manifests)+len(g.blobs))
	for digest := range g.manifests {
		list = append(list, digest)
	}
	for digest := range g.blobs {
		list = append(list, digest)
	}
	return list
}

// discover reads the manifests below and including the root, one level after the other.
func (j *job) discover(ctx context.Context, level trust, g *graph) error {
	row := []*node{g.root}
	for depth := 0; len(row) > 0; depth++ {
		if depth > maxDepth {
			return fmt.Errorf("%s: more than %d indexes within indexes: %w", row[0].path(), maxDepth, ErrUnsupported)
		}
		if err := j.locateRow(ctx, level, g, row); err != nil {
			return err
		}
		if err := j.readRow(ctx, level, g, row); err != nil {
			return err
		}
		var next []*node
		for _, n := range row {
			children, size, err := g.expand(n)
			if err != nil {
				return fmt.Errorf("%s: %w", n.path(), err)
			}
			next = append(next, children...)
			j.progress.grow(size)
		}
		row = next
	}
	g.root.settleHeight()
	return nil
}

// locateRow finds out what of a row is there already. The root was looked up before.
func (j *job) locateRow(ctx context.Context, level trust, g *graph, row []*node) error {
	if row[0] == g.root {
		return nil
	}
	digests := make([]string, len(row))
	for i, n := range row {
		digests[i] = n.desc.Digest
	}
	found, err := j.find(ctx, level, digests...)
	if err != nil {
		return err
	}
	for _, n := range row {
		if n.near, n.known = j.place(level, n.desc.Digest, found); n.known {
			j.assumed.Add(1)
		}
	}
	return nil
}

func (j *job) readRow(ctx context.Context, level trust, g *graph, row []*node) error {
	return each(ctx, manifestReads, row, func(ctx context.Context, n *node) error {
		if n.known || n.manifest.Bytes != nil {
			return nil
		}
		if err := j.readNode(ctx, level, g, n); err != nil {
			return fmt.Errorf("%s: %w", n.path(), err)
		}
		return nil
	})
}

// each calls do for all nodes, some at a time, until one fails. The most usual row is of one node, for which the caller's
// own goroutine does.
func each(ctx context.Context, atOnce int, row []*node, do func(ctx context.Context, n *node) error) error {
	if len(row) == 1 {
		return do(ctx, row[0])
	}
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(atOnce)
	for _, n := range row {
		group.Go(func() error { return do(ctx, n) })
	}
	return group.Wait()
}

// readCarried reads the root's manifest where its bytes are at hand, and returns what the Index is to be asked for: the
// root, and then at once all that it refers to. Bytes that are not the root's are left alone.
func (j *job) readCarried(g *graph) (digests []string, err error) {
	root := g.root
	digests = []string{root.desc.Digest}
	if there := j.req.Manifest != nil && verify(j.req.Manifest, root.desc.Digest, root.desc.Size) == nil; !there {
		return digests, nil
	}
	if err := j.accept(g, root, registry.Manifest{Descriptor: root.desc, Bytes: j.req.Manifest}); err != nil {
		return nil, fmt.Errorf("%s: %w", root.path(), err)
	}
	for _, desc := range slices.Concat(root.document.manifests, root.document.blobs) {
		digests = append(digests, desc.Digest)
	}
	return digests, nil
}

func (j *job) readNode(ctx context.Context, level trust, g *graph, n *node) error {
	m, err := j.readManifest(ctx, level, n)
	if err != nil {
		return err
	}
	return j.accept(g, n, m)
}

// accept takes the bytes of a manifest.
func (j *job) accept(g *graph, n *node, m registry.Manifest) (err error) {
	if g.bytes.Add(int64(len(m.Bytes))) > maxManifestBytes {
		return fmt.Errorf("the manifests of the graph exceed %d bytes: %w", maxManifestBytes, ErrUnsupported)
	}
	n.document, err = parse(m.Bytes, m.MediaType, n.desc.MediaType)
	if err != nil {
		return err
	}
	m.MediaType = n.document.mediaType
	m.Digest, m.Size = n.desc.Digest, int64(len(m.Bytes))
	n.manifest = m
	return nil
}

// readManifest gets a manifest from another repository of the destination that has it, or from the source: promoting an
// image from one repository to another then needs nothing from the source.
func (j *job) readManifest(ctx context.Context, level trust, n *node) (registry.Manifest, error) {
	if level == trustIndex && n.near != "" {
		m, ok, err := j.readNearby(ctx, n.desc, n.near)
		if ok || err != nil {
			return m, err
		}
	}
	return checked(j.req.Source.Manifest(ctx, j.req.SourceRepository, n.desc.Digest))(n.desc)
}

// readNearby reads a manifest from another repository of the destination; ok is false where that does not answer with it.
// What turns out not to be there is forgotten; other failures say nothing about it, and the source will do.
func (j *job) readNearby(
	ctx context.Context, desc registry.Descriptor, repository string,
) (m registry.Manifest, ok bool, err error) {
	m, err = checked(j.dst.Manifest(ctx, repository, desc.Digest))(desc)
	switch {
	case err == nil:
		return m, true, nil
	case ctx.Err() != nil:
		return m, false, ctx.Err()
	case !errors.Is(err, registry.ErrNotFound):
		return m, false, nil
	}
	if err := j.index.Forget(ctx, repository, desc.Digest); err != nil {
		return m, false, fmt.Errorf("forget %s: %w", desc.Digest, err)
	}
	return m, false, nil
}

// checked wraps a reading of a manifest, so that its bytes are compared with the descriptor that led to it.
func checked(m registry.Manifest, err error) func(registry.Descriptor) (registry.Manifest, error) {
	return func(desc registry.Descriptor) (registry.Manifest, error) {
		if err == nil {
			err = verify(m.Bytes, desc.Digest, desc.Size)
		}
		return m, err
	}
}

// expand adds what n refers to, and returns the manifests that were not seen before and the bytes of such blobs.
func (g *graph) expand(n *node) (children []*node, size int64, err error) {
	for _, desc := range n.document.manifests {
		child := g.manifests[desc.Digest]
		if child == nil {
			child = &node{desc: desc, parent: n, height: unsettled}
			g.manifests[desc.Digest] = child
			children = append(children, child)
		}
		if child.desc.Size != desc.Size && child.desc.Size != unknownSize {
			return nil, 0, twoSizes(desc, child.desc.Size)
		}
		n.children = append(n.children, child)
	}
	for _, desc := range n.document.blobs {
		added, err := g.addBlob(n, desc)
		if err != nil {
			return nil, 0, err
		}
		size = sum(size, added)
	}
	if len(g.manifests) > maxManifests || len(g.blobs) > maxBlobs {
		return nil, 0, fmt.Errorf("the graph has more than %d manifests or %d blobs: %w",
			maxManifests, maxBlobs, ErrUnsupported)
	}
	return children, size, nil
}

func (g *graph) addBlob(n *node, desc registry.Descriptor) (size int64, err error) {
	if elsewhere(desc) {
		g.skip(desc)
		return 0, nil
	}
	if seen := g.blobs[desc.Digest]; seen != nil {
		if seen.desc.Size != desc.Size {
			return 0, twoSizes(desc, seen.desc.Size)
		}
		return 0, nil
	}
	b := &blob{desc: desc, parent: n}
	g.blobs[desc.Digest] = b
	g.order = append(g.order, b)
	return desc.Size, nil
}

func (g *graph) skip(desc registry.Descriptor) {
	said := fmt.Sprintf("%s (%s)", desc.Digest, desc.MediaType)
	if !slices.Contains(g.skipped, said) {
		g.skipped = append(g.skipped, said)
	}
}

func twoSizes(desc registry.Descriptor, other int64) error {
	return fmt.Errorf("%s is said to have %d bytes and %d bytes: %w", desc.Digest, desc.Size, other, ErrUnsupported)
}

// settleHeight computes how far above its lowest descendant each node is. Nodes of one height do not refer to each
// other, so they can be written at once after all lower ones.
func (n *node) settleHeight() int {
	if n.height >= 0 {
		return n.height
	}
	n.height = 0 // also ends a cycle, if digests were ever made to lie
	height := 0
	for _, child := range n.children {
		height = max(height, child.settleHeight()+1)
	}
	n.height = height
	return height
}

// rows returns the nodes below the root that are to be written, by height.
func (g *graph) rows() [][]*node {
	rows := make([][]*node, g.root.height)
	for _, n := range g.manifests {
		if n != g.root && !n.known {
			rows[n.height] = append(rows[n.height], n)
		}
	}
	return rows
}

// path names a manifest with its parents, the root first.
func (n *node) path() string {
	var names []string
	for ; n != nil; n = n.parent {
		names = append(names, "manifest "+n.desc.Digest)
	}
	slices.Reverse(names)
	return strings.Join(names, " -> ")
}

func (b *blob) path() string {
	return fmt.Sprintf("%s -> blob %s (%s)", b.parent.path(), b.desc.Digest, b.desc.MediaType)
}
