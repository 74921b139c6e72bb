package listing

import (
	"context"
	"sync"
	"time"

	"github.com/antipode-registry/antipode/internal/registry"
	"github.com/antipode-registry/antipode/internal/telemetry"
)

// walkTimeout bounds one walk, however patient its callers are: 5,000 tags at 50 ms round trip and 16 requests in
// flight take 16 s.
const walkTimeout = 15 * time.Minute

// key names a walk that callers may share. The revision is part of it: a caller that knows of a newer change must not
// be answered by a walk that began before it.
type key struct {
	repository string
	revision   int64
	since      int64 // 0 for a complete listing
	carries    bool  // whether manifests come along
}

// group lets simultaneous callers share a walk. A walk goes on while at least one caller waits for it.
type group struct {
	tracer *telemetry.Tracer
	mu     sync.Mutex
	walks  map[key]*walk
}

type walk struct {
	done    chan struct{}
	listing Listing
	err     error
	callers int
	cancel  context.CancelFunc
	span    telemetry.Span // below that of the caller who began it; the others' are linked with it
}

// do returns what run returns, run by this caller or by an earlier one that is still waiting.
func (g *group) do(ctx context.Context, k key, run func(context.Context) (Listing, error)) (Listing, error) {
	w := g.join(ctx, k, run)
	defer g.leave(k, w)
	select {
	case <-w.done:
		return w.listing, w.err
	case <-ctx.Done():
		return Listing{}, context.Cause(ctx)
	}
}

func (g *group) join(ctx context.Context, k key, run func(context.Context) (Listing, error)) *walk {
	g.mu.Lock()
	defer g.mu.Unlock()
	if w, ok := g.walks[k]; ok {
		w.callers++
		w.span.Join(ctx)
		return w
	}
	// The walk outlives the caller that began it, if others joined: it keeps the values of its context, not its end.
	detached, cancel := context.WithTimeout(context.WithoutCancel(ctx), walkTimeout)
	detached, span := g.tracer.Within(detached, "walk registry", telemetry.About{Repository: k.repository, Revision: k.revision})
	w := &walk{done: make(chan struct{}), callers: 1, cancel: cancel, span: span}
	g.walks[k] = w
	go func() {
		defer close(w.done)
		defer g.forget(k, w)
		w.listing, w.err = run(detached)
		span.Number("tags", int64(len(w.listing.Tags)))
		span.Fail(registry.SideOf(w.err), w.err)
		span.End()
	}()
	return w
}

func (g *group) leave(k key, w *walk) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if w.callers--; w.callers == 0 {
		w.cancel()
		if g.walks[k] == w {
			delete(g.walks, k)
		}
	}
}

// forget takes a finished walk out of the way: who comes later gets a walk of its own, never a stored answer.
func (g *group) forget(k key, w *walk) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.walks[k] == w {
		delete(g.walks, k)
	}
}
