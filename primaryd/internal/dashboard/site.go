package dashboard

import (
	"time"

	"github.com/antipode-registry/antipode/primaryd/internal/node"
)

// site is a node as it is shown.
type site struct {
	node.Node
	Lags, Bytes plot
	Bar         []segment
	Copying     []copying
	Rate        int64 // bytes per second of all that is being copied
	Remedies    []remedy
	troubled    []trouble
}

// segment is a part of the bar of repositories, in permille of its width.
type segment struct {
	Name     string
	Count    int64
	At, Wide int64
}

// copying is a repository being synced.
type copying struct {
	node.ActiveSync
	Rate      int64         // bytes per second
	Remaining time.Duration // 0 = not known
}

// remedy is what to do: a sentence, and what to type on the site.
type remedy struct{ Text, Command string }

func newSite(n node.Node, samples []node.Sample, now time.Time) *site {
	s := &site{
		Node: n,
		Lags: newPlot(samples, now, func(s node.Sample) float64 { return s.Lag.Seconds() }),
		Bytes: newPlot(samples, now, func(s node.Sample) float64 {
			return float64(s.BytesCopied) / 60
		}),
	}
	s.troubled = troubled(n)
	s.Reasons = s.reasons()
	s.Remedies = s.remedies()
	if n.Status == nil {
		return s
	}
	s.Bar = bar(n.Status.Repositories)
	if s.Silent() {
		return s // what it was copying then says nothing about now
	}
	for _, active := range n.Status.Active {
		c := newCopying(active)
		s.Copying, s.Rate = append(s.Copying, c), s.Rate+c.Rate
	}
	return s
}

func newCopying(active node.ActiveSync) copying {
	c := copying{ActiveSync: active, Rate: active.BytesPerSecond}
	if left := active.BytesTotal - active.BytesDone; c.Rate > 0 && left > 0 {
		c.Remaining = time.Duration(float64(left)/float64(c.Rate)) * time.Second
	}
	return c
}

// Silent says whether what the site reported is of some time ago.
func (s *site) Silent() bool { return s.State == node.Stale || s.State == node.Down }

// Bad says whether somebody should look.
func (s *site) Bad() bool { return s.rank() < paused }

// The ranks of the states, worst first.
const (
	down = iota
	degraded
	unknown
	paused
	syncing
	healthy
)

func (s *site) rank() int {
	switch s.State {
	case node.Down, node.Stale:
		return down
	case node.Degraded:
		return degraded
	case node.Unknown:
		return unknown
	case node.Syncing:
		return syncing
	case node.Healthy:
		return healthy
	case node.Paused, node.Promoted:
	}
	return paused
}

// Mark is a sign for the state, so that it does not rest on colour.
func (s *site) Mark() string {
	return []string{down: "✕", degraded: "!", unknown: "?", paused: "‖", syncing: "↻", healthy: "✓"}[s.rank()]
}

// Tone is the class of the state's colour.
func (s *site) Tone() string {
	return []string{down: "bad", degraded: "bad", unknown: "warn", paused: "warn", syncing: "busy", healthy: "good"}[s.rank()]
}

// remedies are what to do about the site's state, what helps most first.
func (s *site) remedies() []remedy {
	var list []remedy
	add := func(when bool, text, command string) {
		if when {
			list = append(list, remedy{Text: text, Command: command})
		}
	}
	silent := s.rank() == down || s.rank() == unknown
	add(silent, "See on the site whether secondaryd runs, and what keeps it from this primary:", "secondaryd doctor")
	add(s.State == node.Paused, "Let it go on:", "secondaryd resume")
	if s.Status == nil || silent {
		return list
	}
	add(!s.Status.Connected || !s.Status.RegistryReachable || !s.Status.DatabaseReachable,
		"See what the site cannot reach:", "secondaryd doctor")
	if failure := s.Status.LastError; failure != nil && isRepository(failure.Repository) && !s.lists(failure.Repository) {
		add(true, "See what happened to "+failure.Repository+":", "secondaryd explain "+failure.Repository)
	}
	counts := s.Status.Repositories
	nothing := len(s.troubled) == 0
	add(nothing && counts.Failed > 0, "List what failed; each is tried again by itself:", listFailed)
	add(nothing && counts.Held > 0, "List what is held, look at what would be removed, and release it:", listHeld)
	return list
}

func bar(counts node.RepositoryCounts) []segment {
	total := max(1, counts.Synced+counts.Pending+counts.Syncing+counts.Failed+counts.Held)
	segments := []segment{
		{Name: "synced", Count: counts.Synced},
		{Name: "syncing", Count: counts.Syncing},
		{Name: "pending", Count: counts.Pending},
		{Name: "failed", Count: counts.Failed},
		{Name: "held", Count: counts.Held},
	}
	at := int64(0)
	for i := range segments {
		s := &segments[i]
		s.At, s.Wide = at, s.Count*1000/total
		if s.Count > 0 {
			s.Wide = max(s.Wide, 8) // one of a million is still seen
		}
		at += s.Wide
	}
	// What was given to the small is taken from the large, which comes first.
	if over := at - 1000; at > 0 && segments[0].Wide > over {
		segments[0].Wide -= over
		for i := 1; i < len(segments); i++ {
			segments[i].At -= over
		}
	}
	return segments
}
