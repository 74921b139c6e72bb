package tracking

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"

	"github.com/antipode-registry/antipode/internal/database"
)

var (
	// ErrPromoted says that the site follows no primary any more.
	ErrPromoted = errors.New("the site was promoted and follows no primary")
	// ErrNotPromoted says that the site follows its primary.
	ErrNotPromoted = errors.New("the site is not promoted")
	// ErrBehind says that a planned promotion found the site changed or behind at the last moment.
	ErrBehind = errors.New("the site is not equal to the primary at the given revision")
)

// Promoted says when the site was promoted; zero when it is not.
func (s *Store) Promoted(ctx context.Context) (at time.Time, err error) {
	err = s.read(ctx, "read promotion", func(ctx context.Context, q database.Queryer) error {
		at, err = promoted(ctx, q, "")
		return err
	})
	return at, err
}

func promoted(ctx context.Context, q database.Queryer, lock string) (time.Time, error) {
	var at sql.NullInt64
	if err := q.QueryRowContext(ctx, "SELECT promoted_at FROM site"+lock).Scan(&at); err != nil {
		return time.Time{}, fmt.Errorf("read promotion: %w", err)
	}
	return toTime(at), nil
}

// Promote makes Claim give out nothing and refuses changes, for every process on this database and over restarts, until
// Demote. Leases are cut off: their holders notice at the next renewal. With at above or equal to zero it does so only if
// the cursor stands at that revision and every repository is synced; else ErrBehind. ErrPromoted when it is promoted.
func (s *Store) Promote(ctx context.Context, at int64) error {
	return s.write(ctx, "promote", func(ctx context.Context, tx *database.Tx, now int64) error {
		cursor, err := s.lockSite(ctx, tx)
		if err != nil {
			return err
		}
		if err := refuseWhenPromoted(ctx, tx); err != nil {
			return err
		}
		var unsynced int64
		err = tx.QueryRowContext(ctx, "SELECT count(*) FROM repository WHERE phase <> 'synced'").Scan(&unsynced)
		if err != nil {
			return err
		}
		if at >= 0 && (unsynced > 0 || cursor.Revision != at) {
			return ErrBehind
		}
		if _, err := tx.ExecContext(ctx, "UPDATE site SET promoted_at = $1", now); err != nil {
			return err
		}
		if err := s.recordPromotion(ctx, tx, at >= 0, unsynced, now); err != nil {
			return err
		}
		// As with a lease that ran out, nobody knows what was written under it.
		_, err = tx.ExecContext(ctx, `UPDATE repository SET lease_until = 0, lease_owner = '', fence = fence + 1,
			tag_sum = '' WHERE lease_until > 0`)
		if err != nil {
			return err
		}
		return tx.Notify(ctx, channel)
	})
}

// recordPromotion leaves in the site's journal of which kind the promotion was.
func (s *Store) recordPromotion(ctx context.Context, tx *database.Tx, planned bool, unsynced, now int64) error {
	detail := "planned: equal to the primary"
	if !planned {
		detail = fmt.Sprintf("unplanned: %d repositories were not synced", unsynced)
	}
	return s.recordAct(ctx, tx, "promote", detail, now)
}

// Demote makes a promoted site follow its primary again, as after StartOver: whatever was pushed to either meanwhile, all
// is compared anew. ErrNotPromoted when there is nothing to undo.
func (s *Store) Demote(ctx context.Context) error {
	return s.write(ctx, "demote", func(ctx context.Context, tx *database.Tx, now int64) error {
		if _, err := s.lockSite(ctx, tx); err != nil {
			return err
		}
		at, err := promoted(ctx, tx, "")
		if err != nil {
			return err
		}
		if at.IsZero() {
			return ErrNotPromoted
		}
		if _, err := tx.ExecContext(ctx, "UPDATE site SET promoted_at = NULL"); err != nil {
			return err
		}
		if err := s.recordAct(ctx, tx, "demote", "", now); err != nil {
			return err
		}
		return startOver(ctx, tx, now)
	})
}
