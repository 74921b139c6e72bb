package node_test

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"github.com/antipode-registry/antipode/internal/database"
	"github.com/antipode-registry/antipode/internal/database/databasetest"
	"github.com/antipode-registry/antipode/primaryd/internal/node"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var configs = []node.Config{
	{Name: "us-east", Repositories: []string{"**"}},
	{Name: "eu-west", Repositories: []string{"team/**", "base/*"}},
	{Name: "nothing"},
}

func open(t testing.TB, db *database.DB) *node.Directory {
	t.Helper()
	d, err := node.Open(t.Context(), db, configs, node.Options{})
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// report reports as eu-west.
func report(t testing.TB, d *node.Directory, s node.Status) {
	t.Helper()
	if err := d.Report(t.Context(), "eu-west", s); err != nil {
		t.Fatal(err)
	}
}

// get is eu-west at the head.
func get(t testing.TB, d *node.Directory, head int64) node.Node {
	t.Helper()
	n, found, err := d.Get(t.Context(), "eu-west", head)
	if err != nil || !found {
		t.Fatalf("Get = %v, %v", found, err)
	}
	return n
}

// well is a status that gives no cause for complaint at the head.
func well(head int64) node.Status {
	return node.Status{Connected: true, RegistryReachable: true, DatabaseReachable: true, HeadRevision: head}
}

func full() node.Status {
	at := time.UnixMilli(1_700_000_000_123).UTC()
	return node.Status{
		Version: "v1", StartedAt: at, Uptime: time.Hour, Paused: true, Connected: true, FeedID: "F", CursorRevision: 7,
		CursorMovedAt: at, HeadRevision: 9, PrimaryHeardAt: at, PromotedAt: at, LagRevisions: 2, Lag: time.Second,
		Repositories:      node.RepositoryCounts{Total: 15, Synced: 5, Pending: 4, Syncing: 3, Failed: 2, Held: 1},
		RegistryReachable: true, DatabaseReachable: true,
		LastError: &node.SyncError{
			Repository: "a", Reference: "v1", Side: node.SideSource, Message: "503\x00\"<", OccurredAt: at, Attempts: 3,
		},
		LastSyncedAt: at, BytesCopied: 1 << 40, Problems: []string{"disk"},
		Active: []node.ActiveSync{{Repository: "b", StartedAt: at, BytesDone: 1, BytesTotal: 2}},
	}
}

func TestReportIsKept(t *testing.T) {
	databasetest.Each(t, func(t *testing.T, newDatabase func(testing.TB) *database.DB) {
		db := newDatabase(t)
		report(t, open(t, db), well(1))
		report(t, open(t, db), full())
		nodes, err := open(t, databasetest.Shared(t, db)).List(t.Context(), 9)
		if err != nil {
			t.Fatal(err)
		}
		if len(nodes) != 3 || nodes[0].Name != "eu-west" || nodes[1].Name != "nothing" || nodes[2].Name != "us-east" {
			t.Fatalf("List = %+v", nodes)
		}
		want := full()
		if diff := cmp.Diff(&want, nodes[0].Status); diff != "" {
			t.Error(diff)
		}
		if age := time.Since(nodes[0].ReportedAt).Abs(); age > time.Minute {
			t.Errorf("reported %v ago", age)
		}
		if nodes[1].State != node.Unknown || nodes[1].Status != nil || nodes[1].LagRevisions != 9 {
			t.Errorf("a node that never reported: %+v", nodes[1])
		}
	})
}

func TestNodesNoLongerConfiguredAreNotListed(t *testing.T) {
	db := databasetest.OpenSQLite(t)
	report(t, open(t, db), well(1))
	d, err := node.Open(t.Context(), db, configs[:1], node.Options{})
	if err != nil {
		t.Fatal(err)
	}
	nodes, err := d.List(t.Context(), 1)
	if err != nil || len(nodes) != 1 || nodes[0].Name != "us-east" {
		t.Errorf("List = %+v, %v", nodes, err)
	}
	if _, found, err := d.Get(t.Context(), "eu-west", 1); found || err != nil {
		t.Errorf("Get = %v, %v", found, err)
	}
	if err := d.Report(t.Context(), "eu-west", well(1)); !errors.Is(err, node.ErrUnknownNode) {
		t.Errorf("Report = %v", err)
	}
}

func TestReportIsBounded(t *testing.T) {
	d := open(t, databasetest.OpenSQLite(t))
	for name, change := range map[string]func(*node.Status){
		"problem":  func(s *node.Status) { s.Problems = []string{strings.Repeat("x", 5000)} },
		"problems": func(s *node.Status) { s.Problems = make([]string, 65) },
		"active":   func(s *node.Status) { s.Active = make([]node.ActiveSync, 65) },
		"reason":   func(s *node.Status) { s.Troubled = []node.Troubled{{Reason: strings.Repeat("x", 5000)}} },
		"troubled": func(s *node.Status) { s.Troubled = make([]node.Troubled, 65) },
		"error":    func(s *node.Status) { s.LastError = &node.SyncError{Message: strings.Repeat("x", 5000)} },
		"version":  func(s *node.Status) { s.Version = strings.Repeat("x", 5000) },
	} {
		s := well(1)
		change(&s)
		if err := d.Report(t.Context(), "eu-west", s); !errors.Is(err, node.ErrInvalidStatus) {
			t.Errorf("%s: Report = %v", name, err)
		}
	}
}

func TestOpenRefuses(t *testing.T) {
	db := databasetest.OpenSQLite(t)
	for name, nodes := range map[string][]node.Config{
		"no name":    {{}},
		"twice":      {{Name: "a"}, {Name: "a"}},
		"not a glob": {{Name: "a", Repositories: []string{"a["}}},
	} {
		if _, err := node.Open(t.Context(), db, nodes, node.Options{}); err == nil {
			t.Errorf("%s was taken", name)
		}
	}
}

func TestMaySee(t *testing.T) {
	d := open(t, databasetest.OpenSQLite(t))
	for _, test := range []struct {
		name, repository string
		want             bool
	}{
		{"us-east", "anything/at/all", true},
		{"us-east", "plain", true},
		{"eu-west", "team/a", true},
		{"eu-west", "team/a/b", true},
		{"eu-west", "base/alpine", true},
		{"eu-west", "base/alpine/edge", false},
		{"eu-west", "teammate/a", false},
		{"eu-west", "x/team/a", false},
		{"nothing", "team/a", false},
		{"stranger", "team/a", false},
		{"", "team/a", false},
	} {
		if got := d.MaySee(test.name, test.repository); got != test.want {
			t.Errorf("MaySee(%q, %q) = %v", test.name, test.repository, got)
		}
	}
}

func TestSubscribedCounts(t *testing.T) {
	d := open(t, databasetest.OpenSQLite(t))
	wake, stop := d.Watch()
	defer stop()
	first, second := d.Subscribed("eu-west"), d.Subscribed("eu-west")
	<-wake
	if n := get(t, d, 1).Subscriptions; n != 2 {
		t.Errorf("%d subscriptions", n)
	}
	first()
	first() // once only
	<-wake
	if n := get(t, d, 1).Subscriptions; n != 1 {
		t.Errorf("%d subscriptions", n)
	}
	second()
	if n := get(t, d, 1).Subscriptions; n != 0 {
		t.Errorf("%d subscriptions", n)
	}
}

func TestWatchHearsReportsToOtherReplicas(t *testing.T) {
	databasetest.SkipWithoutPostgres(t)
	db := databasetest.OpenPostgres(t)
	here, there := open(t, db), open(t, databasetest.Shared(t, db))
	wake, stop := there.Watch()
	defer stop()
	report(t, here, well(1))
	for get(t, there, 1).State != node.Healthy {
		select {
		case <-wake:
		case <-time.After(20 * time.Second):
			t.Fatal("no wake")
		}
	}
}

// TestSilence follows a node that reports once and then no more, by the wakes alone.
func TestSilence(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		db := databasetest.OpenSQLite(t)
		d := open(t, db)
		ctx, cancel := context.WithCancel(t.Context())
		var running sync.WaitGroup
		running.Go(func() {
			if err := d.Run(ctx); err != nil {
				t.Error(err)
			}
		})
		defer running.Wait()
		defer cancel()
		wake, stop := d.Watch()
		defer stop()
		began := time.Now()
		report(t, d, well(5))
		var last node.State
		var seen []string
		for last != node.Down {
			<-wake
			if state := get(t, d, 6).State; state != last {
				seen = append(seen, string(state)+" "+time.Since(began).Round(time.Second).String())
				last = state
			}
		}
		want := []string{"healthy 0s", "syncing 10s", "stale 30s", "down 5m0s"}
		if diff := cmp.Diff(want, seen); diff != "" {
			t.Error(diff)
		}
		report(t, d, well(6))
		<-wake
		if state := get(t, d, 6).State; state != node.Healthy {
			t.Errorf("state after it reports again: %s", state)
		}
	})
}
