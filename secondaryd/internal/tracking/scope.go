package tracking

import (
	"context"
	"fmt"

	"github.com/antipode-registry/antipode/internal/database"
)

// SetScope notes what the site replicates: scope is any text that changes with it, wants the same as a predicate. When
// it differs from the one noted before, repositories that are no longer wanted are no longer tracked (what the site
// holds of them stays), and the feed is to be read from its beginning again, since changes to the others were passed
// over. It says whether that was so; the first scope of a store changes nothing. Call it before following and claiming.
func (s *Store) SetScope(ctx context.Context, scope string, wants func(repository string) bool,
) (changed bool, err error) {
	err = s.write(ctx, "note the scope", func(ctx context.Context, tx *database.Tx, _ int64) error {
		if _, err := s.lockSite(ctx, tx); err != nil {
			return err
		}
		var before string
		if err := tx.QueryRowContext(ctx, "SELECT scope FROM site").Scan(&before); err != nil {
			return err
		}
		if changed = before != "" && before != scope; changed {
			if err := s.narrow(ctx, tx, wants); err != nil {
				return err
			}
			// The feed stays the same: what is synced is so still, and only what is new to the site becomes due.
			if _, err := tx.ExecContext(ctx, "UPDATE site SET revision = 0"); err != nil {
				return fmt.Errorf("reset the cursor: %w", err)
			}
		}
		_, err := tx.ExecContext(ctx, "UPDATE site SET scope = $1", scope)
		return err
	})
	return changed, err
}

// narrow removes the rows that are no longer wanted.
func (s *Store) narrow(ctx context.Context, tx *database.Tx, wants func(string) bool) error {
	unwanted, err := names(ctx, tx, func(name string) bool { return !wants(name) })
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

func names(ctx context.Context, q database.Queryer, keep func(string) bool) ([]string, error) {
	rows, err := q.QueryContext(ctx, "SELECT name FROM repository ORDER BY name")
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
