package replicate

import (
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// Active is a repository being synced now. Its counters are safe for concurrent use.
type Active struct {
	Repository  string
	StartedAt   time.Time
	done, total atomic.Int64
}

// Bytes returns how many bytes were written by this attempt, and how many it is known to need so far.
func (a *Active) Bytes() (done, total int64) { return a.done.Load(), a.total.Load() }

// progress returns the callback for one of the attempt's copies: each reports its own running totals, which are added
// up here.
func (a *Active) progress() func(done, total int64) {
	var lastDone, lastTotal atomic.Int64
	return func(done, total int64) {
		a.done.Add(done - lastDone.Swap(done))
		a.total.Add(total - lastTotal.Swap(total))
	}
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
