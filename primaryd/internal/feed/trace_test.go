package feed_test

import (
	"context"
	"slices"
	"sync"
	"testing"
	"testing/synctest"

	"github.com/antipode-registry/antipode/internal/database"
	"github.com/antipode-registry/antipode/internal/database/databasetest"
	"github.com/antipode-registry/antipode/internal/telemetry"
	"github.com/antipode-registry/antipode/internal/telemetry/telemetrytest"
	"github.com/antipode-registry/antipode/primaryd/internal/feed"
)

// traced opens a feed whose spans are recorded.
func traced(t testing.TB, db *database.DB) (*feed.Feed, *telemetrytest.Recorder) {
	t.Helper()
	recorder := telemetrytest.NewRecorder()
	return open(t, db, feed.Options{Tracer: telemetry.NewTracer(recorder, "")}), recorder
}

func wantTraceParent(t testing.TB, f *feed.Feed, repository, want string) {
	t.Helper()
	if got := row(t, f, repository).TraceParent; got != want {
		t.Errorf("%s has the traceparent %q, want %q", repository, got, want)
	}
}

// A row names what led to its newest revision, and nothing if that is not traced.
func TestRowsNameTheTraceOfTheirNewestChange(t *testing.T) {
	each(t, func(t *testing.T, db *database.DB) {
		f, recorder := traced(t, db)
		run(t, f)
		ctx := telemetry.WithTraceParent(t.Context(), telemetrytest.TraceParent)
		change := func(ctx context.Context, repositories ...string) {
			for _, repository := range repositories {
				if _, err := f.Append(ctx, push(repository, "v1")); err != nil {
					t.Fatal(err)
				}
			}
		}
		change(ctx, "a", "b", "c")
		rows, _, err := f.Read(t.Context(), feed.Cursor{}, 10)
		if err != nil || len(rows) != 3 || rows[0].TraceParent != telemetrytest.TraceParent {
			t.Fatalf("Read = %+v, %v", rows, err)
		}
		change(t.Context(), "a")
		wantTraceParent(t, f, "a", "")
		change(ctx, "a")
		wantTraceParent(t, f, "a", telemetrytest.TraceParent)
		if bumped, err := f.RecordSweep(t.Context(), "b", row(t, f, "b").Revision, "other", true); !bumped || err != nil {
			t.Fatalf("RecordSweep = %v, %v", bumped, err)
		}
		wantTraceParent(t, f, "b", "")
		wantTraceParent(t, f, "c", telemetrytest.TraceParent)
		for _, span := range recorder.Named("append changes") {
			if span.Trace != telemetrytest.Trace || span.Parent != telemetrytest.Parent {
				t.Errorf("of another trace: %+v", span)
			}
		}
		if n, m := len(recorder.Named("append changes")), len(recorder.Named("commit changes")); n != 4 || m != 4 {
			t.Errorf("%d and %d spans, want 4 of what is traced", n, m)
		}
	})
}

// Calls that share a commit share its span, and their repository has the trace of one of them.
func TestACommitIsOneSpanForAllItsCalls(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, recorder := traced(t, databasetest.OpenSQLite(t))
		first, _ := recorder.Traced(t.Context())
		second, _ := recorder.Traced(t.Context())
		var calls sync.WaitGroup
		for _, ctx := range []context.Context{first, second, t.Context()} {
			calls.Go(func() {
				if _, err := f.Append(ctx, push("a", "v1")); err != nil {
					t.Error(err)
				}
			})
		}
		synctest.Wait() // all of them wait for a commit
		stop := run(t, f)
		calls.Wait()
		stop()
		appended, commit := recorder.Named("append changes"), recorder.One(t, "commit changes")
		commit.Has(t, "repositories", "1")
		if len(appended) != 2 || len(commit.Links) != 1 {
			t.Fatalf("spans: %+v", recorder.Spans())
		}
		told := []string{commit.Parent, commit.Links[0]}
		if !slices.Contains(told, appended[0].ID) || !slices.Contains(told, appended[1].ID) {
			t.Errorf("the commit is below or linked with %q, not %+v", told, appended)
		}
		got := row(t, f, "a").TraceParent
		if got != telemetry.TraceParent(first) && got != telemetry.TraceParent(second) {
			t.Errorf("the row has the traceparent %q", got)
		}
	})
}

// Where nothing is traced, what a caller says of its trace is not stored.
func TestNoTracesAreStoredWithoutATracer(t *testing.T) {
	each(t, func(t *testing.T, db *database.DB) {
		f := start(t, db)
		ctx := telemetry.WithTraceParent(t.Context(), telemetrytest.TraceParent)
		if _, err := f.Append(ctx, push("a", "v1")); err != nil {
			t.Fatal(err)
		}
		wantTraceParent(t, f, "a", "")
	})
}
