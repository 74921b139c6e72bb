package feed_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/antipode-registry/antipode/internal/database"
	"github.com/antipode-registry/antipode/internal/database/databasetest"
	"github.com/antipode-registry/antipode/primaryd/internal/feed"
)

// each runs fn on both engines with a new database.
func each(t *testing.T, fn func(t *testing.T, db *database.DB)) {
	databasetest.Each(t, func(t *testing.T, open func(testing.TB) *database.DB) { fn(t, open(t)) })
}

func open(t testing.TB, db *database.DB, opts feed.Options) *feed.Feed {
	t.Helper()
	f, err := feed.Open(t.Context(), db, opts)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

// start opens a feed and runs it until the test ends.
func start(t testing.TB, db *database.DB) *feed.Feed {
	t.Helper()
	f := open(t, db, feed.Options{})
	run(t, f)
	return f
}

func run(t testing.TB, f *feed.Feed) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	var running sync.WaitGroup
	running.Go(func() {
		if err := f.Run(ctx); err != nil {
			t.Errorf("Run = %v", err)
		}
	})
	stop = func() {
		cancel()
		running.Wait()
	}
	t.Cleanup(stop)
	return stop
}

func push(repository string, tags ...string) feed.Change {
	change := feed.Change{Repository: repository}
	for _, tag := range tags {
		change.Tags = append(change.Tags, feed.Touch{Tag: tag, Digest: "sha256:" + tag})
	}
	return change
}

func unknown(repository string) feed.Change {
	return feed.Change{Repository: repository, Unknown: true}
}

func appendChanges(t testing.TB, f *feed.Feed, changes ...feed.Change) int64 {
	t.Helper()
	head, err := f.Append(t.Context(), changes...)
	if err != nil {
		t.Fatal(err)
	}
	return head
}

func row(t testing.TB, f *feed.Feed, repository string) feed.Row {
	t.Helper()
	row, found, err := f.Get(t.Context(), repository)
	if err != nil || !found {
		t.Fatalf("Get(%s) = %v, %v", repository, found, err)
	}
	return row
}

func TestAppendMakesOneRowPerRepository(t *testing.T) {
	each(t, func(t *testing.T, db *database.DB) {
		f := start(t, db)
		at := time.Now().Add(-time.Hour).Truncate(time.Millisecond).UTC()
		change := push("b", "v1")
		change.At = at
		if head := appendChanges(t, f, push("a", "v1"), change, push("b", "v2")); head != 2 {
			t.Errorf("head %d, want one revision for each of the two repositories", head)
		}
		appendChanges(t, f, push("a", "v2"))
		rows, standing, err := f.Read(t.Context(), feed.Cursor{}, 10)
		if err != nil {
			t.Fatal(err)
		}
		if standing.Head != 3 || len(rows) != 2 || rows[0].Repository != "b" || rows[1].Repository != "a" {
			t.Fatalf("head %d, rows %+v", standing.Head, rows)
		}
		if rows[0].Revision != 2 || !rows[0].ChangedAt.Equal(at) || len(rows[0].Hint.Touches) != 2 {
			t.Errorf("row %+v", rows[0])
		}
		want := []string{"v1", "v2"}
		var got []string
		for _, touch := range rows[1].Hint.Touches {
			got = append(got, touch.Tag)
		}
		if rows[1].Revision != 3 || rows[1].Hint.Base != 0 || !cmp.Equal(got, want) {
			t.Errorf("row %+v", rows[1])
		}
	})
}

func TestAppendManyInOneCall(t *testing.T) {
	each(t, func(t *testing.T, db *database.DB) {
		f := start(t, db)
		var changes []feed.Change
		for i := range 1100 {
			changes = append(changes, push(fmt.Sprintf("r%04d", i), "v1"))
		}
		for round := range 2 {
			if head := appendChanges(t, f, changes...); head != int64(1100*(round+1)) {
				t.Errorf("head %d", head)
			}
		}
		rows, err := f.List(t.Context(), "r0099", 2)
		if err != nil || len(rows) != 2 || rows[0].Repository != "r0100" || rows[1].Repository != "r0101" {
			t.Errorf("List = %+v, %v", rows, err)
		}
		if hint := row(t, f, "r0001").Hint; len(hint.Touches) != 1 {
			t.Errorf("hint %+v", hint)
		}
	})
}

