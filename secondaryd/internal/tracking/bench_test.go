package tracking_test

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/antipode-registry/antipode/internal/database"
	"github.com/antipode-registry/antipode/internal/database/databasetest"
	"github.com/antipode-registry/antipode/secondaryd/internal/tracking"
)

const million = 1_000_000

// BenchmarkMillion fills a table with a million repositories, as a first backfill does, and measures what a site does
// all the time, once while all is due and once while nearly all is synced.
//
//	go test ./secondaryd/internal/tracking -run '^$' -bench Million -benchtime 500x
func BenchmarkMillion(b *testing.B) {
	for name, open := range map[string]func(testing.TB) *database.DB{
		"sqlite": databasetest.OpenSQLite, "postgres": databasetest.OpenPostgres,
	} {
		b.Run(name, func(b *testing.B) {
			s := newSite(b, open(b), tracking.Options{})
			began := time.Now()
			s.fill(million)
			b.Logf("applied %.0f changes per second", million/time.Since(began).Seconds())
			s.analyze()
			b.Run("backfill", func(b *testing.B) { measure(b, s) })
			s.exec(`UPDATE repository SET synced_revision = wanted_revision, oldest_unsynced_at = NULL, last_synced_at = 1
				WHERE lease_until = 0 AND synced_revision < wanted_revision AND name >= 'repository-01000'`)
			s.analyze()
			b.Run("caught up", func(b *testing.B) { measure(b, s) })
		})
	}
}

// BenchmarkChange has one repository of a hundred, and of a million, change at a time while all others are synced: its
// change is stored with the cursor, claimed and recorded as synced.
//
//	go test ./secondaryd/internal/tracking -run '^$' -bench Change -benchtime 300x
func BenchmarkChange(b *testing.B) {
	for name, open := range map[string]func(testing.TB) *database.DB{
		"sqlite": databasetest.OpenSQLite, "postgres": databasetest.OpenPostgres,
	} {
		for _, size := range []int64{100, million} {
			b.Run(fmt.Sprintf("%s/%d", name, size), func(b *testing.B) {
				s := newSite(b, open(b), tracking.Options{})
				s.fill(int(size))
				s.exec(`UPDATE repository SET synced_revision = wanted_revision, oldest_unsynced_at = NULL, last_synced_at = 1`)
				s.analyze()
				var took []time.Duration
				for revision := size + 2; b.Loop(); revision++ {
					began := time.Now()
					s.change(fmt.Sprintf("repository-%05d", revision*7919%size), revision, tracking.Live)
					s.finish(s.claim(tracking.LiveFirst), synced())
					took = append(took, time.Since(began))
				}
				slices.Sort(took)
				b.ReportMetric(float64(took[len(took)/2].Microseconds()), "p50-µs")
			})
		}
	}
}

// analyze does what the server's own housekeeping, which is off in tests, would do.
func (s *site) analyze() {
	s.Helper()
	if s.db.Dialect() == database.Postgres {
		s.exec("ANALYZE")
	}
}

func measure(b *testing.B, s *site) {
	b.Helper()
	s = &site{TB: b, Store: s.Store, db: s.db}
	timed := func(name string, do func()) {
		b.Run(name, func(b *testing.B) {
			var took []time.Duration
			for b.Loop() {
				began := time.Now()
				do()
				took = append(took, time.Since(began))
			}
			slices.Sort(took)
			b.ReportMetric(float64(took[len(took)*99/100].Microseconds()), "p99-µs")
		})
	}
	var lease *tracking.Lease
	timed("claim", func() {
		lease = s.claim(tracking.LiveFirst)
		if lease == nil {
			b.Fatal("nothing is due")
		}
	})
	timed("claim and finish", func() {
		s.finish(s.claim(tracking.LiveFirst), synced())
	})
	timed("summary", func() {
		if _, err := s.Summary(b.Context()); err != nil {
			b.Fatal(err)
		}
	})
	timed("heard", func() { s.must(s.Heard(b.Context(), 1, time.Time{})) })
}
