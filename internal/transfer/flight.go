package transfer

import (
	"context"
	"slices"
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

// flights are the blobs on their way to one destination, and what landed there lately.
//
// A copy asks the Index when it begins, and tells it when it ends. What lands between is told to other copies here: until
// the Index knows it, and from then on to those that had asked before.
type flights struct {
	mu      sync.Mutex
	up      map[flightKey]*flight
	clock   int64                // rises whenever the Index is told
	landed  map[string][]landing // by digest
	told    []landing            // in the order in which the Index was told
	askings map[int64]int        // how many copies that are under way asked at which time
}

// landing is a digest in a repository.
type landing struct {
	digest, repository string
	told               int64 // when the Index was told; 0 = it was not
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

// ask returns the time from which on a copy asks the Index. It must be given to answered when the copy ends.
func (f *flights) ask() int64 {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.askings == nil {
		f.askings = make(map[int64]int)
	}
	f.askings[f.clock]++
	return f.clock
}

// answered ends what ask began, and forgets what only that copy had to be told.
func (f *flights) answered(asked int64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.askings[asked]--; f.askings[asked] > 0 {
		return
	}
	delete(f.askings, asked)
	oldest := f.clock
	for at := range f.askings {
		oldest = min(oldest, at)
	}
	for len(f.told) > 0 && f.told[0].told <= oldest {
		f.drop(f.told[0])
		f.told = f.told[1:]
	}
}

// drop needs f.mu.
func (f *flights) drop(l landing) {
	rest := slices.DeleteFunc(f.landed[l.digest], func(other landing) bool { return other == l })
	if f.landed[l.digest] = rest; len(rest) == 0 {
		delete(f.landed, l.digest)
	}
}

// note notes that the repository has the digest. It comes before the end of the flight.
func (f *flights) note(digest, repository string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.landed == nil {
		f.landed = make(map[string][]landing)
	}
	f.landed[digest] = append(f.landed[digest], landing{digest: digest, repository: repository})
}

// landedAt returns where the digest has landed that the Index did not know of at the time: the repository itself, if it
// did there, else another one, or "".
func (f *flights) landedAt(digest, repository string, asked int64) (where string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, l := range f.landed[digest] {
		if l.told > 0 && l.told <= asked {
			continue
		}
		if where = l.repository; where == repository {
			break
		}
	}
	return where
}

// tell notes that the Index knows, or will never know, what landed in the repository.
func (f *flights) tell(repository string, digests []string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.clock++
	for _, digest := range digests {
		for i, l := range f.landed[digest] {
			if l.repository == repository && l.told == 0 {
				l.told = f.clock
				f.landed[digest][i] = l
				f.told = append(f.told, l)
			}
		}
	}
}