func TestListIsBytewise(t *testing.T) {
	each(t, func(t *testing.T, db *database.DB) {
		f := start(t, db)
		names := []string{"a-b", "a.b", "a/b", "a0", "a_b", "ab"}
		for _, name := range []string{"ab", "a_b", "a/b", "a.b", "a0", "a-b"} {
			appendChanges(t, f, push(name, "v1"))
		}
		var got []string
		for after := ""; ; after = got[len(got)-1] {
			rows, err := f.List(t.Context(), after, 1)
			if err != nil {
				t.Fatal(err)
			}
			if len(rows) == 0 {
				break
			}
			got = append(got, rows[0].Repository)
		}
		if diff := cmp.Diff(names, got); diff != "" {
			t.Error(diff)
		}
	})
}

func TestAppendRefusesWhatWouldSpoilItsBatch(t *testing.T) {
	db := databasetest.OpenSQLite(t)
	f := start(t, db)
	for _, change := range []feed.Change{
		{Repository: "a"},
		{Unknown: true},
		push("a\x00b", "v1"),
		push("a\xff", "v1"),
		push(strings.Repeat("a", 2000), "v1"),
		push("a", ""),
		push("a", "v\x00"),
		{Repository: "a", Tags: []feed.Touch{{Tag: "v1", Digest: "\xff"}}},
	} {
		if _, err := f.Append(t.Context(), change); err == nil {
			t.Errorf("Append(%+v) was taken", change)
		}
	}
	if head := appendChanges(t, f); head != 0 {
		t.Errorf("head %d", head)
	}
}

func TestAppendNeverHangs(t *testing.T) {
	db := databasetest.OpenSQLite(t)
	f := open(t, db, feed.Options{})
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := f.Append(ctx, push("a", "v1")); !errors.Is(err, context.Canceled) {
		t.Errorf("Append without Run = %v", err)
	}
	stop := run(t, f)
	appendChanges(t, f, push("a", "v1"))
	stop()
	if _, err := f.Append(t.Context(), push("a", "v2")); !errors.Is(err, feed.ErrStopped) {
		t.Errorf("Append after Run = %v", err)
	}
	if err := f.Run(t.Context()); err == nil {
		t.Error("Run ran twice")
	}
}

