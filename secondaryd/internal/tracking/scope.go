package tracking

import (
	"context"
	"fmt"

	"github.com/antipode-registry/antipode/internal/database"
)

// Scope is what a site replicates, and under which names. The two texts are any that change with it.
type Scope struct {
	Selection, Names string
	// Wants says what Selection does, as a predicate.
	Wants func(repository string) bool
}

// SetScope notes what the site replicates. When the selection differs from the one noted before, repositories that are
// no longer wanted are no longer tracked (what the site holds of them stays), and the feed is to be read from its
// beginning again, since changes to the others were passed over. When the names differ, every repository is due, for
// the site holds nothing under the new ones. It says whether something was so; the first scope of a store changes
// nothing. Call it before following and claiming.
func (s *Store) SetScope(ctx context.Context, scope Scope) (changed bool, err error) {
	err = s.write(ctx, "note the scope", func(ctx context.Context, tx *database.Tx, now int64) error {
		if _, err := s.lockSite(ctx, tx); err != nil {
			return err
		}
		var before Scope
		row := tx.QueryRowContext(ctx, "SELECT scope, names FROM site")
		if err := row.Scan(&before.Selection, &before.Names); err != nil {
			return err
		}
		first := before.Selection == ""
		changed = false
		if !first && before.Selection != scope.Selection {
			changed = true
			if err := s.reselect(ctx, tx, scope.Wants); err != nil {
				return err
			}
		}
		if !first && before.Names != scope.Names {
			changed = true
			if _, err := resync(ctx, tx, "class = $2", now, int64(Backfill)); err != nil {
				return err
			}
		}
		_, err := tx.ExecContext(ctx, "UPDATE site SET scope = $1, names = $2", scope.Selection, scope.Names)
		return err
	})
	return changed, err
}

// reselect narrows the table, and has the feed read again for what it lacks. The feed stays the same: what is synced is
// so still, and only what is new to the site becomes due.
func (s *Store) reselect(ctx context.Context, tx *database.Tx, wants func(string) bool) error {
	if err := s.narrow(ctx, tx, wants); err != nil {
		return err
	}
	if _, err := tx.ExecContext(ctx, "UPDATE site SET revision = 0"); err != nil {
		return fmt.Errorf("reset the cursor: %w", err)
	}
	return nil
}

// narrow removes the rows that are no longer wanted.
func (s *Store) narrow(ctx context.Context, tx *database.Tx, wants func(string) bool) error {
	unwanted, err := names(ctx, tx, "SELECT name FROM repository ORDER BY name",
		func(name string) bool { return !wants(name) })
	if err != nil {
		return err
	}
	for _, batch := range batches(unwanted) {
		query := "DELETE FROM repository WHERE name IN (" + parameters(1, len(batch)) + ")"
		if _, err := tx.ExecContext(ctx, query, anys(batch)...); err != nil {
			return fmt.Errorf("stop tracking %d repositories: %w", len(batch), err)
		}
	}
	_, err = tx.ExecContext(ctx, "UPDATE site SET total = total - $1", len(unwanted))
	return err
}

// names returns those of a query's one column that are to be kept.
func names(
	ctx context.Context, q database.Queryer, query string, keep func(string) bool, args ...any,
) ([]string, error) {
	rows, err := q.QueryContext(ctx, query, args...)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var list []string
	for rows.Next() {
		var name string
		if err := rows.Scan(&name); err != nil {
			return nil, err
		}
		if keep(name) {
			list = append(list, name)
		}
	}
	return list, rows.Err()
}
