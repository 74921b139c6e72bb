package tracking

import (
	"context"
	"database/sql"
	"errors"
	"fmt"

	"github.com/antipode-registry/antipode/internal/database"
)

// The statements of Summary. Each is answered by a partial index; a test looks at their query plans. The conditions
// that seem to say a thing twice are there because SQLite uses a partial index only where its condition is in the
// query.
const (
	countQuery = `SELECT phase, count(*), min(wanted_revision), min(oldest_unsynced_at)
		FROM repository WHERE phase <> 'synced' GROUP BY phase`
	leasedQuery = `SELECT phase, count(*) FROM repository WHERE lease_until > 0 AND lease_until > $1 GROUP BY phase`
	totalsQuery = `SELECT total, verified, (SELECT count(*) FROM repository WHERE damaged),
		(SELECT max(last_synced_at) FROM repository WHERE last_synced_at IS NOT NULL) FROM site`

	lastErrorQuery = `SELECT name, failure_reference, failure_side, failure_message, failed_at, failures
		FROM repository WHERE failed_at IS NOT NULL ORDER BY failed_at DESC LIMIT 1`
)

// Summary counts the repositories by state. Its cost grows with the number of those that are not synced, which an index
// of their own covers; the total is kept in the site's row.
func (s *Store) Summary(ctx context.Context) (Summary, error) {
	sum := Summary{Counts: make(map[State]int64, 5)}
	err := s.read(ctx, "summarize", func(ctx context.Context, q database.Queryer) error {
		now, err := s.now(ctx, q)
		if err != nil {
			return err
		}
		for _, part := range []func(context.Context, database.Queryer, int64, *Summary) error{
			countUnsynced, countLeased, readTotals, readLastError,
		} {
			if err := part(ctx, q, now, &sum); err != nil {
				return err
			}
		}
		return nil
	})
	return sum, err
}

func countUnsynced(ctx context.Context, q database.Queryer, _ int64, sum *Summary) error {
	for _, state := range []State{Pending, Syncing, Synced, Failed, Held} {
		sum.Counts[state] = 0
	}
	rows, err := q.QueryContext(ctx, countQuery)
	if err != nil {
		return fmt.Errorf("count by state: %w", err)
	}
	defer rows.Close()
	for rows.Next() {
		var state State
		var count, lowest int64
		var oldest sql.NullInt64
		if err := rows.Scan(&state, &count, &lowest, &oldest); err != nil {
			return fmt.Errorf("count by state: %w", err)
		}
		sum.Counts[state] = count
		// A row that waits for its revision after StartOver is behind by everything.
		if lowest = max(1, lowest); sum.LowestUnsynced == 0 || lowest < sum.LowestUnsynced {
			sum.LowestUnsynced = lowest
		}
		if at := toTime(oldest); sum.OldestUnsyncedAt.IsZero() || at.Before(sum.OldestUnsyncedAt) {
			sum.OldestUnsyncedAt = at
		}
	}
	return rows.Err()
}

// countLeased moves the few rows under a lease from what they are otherwise to syncing.
func countLeased(ctx context.Context, q database.Queryer, now int64, sum *Summary) error {
	rows, err := q.QueryContext(ctx, leasedQuery, now)
	if err != nil {
		return fmt.Errorf("count leases: %w", err)
	}
	defer rows.Close()
	for rows.Next() {
		var state State
		var count int64
		if err := rows.Scan(&state, &count); err != nil {
			return fmt.Errorf("count leases: %w", err)
		}
		sum.Counts[state] -= count
		sum.Counts[Syncing] += count
	}
	return rows.Err()
}

func readTotals(ctx context.Context, q database.Queryer, _ int64, sum *Summary) error {
	var synced sql.NullInt64
	err := q.QueryRowContext(ctx, totalsQuery).Scan(&sum.Total, &sum.Verified, &sum.Damaged, &synced)
	if err != nil {
		return fmt.Errorf("read totals: %w", err)
	}
	sum.LastSyncedAt = toTime(synced)
	sum.Counts[Synced] = sum.Total
	for _, state := range []State{Pending, Syncing, Failed, Held} {
		sum.Counts[Synced] -= sum.Counts[state]
	}
	return nil
}

func readLastError(ctx context.Context, q database.Queryer, _ int64, sum *Summary) error {
	f := &Failure{}
	var at sql.NullInt64
	err := q.QueryRowContext(ctx, lastErrorQuery).Scan(&f.Repository, &f.Reference, &f.Side, &f.Message, &at, &f.Attempts)
	if errors.Is(err, sql.ErrNoRows) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("read last failure: %w", err)
	}
	f.At, sum.LastError = toTime(at), f
	return nil
}

