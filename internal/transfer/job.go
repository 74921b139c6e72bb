package transfer

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/antipode-registry/antipode/internal/registry"
)

// trust is how much of what is believed to be at the destination is taken for granted. A copy starts with trustIndex
// and goes on with trustMounts when the destination misses something that was taken for granted. It does not go further
// by itself: some complaints last (see refused), and would cost the whole graph with each attempt.
type trust int

const (
	trustIndex   trust = iota // what the Index has is not looked at again
	trustMounts               // every blob is asked for; a mount that the destination grants is believed
	trustNothing              // every blob is uploaded; for Request.Repair
)

// errIndexLied says that the destination does not have a root that the Index has.
var errIndexLied = errors.New("the destination has lost what was recorded of it")

// job is one Copy.
type job struct {
	*Copier
	req      Request
	progress progress

	// assumed counts what the present attempt took from the Index. Without any, a complaint about something missing
	// cannot be healed by trusting it less.
	assumed atomic.Int64
	asked   int64             // when the present attempt began to ask the Index; see flights
	answers map[string]string // what it was told by digest; "" = known nowhere
	notes   *Notes

	mu      sync.Mutex
	result  Result
	written map[string]bool // references of the root, done
}

func newJob(c *Copier, req Request) *job {
	notes := req.Notes
	if notes == nil {
		notes = c.Notes(req.Repository)
	}
	return &job{
		Copier: c, req: req, progress: progress{report: req.Progress}, notes: notes, written: make(map[string]bool),
	}
}

// run makes an attempt, and another with less trust when something is missing that the first took for granted.
func (j *job) run(ctx context.Context) error {
	level := trustIndex
	if j.req.Repair {
		level = trustNothing
	}
	if err := checkDigest(j.req.Root.Digest); err != nil {
		return j.wrap(err)
	}
	g, err := j.attempt(ctx, level)
	missing := errors.Is(err, registry.ErrBlobUnknown) || errors.Is(err, errIndexLied)
	if missing && level == trustIndex && j.assumed.Load() > 0 {
		j.logger.WarnContext(ctx, "the destination lacks what was recorded of it; the graph is done again",
			"repository", j.req.Repository, "digest", j.req.Root.Digest, "error", err)
		j.notes.drop(g.digests())
		if err := j.index.Forget(ctx, j.req.Repository, g.digests()...); err != nil {
			return j.wrap(fmt.Errorf("forget what the destination lacks: %w", err))
		}
		_, err = j.attempt(ctx, trustMounts)
	}
	return j.wrap(j.settle(ctx, err))
}

func (j *job) wrap(err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("copy %s@%s: %w", j.req.Repository, j.req.Root.Digest, err)
}

// attempt does the whole graph once. The graph is returned, as far as it was discovered, in case of an error too.
func (j *job) attempt(ctx context.Context, level trust) (*graph, error) {
	j.assumed.Store(0)
	j.progress.restart()
	g := newGraph(j.req.Root)
	j.asked, j.answers = j.flights.ask(), make(map[string]string)
	defer j.flights.answered(j.asked)
	digests, err := j.readCarried(g)
	if err != nil {
		return g, err
	}
	found, err := j.find(ctx, level, digests...)
	if err != nil {
		return g, err
	}
	near, known := j.place(level, g.root.desc.Digest, found)
	if known {
		j.assumed.Add(1)
		return g, j.retag(ctx, g)
	}
	g.root.near = near
	return g, j.tellOwn(ctx, j.write(ctx, level, g))
}

// write does a graph whose root the repository does not have.
func (j *job) write(ctx context.Context, level trust, g *graph) error {
	if err := j.discover(ctx, level, g); err != nil {
		return err
	}
	j.noteDiscovered(g)
	if err := j.tellSubjects(ctx, g); err != nil {
		return err
	}
	if err := j.copyBlobs(ctx, level, g); err != nil {
		return err
	}
	if err := j.putChildren(ctx, g); err != nil {
		return err
	}
	return j.writeRoot(ctx, g.root)
}

// find tells where digests are, with all below them, as far as is known: in the repository itself or in another one. Of
// what is known nowhere it tells "". What an attempt has asked the Index once it does not ask again.
func (j *job) find(ctx context.Context, level trust, digests ...string) (map[string]string, error) {
	if level == trustNothing {
		return nil, nil
	}
	unasked := slices.DeleteFunc(digests, func(digest string) bool {
		_, asked := j.answers[digest]
		return asked
	})
	if len(unasked) == 0 {
		return j.answers, nil
	}
	where, err := j.index.Find(ctx, j.req.Repository, unasked...)
	if err != nil {
		return nil, fmt.Errorf("look up %s: %w", unasked[0], err)
	}
	for _, digest := range unasked {
		j.answers[digest] = where[digest]
	}
	return j.answers, nil
}

// place is where a digest is: as other copies say that landed it meanwhile, or as was found before. known says that it may
// be taken to be in the repository.
func (j *job) place(level trust, digest string, found map[string]string) (where string, known bool) {
	if level == trustNothing {
		return "", false
	}
	own := j.req.Repository
	if where = found[digest]; where != own {
		if landed := j.flights.landedAt(digest, own, j.asked); landed != "" {
			where = landed
		}
	}
	return where, level == trustIndex && where == own
}

// noteDiscovered puts into the result what reading the manifests showed.
func (j *job) noteDiscovered(g *graph) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.result.Skipped = g.skipped
	j.result.Subject = g.root.document.subject
}

// tellSubjects calls Request.Found for the manifests that were read and have a subject, in a fixed order.
func (j *job) tellSubjects(ctx context.Context, g *graph) error {
	if j.req.Found == nil {
		return nil
	}
	for _, digest := range slices.Sorted(maps.Keys(g.manifests)) {
		subject := g.manifests[digest].document.subject
		if subject == "" {
			continue
		}
		if err := j.req.Found(ctx, digest, subject); err != nil {
			return fmt.Errorf("note the subject of %s: %w", digest, err)
		}
	}
	return nil
}

// settle turns an error that comes after some tag was written into the errors of the tags that were not. A stop by a guard
// or by the context stays an error: it is about the writer and not about a tag.
func (j *job) settle(ctx context.Context, err error) error {
	j.mu.Lock()
	defer j.mu.Unlock()
	var stop *stopError
	fenced := errors.Is(err, registry.ErrFenced)
	if err == nil || len(j.written) == 0 || ctx.Err() != nil || fenced || errors.As(err, &stop) {
		return err
	}
	for _, tag := range j.req.Tags {
		if !j.written[tag] && j.result.TagErrors[tag] == nil {
			j.noteTagError(tag, err)
		}
	}
	return nil
}

// read counts bytes that came from the source.
func (j *job) read(n int) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.result.Bytes += int64(n)
}

// noteTagError needs j.mu.
func (j *job) noteTagError(tag string, err error) {
	if j.result.TagErrors == nil {
		j.result.TagErrors = make(map[string]error)
	}
	j.result.TagErrors[tag] = err
}

func (j *job) snapshot() Result {
	j.mu.Lock()
	defer j.mu.Unlock()
	r := j.result
	r.Skipped = slices.Clone(r.Skipped)
	r.TagErrors = maps.Clone(r.TagErrors)
	return r
}
