// Package connections bounds how many connections a server holds.
//
// It guarantees that there are never more than so many, and that idle ones keep nobody out: for one too many, the
// connection that has been at rest longest is closed. Only when something runs on every one is the new one closed
// instead. It also bounds how many of them one owner holds. It refuses nobody by address: behind a load balancer all
// come from one.
package connections

import (
	"container/list"
	"log/slog"
	"net"
	"sync"
	"time"

	"golang.org/x/time/rate"
)

// Listener accepts connections of another one within the bound. A new connection is at rest. It is safe for concurrent
// use.
type Listener struct {
	net.Listener

	most   int
	logger *slog.Logger
	said   rate.Sometimes

	mu      sync.Mutex
	held    int
	resting *list.List     // of *conn, the one that has been at rest longest first
	owners  map[string]int // how many each holds
}

// conn is one of a Listener's. Its state belongs to the listener's lock.
type conn struct {
	net.Conn

	from   *Listener
	rest   *list.Element // in resting; nil while something runs on it, and when it is closed
	owner  string
	closed bool
}

// Limit returns a Listener that holds at most so many connections. The logger hears of those that had to go, once a
// minute.
func Limit(inner net.Listener, most int, logger *slog.Logger) *Listener {
	return &Listener{
		Listener: inner, most: most, logger: logger, said: rate.Sometimes{Interval: time.Minute},
		resting: list.New(), owners: map[string]int{},
	}
}

// Accept implements net.Listener.
func (l *Listener) Accept() (net.Conn, error) {
	for {
		inner, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		c := &conn{Conn: inner, from: l}
		surplus := l.admit(c)
		if surplus == nil {
			return c, nil
		}
		l.said.Do(func() {
			l.logger.Warn("too many connections; closing those that are at rest, the longest first",
				"address", l.Addr().String(), "most", l.most)
		})
		_ = surplus.Close() // its peer may have closed it already
		if surplus != c {
			return c, nil
		}
	}
}

// admit counts c in and returns the connection that has to go for it, if any.
func (l *Listener) admit(c *conn) (surplus *conn) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.held++
	if l.held > l.most {
		surplus = c
		if longest := l.resting.Front(); longest != nil {
			surplus = longest.Value.(*conn) //nolint:forcetypeassert // nothing else is in the list
			surplus.wake()
		}
	}
	if surplus != c {
		c.rest = l.resting.PushBack(c)
	}
	return surplus
}

// wake takes c from the list. The lock is held.
func (c *conn) wake() {
	if c.rest != nil {
		c.from.resting.Remove(c.rest)
		c.rest = nil
	}
}

// Rest says that nothing runs on a connection that this listener accepted.
func (l *Listener) Rest(accepted net.Conn) {
	c, ours := accepted.(*conn)
	if !ours {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if c.wake(); !c.closed {
		c.rest = l.resting.PushBack(c)
	}
}

// Busy says that something runs on it now.
func (l *Listener) Busy(accepted net.Conn) {
	if c, ours := accepted.(*conn); ours {
		l.mu.Lock()
		defer l.mu.Unlock()
		c.wake()
	}
}

// Own is Busy for good, and says whose it is: false when that owner holds as many already.
func (l *Listener) Own(accepted net.Conn, owner string, most int) bool {
	c, ours := accepted.(*conn)
	if !ours {
		return true
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if c.closed || c.owner != "" || l.owners[owner] >= most {
		return false
	}
	c.wake()
	c.owner = owner
	l.owners[owner]++
	return true
}

// Close implements net.Conn.
func (c *conn) Close() error {
	c.from.release(c)
	return c.Conn.Close()
}

func (l *Listener) release(c *conn) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if c.closed {
		return
	}
	c.wake()
	c.closed = true
	l.held--
	if c.owner == "" {
		return
	}
	if l.owners[c.owner]--; l.owners[c.owner] == 0 {
		delete(l.owners, c.owner)
	}
}
