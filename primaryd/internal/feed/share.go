package feed

import (
	"context"
	"sync"
	"time"
)

// sharedFor is how long a read may be shared once it has begun. A history that was rewritten meanwhile is heard of by
// then, or a moment later, as without sharing.
const sharedFor = time.Second

// Follow is Read for many who follow the feed: those that ask after the same cursor share one read, so that a change
// costs the database the same however many sites are told of it. The rows are shared too, and must not be changed.
//
// A read that is shared has begun after the wake of Watch that made its caller ask, so that it holds what the wake was for.
func (f *Feed) Follow(ctx context.Context, after Cursor, limit int) (rows []Row, standing Standing, err error) {
	r, mine := f.reads.join(readKey{after: after, limit: limit, heard: f.watchers.newest()})
	if mine {
		// Others wait for it too, so it does not end with this caller. The database's own patience bounds it.
		r.rows, r.standing, r.err = f.Read(context.WithoutCancel(ctx), after, limit)
		f.reads.end(r)
	}
	select {
	case <-r.ended:
		return r.rows, r.standing, r.err
	case <-ctx.Done():
		return nil, Standing{}, ctx.Err()
	}
}

// readKey is what a read is about, and what this process had heard of the feed when it began.
type readKey struct {
	after Cursor
	limit int
	heard Standing
}

// read is one that is shared. What it came to is to be looked at once ended is closed.
type read struct {
	key      readKey
	began    time.Time
	ended    chan struct{}
	rows     []Row
	standing Standing
	err      error
}

// reads are those that run, and the last that succeeded.
type reads struct {
	mu      sync.Mutex
	running map[readKey]*read
	last    *read
}

// join returns a read, and whether it is the caller's to make and to end.
func (s *reads) join(key readKey) (r *read, mine bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if r = s.running[key]; r != nil {
		return r, false
	}
	if r = s.last; r != nil && r.key == key && time.Since(r.began) < sharedFor {
		return r, false
	}
	r = &read{key: key, began: time.Now(), ended: make(chan struct{})}
	s.running[key] = r
	return r, true
}

func (s *reads) end(r *read) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.running, r.key)
	if r.err == nil {
		s.last = r
	}
	close(r.ended)
}
