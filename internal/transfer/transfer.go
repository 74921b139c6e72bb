// Package transfer copies one manifest graph (an image, an index with its children, an artifact) from one registry to
// another: byte for byte, with the fewest requests that can do it, and never leaving a tag on something incomplete.
//
// # What it guarantees
//
//   - Order. Blobs first, then child manifests from the leaves upward, then the root under each tag. A tag therefore
//     never names a graph that is not complete, wherever the process is killed.
//   - Exactness. Every manifest and every blob is checked against its digest and its size on the way. The last bytes of
//     a blob are handed to the upload only when the digest of the whole matched, so that wrong bytes are not committed
//     even by a registry that does not check them itself.
//   - Economy. A new image of N layers costs N+2 requests at the source and 2(N+1)+1 at the destination. What the Index
//     remembers costs none; what another repository of the destination has is mounted; a blob that another copy is
//     moving right now is waited for; an interrupted download goes on at the byte where it broke.
//   - Healing. The Index is a memory, not the truth. When the destination says that something is missing, what was
//     remembered is forgotten and the graph is done once more without it.
//   - Memory does not depend on the size of blobs. Manifests of one graph are held until they are written, within
//     maxManifestBytes.
//
// # What it refuses
//
// Docker image manifests of schema 1, and manifests of a media type whose references are not known: their completeness
// could not be promised. Such refusals match ErrUnsupported. Layers that are marked as non-distributable and name the
// URLs to have them from are not copied and are listed in Result.Skipped.
//
// A subject is not a child: copying a referrer does not pull in what it refers to (OCI distribution-spec v1.1,
// "Pushing Manifests with Subject", allows a subject that is absent).
package transfer

import (
	"context"
	"errors"
	"io"
	"log/slog"

	"github.com/antipode-registry/antipode/internal/registry"
	"github.com/antipode-registry/antipode/internal/telemetry"
)

// ErrUnsupported is matched by the error of Copy when the graph holds something that cannot be replicated exactly,
// whatever is tried again: schema 1, a manifest of unknown type, a malformed or ambiguous manifest, a graph beyond the
// bounds.
var ErrUnsupported = errors.New("cannot be replicated")

// Source is where a graph is read from. *registry.Registry implements it. It must be safe for concurrent use.
type Source interface {
	Manifest(ctx context.Context, repository, reference string) (registry.Manifest, error)
	Blob(ctx context.Context, repository string, desc registry.Descriptor, offset int64) (io.ReadCloser, error)
}

// Destination is where a graph is written to. *registry.Registry implements it. It must be safe for concurrent use.
type Destination interface {
	Manifest(ctx context.Context, repository, reference string) (registry.Manifest, error)
	PutBlob(ctx context.Context, repository string, desc registry.Descriptor, mountFrom string,
		content func() (io.ReadCloser, error)) (mounted bool, err error)
	PutManifest(ctx context.Context, repository, reference string, m registry.Manifest) error
}

// Index remembers what the destination holds. Content is a blob, or a manifest whose whole sub-graph was written. It
// may be out of date: a wrong answer costs requests, not correctness. It must be safe for concurrent use.
//
// A copy asks it for many digests at a time, and tells it of what it wrote together: when the copy ends, or with those of
// other copies to the same repository (Notes), and whenever noteBytes or noteDigests have come together before that. What
// a killed process did not tell is asked of the destination by the next attempt, which mounts what is there.
type Index interface {
	// Find returns where the digests are known to be: repository itself where it has one, else another. One that is known
	// nowhere is left out.
	Find(ctx context.Context, repository string, digests ...string) (where map[string]string, err error)
	Record(ctx context.Context, repository string, digests ...string) error
	Forget(ctx context.Context, repository string, digests ...string) error
}

// Options of a Copier. The zero value is usable.
type Options struct {
	Blobs       int          // blobs in flight over all copies; 0 = 8
	UrgentBlobs int          // how many more that are urgent, when those are all in use; 0 = 2
	Logger      *slog.Logger // nil = nothing is logged
	Metrics     *Metrics     // nil = nothing is counted
	Tracer      *telemetry.Tracer
}

