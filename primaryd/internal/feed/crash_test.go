package feed_test

import (
	"context"
	"reflect"
	"slices"
	"testing"
	"time"

	"github.com/antipode-registry/antipode/internal/database"
	"github.com/antipode-registry/antipode/internal/database/databasetest"
	"github.com/antipode-registry/antipode/internal/telemetry"
	"github.com/antipode-registry/antipode/internal/telemetry/telemetrytest"
	"github.com/antipode-registry/antipode/primaryd/internal/feed"
)

// operation is a writing method with what leads up to it.
type operation = databasetest.Operation[*feed.Feed]

// reads are the methods that write nothing. A new method is either here or among the operations.
var reads = []string{"SweepsRequested", "WatchSweeps", "Base", "Follow", "Get", "Head", "ID", "List", "Read", "Stand", "Watch"}

// TestEveryStatementMayFail has each statement of each operation fail once.
func TestEveryStatementMayFail(t *testing.T) {
	t.Parallel()
	crash := databasetest.Crash[*feed.Feed]{
		// One begins with every Open, and whenever the rows are put back under a feed that runs.
		// A request for a sweep that is repeated counts twice, which says the same.
		Volatile: []string{"incarnation", "feed.incarnation", "feed.sweeps_requested"},
		Open: func(t testing.TB, db *database.DB) *feed.Feed {
			t.Helper()
			f, _ := traced(t, db)
			run(t, f)
			return f
		},
		Check: ordered,
	}
	crash.Test(t, operations())
}

// TestEveryStatementOfANewIncarnationMayFail: the history is found to have another origin by a transaction that writes,
// and begins the next incarnation with what it writes, or neither.
func TestEveryStatementOfANewIncarnationMayFail(t *testing.T) {
	t.Parallel()
	var beside *database.DB
	crash := databasetest.Crash[*feed.Feed]{
		Volatile: []string{"incarnation", "feed.incarnation", "feed.origin"},
		// It does not run: it would find the other origin by itself.
		Open: func(t testing.TB, db *database.DB) *feed.Feed {
			t.Helper()
			beside = databasetest.Shared(t, db)
			return open(t, db, feed.Options{})
		},
		Check: func(t testing.TB, db *database.DB) {
			t.Helper()
			ordered(t, db)
			continued(t, db)
		},
	}
	// The feed was opened on the database as it is put back, and believes to know its origin.
	rewritten := func(ctx context.Context) error {
		return beside.Write(ctx, func(ctx context.Context, tx *database.Tx) error {
			_, err := tx.ExecContext(ctx, "UPDATE feed SET origin = 'of before'")
			return err
		})
	}
	crash.Test(t, []operation{{Name: "AddMissing", Run: func(ctx context.Context, f *feed.Feed) error {
		if err := rewritten(ctx); err != nil {
			return err
		}
		_, err := f.AddMissing(ctx, []string{"a", "b"})
		return err
	}}})
}

