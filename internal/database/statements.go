package database

import (
	"context"
	"database/sql/driver"
	"errors"
	"fmt"
	"strings"
)

const (
	// statementsKept bounds the prepared statements of one connection; a daemon has fewer that it uses again and again.
	statementsKept = 128
	// statementSize bounds the text of one that is kept: longer ones list what they are about, and rarely come again.
	statementSize = 4 << 10
)

// statements keeps each connection's statements prepared. SQLite's driver parses a statement at each use, which costs
// more than most statements do; Postgres' driver keeps them by itself.
type statements struct{ driver.Connector }

// Connect implements driver.Connector.
func (c statements) Connect(ctx context.Context) (driver.Conn, error) {
	conn, err := c.Connector.Connect(ctx)
	if err != nil {
		return nil, err
	}
	able, ok := conn.(preparer)
	if !ok {
		return nil, errors.Join(fmt.Errorf("database: %T cannot keep statements", conn), conn.Close())
	}
	return &statementConn{preparer: able, kept: map[string]driver.Stmt{}}, nil
}

// preparer is what SQLite's connections can do.
type preparer interface {
	driver.Conn
	driver.ConnPrepareContext
	driver.ExecerContext
	driver.QueryerContext
	driver.Pinger
	driver.SessionResetter
	driver.Validator
}

// statementConn is used by one goroutine at a time, as every driver.Conn is.
type statementConn struct {
	preparer
	kept map[string]driver.Stmt // those that are not in use; nil once the connection is closed
}

// keeps says whether a statement is one to be kept. A PRAGMA must not be: SQLite carries out most of them as it parses.
func keeps(query string) bool {
	if len(query) > statementSize {
		return false
	}
	for _, verb := range []string{"SELECT", "INSERT", "UPDATE", "DELETE", "WITH", "BEGIN", "COMMIT", "ROLLBACK"} {
		if strings.HasPrefix(query, verb) {
			return true
		}
	}
	return false
}

// take returns a statement for the caller alone, who gives it back. The same query may run inside itself, while its
// first rows are read.
func (c *statementConn) take(ctx context.Context, query string) (driver.Stmt, error) {
	if stmt, ok := c.kept[query]; ok {
		delete(c.kept, query)
		return stmt, nil
	}
	return c.PrepareContext(ctx, query)
}

// give takes a statement back. After an error nobody knows what state it is in.
func (c *statementConn) give(query string, stmt driver.Stmt, err error) error {
	if _, twice := c.kept[query]; twice || err != nil || c.kept == nil {
		return stmt.Close()
	}
	if len(c.kept) >= statementsKept {
		if err := c.dropOne(); err != nil {
			return errors.Join(err, stmt.Close())
		}
	}
	c.kept[query] = stmt
	return nil
}

func (c *statementConn) dropOne() error {
	for query, stmt := range c.kept {
		delete(c.kept, query)
		return stmt.Close()
	}
	return nil
}

// ExecContext implements driver.ExecerContext.
func (c *statementConn) ExecContext(ctx context.Context, query string, args []driver.NamedValue) (driver.Result, error) {
	if !keeps(query) {
		return c.preparer.ExecContext(ctx, query, args)
	}
	stmt, err := c.take(ctx, query)
	if err != nil {
		return nil, err
	}
	able, ok := stmt.(driver.StmtExecContext)
	if !ok {
		return nil, errors.Join(fmt.Errorf("database: %T cannot execute", stmt), stmt.Close())
	}
	result, err := able.ExecContext(ctx, args)
	return result, errors.Join(err, c.give(query, stmt, err))
}

// QueryContext implements driver.QueryerContext.
func (c *statementConn) QueryContext(ctx context.Context, query string, args []driver.NamedValue) (driver.Rows, error) {
	if !keeps(query) {
		return c.preparer.QueryContext(ctx, query, args)
	}
	stmt, err := c.take(ctx, query)
	if err != nil {
		return nil, err
	}
	able, ok := stmt.(driver.StmtQueryContext)
	if !ok {
		return nil, errors.Join(fmt.Errorf("database: %T cannot query", stmt), stmt.Close())
	}
	rows, err := able.QueryContext(ctx, args)
	if err != nil {
		return nil, errors.Join(err, c.give(query, stmt, err))
	}
	return &statementRows{Rows: rows, conn: c, query: query, stmt: stmt}, nil
}

// BeginTx implements driver.ConnBeginTx. A transaction that may write takes the write lock at once, where busy_timeout is
// honoured; a deferred one that turns into a writer fails with BUSY in spite of it.
func (c *statementConn) BeginTx(ctx context.Context, opts driver.TxOptions) (driver.Tx, error) {
	begin := "BEGIN IMMEDIATE"
	if opts.ReadOnly {
		begin = "BEGIN"
	}
	tx := statementTx{c}
	if _, err := c.ExecContext(ctx, begin, nil); err != nil {
		// It may have begun just as ctx ended; if not, there is nothing to roll back.
		_ = tx.Rollback() //nolint:contextcheck // which has ended
		return nil, err
	}
	return tx, nil
}

// statementTx ends a transaction. Neither way watches the context of its beginning: once it may have taken effect, its
// outcome is what counts.
type statementTx struct{ conn *statementConn }

// Commit implements driver.Tx. A transaction that could not be committed is rolled back: none stays on a connection.
func (tx statementTx) Commit() error {
	_, err := tx.conn.ExecContext(context.Background(), "COMMIT", nil)
	if err != nil {
		_ = tx.Rollback() // SQLite may have done so itself
	}
	return err
}

// Rollback implements driver.Tx.
func (tx statementTx) Rollback() error {
	_, err := tx.conn.ExecContext(context.Background(), "ROLLBACK", nil)
	return err
}

// Close implements driver.Conn.
func (c *statementConn) Close() error {
	var errs []error
	for _, stmt := range c.kept {
		errs = append(errs, stmt.Close())
	}
	c.kept = nil
	return errors.Join(append(errs, c.preparer.Close())...)
}

// statementRows gives its statement back when it is closed.
type statementRows struct {
	driver.Rows
	conn  *statementConn
	query string
	stmt  driver.Stmt
}

// Close implements driver.Rows.
func (r *statementRows) Close() error {
	err := r.Rows.Close()
	if r.stmt != nil {
		err = errors.Join(err, r.conn.give(r.query, r.stmt, err))
		r.stmt = nil
	}
	return err
}
