package tracking

import (
	"context"
	"database/sql"
	"fmt"
	"time"

	"github.com/antipode-registry/antipode/internal/database"
)

// Paused says whether an operator paused the site.
func (s *Store) Paused(ctx context.Context) (paused bool, err error) {
	err = s.read(ctx, "read pause", func(ctx context.Context, q database.Queryer) error {
		return q.QueryRowContext(ctx, "SELECT paused FROM site").Scan(&paused)
	})
	return paused, err
}

// SetPaused stops Claim from giving out work, or lets it again. Leases that are out go on, and changes are stored.
func (s *Store) SetPaused(ctx context.Context, paused bool) error {
	action := map[bool]string{true: "pause", false: "resume"}[paused]
	return s.write(ctx, "set pause", func(ctx context.Context, tx *database.Tx, now int64) error {
		result, err := tx.ExecContext(ctx, "UPDATE site SET paused = $1 WHERE paused <> $1", paused)
		if err != nil {
			return err
		}
		if n, err := result.RowsAffected(); err != nil || n == 0 {
			return err // it is so already
		}
		if err := s.recordAct(ctx, tx, action, "", now); err != nil {
			return err
		}
		return tx.Notify(ctx, channel)
	})
}

// SinceSweep says how long ago Swept was last called, by whichever process; known is false when it never was.
func (s *Store) SinceSweep(ctx context.Context) (age time.Duration, known bool, err error) {
	err = s.read(ctx, "read the last sweep", func(ctx context.Context, q database.Queryer) error {
		now, err := s.now(ctx, q)
		if err != nil {
			return err
		}
		var swept sql.NullInt64
		err = q.QueryRowContext(ctx, "SELECT swept_at FROM site").Scan(&swept)
		age, known = time.Duration(now-swept.Int64)*time.Millisecond, swept.Valid
		return err
	})
	return age, known, err
}

// Swept notes that a round of the site's sweep ended now.
func (s *Store) Swept(ctx context.Context) error {
	return s.writeRelaxed(ctx, "note the sweep", func(ctx context.Context, tx *database.Tx, now int64) error {
		_, err := tx.ExecContext(ctx, "UPDATE site SET swept_at = $1", now)
		return err
	})
}

// Resync makes the repository due now, among the live ones, with a complete listing; back-off and hold
// notwithstanding. One that is being synced is synced again afterwards. found is false when it is not tracked.
func (s *Store) Resync(ctx context.Context, repository string) (found bool, err error) {
	err = s.write(ctx, "resync", func(ctx context.Context, tx *database.Tx, now int64) error {
		n, err := resync(ctx, tx, "class = $2 WHERE name = $3", now, int64(Live), repository)
		if found = n > 0; !found || err != nil {
			return err
		}
		return s.record(ctx, tx, repository, []Entry{{Action: "resync", Detail: askedFor(ctx, "a complete listing was asked for")}}, now)
	})
	return found, err
}

// ResyncAll does to every repository what Resync does to one, except that they keep behind live changes. It returns how
// many there are.
func (s *Store) ResyncAll(ctx context.Context) (n int64, err error) {
	err = s.write(ctx, "resync all", func(ctx context.Context, tx *database.Tx, now int64) error {
		// Behind the same lock as batches of changes, which touch many rows too.
		if _, err := s.lockSite(ctx, tx); err != nil {
			return err
		}
		n, err = resync(ctx, tx, "class = CASE WHEN phase = 'synced' THEN $2 ELSE class END", now, int64(Backfill))
		if err != nil {
			return err
		}
		return s.recordAct(ctx, tx, "resync", fmt.Sprintf("%d repositories", n), now)
	})
	return n, err
}

// deeper keeps the deeper one of two checks: $3 asks for one, and another may be waiting.
const deeper = "verify = CASE WHEN verify > $3 THEN verify ELSE $3 END"