func TestSimultaneousAppendsShareCommits(t *testing.T) {
	db := databasetest.OpenSQLite(t)
	registry := prometheus.NewPedanticRegistry()
	f := open(t, db, feed.Options{Metrics: feed.NewMetrics(registry)})
	run(t, f)
	var appending sync.WaitGroup
	// The writer is held until every caller is on its way.
	err := db.Write(t.Context(), func(context.Context, *database.Tx) error {
		var ready sync.WaitGroup
		for i := range 100 {
			ready.Add(1)
			appending.Go(func() {
				ready.Done()
				if _, err := f.Append(t.Context(), push(fmt.Sprint("r", i), "v1")); err != nil {
					t.Error(err)
				}
			})
		}
		ready.Wait()
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	appending.Wait()
	commits, changes := value(t, registry, "antipode_feed_commits_total"), value(t, registry, "antipode_feed_changes_total")
	if changes != 100 || commits > 20 {
		t.Errorf("%v commits for %v changes", commits, changes)
	}
	if head := value(t, registry, "antipode_feed_head_revision"); head != 100 {
		t.Errorf("head gauge %v", head)
	}
	if problems, err := testutil.GatherAndLint(registry); err != nil || len(problems) > 0 {
		t.Errorf("metrics: %v %v", problems, err)
	}
}

func value(t *testing.T, registry prometheus.Gatherer, name string) float64 {
	t.Helper()
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, family := range families {
		if family.GetName() == name {
			m := family.GetMetric()[0]
			return m.GetCounter().GetValue() + m.GetGauge().GetValue()
		}
	}
	t.Fatalf("no metric %s", name)
	return 0
}

func TestEveryCallOfAFailedCommitFails(t *testing.T) {
	db := databasetest.OpenSQLite(t)
	f := start(t, db)
	limit := func(pages int) {
		err := db.Write(t.Context(), func(ctx context.Context, tx *database.Tx) error {
			_, err := tx.ExecContext(ctx, fmt.Sprintf("PRAGMA max_page_count = %d", pages))
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	limit(1) // the file may not grow
	var failed atomic.Int64
	var appending sync.WaitGroup
	for i := range 10 {
		appending.Go(func() {
			var changes []feed.Change
			for j := range 200 {
				changes = append(changes, push(fmt.Sprint("r", i, "-", j), "v1"))
			}
			if _, err := f.Append(t.Context(), changes...); errors.Is(err, database.ErrUnavailable) {
				failed.Add(1)
			}
		})
	}
	appending.Wait()
	if failed.Load() != 10 {
		t.Errorf("%d of 10 calls failed as unavailable", failed.Load())
	}
	limit(1 << 30)
	appendChanges(t, f, push("a", "v1")) // and it goes on once there is room
}

func TestReopenKeepsIDAndHead(t *testing.T) {
	each(t, func(t *testing.T, db *database.DB) {
		f := start(t, db)
		head := appendChanges(t, f, push("a", "v1"), push("b", "v1"))
		// Nothing is closed first: so it is after a crash.
		again := open(t, databasetest.Shared(t, db), feed.Options{})
		got, err := again.Head(t.Context())
		if err != nil || got != head || again.ID() != f.ID() || f.ID() == "" {
			t.Errorf("reopened: id %q, head %d, %v; want %q, %d", again.ID(), got, err, f.ID(), head)
		}
		if diff := cmp.Diff(row(t, f, "a"), row(t, again, "a")); diff != "" {
			t.Error(diff)
		}
	})
}

func TestWatchHearsOtherReplicas(t *testing.T) {
	databasetest.SkipWithoutPostgres(t)
	db := databasetest.OpenPostgres(t)
	here := start(t, db)
	there := start(t, databasetest.Shared(t, db))
	wake, stop := there.Watch()
	defer stop()
	for want := int64(1); want <= 3; want++ {
		appendChanges(t, here, push("a", fmt.Sprint("v", want)))
		for head := int64(0); head < want; {
			select {
			case <-wake:
			case <-time.After(20 * time.Second):
				t.Fatal("no wake")
			}
			var err error
			if head, err = there.Head(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
	}
}

func TestReadsUseIndexes(t *testing.T) {
	db := databasetest.OpenSQLite(t)
	open(t, db, feed.Options{})
	err := db.Read(t.Context(), func(ctx context.Context, q database.Queryer) error {
		var id, parent, unused int
		var plan string
		err := q.QueryRowContext(ctx, "EXPLAIN QUERY PLAN SELECT * FROM repository WHERE revision > 5 ORDER BY revision LIMIT 9").
			Scan(&id, &parent, &unused, &plan)
		if !strings.Contains(plan, "repository_revision") {
			t.Errorf("plan %q", plan)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

// TestDatabaseRestart has the server go away under a running feed: calls fail as unavailable meanwhile, what was
// committed is still there, and appends and wakes go on after it is back.
func TestDatabaseRestart(t *testing.T) {
	databasetest.SkipWithoutPostgres(t)
	cluster := databasetest.NewCluster(t)
	db := databasetest.Open(t, cluster.URL("postgres"))
	here, there := start(t, db), start(t, databasetest.Shared(t, db))
	wake, stop := there.Watch()
	defer stop()
	appendChanges(t, here, push("a", "v1"))
	cluster.Stop(t)
	if _, err := here.Append(t.Context(), push("a", "v2")); !errors.Is(err, database.ErrUnavailable) {
		t.Errorf("Append without a database = %v", err)
	}
	if _, err := here.Head(t.Context()); !errors.Is(err, database.ErrUnavailable) {
		t.Errorf("Head without a database = %v", err)
	}
	cluster.Start(t)
	// A connection of before the restart may still be in the pool; whoever gets it is told to try again.
	head, err := here.Append(t.Context(), push("b", "v1"))
	for errors.Is(err, database.ErrUnavailable) {
		head, err = here.Append(t.Context(), push("b", "v1"))
	}
	if head != 2 || err != nil {
		t.Errorf("head %d after the restart, %v", head, err)
	}
	for head := int64(0); head < 2; {
		select {
		case <-wake:
		case <-time.After(20 * time.Second):
			t.Fatal("no wake after the restart")
		}
		head, err = there.Head(t.Context())
		for errors.Is(err, database.ErrUnavailable) {
			head, err = there.Head(t.Context())
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}
