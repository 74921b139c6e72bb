package registry

import (
	"container/list"
	"context"
)

type urgencyKey struct{}

// WithUrgency marks the requests that are made with the returned context as urgent: they pass those that are not,
// wherever a handle makes requests wait for their turn. It is for changes that somebody waits for, against floods such
// as the listings of a backfill. Neither a pause that the registry has asked for nor the number of requests in flight
// is different for them, and one request in eight is not urgent as long as any such waits.
func WithUrgency(ctx context.Context) context.Context {
	return context.WithValue(ctx, urgencyKey{}, true)
}

func isUrgent(ctx context.Context) bool {
	urgent, _ := ctx.Value(urgencyKey{}).(bool)
	return urgent
}

// maxFavoured is how many urgent requests in a row pass ones that are not.
const maxFavoured = 7

// queue holds the requests that wait for their turn: each kind first come, first served, the urgent ones before the
// others. Its user locks.
type queue struct {
	urgent, others list.List // of *place
	favoured       int       // urgent ones in a row that have passed others
}

// place is a request's place in a queue.
type place struct {
	ready   chan struct{} // closed when it is the request's turn
	line    *list.List
	element *list.Element
}

func (q *queue) Len() int { return q.urgent.Len() + q.others.Len() }

func (q *queue) enter(urgent bool) *place {
	p := &place{ready: make(chan struct{}), line: &q.others}
	if urgent {
		p.line = &q.urgent
	}
	p.element = p.line.PushBack(p)
	return p
}

// leave gives up a place whose turn has not come.
func (q *queue) leave(p *place) { p.line.Remove(p.element) }

// admit tells the next request that it is its turn; there must be one.
func (q *queue) admit() {
	line := &q.others
	switch {
	case q.others.Len() == 0:
		line = &q.urgent
	case q.urgent.Len() > 0 && q.favoured < maxFavoured:
		line = &q.urgent
		q.favoured++
	default:
		q.favoured = 0
	}
	p, _ := line.Remove(line.Front()).(*place)
	close(p.ready)
}
