package node

import (
	"strings"
	"testing"
	"time"
)

// verdictCase is a report, how long ago it came, the head now, and what follows.
type verdictCase struct {
	name    string
	change  func(*Status)
	silent  time.Duration
	head    int64
	state   State
	reason  string // part of the first one
	lagRevs int64
	lag     time.Duration
}

// fine is a report that gives no cause for complaint.
func fine() Status {
	return Status{
		Connected: true, RegistryReachable: true, DatabaseReachable: true, HeadRevision: 100,
		Repositories: RepositoryCounts{Total: 9, Synced: 9},
	}
}

// byReport are verdicts on fresh reports, byTime those in which time plays a part.
var (
	byReport = []verdictCase{
		{
			name: "work", head: 100, state: Syncing, reason: "waiting: 2",
			change: func(s *Status) { s.Repositories.Pending = 2 },
		},
		{
			name: "at work", head: 100, state: Syncing, reason: "being synced: 1",
			change: func(s *Status) { s.Repositories.Syncing = 1 },
		},
		{
			name: "failed", head: 100, state: Degraded, reason: "2 of 9 repositories failed",
			change: func(s *Status) { s.Repositories.Failed, s.Repositories.Pending = 2, 3 },
		},
		{
			name: "held", head: 100, state: Degraded, reason: "1 of 9 repositories hold",
			change: func(s *Status) { s.Repositories.Held = 1 },
		},
		{
			name: "registry gone", head: 100, state: Degraded, reason: "registry does not answer",
			change: func(s *Status) { s.RegistryReachable = false },
		},
		{
			name: "database gone", head: 100, state: Degraded, reason: "database does not answer",
			change: func(s *Status) { s.DatabaseReachable = false },
		},
		{
			name: "not subscribed", head: 100, state: Degraded, reason: "not subscribed",
			change: func(s *Status) { s.Connected = false },
		},
		{
			name: "error", head: 100, state: Degraded, reason: "of a at v1, source side: 503",
			change: func(s *Status) {
				s.LastError = &SyncError{Repository: "a", Reference: "v1", Side: SideSource, Message: "503"}
			},
		},
		{
			name: "says so itself", head: 100, state: Degraded, reason: "The disk is full.",
			change: func(s *Status) { s.Problems = []string{"The disk is full."} },
		},
		{
			name: "paused and failed", head: 100, state: Paused, reason: "paused",
			change: func(s *Status) { s.Paused, s.Repositories.Failed = true, 1 },
		},
	}
	byTime = []verdictCase{
		{name: "all well", silent: 2 * time.Second, head: 100, state: Healthy},
		{name: "clock of a replica behind", silent: -time.Hour, head: 100, state: Healthy},
		{name: "just pushed", silent: 9 * time.Second, head: 103, state: Healthy, lagRevs: 3},
		{
			name: "pushed and overdue", silent: 15 * time.Second, head: 103,
			state: Syncing, reason: "3 revisions", lagRevs: 3, lag: 15 * time.Second,
		},
		{name: "overdue, nothing new", silent: 15 * time.Second, head: 100, state: Healthy},
		{name: "head read before the report", silent: 0, head: 90, state: Healthy},
		{
			name: "behind", silent: 2 * time.Second, head: 101, state: Syncing, reason: "11 revisions", lagRevs: 11,
			lag:    7 * time.Second,
			change: func(s *Status) { s.LagRevisions, s.Lag = 10, 5*time.Second },
		},
		{name: "not yet stale", silent: 30*time.Second - 1, head: 100, state: Healthy},
		{name: "stale", silent: 30 * time.Second, head: 100, state: Stale, reason: "last report came at 1970-01-1"},
		{
			name: "stale although it failed", silent: time.Minute, head: 100, state: Stale, reason: "last report",
			change: func(s *Status) { s.Repositories.Failed, s.Paused = 1, true },
		},
		{name: "down", silent: 5 * time.Minute, head: 100, state: Down, reason: "one is due every 10s"},
		{
			name: "down and behind", silent: time.Hour, head: 150, state: Down, reason: "last report", lagRevs: 60,
			lag:    time.Hour + time.Minute,
			change: func(s *Status) { s.LagRevisions, s.Lag = 10, time.Minute },
		},
		{
			name: "down since it had all", silent: time.Hour, head: 150, state: Down, reason: "last report", lagRevs: 50,
			lag: time.Hour,
		},
	}
)

func TestJudge(t *testing.T) {
	const interval = 10 * time.Second
	for _, test := range append(byReport, byTime...) {
		t.Run(test.name, func(t *testing.T) {
			status, now := fine(), time.Unix(1_000_000, 0)
			if test.change != nil {
				test.change(&status)
			}
			n := Node{Head: test.head, Status: &status, ReportedAt: now.Add(-test.silent)}
			n.judge(now, interval)
			if n.State != test.state || n.LagRevisions != test.lagRevs || n.Lag != test.lag {
				t.Errorf("%s, lag %d, %v; want %s, %d, %v",
					n.State, n.LagRevisions, n.Lag, test.state, test.lagRevs, test.lag)
			}
			if (test.reason == "") != (len(n.Reasons) == 0) {
				t.Fatalf("reasons %q", n.Reasons)
			}
			if len(n.Reasons) > 0 && !strings.Contains(n.Reasons[0], test.reason) {
				t.Errorf("reasons %q", n.Reasons)
			}
			for _, reason := range n.Reasons {
				if !strings.HasSuffix(reason, ".") {
					t.Errorf("not a sentence: %q", reason)
				}
			}
		})
	}
}
