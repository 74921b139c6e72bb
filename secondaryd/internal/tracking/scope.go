package tracking

import (
	"context"
	"database/sql"
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
// nothing. Where several processes may share the store, Adopt is for them.
func (s *Store) SetScope(ctx context.Context, scope Scope) (changed bool, err error) {
	err = s.write(ctx, "note the scope", func(ctx context.Context, tx *database.Tx, now int64) error {
		before, err := s.lockScope(ctx, tx)
		if err != nil {
			return err
		}
		changed, err = s.replaceScope(ctx, tx, before, scope, now)
		return err
	})
	return changed, err
}

// Adopt is SetScope for one of several processes. While another process lives that works by the scope noted before,
// nothing changes and inForce is false: ask again. So a scope gives way when the last process that was configured with
// it has ended, and processes whose configurations differ do not take turns in changing it. Once it is in force, what
// this process claims and applies is refused when another scope has come in its place.
func (s *Store) Adopt(ctx context.Context, replica string, scope Scope) (inForce, changed bool, err error) {
	err = s.write(ctx, "adopt the scope", func(ctx context.Context, tx *database.Tx, now int64) error {
		inForce, changed = false, false // the transaction may run again
		before, err := s.lockScope(ctx, tx)
		if err != nil {
			return err
		}
		if err := s.enter(ctx, tx, replica, scope, now); err != nil {
			return err
		}
		if before.Selection != "" && !before.same(scope) {
			others, err := countUnder(ctx, tx, replica, before, now)
			if err != nil || others > 0 {
				return err
			}
		}
		inForce = true
		changed, err = s.replaceScope(ctx, tx, before, scope, now)
		return err
	})
	if err != nil {
		return false, false, err
	}
	if inForce {
		s.adopted.Store(&scope)
	}
	return inForce, changed, nil
}

// InForce says whether the scope that this process adopted is still the site's.
func (s *Store) InForce(ctx context.Context) (inForce bool, err error) {
	err = s.read(ctx, "read the scope", func(ctx context.Context, q database.Queryer) error {
		stored, err := readScope(ctx, q)
		mine := s.adopted.Load()
		inForce = mine != nil && mine.same(stored)
		return err
	})
	return inForce, err
}

// admitScope refuses what a process would write that was configured with another scope than the site's.
func (s *Store) admitScope(ctx context.Context, tx *database.Tx) error {
	mine := s.adopted.Load()
	if mine == nil {
		return nil
	}
	stored, err := readScope(ctx, tx)
	if err == nil && !mine.same(stored) {
		err = ErrOtherScope
	}
	return err
}

// adoptedTexts are what claims compare with the site's; NULL, which differs from nothing, before Adopt.
func (s *Store) adoptedTexts() (selection, names sql.NullString) {
	if mine := s.adopted.Load(); mine != nil {
		selection, names = sql.NullString{String: mine.Selection, Valid: true}, sql.NullString{String: mine.Names, Valid: true}
	}
	return selection, names
}

func (c Scope) same(other Scope) bool {
	return c.Selection == other.Selection && c.Names == other.Names
}

// key is what replicas are compared by.
func (c Scope) key() string { return c.Selection + " " + c.Names }

func readScope(ctx context.Context, q database.Queryer) (Scope, error) {
	var c Scope
	if err := q.QueryRowContext(ctx, "SELECT scope, names FROM site").Scan(&c.Selection, &c.Names); err != nil {
		return c, fmt.Errorf("read the scope: %w", err)
	}
	return c, nil
}

// lockScope reads the scope and keeps others from changing it until the transaction ends.
func (s *Store) lockScope(ctx context.Context, tx *database.Tx) (Scope, error) {
	if _, err := s.lockSite(ctx, tx); err != nil {
		return Scope{}, err
	}
	return readScope(ctx, tx)
}

// replaceScope writes the scope and does what follows from its difference to the one before.
func (s *Store) replaceScope(
	ctx context.Context, tx *database.Tx, before, scope Scope, now int64,
) (changed bool, err error) {
	first := before.Selection == ""
	if !first && before.Selection != scope.Selection {
		changed = true
		if err := s.reselect(ctx, tx, scope.Wants); err != nil {
			return false, err
		}
	}
	if !first && before.Names != scope.Names {
		changed = true
		if _, err := resync(ctx, tx, "class = $2", now, int64(Backfill)); err != nil {
			return false, err
		}
	}
	if before.same(scope) {
		return false, nil
	}
	_, err = tx.ExecContext(ctx, "UPDATE site SET scope = $1, names = $2", scope.Selection, scope.Names)
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
	_, err = tx.ExecContext(ctx, `UPDATE site SET total = total - $1,
		verified = (SELECT count(*) FROM repository WHERE verified_at IS NOT NULL)`, len(unwanted))
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
