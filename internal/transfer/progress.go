package transfer

import (
	"math"
	"sync"
)

// progress adds up bytes and reports each change. Reports are made under its lock, so they come in order.
type progress struct {
	report      func(done, total int64)
	mu          sync.Mutex
	done, total int64
}

func (p *progress) add(n int64)  { p.change(n, 0) }
func (p *progress) grow(n int64) { p.change(0, n) }

func (p *progress) change(done, total int64) {
	if p.report == nil || done == 0 && total == 0 {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.done = sum(p.done, done)
	p.total = sum(p.total, total)
	p.report(p.done, p.total)
}

// restart forgets what an earlier attempt did.
func (p *progress) restart() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.done, p.total = 0, 0
}

// sum adds sizes. What manifests claim may be as large as they like, and together be more than can be counted.
func sum(a, b int64) int64 {
	if b > math.MaxInt64-a {
		return math.MaxInt64
	}
	return a + b
}
