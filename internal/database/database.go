// Package database opens the one database that a daemon keeps its state in: SQLite in a file, or Postgres where more
// than one machine shares the work.
//
// It guarantees that a transaction whose Write returned nil is durable, that a Read sees one snapshot, that a
// notification is heard only after the commit that it announces, and that an error which time may cure matches
// ErrUnavailable on both engines. It refuses to hide the dialect: SQL is the caller's, and is written once where both
// engines understand it (placeholders $1, $2; BIGINT unix milliseconds for times).
package database

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"time"
)

// Dialect names the engine behind a DB.
type Dialect string

// The engines.
const (
	SQLite   Dialect = "sqlite"
	Postgres Dialect = "postgres"
)

// DB is an open database. Its methods may be called from many goroutines.
type DB struct {
	dialect Dialect
	writer  *sql.DB
	reader  *sql.DB // on Postgres the same pool as writer
	logger  *slog.Logger
	hub     *hub

	patience time.Duration // see defaultPatience

	relaxed bool // SQLite's writer does not wait for the disk now; belongs to whoever holds its one connection

	origins  bool   // the server tells where its history comes from; see Origin
	instance string // marks this process's own notifications on Postgres
	stop     func() // ends the Postgres listener and waits for it; nil on SQLite
}

// Option changes how a database is opened.
type Option func(*options)

type options struct {
	wrap     func(driver.Connector) driver.Connector
	patience time.Duration
}

// WithPatience sets how long a Read or a try of a Write may take, instead of 30 s.
func WithPatience(d time.Duration) Option { return func(o *options) { o.patience = d } }

// WithConnector puts something between this package and the drivers, which sees every statement: a test's faults, for
// one. What it returns must keep the driver's contract. The connection that hears Postgres' notifications goes past it.
func WithConnector(wrap func(driver.Connector) driver.Connector) Option {
	return func(o *options) { o.wrap = wrap }
}

// Open opens "sqlite:PATH" or "postgres://..." (also "postgresql://...") and makes sure that it answers. A SQLite file
// is created where it is missing, readable by its owner alone; its folder is not. A nil logger discards.
//
// Errors match ErrUnavailable where trying again later may help. No error and no log line carries the URL's password.
func Open(ctx context.Context, url string, logger *slog.Logger, opts ...Option) (*DB, error) {
	if logger == nil {
		logger = slog.New(slog.DiscardHandler)
	}
	o := options{
		wrap: func(driver driver.Connector) driver.Connector { return driver }, patience: defaultPatience,
	}
	for _, opt := range opts {
		opt(&o)
	}
	scheme, rest, found := strings.Cut(url, ":")
	switch {
	case found && scheme == "sqlite":
		return openSQLite(ctx, rest, logger, o)
	case found && (scheme == "postgres" || scheme == "postgresql") && strings.HasPrefix(rest, "//"):
		return openPostgres(ctx, url, logger, o)
	}
	// The URL is not echoed: a mistyped scheme does not make its password public.
	return nil, errors.New(`database: expected "sqlite:PATH" or "postgres://USER:PASSWORD@HOST:PORT/NAME"`)
}

// Dialect says which engine this is.
func (db *DB) Dialect() Dialect { return db.dialect }

// Ping says whether the database answers: on SQLite that its file can be read, on Postgres that a connection works.
func (db *DB) Ping(ctx context.Context) error {
	var tables int64
	query := "SELECT 1"
	if db.dialect == SQLite {
		query = "SELECT count(*) FROM sqlite_schema" // a bare SELECT 1 would not touch the file
	}
	err := db.reader.QueryRowContext(ctx, query).Scan(&tables)
	return classify(ctx, wrap("database: ping", err))
}

// Close ends the listener and closes every connection. Transactions that still run are broken off and not committed.
func (db *DB) Close() error {
	if db.stop != nil {
		db.stop()
	}
	err := db.writer.Close()
	if db.reader != db.writer {
		err = errors.Join(err, db.reader.Close())
	}
	return wrap("database: close", err)
}

// wrap adds context to an error and keeps nil.
func wrap(what string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%s: %w", what, err)
}
