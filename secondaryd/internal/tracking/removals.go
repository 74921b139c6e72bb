package tracking

import (
	"context"
	"fmt"
	"time"

	"github.com/antipode-registry/antipode/internal/database"
)

// SiteBrake bounds how much a site removes from all its repositories together within Window.
type SiteBrake struct {
	// Share of all tags (0 to 1), and Count of tags, that both have to be exceeded; a share of 1 switches it off.
	Share float64
	Count int64
	// Window is counted in whole hours, the present one included.
	Window time.Duration
}

const hourMillis = int64(time.Hour / time.Millisecond)

// ReserveRemovals asks whether n more tags may be removed. If so they are counted, and ReturnRemovals takes back those
// that were not removed; if not, the reason says by how much they are too many. Removals that an operator released are
// not asked for.
func (s *Store) ReserveRemovals(ctx context.Context, n int64, brake SiteBrake) (refusal string, err error) {
	err = s.write(ctx, "reserve removals", func(ctx context.Context, tx *database.Tx, now int64) error {
		// One after the other, or several would each find room for itself alone.
		if _, err := s.lockSite(ctx, tx); err != nil {
			return err
		}
		if _, err := tx.ExecContext(ctx, "DELETE FROM removal WHERE hour < $1", brake.oldest(now)); err != nil {
			return fmt.Errorf("forget old removals: %w", err)
		}
		if refusal, err = brake.refuse(ctx, tx, n, now); refusal != "" || err != nil {
			return err
		}
		_, err := tx.ExecContext(ctx, `INSERT INTO removal (hour, count) VALUES ($1, $2)
			ON CONFLICT (hour) DO UPDATE SET count = removal.count + excluded.count`, now/hourMillis, n)
		return err
	})
	return refusal, err
}

// RefuseRemovals says why ReserveRemovals would refuse n more tags now, and counts nothing.
func (s *Store) RefuseRemovals(ctx context.Context, n int64, brake SiteBrake) (refusal string, err error) {
	if n == 0 {
		return "", nil
	}
	err = s.read(ctx, "foresee removals", func(ctx context.Context, q database.Queryer) error {
		now, err := s.now(ctx, q)
		if err != nil {
			return err
		}
		refusal, err = brake.refuse(ctx, q, n, now)
		return err
	})
	return refusal, err
}

// ReturnRemovals takes back n removals that were reserved and not made.
func (s *Store) ReturnRemovals(ctx context.Context, n int64) error {
	return s.write(ctx, "return removals", func(ctx context.Context, tx *database.Tx, _ int64) error {
		// From the newest hour: it is the one of the reservation, or the next one, and only slightly too lenient then.
		_, err := tx.ExecContext(ctx, `UPDATE removal SET count = CASE WHEN count > $1 THEN count - $1 ELSE 0 END
			WHERE hour = (SELECT max(hour) FROM removal)`, n)
		return err
	})
}

// oldest is the first hour of the window.
func (b SiteBrake) oldest(now int64) int64 { return now/hourMillis - int64(b.Window/time.Hour) + 1 }

// refuse says why n more removals would be too many; "" when they are not.
func (b SiteBrake) refuse(ctx context.Context, q database.Queryer, n, now int64) (string, error) {
	var removed int64
	err := q.QueryRowContext(ctx, "SELECT COALESCE(sum(count), 0) FROM removal WHERE hour >= $1", b.oldest(now)).Scan(&removed)
	if err != nil {
		return "", fmt.Errorf("count removals: %w", err)
	}
	// With a share of 1 the tags that nobody has counted yet must not matter.
	if removed+n <= b.Count || b.Share >= 1 {
		return "", nil
	}
	// Counting all tags takes a walk of the table, so it waits for the count to be exceeded.
	var tags int64
	if err := q.QueryRowContext(ctx, "SELECT COALESCE(sum(tag_count), 0) FROM repository").Scan(&tags); err != nil {
		return "", fmt.Errorf("count tags: %w", err)
	}
	// A negation, so that a share that is no number refuses.
	if !(float64(removed+n) <= b.Share*float64(tags+removed)) {
		return fmt.Sprintf("would remove %d tags after %d within %s, of %d on the whole site: more than %v%% and more than %d",
			n, removed, b.Window, tags+removed, b.Share*100, b.Count), nil
	}
	return "", nil
}