// ordered checks that a reader who continues after the head sees nothing that is behind it, and that incarnations follow
// each other, the newest being the feed's.
func ordered(t testing.TB, db *database.DB) {
	t.Helper()
	err := db.Read(t.Context(), func(ctx context.Context, q database.Queryer) error {
		var head, newest, rows, revisions, beyond, latest int64
		err := q.QueryRowContext(ctx, `SELECT head, (SELECT COALESCE(max(revision), 0) FROM repository),
			(SELECT count(*) FROM repository), (SELECT count(DISTINCT revision) FROM repository),
			(SELECT count(*) FROM incarnation WHERE first_revision > head + 1),
			(SELECT count(*) FROM incarnation WHERE id = feed.incarnation
				AND number = (SELECT max(number) FROM incarnation)) FROM feed`).
			Scan(&head, &newest, &rows, &revisions, &beyond, &latest)
		if newest > head || rows != revisions || beyond != 0 || latest != 1 {
			t.Errorf("the head is %d, the newest row's revision %d; %d rows have %d revisions; %d incarnations begin beyond "+
				"the head; the feed's is the newest: %v", head, newest, rows, revisions, beyond, latest == 1)
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
}

// TestEveryWriteIsAmongTheCrashPoints fails when a method is neither known as reading nor among the operations.
func TestEveryWriteIsAmongTheCrashPoints(t *testing.T) {
	t.Parallel()
	known := append([]string{"Run"}, reads...) // Run commits what Append queued
	for _, operation := range operations() {
		known = append(known, operation.Name)
	}
	for method := range reflect.TypeFor[*feed.Feed]().Methods() {
		if !slices.Contains(known, method.Name) {
			t.Errorf("Feed.%s: does it write? Then it is an operation of TestEveryStatementMayFail, else one of reads", method.Name)
		}
	}
}

// happenedAt is when the changes of these operations happened.
var happenedAt = time.UnixMilli(1_000_000)

func dated(change feed.Change) feed.Change {
	change.At = happenedAt
	return change
}

// continued checks that what was written was written in an incarnation of its own: the first two are of the feed's
// openings.
func continued(t testing.TB, db *database.DB) {
	t.Helper()
	err := db.Read(t.Context(), func(ctx context.Context, q database.Queryer) error {
		var rows, incarnations int64
		err := q.QueryRowContext(ctx, "SELECT (SELECT count(*) FROM repository), (SELECT count(*) FROM incarnation)").
			Scan(&rows, &incarnations)
		if rows > 0 && incarnations < 3 {
			t.Errorf("%d rows were written in the incarnation of before", rows)
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
}

func operations() []operation {
	prepare := func(t testing.TB, f *feed.Feed) {
		t.Helper()
		appendChanges(t, f, dated(push("a", "v1")), dated(unknown("b")))
		if err := f.RecordListing(t.Context(), "b", row(t, f, "b").Revision, "as it was"); err != nil {
			t.Fatal(err)
		}
		if _, err := f.AddMissing(t.Context(), []string{"c"}); err != nil {
			t.Fatal(err)
		}
	}
	sweep := func(name, repository string, revision int64) operation {
		return operation{Name: name, Prepare: prepare, Run: func(ctx context.Context, f *feed.Feed) error {
			_, err := f.RecordSweep(ctx, repository, revision, "as it is", true)
			return err
		}}
	}
	return []operation{
		{Name: "Append", Prepare: prepare, Run: func(ctx context.Context, f *feed.Feed) error {
			ctx = telemetry.WithTraceParent(ctx, telemetrytest.TraceParent)
			_, err := f.Append(ctx, dated(push("a", "v2", "v3")), dated(push("new", "v1")), dated(unknown("c")))
			return err
		}},
		{Name: "RecordListing", Prepare: prepare, Run: func(ctx context.Context, f *feed.Feed) error {
			return f.RecordListing(ctx, "b", 2, "as it is")
		}},
		sweep("RecordSweep", "b", 2),
		sweep("RecordSweep of what is new", "unheard-of", 0),
		sweep("RecordSweep of what moved", "a", 0),
		sweep("RecordSweep of the first listing", "c", 3),
		{Name: "RequestSweep", Prepare: prepare, Run: func(ctx context.Context, f *feed.Feed) error {
			return f.RequestSweep(ctx)
		}},
		{
			// One transaction for four of them and one for the fifth.
			Name: "AddMissing", Prepare: prepare, Commits: 2,
			Run: func(ctx context.Context, f *feed.Feed) error {
				_, err := f.AddMissing(ctx, []string{"a", "d", "e", "f", "g"})
				return err
			},
		},
	}
}

// TestOpenMayFailAnywhere: what an interrupted first start leaves, the next one completes.
func TestOpenMayFailAnywhere(t *testing.T) {
	t.Parallel()
	databasetest.Opening(t, func(ctx context.Context, db *database.DB) error {
		_, err := feed.Open(ctx, db, feed.Options{})
		return err
	}, "feed.id", "feed.incarnation", "feed.origin", "incarnation")
}
