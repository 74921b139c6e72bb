package database

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"time"
)

// defaultPatience is how long a database may take over a Read or over one try of a Write, the wait for a connection
// included. A healthy one takes milliseconds; one that is stopped or cut off would be waited for without end.
const defaultPatience = 30 * time.Second

// writeAttempts bounds how often Write runs a transaction that Postgres breaks off in favour of another.
const writeAttempts = 10

// Queryer reads. *sql.Tx and Tx are Queryers.
type Queryer interface {
	QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error)
	QueryRowContext(ctx context.Context, query string, args ...any) *sql.Row
}

// Tx is the transaction that Write hands to its function. It is for that function's goroutine and its duration alone.
// Write commits it and rolls it back; the function must do neither.
type Tx struct {
	*sql.Tx

	db     *DB
	notify []string
}

// Write runs fn in one transaction and commits it. When it returns nil the transaction is durable; when it returns an
// error the transaction was rolled back, or, if the connection broke during the commit, may have been committed all
// the same. Writes must therefore be safe to repeat.
//
// On SQLite there is one writer at a time, in the order of arrival, and fn must be short and must not call Write. On
// Postgres the isolation is READ COMMITTED, and a transaction that was broken off by a deadlock or a serialization
// failure (SQLSTATE 40P01, 40001) runs again: fn must not act outside the database.
//
// The context of fn ends after 30 s, however patient the caller is; the error is ErrUnavailable then.
func (db *DB) Write(ctx context.Context, fn func(ctx context.Context, tx *Tx) error) error {
	return db.write(ctx, false, fn)
}

// WriteRelaxed is Write without waiting for the disk: what it commits outlives this process, and is visible to others
// as ever, but may be gone, with all that was committed after it and nothing before, when the machine that holds the
// database stops without warning. It is for what can be done again. A later Write makes it durable too.
func (db *DB) WriteRelaxed(ctx context.Context, fn func(ctx context.Context, tx *Tx) error) error {
	return db.write(ctx, true, fn)
}

func (db *DB) write(ctx context.Context, relaxed bool, fn func(ctx context.Context, tx *Tx) error) error {
	for attempt := 1; ; attempt++ {
		err := db.writeOnce(ctx, relaxed, fn)
		if err == nil || attempt == writeAttempts || !serialization(err) {
			return classify(ctx, err)
		}
		if err := pause(ctx, attempt); err != nil {
			return fmt.Errorf("database: write again after a conflict: %w", err)
		}
	}
}

func (db *DB) writeOnce(caller context.Context, relaxed bool, fn func(ctx context.Context, tx *Tx) error) (err error) {
	ctx, cancel := context.WithTimeout(caller, db.patience)
	defer cancel()
	defer func() { err = db.silence(caller, ctx, err) }()
	conn, err := db.writer.Conn(ctx)
	if err != nil {
		return fmt.Errorf("database: connect: %w", err)
	}
	defer conn.Close()
	begun, err := db.begin(ctx, conn, relaxed)
	if err != nil {
		return fmt.Errorf("database: begin: %w", err)
	}
	defer begun.Rollback() //nolint:errcheck // after a commit it has nothing to do; before one the cause is being returned
	tx := &Tx{Tx: begun, db: db}
	if err := fn(ctx, tx); err != nil {
		return err
	}
	err = begun.Commit()
	// Also after a failed commit, which may have taken effect: a wake may be spurious, but none may be missing.
	for _, channel := range tx.notify {
		db.hub.wake(channel)
	}
	return wrap("database: commit", err)
}

// begin opens a transaction whose commit waits for the disk, or does not.
func (db *DB) begin(ctx context.Context, conn *sql.Conn, relaxed bool) (*sql.Tx, error) {
	if db.dialect == SQLite {
		if err := db.synchronize(ctx, conn, !relaxed); err != nil {
			return nil, err
		}
	}
	begun, err := conn.BeginTx(ctx, nil)
	if err != nil || !relaxed || db.dialect == SQLite {
		return begun, err
	}
	if _, err := begun.ExecContext(ctx, "SET LOCAL synchronous_commit TO OFF"); err != nil {
		return nil, errors.Join(err, begun.Rollback())
	}
	return begun, nil
}

