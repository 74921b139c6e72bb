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

// ReserveRemovals asks whether n more tags may be removed. If so they are counted, whether or not they are then
// removed; if not, the reason says by how much they are too many. Removals that an operator released are not asked for.
func (s *Store) ReserveRemovals(ctx context.Context, n int64, brake SiteBrake) (refusal string, err error) {
	err = s.write(ctx, "reserve removals", func(ctx context.Context, tx *database.Tx, now int64) error {
		refusal = ""
		const hourMillis = int64(time.Hour / time.Millisecond)
		hour := now / hourMillis
		oldest := hour - int64(brake.Window/time.Hour) + 1
		if _, err := tx.ExecContext(ctx, "DELETE FROM removal WHERE hour < $1", oldest); err != nil {
			return fmt.Errorf("forget old removals: %w", err)
		}
		var removed int64
		if err := tx.QueryRowContext(ctx, "SELECT COALESCE(sum(count), 0) FROM removal").Scan(&removed); err != nil {
			return fmt.Errorf("count removals: %w", err)
		}
		if removed+n > brake.Count {
			// Counting all tags takes a walk of the table, so it waits for the count to be exceeded.
			var tags int64
			if err := tx.QueryRowContext(ctx, "SELECT COALESCE(sum(tag_count), 0) FROM repository").Scan(&tags); err != nil {
				return fmt.Errorf("count tags: %w", err)
			}
			// A negation, so that a share that is no number refuses.
			if !(float64(removed+n) <= brake.Share*float64(tags+removed)) {
				refusal = fmt.Sprintf("would remove %d tags after %d within %s, of %d on the whole site: more than %v%% and more than %d",
					n, removed, brake.Window, tags+removed, brake.Share*100, brake.Count)
				return nil
			}
		}
		_, err := tx.ExecContext(ctx, `INSERT INTO removal (hour, count) VALUES ($1, $2)
			ON CONFLICT (hour) DO UPDATE SET count = removal.count + excluded.count`, hour, n)
		return err
	})
	return refusal, err
}