// Request says which graph goes where.
type Request struct {
	Source           Source
	SourceRepository string
	Repository       string       // on the destination
	Root             registry.Tag // digest, media type and size (bytes; 0 = not known); Name is not used

	// Manifest is Root's bytes where they are at hand already. Those that are not what Root says are not used: the source
	// is asked for them, as it is where this is nil.
	Manifest []byte

	// Notes are shared by copies to Repository that are made together, and told by who makes them. Nil: the copy's own.
	Notes *Notes

	// Tags are written last, each a PutManifest of the root's bytes. Without any the root is written by its digest.
	Tags []string

	// Progress hears of bytes: those done and those to do, of blobs alone. Total grows while manifests are read; what
	// is mounted or was there already counts as done. Calls come from many goroutines but never overlap. Both numbers
	// start anew when the graph has to be done again. It may be nil, and must not block.
	Progress func(done, total int64)

	// Urgent puts this copy before others where they wait for a turn: it may use Options.UrgentBlobs, a blob that it
	// shares with a copy that still waits is urgent for both, and its requests pass those of others (WithUrgency of package
	// registry). It is for a change that somebody waits for, as opposed to a backfill.
	Urgent bool

	// Found hears of each manifest of the graph that has a subject, before anything of the graph is written. Its error
	// ends the copy. What the Index vouches for is not read again, and hence not found. It may be nil.
	Found func(ctx context.Context, digest, subject string) error

	// Repair uploads everything, whatever the Index remembers and whatever could be mounted: for content that was
	// found damaged in the destination.
	Repair bool
}

// Result says what a Copy did. It is filled as far as things went when Copy returns an error.
type Result struct {
	Bytes        int64            // of blobs, read from the source
	BlobsCopied  int              // uploaded
	BlobsMounted int              // taken from a repository of the destination
	Skipped      []string         // "DIGEST (MEDIA TYPE)" of each non-distributable layer that was not copied
	Subject      string           // digest of the root's subject; "" = none, or the root's manifest was not read
	TagErrors    map[string]error // tags that could not be written; nil = none
}

const (
	defaultBlobs       = 8
	defaultUrgentBlobs = 2
)

// Copier copies graphs to one destination. It is safe for concurrent use; copies share the bound on blobs in flight and
// wait for each other's blobs instead of copying them twice.
type Copier struct {
	dst     Destination
	index   Index
	logger  *slog.Logger
	metrics *Metrics
	tracer  *telemetry.Tracer
	blobs   int
	slots   *slots
	flights flights
}

// New returns a Copier that writes to dst and remembers in index.
func New(dst Destination, index Index, opts Options) *Copier {
	if opts.Blobs <= 0 {
		opts.Blobs = defaultBlobs
	}
	if opts.UrgentBlobs <= 0 {
		opts.UrgentBlobs = defaultUrgentBlobs
	}
	if opts.Logger == nil {
		opts.Logger = slog.New(slog.DiscardHandler)
	}
	return &Copier{
		dst: dst, index: index, logger: opts.Logger, metrics: opts.Metrics, tracer: opts.Tracer,
		blobs: opts.Blobs, slots: newSlots(opts.Blobs, opts.UrgentBlobs),
	}
}

// Copy brings the graph of req.Root to the destination and writes req.Tags.
//
// A nil error means that the graph is complete at the destination; tags that could not be written are in
// Result.TagErrors, each with its reason, and do not keep their siblings from being written. An error means that the
// graph could not be completed and no tag was written, or that ctx or its guard (registry.WithGuard) stopped the writes
// midway. It matches registry.ErrNotFound, in a registry.Error of side Source, when something vanished meanwhile (list
// again), and ErrUnsupported when another attempt is of no use; it names the chain of manifests down to what failed.
// Blobs that were done by then are remembered: the next attempt does not copy them again. When one blob fails, those
// under way are finished for the same reason and no other is begun.
func (c *Copier) Copy(ctx context.Context, req Request) (Result, error) {
	growStack(0)
	if req.Urgent {
		ctx = registry.WithUrgency(ctx)
	}
	ctx, span := c.tracer.Within(ctx, "copy graph", telemetry.About{Repository: req.Repository, Digest: req.Root.Digest})
	defer span.End()
	j := newJob(c, req)
	err := j.run(ctx)
	result := j.snapshot()
	span.Number("bytes", result.Bytes)
	span.Number("blobs_copied", int64(result.BlobsCopied))
	span.Number("blobs_mounted", int64(result.BlobsMounted))
	span.Fail(registry.SideOf(err), err)
	return result, err
}
