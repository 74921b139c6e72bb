package feed

import (
	"context"
	"crypto/rand"
	"database/sql"
	"errors"
	"fmt"
	"time"

	"github.com/antipode-registry/antipode/internal/database"
)

// A revision is a number that a restored database gives out a second time. What tells the two apart is the incarnation:
// one begins above the head with every Open, since nobody knows what was done to the database before; when the database
// says that its history has another origin than when the last change was written; and when the head is below one that
// this process has seen. A reader's cursor is of the incarnation that it was read in, and fits as long as it is not
// above the end of that incarnation's history, which is where the next one begins. What is not in the table any more, or
// was never in this copy of it, fits nothing.

// incarnationsKept bounds the table. A cursor older than that many starts of primaryd starts over.
const incarnationsKept = 10_000

// ErrOutOfRange says that a cursor does not fit the feed's history: start over from the beginning.
var ErrOutOfRange = errors.New("feed: the cursor does not fit the history")

// Cursor is a place in the feed.
type Cursor struct {
	// Revision is the newest that was read; 0 = nothing was.
	Revision int64
	// Incarnation is that of the snapshot it was read from; empty where it is not known: such a cursor is held against
	// the head alone.
	Incarnation string
}

// Standing is the state of the feed in one snapshot.
type Standing struct {
	// Head is the newest revision; 0 while the feed is empty.
	Head int64
	// Incarnation is what a cursor that is read from this snapshot belongs to.
	Incarnation string
	// ChangedAt is when the newest change happened; zero while the feed is empty, and where a write returned the standing.
	ChangedAt time.Time
}

func readStanding(ctx context.Context, q database.Queryer) (s Standing, err error) {
	var changed sql.NullInt64
	err = q.QueryRowContext(ctx, `SELECT head, incarnation,
		(SELECT changed_at FROM repository WHERE revision = head) FROM feed`).Scan(&s.Head, &s.Incarnation, &changed)
	if err != nil {
		return Standing{}, fmt.Errorf("read the head: %w", err)
	}
	if changed.Valid {
		s.ChangedAt = time.UnixMilli(changed.Int64).UTC()
	}
	return s, nil
}

// fits says whether the cursor is of the history that leads to the standing. The rule needs no transaction of its own,
// but q must be the snapshot of the standing.
func (s Standing) fits(ctx context.Context, q database.Queryer, cursor Cursor) error {
	if cursor.Revision > s.Head {
		return fmt.Errorf("%w: revision %d is above the head %d", ErrOutOfRange, cursor.Revision, s.Head)
	}
	if cursor.Incarnation == "" || cursor.Incarnation == s.Incarnation {
		return nil
	}
	end, err := endOf(ctx, q, cursor.Incarnation)
	switch {
	case errors.Is(err, sql.ErrNoRows):
		return fmt.Errorf("%w: incarnation %s is not known", ErrOutOfRange, cursor.Incarnation)
	case err != nil:
		return fmt.Errorf("read the end of an incarnation: %w", err)
	case end.Valid && cursor.Revision > end.Int64:
		return fmt.Errorf("%w: revision %d of incarnation %s is lost, which ended at %d",
			ErrOutOfRange, cursor.Revision, cursor.Incarnation, end.Int64)
	}
	return nil
}

// endOf is the newest revision of an incarnation that later ones continue; none for the last.
func endOf(ctx context.Context, q database.Queryer, incarnation string) (end sql.NullInt64, err error) {
	err = q.QueryRowContext(ctx, `SELECT (SELECT next.first_revision - 1 FROM incarnation AS next
			WHERE next.number > this.number ORDER BY next.number LIMIT 1)
		FROM incarnation AS this WHERE this.id = $1`, incarnation).Scan(&end)
	return end, err
}

// Stand returns the feed's standing, and ErrOutOfRange when the cursor does not fit it.
func (f *Feed) Stand(ctx context.Context, cursor Cursor) (standing Standing, err error) {
	err = f.db.Read(ctx, func(ctx context.Context, q database.Queryer) error {
		if standing, err = readStanding(ctx, q); err != nil {
			return err
		}
		return standing.fits(ctx, q, cursor)
	})
	if err != nil {
		return Standing{}, fmt.Errorf("feed: %w", err)
	}
	return standing, nil
}

// continueHistory returns the incarnation that a transaction which holds the feed's row is to write in: the one that is
// recorded, or a new one above the head, when the history is not the one that was written and seen so far.
func (f *Feed) continueHistory(ctx context.Context, tx *database.Tx, recorded Standing, origin string) (string, error) {
	now, err := tx.Origin(ctx)
	if err != nil {
		return "", err
	}
	if now == origin && recorded.Head >= f.watchers.newest().Head {
		return recorded.Incarnation, nil
	}
	return begin(ctx, tx, recorded.Head, now)
}

// begin begins an incarnation above the head. The feed's row must be locked.
func begin(ctx context.Context, tx *database.Tx, head int64, origin string) (id string, err error) {
	now, err := tx.Now(ctx)
	if err != nil {
		return "", err
	}
	id = rand.Text()
	_, err = tx.ExecContext(ctx, `INSERT INTO incarnation (number, id, first_revision, began_at)
		SELECT COALESCE(max(number), 0) + 1, $1, $2, $3 FROM incarnation`, id, head+1, now.UnixMilli())
	if err != nil {
		return "", fmt.Errorf("begin an incarnation: %w", err)
	}
	if _, err := tx.ExecContext(ctx, "UPDATE feed SET incarnation = $1, origin = $2", id, origin); err != nil {
		return "", fmt.Errorf("begin an incarnation: %w", err)
	}
	_, err = tx.ExecContext(ctx, "DELETE FROM incarnation WHERE number <= (SELECT max(number) FROM incarnation) - $1",
		incarnationsKept)
	if err != nil {
		return "", fmt.Errorf("forget old incarnations: %w", err)
	}
	return id, tx.Notify(ctx, channel)
}

// look reads the standing, and begins an incarnation at once where the history was rewritten: readers should not learn of
// it only with the next change.
func (f *Feed) look(ctx context.Context) (Standing, error) {
	seen := f.watchers.newest() // before the snapshot, which is then no older
	var standing Standing
	var rewritten bool
	err := f.db.Read(ctx, func(ctx context.Context, q database.Queryer) error {
		var recorded string
		err := q.QueryRowContext(ctx, "SELECT head, incarnation, origin FROM feed").
			Scan(&standing.Head, &standing.Incarnation, &recorded)
		if err != nil {
			return fmt.Errorf("read the head: %w", err)
		}
		origin, err := f.db.Origin(ctx, q)
		rewritten = origin != recorded || standing.Head < seen.Head
		return err
	})
	if err != nil || !rewritten {
		return standing, err
	}
	before := standing
	err = f.db.Write(ctx, func(ctx context.Context, tx *database.Tx) (err error) {
		standing, err = f.move(ctx, tx, 0) // of several replicas that found it so one begins
		return err
	})
	if err == nil && standing.Incarnation != before.Incarnation {
		f.logger.WarnContext(ctx, "the database's history was rewritten; sites that have read what is lost start over",
			"head", standing.Head, "seen", seen.Head)
	}
	return standing, err
}
