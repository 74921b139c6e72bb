package replicate

import (
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/antipode-registry/antipode/secondaryd/internal/plan"
)

// Active is a repository being synced now. Its counters are safe for concurrent use.
type Active struct {
	Repository  string
	StartedAt   time.Time
	done, total atomic.Int64

	mu      sync.Mutex
	left    map[string]string    // what the plan says and is not done: tags with their digests, "" for a removal
	seconds [rateOver + 1]second // a ring: the seconds that count, and the one that runs
}

// rateOver is how many seconds a rate is the mean of.
const rateOver = 5

// second is how many bytes were written in one.
type second struct{ at, bytes int64 }

// wrote counts bytes towards the rate.
func (a *Active) wrote(bytes int64) {
	a.mu.Lock()
	defer a.mu.Unlock()
	now := time.Now().Unix()
	s := &a.seconds[now%int64(len(a.seconds))]
	if s.at != now {
		*s = second{at: now}
	}
	s.bytes += bytes
}

// Rate returns how many bytes a second were written in the last five whole seconds.
func (a *Active) Rate() int64 {
	a.mu.Lock()
	defer a.mu.Unlock()
	now, sum := time.Now().Unix(), int64(0)
	for _, s := range a.seconds {
		if s.at < now && s.at >= now-rateOver {
			sum += s.bytes
		}
	}
	return sum / rateOver
}

// Bytes returns how many bytes were written by this attempt, and how many it is known to need so far.
func (a *Active) Bytes() (done, total int64) { return a.done.Load(), a.total.Load() }

// progress returns the callback for one of the attempt's copies: each reports its own running totals, which are added
// up here.
func (a *Active) progress() func(done, total int64) {
	var lastDone, lastTotal atomic.Int64
	return func(done, total int64) {
		wrote := done - lastDone.Swap(done)
		a.done.Add(wrote)
		a.wrote(wrote)
		a.total.Add(total - lastTotal.Swap(total))
	}
}

// plan notes what is to be done, in the place of what was before.
func (a *Active) plan(p plan.Plan) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.left = map[string]string{}
	for _, step := range p.Copies {
		for _, tag := range step.Tags {
			a.left[tag.Name] = step.Digest
		}
	}
	for _, removal := range p.Removals {
		a.left[removal.Tag] = ""
	}
}

// did notes that a tag is written, or gone.
func (a *Active) did(tag string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	delete(a.left, tag)
}

// Unfinished returns what is planned and not done: tags, or references of manifests without one, with the digests that
// they are to have; an empty digest is a removal.
func (a *Active) Unfinished() map[string]string {
	a.mu.Lock()
	defer a.mu.Unlock()
	return maps.Clone(a.left)
}

// active is the set of repositories being synced.
type active struct {
	mu  sync.Mutex
	set map[*Active]bool
}

func (a *active) begin(repository string) (work *Active, end func()) {
	work = &Active{Repository: repository, StartedAt: time.Now()}
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.set == nil {
		a.set = map[*Active]bool{}
	}
	a.set[work] = true
	return work, func() {
		a.mu.Lock()
		defer a.mu.Unlock()
		delete(a.set, work)
	}
}

// Active returns what is being synced now, by repository.
func (e *Engine) Active() []*Active {
	e.active.mu.Lock()
	defer e.active.mu.Unlock()
	list := make([]*Active, 0, len(e.active.set))
	for work := range e.active.set {
		list = append(list, work)
	}
	slices.SortFunc(list, func(a, b *Active) int { return strings.Compare(a.Repository, b.Repository) })
	return list
}
