package sweep

import (
	"context"
	"sync"
	"time"
)

// spreadOver is the part of the interval that a round takes at least which is due by the clock alone: nobody waits for
// it, and the registry is spared a burst.
const spreadOver = 20

// pace spreads the repositories of a round over time until somebody is in a hurry. A nil pace holds up nothing.
type pace struct {
	step  time.Duration // from one repository to the next
	next  time.Time
	hurry chan struct{}
}

// await waits for the next repository's turn, which comes at once when it is overdue.
func (p *pace) await(ctx context.Context) {
	if p == nil {
		return
	}
	now := time.Now()
	if p.next.Before(now) {
		p.next = now
	}
	timer := time.NewTimer(p.next.Sub(now))
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-p.hurry:
	case <-ctx.Done():
	}
	p.next = p.next.Add(p.step)
}

// hurries lets Now end the pacing of the round that runs.
type hurries struct {
	mu    sync.Mutex
	round chan struct{} // closed by Now; nil = no round is paced
}

// begin returns what is closed when there is a hurry in the round that begins.
func (h *hurries) begin() chan struct{} {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.round = make(chan struct{})
	return h.round
}

func (h *hurries) up() {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.round != nil {
		close(h.round)
		h.round = nil
	}
}
