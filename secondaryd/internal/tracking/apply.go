package tracking

import (
	"cmp"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/antipode-registry/antipode/internal/database"
)

// Cursor returns how far the subscription has come.
func (s *Store) Cursor(ctx context.Context) (Cursor, error) {
	var c Cursor
	err := s.read(ctx, "read cursor", func(ctx context.Context, q database.Queryer) error {
		var moved, heard, changed, headChanged sql.NullInt64
		err := q.QueryRowContext(ctx, `SELECT feed_id, revision, head, moved_at, heard_at, incarnation, cursor_changed_at,
			head_changed_at FROM site`).
			Scan(&c.FeedID, &c.Revision, &c.Head, &moved, &heard, &c.Incarnation, &changed, &headChanged)
		c.MovedAt, c.HeardAt = toTime(moved), toTime(heard)
		c.ChangedAt, c.HeadChangedAt = toTime(changed), toTime(headChanged)
		return err
	})
	return c, err
}

// Apply stores a batch of changes and moves the cursor, in one transaction. A repository's wanted revision only grows,
// so a batch that is applied twice changes nothing the second time.
//
// ErrOtherFeed when the store follows another feed (a fresh or started-over store adopts the batch's); ErrCursorBack
// when its cursor is below the stored one; ErrOtherScope when another scope came in place of the one that was adopted.
func (s *Store) Apply(ctx context.Context, batch Batch) error {
	if batch.FeedID == "" || batch.Cursor < 0 {
		return fmt.Errorf("tracking: apply: feed id %q, cursor %d: a batch needs both", batch.FeedID, batch.Cursor)
	}
	for _, c := range batch.Changes {
		if err := c.check(); err != nil {
			return wrap("apply", err)
		}
	}
	return s.writeRelaxed(ctx, "apply", func(ctx context.Context, tx *database.Tx, now int64) error {
		stored, err := s.lockSite(ctx, tx)
		if err != nil {
			return err
		}
		if err := refuseWhenPromoted(ctx, tx); err != nil {
			return err
		}
		if err := stored.admit(batch.FeedID, batch.Cursor); err != nil {
			return err
		}
		if err := s.admitScope(ctx, tx); err != nil {
			return err
		}
		inserted, err := upsert(ctx, tx, batch.Changes, now)
		if err != nil {
			return err
		}
		_, err = tx.ExecContext(ctx, `UPDATE site SET feed_id = $1, heard_at = $2, total = total + $3,
			head = CASE WHEN $4 > head OR incarnation <> $6 THEN $4 ELSE head END,
			moved_at = CASE WHEN revision <> $5 THEN $2 ELSE moved_at END, revision = $5, incarnation = $6,
			cursor_changed_at = COALESCE($7, cursor_changed_at), head_changed_at = COALESCE($8, head_changed_at)`,
			batch.FeedID, now, inserted, max(batch.Head, batch.Cursor), batch.Cursor, batch.Incarnation,
			orNull(batch.ChangedAt), orNull(batch.HeadChangedAt))
		if err != nil {
			return fmt.Errorf("move the cursor: %w", err)
		}
		return tx.Notify(ctx, channel)
	})
}

// traceParentBytes is what the schema allows: the length of a traceparent of version 00.
const traceParentBytes = 55

func (c Change) check() error {
	switch {
	case c.Repository == "":
		return errors.New("a change without a repository")
	case c.Revision <= 0:
		return fmt.Errorf("repository %s: revision %d is not above zero", c.Repository, c.Revision)
	case c.Class != Live && c.Class != Backfill:
		return fmt.Errorf("repository %s: unknown class %d", c.Repository, c.Class)
	case len(c.TraceParent) > traceParentBytes:
		return fmt.Errorf("repository %s: a traceparent of %d bytes", c.Repository, len(c.TraceParent))
	}
	return nil
}

// lockSite reads the cursor and keeps other writers of many rows waiting until the transaction ends.
func (s *Store) lockSite(ctx context.Context, tx *database.Tx) (Cursor, error) {
	var c Cursor
	err := tx.QueryRowContext(ctx, "SELECT feed_id, revision FROM site"+s.forUpdate()).Scan(&c.FeedID, &c.Revision)
	if err != nil {
		return c, fmt.Errorf("lock the site: %w", err)
	}
	return c, nil
}

// admit refuses a batch that does not continue the stored cursor.
func (c Cursor) admit(feedID string, revision int64) error {
	switch {
	case c.FeedID != "" && c.FeedID != feedID:
		return fmt.Errorf("%w: the site follows %s, the batch is of %s", ErrOtherFeed, c.FeedID, feedID)
	case revision < c.Revision:
		return fmt.Errorf("%w: from %d to %d", ErrCursorBack, c.Revision, revision)
	}
	return nil
}

// upsert writes the changes and returns how many rows are new.
func upsert(ctx context.Context, tx *database.Tx, changes []Change, now int64) (inserted int64, err error) {
	for _, batch := range batches(merge(changes)) {
		known, err := countKnown(ctx, tx, batch)
		if err != nil {
			return 0, err
		}
		inserted += int64(len(batch)) - known
		args := make([]any, 0, 8*len(batch))
		for _, c := range batch {
			hint, err := c.Hint.encode()
			if err != nil {
				return 0, err
			}
			args = append(args, c.Repository, c.Revision, int64(c.Class), now, orNow(c.ChangedAt, now), now, hint,
				c.TraceParent)
		}
		if _, err := tx.ExecContext(ctx, upsertStatement(len(batch)), args...); err != nil {
			return 0, fmt.Errorf("store %d changes: %w", len(batch), err)
		}
	}
	return inserted, nil
}

