package tracking_test

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"github.com/antipode-registry/antipode/internal/database"
	"github.com/antipode-registry/antipode/secondaryd/internal/tracking"
)

// plan is how the engine would run the query.
func (s *site) plan(query string, args ...any) string {
	s.Helper()
	explain := "EXPLAIN QUERY PLAN "
	if s.db.Dialect() == database.Postgres {
		explain = "EXPLAIN "
	}
	var plan strings.Builder
	s.must(s.db.Read(s.Context(), func(ctx context.Context, q database.Queryer) error {
		rows, err := q.QueryContext(ctx, explain+query, args...)
		if err != nil {
			return err
		}
		defer rows.Close()
		columns, err := rows.Columns()
		if err != nil {
			return err
		}
		for rows.Next() {
			values := make([]any, len(columns))
			for i := range values {
				values[i] = new(any)
			}
			if err := rows.Scan(values...); err != nil {
				return err
			}
			fmt.Fprintln(&plan, *values[len(values)-1].(*any)) //nolint:forcetypeassert // made above
		}
		return rows.Err()
	}))
	return plan.String()
}

func (s *site) wantIndex(name, plan string) {
	s.Helper()
	for _, scan := range []string{"SCAN repository\n", "Seq Scan on repository"} {
		if strings.Contains(plan, scan) {
			s.Errorf("the query scans the table:\n%s", plan)
		}
	}
	if !strings.Contains(plan, name) {
		s.Errorf("the query does not use %s:\n%s", name, plan)
	}
}

// wantOrdered expects that the rows come from the index in the right order, so that the first one is found at once.
func (s *site) wantOrdered(name, plan string) {
	s.Helper()
	s.wantIndex(name, plan)
	if strings.Contains(plan, "TEMP B-TREE") || strings.Contains(plan, "Sort") {
		s.Errorf("the query sorts:\n%s", plan)
	}
}

// A claim takes the first entry of a range of an index, and counts and pages read indexes that hold only what is not
// synced, whatever the size of the table.
func TestQueryPlans(t *testing.T) {
	each(t, tracking.Options{}, func(t *testing.T, s *site) {
		s.fill(6000)
		// Most of a site is synced, a few rows are due, failed or leased.
		s.exec(`UPDATE repository SET synced_revision = wanted_revision, oldest_unsynced_at = NULL, last_synced_at = 1
			WHERE name > 'repository-00050'`)
		s.exec("UPDATE repository SET failures = 1, failed_at = wanted_revision WHERE name < 'repository-00010'")
		s.claim(tracking.LiveFirst)
		if s.db.Dialect() == database.Postgres {
			s.exec("ANALYZE")
		}
		claim := strings.NewReplacer("$5", "$3", "$6", "$4").Replace(tracking.ClaimQuery)
		s.wantOrdered("repository_due", s.plan(claim, 1, int64(9_000_000_000_000), "", ""))
		s.wantOrdered("repository_due", s.plan(tracking.EarliestQuery, 1))
		s.wantIndex("repository_unsynced", s.plan(tracking.CountQuery))
		s.wantIndex("repository_leased", s.plan(tracking.LeasedQuery, 1))
		s.wantOrdered("repository_failed", s.plan(tracking.LastErrorQuery))
		s.wantOrdered("repository_unsynced", s.plan(tracking.HeldQuery, 1, 20))
		s.wantOrdered("repository_failed", s.plan(tracking.FailedQuery, 1, 20))
		s.wantOrdered("repository_last_synced", s.plan(tracking.TotalsQuery))
		stale := strings.NewReplacer("$4", "$1", "$5", "$2").Replace(tracking.StaleQuery)
		s.wantOrdered("repository_verified", s.plan(stale, int64(9_000_000_000_000), 100))
	})
}

// The claim keeps to the index when nearly everything is due, as in a first backfill.
func TestClaimPlanInABackfill(t *testing.T) {
	each(t, tracking.Options{}, func(t *testing.T, s *site) {
		s.fill(6000)
		if s.db.Dialect() == database.Postgres {
			s.exec("ANALYZE")
		}
		claim := strings.NewReplacer("$5", "$3", "$6", "$4").Replace(tracking.ClaimQuery)
		s.wantOrdered("repository_due", s.plan(claim, 1, int64(9_000_000_000_000), "", ""))
	})
}