// Verify does what Resync does, and makes that sync check everything that the site should hold to the given depth, or
// to a greater one that was asked for before.
func (s *Store) Verify(ctx context.Context, repository string, depth Depth) (found bool, err error) {
	err = s.write(ctx, "verify", func(ctx context.Context, tx *database.Tx, now int64) error {
		n, err := resync(ctx, tx, "class = $2, "+deeper+" WHERE name = $4", now, int64(Live), int64(depth), repository)
		if found = n > 0; !found || err != nil {
			return err
		}
		return s.record(ctx, tx, repository, []Entry{{Action: "verify", Detail: askedFor(ctx, "a check of all content was asked for")}}, now)
	})
	return found, err
}

// VerifyAll does to every repository what Verify does to one, except that they keep behind live changes.
func (s *Store) VerifyAll(ctx context.Context, depth Depth) (n int64, err error) {
	err = s.write(ctx, "verify all", func(ctx context.Context, tx *database.Tx, now int64) error {
		if _, err := s.lockSite(ctx, tx); err != nil {
			return err
		}
		n, err = resync(ctx, tx, "class = CASE WHEN phase = 'synced' THEN $2 ELSE class END, "+deeper,
			now, int64(Backfill), int64(depth))
		if err != nil {
			return err
		}
		return s.recordAct(ctx, tx, "verify", fmt.Sprintf("%d repositories", n), now)
	})
	return n, err
}

// staleQuery finds the rows of VerifyStale: $4 is the time, $5 how many. An index has them in this order.
const staleQuery = `SELECT name FROM repository WHERE phase = 'synced' AND COALESCE(verified_at, last_synced_at) < $4
	ORDER BY COALESCE(verified_at, last_synced_at), name LIMIT $5`

// VerifyStale does what Verify does, one level deep, to the synced repositories that no check has found whole since the
// time, those first that have waited longest; limit of them at most. It returns how many became due.
func (s *Store) VerifyStale(ctx context.Context, since time.Time, limit int) (n int64, err error) {
	err = s.write(ctx, "verify what was not verified for long", func(ctx context.Context, tx *database.Tx, now int64) error {
		if _, err := s.lockSite(ctx, tx); err != nil {
			return err
		}
		n, err = resync(ctx, tx, "class = $2, "+deeper+" WHERE name IN ("+staleQuery+")",
			now, int64(Backfill), int64(Graphs), since.UnixMilli(), limit)
		return err
	})
	return n, err
}

// resync updates the rows that the end of the statement picks; $1 is the time.
func resync(ctx context.Context, tx *database.Tx, rest string, args ...any) (int64, error) {
	result, err := tx.ExecContext(ctx, `UPDATE repository SET synced_revision = -1, next_attempt_at = $1,
		relist = (lease_until > 0), oldest_unsynced_at = COALESCE(oldest_unsynced_at, $1),
		changed_since_claim_at = COALESCE(changed_since_claim_at, $1), `+rest, args...)
	if err != nil {
		return 0, fmt.Errorf("make due: %w", err)
	}
	n, err := result.RowsAffected()
	if err != nil {
		return 0, fmt.Errorf("make due: %w", err)
	}
	return n, tx.Notify(ctx, channel)
}

// Release lifts the brake for the next sync of a repository with withheld removals and makes it due, among the live
// ones. It lasts until a sync decides anew; failures in between do not use it up. found is false, and nothing happens,
// when the repository is not tracked or has no removals withheld.
func (s *Store) Release(ctx context.Context, repository string) (found bool, err error) {
	err = s.write(ctx, "release", func(ctx context.Context, tx *database.Tx, now int64) error {
		result, err := tx.ExecContext(ctx, `UPDATE repository SET released = TRUE, class = $1,
			next_attempt_at = CASE WHEN next_attempt_at < $2 THEN next_attempt_at ELSE $2 END
			WHERE name = $3 AND held_reason <> ''`, int64(Live), now, repository)
		if err != nil {
			return err
		}
		n, err := result.RowsAffected()
		if found = n > 0; !found || err != nil {
			return err
		}
		story := []Entry{{Action: "release", Detail: askedFor(ctx, "the brake was lifted")}}
		if err := s.record(ctx, tx, repository, story, now); err != nil {
			return err
		}
		return tx.Notify(ctx, channel)
	})
	return found, err
}
