package tracking

import (
	"context"
	"database/sql"
	"fmt"
	"time"

	"github.com/antipode-registry/antipode/internal/database"
)

// Act is something that was done to the site as a whole.
type Act struct {
	At       time.Time
	Action   string // promote, demote, pause, resume, resync, verify
	By       string // who asked; empty when nobody did
	Detail   string
	Revision int64 // the cursor then
	Head     int64 // the newest revision heard of then
}

type askerKey struct{}

// AskedBy returns a context in which what the store is told to do is journalled as asked for by who.
func AskedBy(ctx context.Context, who string) context.Context {
	return context.WithValue(ctx, askerKey{}, who)
}

// Asker says who asks by AskedBy; empty when nobody does.
func Asker(ctx context.Context) string {
	who, _ := ctx.Value(askerKey{}).(string)
	return who
}

// askedFor is the detail of an entry about what somebody asked for.
func askedFor(ctx context.Context, what string) string {
	if who := Asker(ctx); who != "" {
		return what + " by " + who
	}
	return what
}

// recordAct appends to the site's journal, with the cursor and the head as they are, and lets go of the oldest acts beyond
// what is kept.
func (s *Store) recordAct(ctx context.Context, tx *database.Tx, action, detail string, now int64) error {
	_, err := tx.ExecContext(ctx, `INSERT INTO site_journal (at, action, asked_by, detail, revision, head)
		SELECT CAST($1 AS BIGINT), $2, $3, $4, revision, head FROM site`, now, action, text(Asker(ctx)), text(detail))
	if err != nil {
		return fmt.Errorf("append to the site's journal: %w", err)
	}
	_, err = tx.ExecContext(ctx, `DELETE FROM site_journal WHERE id <=
		(SELECT id FROM site_journal ORDER BY id DESC LIMIT 1 OFFSET $1)`, s.opts.JournalPerRepository)
	if err != nil {
		return fmt.Errorf("trim the site's journal: %w", err)
	}
	return nil
}

// SiteJournal returns what was done to the site as a whole since a time, newest first, limit acts at most.
func (s *Store) SiteJournal(ctx context.Context, since time.Time, limit int) ([]Act, error) {
	var acts []Act
	err := s.read(ctx, "read the site's journal", func(ctx context.Context, q database.Queryer) error {
		acts = nil
		rows, err := q.QueryContext(ctx, `SELECT at, action, asked_by, detail, revision, head FROM site_journal
			WHERE at >= $1 ORDER BY id DESC LIMIT $2`, orNow(since, 0), limit)
		if err != nil {
			return err
		}
		defer rows.Close()
		for rows.Next() {
			var a Act
			at := sql.NullInt64{Valid: true}
			if err := rows.Scan(&at.Int64, &a.Action, &a.By, &a.Detail, &a.Revision, &a.Head); err != nil {
				return err
			}
			a.At = toTime(at)
			acts = append(acts, a)
		}
		return rows.Err()
	})
	return acts, err
}
