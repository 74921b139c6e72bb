package node

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

const (
	// missedReports make a node stale.
	missedReports = 3
	// downAfter is how long a node may be silent before it counts as down.
	downAfter = 5 * time.Minute
)

// State is the primary's verdict on a node.
type State string

// The states, as in antipode.v1.NodeState.
const (
	Unknown  State = "unknown"  // it never reported
	Healthy  State = "healthy"  // it reports, has everything or is about to, and nothing failed
	Syncing  State = "syncing"  // it reports, nothing failed, and changes wait to be copied
	Degraded State = "degraded" // it reports, and something failed, is held, or cannot be reached
	Paused   State = "paused"   // an operator paused it
	Stale    State = "stale"    // it missed three reports
	Promoted State = "promoted" // it follows this primary no more
	Down     State = "down"     // it has not reported for five minutes
)

// Node is a site as the primary knows it.
type Node struct {
	Name         string
	State        State
	Reasons      []string // sentences that say why the state is what it is; none when healthy
	Repositories []string // what it may see, as globs
	Head         int64    // the newest revision of the feed, as List and Get were given it
	// LagRevisions is the head less the revision up to which the node said it lacks nothing. It counts every revision of
	// the feed, also those of repositories that the node may not see, until the node has heard of them.
	LagRevisions int64
	// Lag is the age of the oldest change that the node is known to lack. What it reported grows until it reports
	// again. A node that lacked nothing keeps 0 while its next report is not overdue, since it may well have what came
	// after; when it is overdue and the head has moved, Lag is the time since the report.
	Lag           time.Duration
	ReportedAt    time.Time // zero = never
	Subscriptions int       // live ones, on this replica
	Status        *Status   // the last report; nil = never
}

// judge fills in what follows from the node's report, the head and the time.
func (n *Node) judge(now time.Time, interval time.Duration) {
	if n.Status == nil {
		n.State, n.LagRevisions = Unknown, n.Head
		n.Reasons = []string{"It never reported."}
		return
	}
	silent := max(0, now.Sub(n.ReportedAt))
	overdue := silent > interval
	n.LagRevisions = max(0, n.Head-n.Status.syncedRevision())
	switch {
	case n.Status.Lag > 0:
		n.Lag = n.Status.Lag + silent
	case n.LagRevisions > 0 && overdue:
		n.Lag = silent
	}
	n.State, n.Reasons = n.verdict(silent, interval)
}

// verdict goes from what overrides to what is overridden: of a node that is silent, the last report says little.
func (n *Node) verdict(silent, interval time.Duration) (State, []string) {
	if silent >= min(missedReports*interval, downAfter) {
		// The time of the report and not the time since: the sentence stays the same until the state changes.
		reasons := []string{fmt.Sprintf("Its last report came at %s; one is due every %s.",
			n.ReportedAt.UTC().Format(time.RFC3339), interval)}
		if silent >= downAfter {
			return Down, reasons
		}
		return Stale, reasons
	}
	problems := n.Status.reasons()
	switch {
	case !n.Status.PromotedAt.IsZero():
		return Promoted, []string{fmt.Sprintf("It was promoted at %s and follows this primary no more.",
			n.Status.PromotedAt.UTC().Format(time.RFC3339))}
	case n.Status.Paused:
		return Paused, append([]string{"An operator paused it."}, problems...)
	case len(problems) > 0:
		return Degraded, problems
	}
	if waiting := n.waiting(silent > interval); len(waiting) > 0 {
		return Syncing, waiting
	}
	return Healthy, nil
}

// reasons are what is wrong by the node's own report: in its own words, or in ours where it has none for its numbers.
func (s Status) reasons() []string {
	if len(s.Problems) > 0 {
		reasons := slices.Clone(s.Problems)
		if s.LastError != nil {
			reasons = append(reasons, s.LastError.Sentence())
		}
		return reasons
	}
	var reasons []string
	add := func(when bool, format string, args ...any) {
		if when {
			reasons = append(reasons, fmt.Sprintf(format, args...))
		}
	}
	add(!s.Connected, "It is not subscribed to the primary's changes.")
	add(!s.RegistryReachable, "Its registry does not answer.")
	add(!s.DatabaseReachable, "Its database does not answer.")
	counts := s.Repositories
	add(counts.Failed > 0, "%d of %d repositories failed to sync and will be tried again.", counts.Failed, counts.Total)
	add(counts.Held > 0, "%d of %d repositories hold back removals until an operator releases them.",
		counts.Held, counts.Total)
	add(s.LastError != nil, "%s", s.LastError.Sentence())
	return reasons
}

// Sentence says what failed, as it stands among a node's reasons; empty of no failure.
func (e *SyncError) Sentence() string {
	if e == nil {
		return ""
	}
	what := e.Repository
	if e.Reference != "" {
		what += " at " + e.Reference
	}
	if e.Side != SideUnspecified {
		what += ", " + string(e.Side) + " side"
	}
	return fmt.Sprintf("The newest failure is of %s: %s.", what, strings.TrimRight(e.Message, "."))
}

// waiting are the sentences of a node that has work before it. The head's moving after a report is not held against the
// node before its next report is overdue.
func (n *Node) waiting(overdue bool) []string {
	counts := n.Status.Repositories
	switch {
	case counts.Pending+counts.Syncing > 0:
		return []string{fmt.Sprintf("Repositories being synced: %d, waiting: %d.", counts.Syncing, counts.Pending)}
	case n.Status.LagRevisions > 0, n.LagRevisions > 0 && overdue:
		return []string{fmt.Sprintf("It is %d revisions behind.", n.LagRevisions)}
	}
	return nil
}

// nextChange is when time alone will change what is said of a node that reported then; zero when it will not.
func nextChange(reported, now time.Time, interval time.Duration) time.Time {
	for _, after := range []time.Duration{interval + 1, missedReports * interval, downAfter} {
		if at := reported.Add(after); at.After(now) {
			return at
		}
	}
	return time.Time{}
}
