package lease

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"

	"github.com/antipode-registry/antipode/internal/database"
)

// Term is one process's time as a role's leader. It may be used from many goroutines.
type Term struct {
	leases *Leases
	role   string
	token  string
	fence  int64
	began  time.Time // of the last renewal
}

// Fence grows with every term of the role, as long as the database keeps what it committed.
func (t *Term) Fence() int64 { return t.fence }

// termKey is where a leader's context keeps its term.
type termKey struct{}

// Check fences a write by the term of the leader whose context, or a child of it, ctx is; see Term.Check. What is written
// with any other context is not fenced.
func Check(ctx context.Context, tx *database.Tx) error {
	if term, ok := ctx.Value(termKey{}).(*Term); ok {
		return term.Check(ctx, tx)
	}
	return nil
}

// Check refuses with ErrTermLost when the term is over or is another's by now. Called first in a transaction it fences
// all that this writes: nobody begins another term before the transaction has ended. A transaction whose client falls
// silent is ended by Postgres after half a term.
func (t *Term) Check(ctx context.Context, tx *database.Tx) error {
	if err := t.leases.boundSilence(ctx, tx); err != nil {
		return wrap("check the term", err)
	}
	now, err := tx.Now(ctx)
	if err != nil {
		return err
	}
	var token string
	var ends int64
	// FOR SHARE waits for, and keeps off, renewals and successors; not other writes of this term.
	err = tx.QueryRowContext(ctx, "SELECT token, ends_at FROM lease WHERE name = $1"+t.leases.lock("SHARE"), t.role).
		Scan(&token, &ends)
	if errors.Is(err, sql.ErrNoRows) {
		return fmt.Errorf("lease: %s: %w", t.role, ErrTermLost)
	}
	if err != nil {
		return wrap("check the term", err)
	}
	// The clock was read before the lock: what is refused by it may have been renewed since, and is refused all the same.
	if token != t.token || ends <= now.UnixMilli() {
		return fmt.Errorf("lease: %s: %w", t.role, ErrTermLost)
	}
	return nil
}

// deadline is when the term is over by this process's clock: a sixth of its length before the database would give the
// role to another, for what is under way to be broken off.
func (t *Term) deadline() time.Time { return t.began.Add(t.leases.opts.TTL * 5 / 6) }

// begin writes the term into the row, whose lock the transaction holds unless there is none yet.
func (t *Term) begin(ctx context.Context, tx *database.Tx, now int64) (*Term, error) {
	if err := t.leases.boundSilence(ctx, tx); err != nil {
		return nil, err
	}
	begun := *t
	err := tx.QueryRowContext(ctx, `INSERT INTO lease (name, owner, token, fence, ends_at) VALUES ($1, $2, $3, 1, $4)
		ON CONFLICT (name) DO UPDATE SET owner = excluded.owner, token = excluded.token, fence = lease.fence + 1,
			ends_at = excluded.ends_at
		WHERE lease.ends_at <= $5 RETURNING fence`,
		t.role, t.leases.opts.Owner, t.token, now+t.leases.opts.TTL.Milliseconds(), now).Scan(&begun.fence)
	if errors.Is(err, sql.ErrNoRows) {
		return nil, nil //nolint:nilnil // two found no row; the other made it
	}
	return &begun, err
}

// renew prolongs the term; ErrTermLost when it is over.
func (t *Term) renew(ctx context.Context) error {
	began := time.Now()
	err := t.leases.writeTerm(ctx, "renew the term", func(ctx context.Context, tx *database.Tx, now int64) error {
		result, err := tx.ExecContext(ctx, "UPDATE lease SET ends_at = $1 WHERE name = $2 AND token = $3 AND ends_at > $4",
			now+t.leases.opts.TTL.Milliseconds(), t.role, t.token, now)
		if err != nil {
			return err
		}
		renewed, err := result.RowsAffected()
		if err == nil && renewed == 0 {
			err = ErrTermLost
		}
		return err
	})
	if err == nil {
		t.began = began
	}
	return err
}

// release gives the role back and wakes who waits for it.
func (t *Term) release(ctx context.Context) error {
	return t.leases.writeTerm(ctx, "end the term", func(ctx context.Context, tx *database.Tx, _ int64) error {
		_, err := tx.ExecContext(ctx, "UPDATE lease SET ends_at = 0 WHERE name = $1 AND token = $2", t.role, t.token)
		if err != nil {
			return err
		}
		return tx.Notify(ctx, channel(t.role))
	})
}

func channel(role string) string { return "lease " + role }
