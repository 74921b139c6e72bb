package tracking

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"

	"github.com/antipode-registry/antipode/internal/database"
)

// Claim leases the due repository that pick prefers to owner, which must not be empty; nil and no error when there is
// none, the site is paused or promoted, or another scope came in place of the adopted one. Two claims never return the
// same repository while the first one's lease holds. The first renewal is due before Options.Lease is over.
func (s *Store) Claim(ctx context.Context, owner string, pick Pick) (*Lease, error) {
	if owner == "" {
		return nil, errors.New("tracking: claim: the owner has no name")
	}
	var lease *Lease
	err := s.writeLease(ctx, "claim", func(ctx context.Context, tx *database.Tx, now int64) error {
		lease = nil // the transaction may run again
		classes, err := s.order(ctx, tx, pick)
		if err != nil {
			return err
		}
		for _, class := range classes {
			if lease, err = s.claimClass(ctx, tx, owner, class, now); lease != nil || err != nil {
				return err
			}
		}
		return nil
	})
	return lease, err
}

// order says in which classes to look, one after the other: one look per class finds its row at the start of an index
// range, where one over both would pass through the rows of the first class that are not due.
func (s *Store) order(ctx context.Context, q database.Queryer, pick Pick) ([]Class, error) {
	switch pick {
	case LiveOnly:
		return []Class{Live}, nil
	case LiveFirst:
		return []Class{Live, Backfill}, nil
	case OldestFirst:
		live, err := earliest(ctx, q, Live)
		if err != nil {
			return nil, err
		}
		backfill, err := earliest(ctx, q, Backfill)
		if err != nil || live <= backfill {
			return []Class{Live, Backfill}, err
		}
		return []Class{Backfill, Live}, nil
	}
	return nil, fmt.Errorf("unknown pick %d", pick)
}

const earliestQuery = `SELECT due_at FROM repository WHERE class = $1 AND due_at IS NOT NULL ORDER BY due_at LIMIT 1`

// earliest is when the first repository of the class is or was due; never when there is none.
func earliest(ctx context.Context, q database.Queryer, class Class) (int64, error) {
	var due int64
	err := q.QueryRowContext(ctx, earliestQuery, int64(class)).Scan(&due)
	if errors.Is(err, sql.ErrNoRows) {
		return never, nil
	}
	if err != nil {
		return 0, fmt.Errorf("look for due work: %w", err)
	}
	return due, nil
}

// claimQuery finds the row to claim: $1 is the class, $2 the time, $5 and $6 the adopted scope. A row that is leased is due
// when its lease ends, so what a dead worker left behind is found here too.
const claimQuery = `SELECT name FROM repository WHERE class = $1 AND due_at <= $2
	AND NOT EXISTS (SELECT 1 FROM site WHERE paused OR promoted_at IS NOT NULL OR scope <> $5 OR names <> $6)
	ORDER BY due_at, name LIMIT 1`

func (s *Store) claimClass(ctx context.Context, tx *database.Tx, owner string, class Class, now int64) (*Lease, error) {
	lease := &Lease{Owner: owner, Class: class}
	selection, renamed := s.adoptedTexts()
	var changed sql.NullInt64
	// A lease that was not ended was a worker's that died, maybe between a write to the registry and its record.
	err := tx.QueryRowContext(ctx, `UPDATE repository SET lease_until = $3, lease_owner = $4, fence = fence + 1,
		tag_sum = CASE WHEN lease_until > 0 THEN '' ELSE tag_sum END,
		relist = FALSE, changed_since_claim_at = NULL WHERE name = (`+claimQuery+tx.SkipLocked()+`)
		RETURNING name, wanted_revision, synced_revision, fence, tag_count, tag_sum, verify, held_reason, released,
		failures, oldest_unsynced_at, traceparent`,
		int64(class), now, now+s.opts.Lease.Milliseconds(), owner, selection, renamed,
	).Scan(&lease.Repository, &lease.Wanted, &lease.Synced, &lease.Fence, &lease.TagCount, &lease.Sum, &lease.Verify, &lease.Held,
		&lease.Released, &lease.Failures, &changed, &lease.TraceParent)
	if errors.Is(err, sql.ErrNoRows) {
		return nil, nil //nolint:nilnil // nothing is due
	}
	if err != nil {
		return nil, fmt.Errorf("lease a repository: %w", err)
	}
	if changed.Valid {
		lease.ChangedAt = time.UnixMilli(changed.Int64).UTC()
	}
	return lease, nil
}

// Renew makes the lease last for Options.Lease from now; ErrLeaseLost when it is lost. It serves as the fence too: call
// it before a write that must not come from a worker that was overtaken.
func (s *Store) Renew(ctx context.Context, l *Lease) error {
	return s.writeLease(ctx, "renew lease", func(ctx context.Context, tx *database.Tx, now int64) error {
		result, err := tx.ExecContext(ctx,
			"UPDATE repository SET lease_until = $1 WHERE name = $2 AND fence = $3 AND lease_until > $4",
			now+s.opts.Lease.Milliseconds(), l.Repository, l.Fence, now)
		if err != nil {
			return err
		}
		if n, err := result.RowsAffected(); err != nil || n == 0 {
			return errors.Join(err, lost(l))
		}
		return nil
	})
}

type leaseKey struct{}

// UnderLease fences all that is written to a Store with the returned context: when the lease is lost, it is refused with
// ErrLeaseLost. A nil lease takes that back.
func UnderLease(ctx context.Context, l *Lease) context.Context {
	return context.WithValue(ctx, leaseKey{}, l)
}

// checkLease comes first in a transaction, and keeps others from claiming the row until that ends. A lease that ran out
// and that nobody took over since is as good as one that holds.
func (s *Store) checkLease(ctx context.Context, tx *database.Tx) error {
	l, _ := ctx.Value(leaseKey{}).(*Lease)
	if l == nil {
		return nil
	}
	query := "SELECT fence FROM repository WHERE name = $1 AND fence = $2 AND lease_until > 0"
	if s.db.Dialect() == database.Postgres {
		query += " FOR SHARE"
	}
	var fence int64
	err := tx.QueryRowContext(ctx, query, l.Repository, l.Fence).Scan(&fence)
	if errors.Is(err, sql.ErrNoRows) {
		return lost(l)
	}
	return err
}

func lost(l *Lease) error {
	return fmt.Errorf("repository %s, fence %d: %w", l.Repository, l.Fence, ErrLeaseLost)
}

// NextDue returns when the next repository that such a pick may claim is or was due; false when none will be without a
// new change, a release or a resume. A leased one counts from the end of its lease.
func (s *Store) NextDue(ctx context.Context, pick Pick) (at time.Time, ok bool, err error) {
	err = s.read(ctx, "look for the next due", func(ctx context.Context, q database.Queryer) error {
		var paused bool
		if err := q.QueryRowContext(ctx, "SELECT paused FROM site").Scan(&paused); err != nil || paused {
			return err
		}
		classes, err := s.order(ctx, q, pick)
		if err != nil {
			return err
		}
		first := never
		for _, class := range classes {
			due, err := earliest(ctx, q, class)
			if err != nil {
				return err
			}
			first = min(first, due)
		}
		if ok = first < never; ok {
			at = time.UnixMilli(first).UTC()
		}
		return nil
	})
	return at, ok, err
}
