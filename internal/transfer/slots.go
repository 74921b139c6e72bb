package transfer

import (
	"container/list"
	"context"
	"sync"
)

// maxFavoured is how many urgent blobs in a row pass ones that are not.
const maxFavoured = 7

// slots bound the blobs in flight. Common ones are for all, urgent blobs first; the reserve is for urgent blobs alone,
// once no common one is free. So a few huge blobs of a backfill cannot make a live change wait until one of them is
// done, and a stream of live changes leaves the backfill one common slot in eight.
type slots struct {
	mu       sync.Mutex
	common   int       // free
	reserve  int       // free
	urgent   list.List // of *slot, first come, first served
	others   list.List // likewise
	favoured int       // urgent ones in a row that have passed others
}

// slot is one blob's, or its place in the line for one.
type slot struct {
	ready    chan struct{} // closed when it is granted
	urgent   bool
	reserved bool // it is of the reserve; to be read once it is granted
	element  *list.Element
}

func newSlots(common, reserve int) *slots { return &slots{common: common, reserve: reserve} }

// acquire waits for a slot, which must be released. It becomes urgent when hurry, which may be nil, is closed
// meanwhile. The error is the context's.
func (s *slots) acquire(ctx context.Context, urgent bool, hurry <-chan struct{}) (*slot, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	own := s.enter(urgent)
	for {
		select {
		case <-own.ready:
			return own, nil
		case <-hurry:
			s.promote(own)
			hurry = nil
		case <-ctx.Done():
			s.leave(own)
			return nil, ctx.Err()
		}
	}
}

func (s *slots) enter(urgent bool) *slot {
	s.mu.Lock()
	defer s.mu.Unlock()
	own := &slot{ready: make(chan struct{}), urgent: urgent}
	own.element = s.line(urgent).PushBack(own)
	s.admit()
	return own
}

func (s *slots) line(urgent bool) *list.List {
	if urgent {
		return &s.urgent
	}
	return &s.others
}

// promote makes a slot urgent. One that was granted already stays what it is.
func (s *slots) promote(own *slot) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if own.urgent || own.granted() {
		return
	}
	s.others.Remove(own.element)
	own.urgent = true
	own.element = s.urgent.PushBack(own)
	s.admit()
}

// leave gives up the place, or the slot when it was granted at the same moment.
func (s *slots) leave(own *slot) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if own.granted() {
		s.free(own)
		return
	}
	s.line(own.urgent).Remove(own.element)
}

func (s *slots) release(own *slot) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.free(own)
}

// free needs s.mu.
func (s *slots) free(own *slot) {
	if own.reserved {
		s.reserve++
	} else {
		s.common++
	}
	s.admit()
}

// admit grants what is free. It needs s.mu.
func (s *slots) admit() {
	for s.common > 0 && s.urgent.Len()+s.others.Len() > 0 {
		s.common--
		s.grant(s.next(), false)
	}
	for s.reserve > 0 && s.urgent.Len() > 0 {
		s.reserve--
		s.grant(&s.urgent, true)
	}
}

// next is the line whose turn it is for a common slot.
func (s *slots) next() *list.List {
	switch {
	case s.others.Len() == 0:
		return &s.urgent
	case s.urgent.Len() > 0 && s.favoured < maxFavoured:
		s.favoured++
		return &s.urgent
	}
	s.favoured = 0
	return &s.others
}

func (s *slots) grant(line *list.List, reserved bool) {
	own, _ := line.Remove(line.Front()).(*slot)
	own.reserved = reserved
	close(own.ready)
}

func (own *slot) granted() bool {
	select {
	case <-own.ready:
		return true
	default:
		return false
	}
}
