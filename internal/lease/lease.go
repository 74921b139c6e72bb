// Package lease decides which of several processes that share a database leads in a role: one follows, sweeps, reports,
// and another takes over when it dies, is stopped or is cut off. A row in the database decides, by the database's clock,
// and nothing else.
//
// It guarantees that a write whose transaction passed Term.Check is made while its term holds: no other term of the role
// begins before that transaction has ended. It guarantees also that the leader's context ends before its row does, by
// this process's monotonic clock, renewals or not.
//
// It does not guarantee that a process which was stopped, and wakes after its term, notices at once: between waking and
// the end of its context it may go on for a few instructions. Whatever those write to the database, Check refuses; what
// they send elsewhere is not fenced.
//
// Terms last 6 seconds and are renewed every 2. A leader that is gone without a word is replaced when its row's time is
// over, within 6 seconds; one that ends in order is replaced at once. On SQLite, which serves one process, a row that is
// found at the start is that of a dead one, and nobody waits for it.
package lease

import (
	"context"
	"crypto/rand"
	"database/sql"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"strconv"
	"time"

	"github.com/antipode-registry/antipode/internal/database"
)

//go:embed migrations
var migrations embed.FS

// TTL is how long a term holds without being renewed, by default.
const TTL = 6 * time.Second

// ErrTermLost matches (errors.Is) the refusal of a write whose term is over, and is the cause of a term's context that
// ended with it.
var ErrTermLost = errors.New("no longer the leader")

// Options of Leases. Zero values mean the defaults.
type Options struct {
	// Owner names this process to people; it need not be unique.
	Owner string
	// TTL is how long a term holds without being renewed; 0 = 6 s. It is renewed after each third of that.
	TTL time.Duration
	// Logger is told of terms that begin and end; nil discards.
	Logger *slog.Logger
}

// Leases are the roles of one database. Its methods may be called from many goroutines.
type Leases struct {
	db   *database.DB
	opts Options
}

// Open brings the database's table up to date. The database stays the caller's to close.
func Open(ctx context.Context, db *database.DB, opts Options) (*Leases, error) {
	if opts.TTL <= 0 {
		opts.TTL = TTL
	}
	if opts.Logger == nil {
		opts.Logger = slog.New(slog.DiscardHandler)
	}
	folder, err := fs.Sub(migrations, "migrations")
	if err != nil {
		return nil, fmt.Errorf("lease: read migrations: %w", err)
	}
	if err := db.Migrate(ctx, "lease", folder); err != nil {
		return nil, fmt.Errorf("lease: %w", err)
	}
	l := &Leases{db: db, opts: opts}
	return l, l.endAll(ctx)
}

// endAll ends what the process before held when it ended without a word. SQLite serves one process; on Postgres terms
// are other processes', and run out by themselves.
func (l *Leases) endAll(ctx context.Context) error {
	if l.db.Dialect() != database.SQLite {
		return nil
	}
	return l.write(ctx, "end the terms of before", func(ctx context.Context, tx *database.Tx, _ int64) error {
		_, err := tx.ExecContext(ctx, "UPDATE lease SET ends_at = 0 WHERE ends_at > 0")
		return err
	})
}

// Leader names who leads in the role now; empty when nobody does.
func (l *Leases) Leader(ctx context.Context, role string) (owner string, err error) {
	err = l.db.Read(ctx, func(ctx context.Context, q database.Queryer) error {
		now, err := l.db.Now(ctx, q)
		if err != nil {
			return err
		}
		err = q.QueryRowContext(ctx, "SELECT owner FROM lease WHERE name = $1 AND ends_at > $2",
			role, now.UnixMilli()).Scan(&owner)
		if errors.Is(err, sql.ErrNoRows) {
			return nil
		}
		return err
	})
	return owner, wrap("read the leader", err)
}

// acquire begins a term if nobody else's holds. Without one it returns nil, and how long the other's holds at least.
func (l *Leases) acquire(ctx context.Context, role string) (term *Term, wait time.Duration, err error) {
	began := time.Now() // before the database's: the term ends here no later than there
	next := &Term{leases: l, role: role, token: rand.Text(), began: began}
	err = l.write(ctx, "begin a term", func(ctx context.Context, tx *database.Tx, now int64) error {
		// Everyone who waits reads; who finds the row free locks it, and looks again.
		var ends int64
		query := "SELECT ends_at FROM lease WHERE name = $1"
		err := tx.QueryRowContext(ctx, query, role).Scan(&ends)
		if err == nil && ends <= now {
			err = tx.QueryRowContext(ctx, query+l.lock("UPDATE"), role).Scan(&ends)
		}
		if err != nil && !errors.Is(err, sql.ErrNoRows) {
			return err
		}
		if term, wait = nil, time.Duration(ends-now)*time.Millisecond; wait > 0 {
			return nil
		}
		term, err = next.begin(ctx, tx, now)
		return err
	})
	if err != nil {
		return nil, 0, err
	}
	return term, wait, nil
}

// write runs fn in one durable transaction with the database's time.
func (l *Leases) write(ctx context.Context, op string, fn func(context.Context, *database.Tx, int64) error) error {
	return wrap(op, l.db.Write(ctx, timed(fn)))
}

// writeTerm is write for renewals: on SQLite none outlives its process, so that none needs to wait for the disk.
func (l *Leases) writeTerm(ctx context.Context, op string, fn func(context.Context, *database.Tx, int64) error) error {
	if l.db.Dialect() == database.SQLite {
		return wrap(op, l.db.WriteRelaxed(ctx, timed(fn)))
	}
	return l.write(ctx, op, fn)
}

func timed(fn func(context.Context, *database.Tx, int64) error) func(context.Context, *database.Tx) error {
	return func(ctx context.Context, tx *database.Tx) error {
		now, err := tx.Now(ctx)
		if err != nil {
			return err
		}
		return fn(ctx, tx, now.UnixMilli())
	}
}

// lock ends a SELECT that must see the row's last state and keep it. SQLite has one writer and needs no row locks.
func (l *Leases) lock(strength string) string {
	if l.db.Dialect() == database.Postgres {
		return " FOR " + strength
	}
	return ""
}

// boundSilence lets Postgres end the transaction of a leader that falls silent in its middle, well before its term is
// over: it holds the row that a successor needs.
func (l *Leases) boundSilence(ctx context.Context, tx *database.Tx) error {
	if l.db.Dialect() != database.Postgres {
		return nil
	}
	_, err := tx.ExecContext(ctx, "SELECT set_config('idle_in_transaction_session_timeout', $1, true)",
		strconv.FormatInt((l.opts.TTL/2).Milliseconds(), 10))
	return err
}

func wrap(op string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("lease: %s: %w", op, err)
}
