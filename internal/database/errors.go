package database

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"io"
	"io/fs"
	"net"
	"slices"
	"strings"
	"syscall"

	"github.com/jackc/pgx/v5/pgconn"
	"modernc.org/sqlite"
	sqlite3 "modernc.org/sqlite/lib"
)

// ErrUnavailable matches (errors.Is) an error of this package that is the database's state and not the statement's
// fault: it cannot be reached, is shutting down or standing by, has no room left, cannot read or write its files, or
// stayed locked. Trying again later may help, and nothing but a commit that was under way may have taken effect.
var ErrUnavailable = errors.New("database unavailable")

// diskErrors are those of the SQLite file that an operator can make go away while the daemon runs.
var diskErrors = []syscall.Errno{syscall.ENOSPC, syscall.EDQUOT, syscall.EIO, syscall.EROFS}

// unavailableError keeps the cause's text and chain and matches ErrUnavailable.
type unavailableError struct{ cause error }

func (e *unavailableError) Error() string   { return ErrUnavailable.Error() + ": " + e.cause.Error() }
func (e *unavailableError) Unwrap() []error { return []error{ErrUnavailable, e.cause} }

// classify marks err as unavailable where it is. An error that follows from the end of the caller's own context is not.
func classify(ctx context.Context, err error) error {
	if err == nil || errors.Is(err, ErrUnavailable) {
		return err
	}
	if ctx.Err() != nil {
		if errors.Is(err, ctx.Err()) {
			return err
		}
		// The driver's own words for it (interrupted, connection closed) would read as a failure of the database.
		return errors.Join(ctx.Err(), err)
	}
	if !unavailable(err) {
		return err
	}
	return &unavailableError{cause: err}
}

func unavailable(err error) bool {
	if lite, ok := errors.AsType[*sqlite.Error](err); ok {
		return sqliteUnavailable(lite.Code())
	}
	// Also inside a ConnectError: a wrong password does not pass with time.
	if server, ok := errors.AsType[*pgconn.PgError](err); ok {
		return postgresUnavailable(server.Code)
	}
	return connectionBroken(err)
}

// sqliteUnavailable looks at the primary result code, the low byte of the extended one.
func sqliteUnavailable(code int) bool {
	switch code & 0xff {
	case sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED,
		sqlite3.SQLITE_PROTOCOL:
		return true
	}
	return false
}

// postgresUnavailable judges a SQLSTATE (PostgreSQL documentation, appendix A).
func postgresUnavailable(code string) bool {
	switch {
	case strings.HasPrefix(code, "08"), // connection exceptions
		strings.HasPrefix(code, "53"): // no disk, memory or connections left
		return true
	}
	switch code {
	case "57P01", "57P02", "57P03", // admin shutdown, crash shutdown, cannot connect now
		"57P05", "25P03", // idle session, idle transaction ended by the server
		"25006", // read-only: a standby, in the middle of a failover
		"58030", // I/O error
		"55P03": // a lock was not to be had
		return true
	}
	return false
}

// connectionBroken recognises what the drivers, the network and the file system say when there is no answer.
func connectionBroken(err error) bool {
	var file *fs.PathError
	var network net.Error
	switch {
	case errors.As(err, &file): // before net.Error, which every errno is
		return slices.ContainsFunc(diskErrors, func(errno syscall.Errno) bool { return errors.Is(err, errno) })
	case errors.As(err, &network):
		return true
	}
	for _, broken := range []error{
		driver.ErrBadConn, sql.ErrConnDone, pgconn.ErrConnClosed, io.EOF, io.ErrUnexpectedEOF, net.ErrClosed,
	} {
		if errors.Is(err, broken) {
			return true
		}
	}
	var connect *pgconn.ConnectError
	return errors.As(err, &connect) || pgconn.SafeToRetry(err)
}

// serialization says whether Postgres broke a transaction off in favour of another; running it again is the cure.
func serialization(err error) bool {
	var server *pgconn.PgError
	return errors.As(err, &server) && (server.Code == "40001" || server.Code == "40P01")
}
