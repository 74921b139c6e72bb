package transfer

import (
	"context"
	"sync"
)

// flightKey names what is being done once at a time: a digest in any repository or, with a repository, a digest there.
type flightKey struct{ digest, repository string }

// flight is a blob on its way.
type flight struct {
	repository string // where it goes
	landed     chan struct{}
	done       bool          // it is there; to be read after landed is closed
	hurry      chan struct{} // closed when somebody urgent waits for it
	hurried    bool
}

// flights are the blobs on their way to one destination.
type flights struct {
	mu sync.Mutex
	up map[flightKey]*flight
}

// join returns the flight of key, and whether it is the caller's own, who then must land it.
func (f *flights) join(key flightKey, repository string) (*flight, bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if there := f.up[key]; there != nil {
		return there, false
	}
	if f.up == nil {
		f.up = make(map[flightKey]*flight)
	}
	own := &flight{repository: repository, landed: make(chan struct{}), hurry: make(chan struct{})}
	f.up[key] = own
	return own, true
}

// urge passes on that somebody urgent waits: whoever leads the flight may not have begun yet.
func (f *flights) urge(other *flight) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if !other.hurried {
		other.hurried = true
		close(other.hurry)
	}
}

// land ends a flight and wakes who waits for it. Those whose wait was in vain join again, and one of them takes over.
func (f *flights) land(key flightKey, own *flight, done bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	own.done = done
	delete(f.up, key)
	close(own.landed)
}

func (f *flight) wait(ctx context.Context) error {
	select {
	case <-f.landed:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
