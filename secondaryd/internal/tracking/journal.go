package tracking

import (
	"context"
	"database/sql"
	"fmt"

	"github.com/antipode-registry/antipode/internal/database"
)

// record appends entries and lets go of the oldest beyond what is kept.
func (s *Store) record(ctx context.Context, tx *database.Tx, repository string, entries []Entry, now int64) error {
	keep := s.opts.JournalPerRepository
	if excess := len(entries) - keep; excess > 0 {
		entries = entries[excess:] // would be trimmed at once
	}
	for _, batch := range batches(entries) {
		args := make([]any, 0, 7*len(batch))
		for _, e := range batch {
			args = append(args, repository, orNow(e.At, now), e.Action, text(e.Reference), text(e.Digest), text(e.Previous),
				text(e.Detail))
		}
		_, err := tx.ExecContext(ctx, `INSERT INTO journal
			(repository, at, action, reference, digest, previous_digest, detail) VALUES `+placeholders(len(batch), 7), args...)
		if err != nil {
			return fmt.Errorf("append to the journal of %s: %w", repository, err)
		}
	}
	if len(entries) == 0 {
		return nil
	}
	_, err := tx.ExecContext(ctx, `DELETE FROM journal WHERE repository = $1 AND id <=
		(SELECT id FROM journal WHERE repository = $1 ORDER BY id DESC LIMIT 1 OFFSET $2)`, repository, keep)
	if err != nil {
		return fmt.Errorf("trim the journal of %s: %w", repository, err)
	}
	return nil
}

// Journal returns what was done with the repository, newest first, limit entries at most.
func (s *Store) Journal(ctx context.Context, name string, limit int) ([]Entry, error) {
	var entries []Entry
	err := s.read(ctx, "read journal", func(ctx context.Context, q database.Queryer) error {
		rows, err := q.QueryContext(ctx, `SELECT at, action, reference, digest, previous_digest, detail
			FROM journal WHERE repository = $1 ORDER BY id DESC LIMIT $2`, name, limit)
		if err != nil {
			return err
		}
		defer rows.Close()
		for rows.Next() {
			var e Entry
			at := sql.NullInt64{Valid: true}
			if err := rows.Scan(&at.Int64, &e.Action, &e.Reference, &e.Digest, &e.Previous, &e.Detail); err != nil {
				return err
			}
			e.At = toTime(at)
			entries = append(entries, e)
		}
		return rows.Err()
	})
	return entries, err
}