// List returns the repositories of a state ("" = of all) whose names come bytewise after afterName, in that order,
// limit at most.
func (s *Store) List(ctx context.Context, state State, afterName string, limit int) ([]Repository, error) {
	filter, err := filter(state)
	if err != nil {
		return nil, wrap("list", err)
	}
	return s.query(ctx, "list", filter+" AND name > $2 ORDER BY name LIMIT $3", afterName, limit)
}

// What Troubled reads, in the order of a partial index. Only a row whose last attempt failed has a failed_at, so that its
// phase need not be asked for.
const (
	heldOrder   = "lease_until <= $1 AND phase <> 'synced' AND phase = 'held' ORDER BY name LIMIT $2"
	failedOrder = "lease_until <= $1 AND failed_at IS NOT NULL ORDER BY failed_at DESC LIMIT $2"
)

// Troubled returns what an operator may have to look at, limit at most: what is held, by name, then what failed, the
// newest failure first. Neither hides the other: each gets half of the room, and what the other leaves. Its cost grows with
// the limit and the number of leases, not with the table.
func (s *Store) Troubled(ctx context.Context, limit int) ([]Repository, error) {
	held, err := s.query(ctx, "list held", heldOrder, limit)
	if err != nil {
		return nil, err
	}
	failed, err := s.query(ctx, "list failed", failedOrder, limit)
	if err != nil {
		return nil, err
	}
	failed = failed[:min(len(failed), max(limit-len(held), limit/2))]
	return append(held[:min(len(held), limit-len(failed))], failed...), nil
}

// filter names the state literally, and what is not synced twice, for the sake of the partial indexes: SQLite uses one
// only where its condition is in the query.
func filter(state State) (string, error) {
	switch state {
	case "":
		return "$1 = $1", nil
	case Syncing:
		return "lease_until > 0 AND lease_until > $1", nil
	case Synced:
		return "$1 = $1 AND phase = 'synced'", nil
	case Pending, Failed, Held:
		return "lease_until <= $1 AND phase <> 'synced' AND phase = '" + string(state) + "'", nil
	}
	return "", fmt.Errorf("unknown state %q", state)
}

// Get returns one repository; false when it is not tracked.
func (s *Store) Get(ctx context.Context, name string) (Repository, bool, error) {
	list, err := s.query(ctx, "get "+name, "$1 = $1 AND name = $2", name)
	if err != nil || len(list) == 0 {
		return Repository{}, false, err
	}
	return list[0], true, nil
}

// rowsQuery begins every query for rows.
const rowsQuery = `SELECT name, CASE WHEN lease_until > $1 THEN 'syncing' ELSE phase END,
	wanted_revision, synced_revision, oldest_unsynced_at, last_synced_at, next_attempt_at, failures, failed_at,
	failure_reference, failure_side, failure_message, held_reason, released, tag_count, tag_sum, verified_at, hint
	FROM repository WHERE `

// query reads rows; the condition's $1 is the time.
func (s *Store) query(ctx context.Context, op, condition string, args ...any) ([]Repository, error) {
	var list []Repository
	err := s.read(ctx, op, func(ctx context.Context, q database.Queryer) error {
		now, err := s.now(ctx, q)
		if err != nil {
			return err
		}
		rows, err := q.QueryContext(ctx, rowsQuery+condition, append([]any{now}, args...)...)
		if err != nil {
			return err
		}
		defer rows.Close()
		for rows.Next() {
			r, err := scanRepository(rows)
			if err != nil {
				return err
			}
			list = append(list, r)
		}
		return rows.Err()
	})
	return list, err
}

func scanRepository(rows *sql.Rows) (Repository, error) {
	var r Repository
	var f Failure
	var oldest, synced, next, failed, verified sql.NullInt64
	var hint string
	err := rows.Scan(&r.Name, &r.State, &r.Wanted, &r.Synced, &oldest, &synced, &next, &r.Failures, &failed,
		&f.Reference, &f.Side, &f.Message, &r.HeldReason, &r.Released, &r.TagCount, &r.Sum, &verified, &hint)
	if err != nil {
		return r, err
	}
	if r.Hint, err = decodeHint(hint); err != nil {
		return r, fmt.Errorf("%s: %w", r.Name, err)
	}
	r.OldestUnsyncedAt, r.LastSyncedAt = toTime(oldest), toTime(synced)
	r.VerifiedAt = toTime(verified)
	if r.State == Pending || r.State == Failed {
		r.NextAttemptAt = toTime(next)
	}
	if failed.Valid {
		f.Repository, f.At, f.Attempts = r.Name, toTime(failed), r.Failures
		r.LastError = &f
	}
	return r, nil
}
