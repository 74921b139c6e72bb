package feed_test

import (
	"fmt"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/antipode-registry/antipode/internal/database"
	"github.com/antipode-registry/antipode/internal/database/databasetest"
	"github.com/antipode-registry/antipode/primaryd/internal/feed"
)

// BenchmarkMillion has a feed of a million repositories: how fast a new site reads it from its beginning and what that
// keeps in memory, and how many changes 64 callers record in it.
//
//	go test ./primaryd/internal/feed -run '^$' -bench Million -benchtime 1x
func BenchmarkMillion(b *testing.B) {
	for name, open := range map[string]func(testing.TB) *database.DB{
		"sqlite": databasetest.OpenSQLite, "postgres": databasetest.OpenPostgres,
	} {
		b.Run(name, func(b *testing.B) {
			const repositories = 1_000_000
			f := start(b, open(b))
			began := time.Now()
			fillFeed(b, f, repositories)
			b.Logf("%d repositories added, %.0f per second", repositories, repositories/time.Since(began).Seconds())
			b.Run("catch up", func(b *testing.B) { catchUp(b, f, repositories) })
			b.Run("ingest", func(b *testing.B) { ingest(b, f, repositories) })
		})
	}
}

// BenchmarkChange has one repository of a hundred, and of a million, change at a time, and a subscriber read that.
//
//	go test ./primaryd/internal/feed -run '^$' -bench Change -benchtime 300x
func BenchmarkChange(b *testing.B) {
	for name, open := range map[string]func(testing.TB) *database.DB{
		"sqlite": databasetest.OpenSQLite, "postgres": databasetest.OpenPostgres,
	} {
		for _, size := range []int{100, 1_000_000} {
			b.Run(fmt.Sprintf("%s/%d", name, size), func(b *testing.B) {
				f := start(b, open(b))
				fillFeed(b, f, size)
				var took []time.Duration
				for i := 0; b.Loop(); i++ {
					began := time.Now()
					n := i * 7919 % size
					head, err := f.Append(b.Context(), push(fmt.Sprintf("team-%03d/service-%07d", n%1000, n), "v1"))
					if err != nil {
						b.Fatal(err)
					}
					if rows, _, err := f.Read(b.Context(), feed.Cursor{Revision: head - 1}, 500); err != nil || len(rows) != 1 {
						b.Fatalf("%d rows, %v", len(rows), err)
					}
					took = append(took, time.Since(began))
				}
				slices.Sort(took)
				b.ReportMetric(float64(took[len(took)/2].Microseconds()), "p50-µs")
			})
		}
	}
}

func fillFeed(b *testing.B, f *feed.Feed, repositories int) {
	b.Helper()
	names := make([]string, repositories)
	for i := range names {
		names[i] = fmt.Sprintf("team-%03d/service-%07d", i%1000, i)
	}
	if added, err := f.AddMissing(b.Context(), names); err != nil || added != repositories {
		b.Fatalf("added %d: %v", added, err)
	}
}

// catchUp reads the whole feed in the pages that a subscription takes. The heap that lives at the end of each of ten
// parts of the way says whether memory grows with what was read.
func catchUp(b *testing.B, f *feed.Feed, repositories int) {
	b.Helper()
	const page, parts = 500, 10
	for b.Loop() {
		began := time.Now()
		var lowest, highest uint64
		read := 0
		for cursor, final := (feed.Cursor{}), false; !final; {
			rows, _, err := f.Read(b.Context(), cursor, page)
			if err != nil {
				b.Fatal(err)
			}
			if read += len(rows); len(rows) > 0 {
				cursor.Revision = rows[len(rows)-1].Revision
			}
			final = len(rows) < page
			if read%(repositories/parts) < page {
				alive := liveHeap()
				highest = max(highest, alive)
				if lowest == 0 || alive < lowest {
					lowest = alive
				}
			}
		}
		if read != repositories {
			b.Fatalf("read %d rows", read)
		}
		b.ReportMetric(float64(read)/time.Since(began).Seconds(), "rows/s")
		b.ReportMetric(float64(highest-lowest)/1024, "KiB-heap-growth")
	}
}

func liveHeap() uint64 {
	runtime.GC()
	var stats runtime.MemStats
	runtime.ReadMemStats(&stats)
	return stats.HeapAlloc
}

// ingest has 64 callers, each with one change at a time, as 64 connections of registries have.
func ingest(b *testing.B, f *feed.Feed, repositories int) {
	b.Helper()
	const callers, each = 64, 200
	for b.Loop() {
		took := make([]time.Duration, callers*each)
		var calling sync.WaitGroup
		var failed atomic.Pointer[error]
		began := time.Now()
		for c := range callers {
			calling.Go(func() {
				for i := range each {
					name := fmt.Sprintf("team-%03d/service-%07d", (c*each+i)%1000, (c*each+i)*7919%repositories)
					at := time.Now()
					if _, err := f.Append(b.Context(), push(name, "v1")); err != nil {
						failed.Store(&err)
						return
					}
					took[c*each+i] = time.Since(at)
				}
			})
		}
		calling.Wait()
		if err := failed.Load(); err != nil {
			b.Fatal(*err)
		}
		slices.Sort(took)
		b.ReportMetric(float64(len(took))/time.Since(began).Seconds(), "events/s")
		b.ReportMetric(float64(took[len(took)*99/100].Microseconds())/1000, "p99-ms")
	}
}
