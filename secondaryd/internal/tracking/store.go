package tracking

import (
	"context"
	"database/sql"
	"embed"
	"fmt"
	"io/fs"
	"sync/atomic"
	"time"

	"github.com/antipode-registry/antipode/internal/database"
	"github.com/antipode-registry/antipode/internal/lease"
)

//go:embed migrations
var migrations embed.FS

// channel is what commits notify that change due work, counts or the pause.
const channel = "tracking"

// never in next_attempt_at is a held row that waits for a change or its release. The schema knows the number too.
const never = int64(1<<63 - 1)

// Options tune a Store. Zero values mean the defaults.
type Options struct {
	// Lease is how long a claim holds without Renew; 0 = 60 s.
	Lease time.Duration
	// BackoffMin and BackoffMax bound the wait after a failure, which doubles from the one to the other; 0 = 1 s, 5 min.
	BackoffMin, BackoffMax time.Duration
	// JournalPerRepository is how many entries are kept of each repository; 0 = 500.
	JournalPerRepository int
}

// Store is the tracking table, the cursor, the journal and the content index in one database.
type Store struct {
	db      *database.DB
	opts    Options
	adopted atomic.Pointer[Scope] // what this process replicates by; nil before Adopt
}

// Open brings the database's tables up to date and returns the store. The database stays the caller's to close.
func Open(ctx context.Context, db *database.DB, opts Options) (*Store, error) {
	if opts.Lease <= 0 {
		opts.Lease = time.Minute
	}
	if opts.BackoffMin <= 0 {
		opts.BackoffMin = time.Second
	}
	if opts.BackoffMax <= 0 {
		opts.BackoffMax = 5 * time.Minute
	}
	opts.BackoffMax = max(opts.BackoffMax, opts.BackoffMin)
	if opts.JournalPerRepository <= 0 {
		opts.JournalPerRepository = 500
	}
	folder, err := fs.Sub(migrations, "migrations")
	if err != nil {
		return nil, fmt.Errorf("tracking: read migrations: %w", err)
	}
	if err := db.Migrate(ctx, "tracking", folder); err != nil {
		return nil, fmt.Errorf("tracking: %w", err)
	}
	s := &Store{db: db, opts: opts}
	return s, s.forgetDead(ctx)
}

// forgetDead makes due what the process before was working on when it ended without a word. SQLite serves one process,
// so no lease has a holder by now; should there be one all the same, its fence is no longer the newest. On Postgres
// leases are other processes', and run out by themselves.
func (s *Store) forgetDead(ctx context.Context) error {
	if s.db.Dialect() != database.SQLite {
		return nil
	}
	return s.write(ctx, "end the leases of before", func(ctx context.Context, tx *database.Tx, _ int64) error {
		if _, err := tx.ExecContext(ctx, "DELETE FROM replica"); err != nil {
			return err
		}
		// As with a lease that ran out, nobody knows what was written under it.
		_, err := tx.ExecContext(ctx, `UPDATE repository SET lease_until = 0, lease_owner = '', fence = fence + 1,
			tag_sum = '' WHERE lease_until > 0`)
		return err
	})
}

// write runs fn in one transaction with the database's time and names the operation in its error. With a leader's context
// it is fenced by the leader's term.
func (s *Store) write(ctx context.Context, op string,
	fn func(ctx context.Context, tx *database.Tx, now int64) error,
) error {
	return wrap(op, s.db.Write(ctx, s.timed(fn)))
}

// writeRelaxed is write for what may be lost with the machine: the primary tells it again, or it is learnt anew.
func (s *Store) writeRelaxed(ctx context.Context, op string,
	fn func(ctx context.Context, tx *database.Tx, now int64) error,
) error {
	return wrap(op, s.db.WriteRelaxed(ctx, s.timed(fn)))
}

// writeLease is write for claims and renewals. SQLite's machine does not stop without its workers, so a lease that is
// lost with it has no holder; Postgres' does, and a fence that was given out must not be given out again.
func (s *Store) writeLease(ctx context.Context, op string,
	fn func(ctx context.Context, tx *database.Tx, now int64) error,
) error {
	if s.db.Dialect() == database.SQLite {
		return s.writeRelaxed(ctx, op, fn)
	}
	return s.write(ctx, op, fn)
}

func (s *Store) timed(
	fn func(ctx context.Context, tx *database.Tx, now int64) error,
) func(context.Context, *database.Tx) error {
	return func(ctx context.Context, tx *database.Tx) error {
		if err := lease.Check(ctx, tx); err != nil {
			return err
		}
		if err := s.checkLease(ctx, tx); err != nil {
			return err
		}
		now, err := tx.Now(ctx)
		if err != nil {
			return err
		}
		return fn(ctx, tx, now.UnixMilli())
	}
}

// read runs fn on one snapshot.
func (s *Store) read(ctx context.Context, op string, fn func(ctx context.Context, q database.Queryer) error) error {
	return wrap(op, s.db.Read(ctx, fn))
}

func wrap(op string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("tracking: %s: %w", op, err)
}

// now is the database's clock for a reader, in unix milliseconds: leases run by it.
func (s *Store) now(ctx context.Context, q database.Queryer) (int64, error) {
	now, err := s.db.Now(ctx, q)
	return now.UnixMilli(), err
}

// forUpdate ends a SELECT whose row the transaction goes on to write. SQLite has one writer and needs no row locks.
func (s *Store) forUpdate() string {
	if s.db.Dialect() == database.Postgres {
		return " FOR UPDATE"
	}
	return ""
}

// toTime reads a nullable time column.
func toTime(ms sql.NullInt64) time.Time {
	if !ms.Valid {
		return time.Time{}
	}
	return time.UnixMilli(ms.Int64).UTC()
}

// orNow gives a zero time the meaning "now".
func orNow(t time.Time, now int64) int64 {
	if t.IsZero() {
		return now
	}
	return t.UnixMilli()
}

// orNull stores a zero time as none.
func orNull(t time.Time) sql.NullInt64 {
	return sql.NullInt64{Int64: t.UnixMilli(), Valid: !t.IsZero()}
}

// Watch returns a channel that receives after commits that change due work, the pause or the counts. It holds one wake;
// a wake may be spurious. stop ends it.
func (s *Store) Watch() (wake <-chan struct{}, stop func()) { return s.db.Listen(channel) }