// synchronize sets whether commits of SQLite's one writer wait for the disk. Who holds that connection alone reads and
// writes relaxed; a connection that was opened anew waits, which is never wrong.
func (db *DB) synchronize(ctx context.Context, conn *sql.Conn, full bool) error {
	if db.relaxed != full {
		return nil
	}
	level := "NORMAL"
	if full {
		level = "FULL"
	}
	// Before it is so: should the answer be lost, the next commit that must wait makes sure that it does.
	db.relaxed = true
	if _, err := conn.ExecContext(ctx, "PRAGMA synchronous = "+level); err != nil {
		return fmt.Errorf("set how commits wait for the disk: %w", err)
	}
	db.relaxed = !full
	return nil
}

// pause waits a jittered moment before a transaction is run again.
func pause(ctx context.Context, attempt int) error {
	bound := time.Duration(attempt) * 10 * time.Millisecond
	timer := time.NewTimer(rand.N(bound))
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-timer.C:
		return nil
	}
}

// Read runs fn on one snapshot of the database: all its queries see the same commits. It cannot write. It never waits
// for a writer. fn should be short: a snapshot that is held keeps SQLite from shrinking its log and Postgres from
// vacuuming. It ends after 30 s, as Write's does.
func (db *DB) Read(caller context.Context, fn func(ctx context.Context, q Queryer) error) error {
	ctx, cancel := context.WithTimeout(caller, db.patience)
	defer cancel()
	return classify(caller, db.silence(caller, ctx, db.readOnce(ctx, fn)))
}

func (db *DB) readOnce(ctx context.Context, fn func(ctx context.Context, q Queryer) error) error {
	options := &sql.TxOptions{ReadOnly: true}
	if db.dialect == Postgres {
		options.Isolation = sql.LevelRepeatableRead
	}
	tx, err := db.reader.BeginTx(ctx, options)
	if err != nil {
		return fmt.Errorf("database: begin to read: %w", err)
	}
	defer tx.Rollback() //nolint:errcheck // nothing was written
	return fn(ctx, tx)
}

// silence makes the end of our own patience what it is to the caller: a database that does not answer.
func (db *DB) silence(caller, ours context.Context, err error) error {
	if err == nil || caller.Err() != nil || ours.Err() == nil {
		return err
	}
	// Without the chain: to whoever asks for a deadline, it was not the caller's.
	return &unavailableError{cause: fmt.Errorf("no answer within %v: %s", db.patience, err.Error())}
}

// ReadOne is Read for a single query, which is a snapshot by itself and need not begin and end one. It is the caller's
// to see that it does not write, and to close its rows.
func (db *DB) ReadOne(caller context.Context, fn func(ctx context.Context, q Queryer) error) error {
	ctx, cancel := context.WithTimeout(caller, db.patience)
	defer cancel()
	return classify(caller, db.silence(caller, ctx, fn(ctx, db.reader)))
}

// Now is the database's clock; see DB.Now.
func (tx *Tx) Now(ctx context.Context) (time.Time, error) { return tx.db.Now(ctx, tx) }

// Now is the database's clock, asked within a Read or Write: on Postgres the server's, so that replicas whose own clocks
// differ agree; on SQLite this machine's. It moves on within a transaction.
func (db *DB) Now(ctx context.Context, q Queryer) (time.Time, error) {
	if db.dialect == SQLite {
		return time.Now().UTC(), nil
	}
	var now time.Time
	if err := q.QueryRowContext(ctx, "SELECT clock_timestamp()").Scan(&now); err != nil {
		return time.Time{}, fmt.Errorf("database: read the clock: %w", err)
	}
	return now.UTC(), nil
}

// Notify wakes everyone who listens on the channel once this transaction is committed: in this process, and on Postgres
// in every other one on the same database. A transaction that is rolled back wakes nobody.
func (tx *Tx) Notify(ctx context.Context, channel string) error {
	if slices.Contains(tx.notify, channel) {
		return nil
	}
	if tx.db.dialect == Postgres {
		payload := tx.db.instance + " " + channel
		if _, err := tx.ExecContext(ctx, "SELECT pg_notify($1, $2)", postgresChannel, payload); err != nil {
			return fmt.Errorf("database: notify %s: %w", channel, err)
		}
	}
	tx.notify = append(tx.notify, channel)
	return nil
}

// SkipLocked ends a SELECT that claims rows: on Postgres it passes by what another transaction holds, on SQLite, which
// has one writer, there is nothing to pass by.
func (tx *Tx) SkipLocked() string {
	if tx.db.dialect == Postgres {
		return " FOR UPDATE SKIP LOCKED"
	}
	return ""
}
