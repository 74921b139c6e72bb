package databasetest

import (
	"context"
	"database/sql/driver"
	"errors"
	"fmt"
	"io"
	"sync"
	"testing"

	"github.com/antipode-registry/antipode/internal/database"
)

// Fault is a way in which a statement fails.
type Fault string

// The faults. A commit is a statement too, and so is a begin.
const (
	Refused Fault = "refused" // not executed; the connection stays
	Unheard Fault = "unheard" // executed, and an error comes in place of the answer; the connection stays
	Severed Fault = "severed" // executed, and the connection breaks before the answer comes
)

// errFault is what a statement fails with. It is of a kind that the drivers report too when there is no answer.
var errFault = fmt.Errorf("databasetest: a fault: %w", io.ErrUnexpectedEOF)

// Faults makes statements of one database fail. Its methods may be called from many goroutines.
type Faults struct {
	mu       sync.Mutex
	armed    bool
	seen     int // statements since Arm
	at       int // the one that fails; 0 = none
	fault    Fault
	onCommit func() // after each commit while armed
}

// OpenFailing opens the URL with faults, none of which is armed.
func OpenFailing(t testing.TB, url string) (*database.DB, *Faults) {
	t.Helper()
	faults := &Faults{}
	return Open(t, url, database.WithConnector(func(next driver.Connector) driver.Connector {
		return faultyConnector{Connector: next, faults: faults}
	})), faults
}

type markKey struct{}

// Mark makes the reads of a context count as its writes do. Other reads are somebody's in the background, which come
// when they come.
func Mark(ctx context.Context) context.Context { return context.WithValue(ctx, markKey{}, true) }

// Arm counts statements from now on and makes the at-th of them fail; with 0 it only counts.
func (f *Faults) Arm(at int, fault Fault) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.armed, f.seen, f.at, f.fault = true, 0, at, fault
}

// Disarm stops that and returns how many statements there were.
func (f *Faults) Disarm() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.armed = false
	return f.seen
}

// OnCommit has fn called after each commit while the faults are armed, before the committer hears of it.
func (f *Faults) OnCommit(fn func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.onCommit = fn
}

// next counts a statement and returns the fault that it shall have; "" = none.
func (f *Faults) next() Fault {
	f.mu.Lock()
	defer f.mu.Unlock()
	if !f.armed {
		return ""
	}
	f.seen++
	if f.seen != f.at {
		return ""
	}
	return f.fault
}

func (f *Faults) committed() {
	f.mu.Lock()
	fn := f.onCommit
	if !f.armed {
		fn = nil
	}
	f.mu.Unlock()
	if fn != nil {
		fn()
	}
}

type faultyConnector struct {
	driver.Connector
	faults *Faults
}

func (c faultyConnector) Connect(ctx context.Context) (driver.Conn, error) {
	conn, err := c.Connector.Connect(ctx)
	if err != nil {
		return nil, err
	}
	full, ok := conn.(fullConn)
	if !ok {
		return nil, errors.Join(fmt.Errorf("databasetest: %T lacks what a connection is wrapped for", conn), conn.Close())
	}
	return &faultyConn{fullConn: full, faults: c.faults}, nil
}

// fullConn is what the connections of both drivers can do.
type fullConn interface {
	driver.Conn
	driver.ConnBeginTx
	driver.ConnPrepareContext
	driver.ExecerContext
	driver.QueryerContext
	driver.Pinger
	driver.SessionResetter
}

// faultyConn is used by one goroutine at a time, as every driver.Conn is.
type faultyConn struct {
	fullConn
	faults *Faults

	reading bool // within a read-only transaction
	broken  bool
}

// run has do executed, or not, as the fault says. What do made and the caller will not get, it must clean up itself.
func (c *faultyConn) run(ctx context.Context, do func(answered bool) error) error {
	if c.broken {
		return driver.ErrBadConn
	}
	if c.reading && ctx.Value(markKey{}) == nil {
		return do(true)
	}
	switch c.faults.next() {
	case Refused:
		return errFault
	case Unheard:
		return errors.Join(errFault, do(false))
	case Severed:
		err := do(false)
		c.broken = true
		return errors.Join(errFault, err, c.fullConn.Close())
	}
	return do(true)
}

func (c *faultyConn) ExecContext(ctx context.Context, query string, args []driver.NamedValue) (driver.Result, error) {
	var result driver.Result
	err := c.run(ctx, func(bool) (err error) {
		result, err = c.fullConn.ExecContext(ctx, query, args)
		return err
	})
	return result, err
}

func (c *faultyConn) QueryContext(ctx context.Context, query string, args []driver.NamedValue) (driver.Rows, error) {
	var rows driver.Rows
	err := c.run(ctx, func(answered bool) (err error) {
		if rows, err = c.fullConn.QueryContext(ctx, query, args); err == nil && !answered {
			err = drain(rows)
		}
		return err
	})
	return rows, err
}

// drain reads to the end: a statement that writes and returns rows may be executed as they are read.
func drain(rows driver.Rows) error {
	row := make([]driver.Value, len(rows.Columns()))
	for {
		if err := rows.Next(row); err != nil {
			return rows.Close()
		}
	}
}

func (c *faultyConn) BeginTx(ctx context.Context, opts driver.TxOptions) (driver.Tx, error) {
	c.reading = opts.ReadOnly
	var begun driver.Tx
	err := c.run(ctx, func(answered bool) (err error) {
		if begun, err = c.fullConn.BeginTx(ctx, opts); err == nil && !answered {
			err = begun.Rollback()
		}
		return err
	})
	if err != nil {
		c.reading = false
		return nil, err
	}
	return &faultyTx{Tx: begun, conn: c}, nil
}

func (c *faultyConn) Close() error {
	if c.broken {
		return nil
	}
	return c.fullConn.Close()
}

func (c *faultyConn) Ping(ctx context.Context) error {
	if c.broken {
		return driver.ErrBadConn
	}
	return c.fullConn.Ping(ctx)
}

func (c *faultyConn) ResetSession(ctx context.Context) error {
	if c.broken {
		return driver.ErrBadConn
	}
	return c.fullConn.ResetSession(ctx)
}

func (c *faultyConn) IsValid() bool {
	validator, ok := c.fullConn.(driver.Validator)
	return !c.broken && (!ok || validator.IsValid())
}

func (c *faultyConn) CheckNamedValue(value *driver.NamedValue) error {
	if checker, ok := c.fullConn.(driver.NamedValueChecker); ok {
		return checker.CheckNamedValue(value)
	}
	return driver.ErrSkip
}

type faultyTx struct {
	driver.Tx
	conn *faultyConn
}

func (tx *faultyTx) Commit() error {
	if tx.conn.reading {
		tx.conn.reading = false
		return tx.Tx.Commit()
	}
	ran := false
	err := tx.conn.run(context.Background(), func(bool) error {
		ran = true
		if err := tx.Tx.Commit(); err != nil {
			return err
		}
		tx.conn.faults.committed()
		return nil
	})
	if err != nil && !ran && !tx.conn.broken {
		err = errors.Join(err, tx.Tx.Rollback()) // as both drivers do: no transaction stays on a connection that stays
	}
	return err
}

func (tx *faultyTx) Rollback() error {
	tx.conn.reading = false
	if tx.conn.broken {
		return driver.ErrBadConn
	}
	return tx.Tx.Rollback()
}