// merge makes one change of several to one repository, as if they had come one after the other, and sorts by name:
// one statement cannot touch a row twice, and rows are locked in one order.
func merge(changes []Change) []Change {
	at := make(map[string]int, len(changes))
	merged := make([]Change, 0, len(changes))
	for _, c := range changes {
		i, ok := at[c.Repository]
		if !ok {
			at[c.Repository] = len(merged)
			merged = append(merged, c)
			continue
		}
		m := &merged[i]
		if c.Revision > m.Revision {
			m.Hint, m.TraceParent = c.Hint, c.TraceParent
		}
		m.Revision, m.Class = max(m.Revision, c.Revision), min(m.Class, c.Class)
		if c.ChangedAt.Before(m.ChangedAt) {
			m.ChangedAt = c.ChangedAt
		}
	}
	slices.SortFunc(merged, func(a, b Change) int { return cmp.Compare(a.Repository, b.Repository) })
	return merged
}

// countKnown lets Apply keep the total without a count of the table. The site's lock keeps it true until the commit.
func countKnown(ctx context.Context, tx *database.Tx, batch []Change) (known int64, err error) {
	names := make([]any, len(batch))
	for i, c := range batch {
		names[i] = c.Repository
	}
	query := "SELECT count(*) FROM repository WHERE name IN (" + parameters(1, len(batch)) + ")"
	if err := tx.QueryRowContext(ctx, query, names...).Scan(&known); err != nil {
		return 0, fmt.Errorf("count known repositories: %w", err)
	}
	return known, nil
}

// upsertStatement: a change that is newer makes the row due, or keeps it so. Its place in the queue is the better one
// of the row's and the change's; a live change cuts a back-off short, a backfill one does not; either wakes a held row.
//
// Fences begin at the time of the insert: a repository that left the site's scope and came back must not count up to
// the fence of a lease from before.
func upsertStatement(rows int) string {
	return `INSERT INTO repository (name, wanted_revision, class, next_attempt_at, oldest_unsynced_at, fence, hint,
	traceparent)
VALUES ` + placeholders(rows, 8) + `
ON CONFLICT (name) DO UPDATE SET
	wanted_revision = excluded.wanted_revision, hint = excluded.hint,
	traceparent = excluded.traceparent,
	class = CASE WHEN repository.phase = 'synced' OR excluded.class < repository.class
		THEN excluded.class ELSE repository.class END,
	next_attempt_at = CASE
		WHEN repository.phase IN ('synced', 'held') THEN excluded.next_attempt_at
		WHEN excluded.class = 0 AND excluded.next_attempt_at < repository.next_attempt_at THEN excluded.next_attempt_at
		ELSE repository.next_attempt_at END,
	oldest_unsynced_at = CASE WHEN repository.oldest_unsynced_at < excluded.oldest_unsynced_at
		THEN repository.oldest_unsynced_at ELSE excluded.oldest_unsynced_at END,
	changed_since_claim_at = CASE WHEN repository.changed_since_claim_at < excluded.oldest_unsynced_at
		THEN repository.changed_since_claim_at ELSE excluded.oldest_unsynced_at END
WHERE excluded.wanted_revision > repository.wanted_revision`
}

// Heard notes that the primary was heard from, what its head is, and when that changed; zero where it does not tell.
func (s *Store) Heard(ctx context.Context, head int64, changedAt time.Time) error {
	return s.writeRelaxed(ctx, "note heartbeat", func(ctx context.Context, tx *database.Tx, now int64) error {
		if err := refuseWhenPromoted(ctx, tx); err != nil {
			return err
		}
		_, err := tx.ExecContext(ctx,
			`UPDATE site SET heard_at = $1, head = CASE WHEN $2 > head THEN $2 ELSE head END,
				head_changed_at = COALESCE($3, head_changed_at)`, now, head, orNull(changedAt))
		return err
	})
}

// StartOver forgets the feed, because it was replaced or does not know our cursor: the cursor goes to zero, the next
// batch's feed is adopted, and every row is due with a complete listing. Nothing is removed, hold reasons and failure
// counts stay until a sync decides, and leases are cut off, for what they read is of the old feed.
func (s *Store) StartOver(ctx context.Context) error {
	return s.write(ctx, "start over", func(ctx context.Context, tx *database.Tx, now int64) error {
		if err := refuseWhenPromoted(ctx, tx); err != nil {
			return err
		}
		return startOver(ctx, tx, now)
	})
}

func startOver(ctx context.Context, tx *database.Tx, now int64) error {
	_, err := tx.ExecContext(ctx, `UPDATE site SET feed_id = '', incarnation = '', revision = 0, head = 0, moved_at = $1,
		cursor_changed_at = NULL, head_changed_at = NULL`, now)
	if err != nil {
		return fmt.Errorf("reset the cursor: %w", err)
	}
	_, err = tx.ExecContext(ctx, `UPDATE repository SET wanted_revision = 0, synced_revision = -1, class = $1,
		hint = '', traceparent = '', next_attempt_at = $2, lease_until = 0, lease_owner = '', fence = fence + 1, relist = FALSE,
		oldest_unsynced_at = COALESCE(oldest_unsynced_at, $2), changed_since_claim_at = NULL`, int64(Backfill), now)
	if err != nil {
		return fmt.Errorf("make every repository due: %w", err)
	}
	return tx.Notify(ctx, channel)
}

// refuseWhenPromoted keeps a promoted site as it is, whatever its follower still hears.
func refuseWhenPromoted(ctx context.Context, tx *database.Tx) error {
	at, err := promoted(ctx, tx, "")
	if err == nil && !at.IsZero() {
		err = ErrPromoted
	}
	return err
}
