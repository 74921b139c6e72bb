package database

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"fmt"
	"path/filepath"
	"testing"

	"modernc.org/sqlite"
)

// counted counts what the driver is asked to prepare.
type counted struct {
	driver.Connector
	prepared map[string]int
}

func (c counted) Connect(ctx context.Context) (driver.Conn, error) {
	conn, err := c.Connector.Connect(ctx)
	if err != nil {
		return nil, err
	}
	return countedConn{preparer: conn.(preparer), prepared: c.prepared}, nil //nolint:forcetypeassert // else the test fails
}

type countedConn struct {
	preparer
	prepared map[string]int
}

func (c countedConn) PrepareContext(ctx context.Context, query string) (driver.Stmt, error) {
	c.prepared[query]++
	return c.preparer.PrepareContext(ctx, query)
}

// openCounted opens a file with one connection, on which statements are kept, and a table of numbers.
func openCounted(t *testing.T) (*sql.Conn, map[string]int) {
	t.Helper()
	connector, err := sqlite.NewConnector(sqliteDSN(filepath.Join(t.TempDir(), "test.db"), writerParameters()))
	if err != nil {
		t.Fatal(err)
	}
	prepared := map[string]int{}
	pool := sql.OpenDB(statements{counted{connector, prepared}})
	pool.SetMaxOpenConns(1)
	t.Cleanup(func() {
		if err := pool.Close(); err != nil {
			t.Error(err)
		}
	})
	conn, err := pool.Conn(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	execute(t, conn, "CREATE TABLE numbers (n BIGINT PRIMARY KEY)")
	return conn, prepared
}

func execute(t *testing.T, conn *sql.Conn, query string, args ...any) {
	t.Helper()
	if _, err := conn.ExecContext(t.Context(), query, args...); err != nil {
		t.Fatalf("%s: %v", query, err)
	}
}

const (
	insertNumber = "INSERT INTO numbers (n) VALUES ($1)"
	readNumbers  = "SELECT * FROM numbers ORDER BY n"
)

func TestStatementsAreParsedOnce(t *testing.T) {
	conn, prepared := openCounted(t)
	for n := range 20 {
		execute(t, conn, insertNumber, n)
		var first int
		if err := conn.QueryRowContext(t.Context(), readNumbers).Scan(&first); err != nil || first != 0 {
			t.Fatalf("read %d, %v", first, err)
		}
	}
	if prepared[insertNumber] != 1 || prepared[readNumbers] != 1 {
		t.Errorf("statements were parsed more than once: %v", prepared)
	}
}

func TestStatementInsideItself(t *testing.T) {
	conn, prepared := openCounted(t)
	execute(t, conn, insertNumber, 1)
	execute(t, conn, insertNumber, 2)
	rows, err := conn.QueryContext(t.Context(), readNumbers)
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	var pairs []string
	for rows.Next() {
		var outer, inner int
		if err := rows.Scan(&outer); err != nil {
			t.Fatal(err)
		}
		if err := conn.QueryRowContext(t.Context(), readNumbers).Scan(&inner); err != nil {
			t.Fatal(err)
		}
		pairs = append(pairs, fmt.Sprint(outer, inner))
	}
	if err := rows.Err(); err != nil || fmt.Sprint(pairs) != "[1 1 2 1]" {
		t.Errorf("read %v, %v", pairs, err)
	}
	if prepared[readNumbers] > 2 {
		t.Errorf("parsed %d times", prepared[readNumbers])
	}
}

func TestStatementsOutliveFailuresAndMigrations(t *testing.T) {
	conn, prepared := openCounted(t)
	execute(t, conn, insertNumber, 1)
	if _, err := conn.ExecContext(t.Context(), insertNumber, 1); err == nil {
		t.Fatal("a number was inserted twice")
	}
	execute(t, conn, insertNumber, 2)
	if prepared[insertNumber] != 2 {
		t.Errorf("parsed %d times, want anew after the failure alone", prepared[insertNumber])
	}
	columns := func() int {
		rows, err := conn.QueryContext(t.Context(), readNumbers)
		if err != nil {
			t.Fatal(err)
		}
		defer rows.Close()
		names, err := rows.Columns()
		if err != nil || rows.Err() != nil {
			t.Fatal(err, rows.Err())
		}
		return len(names)
	}
	columns()
	execute(t, conn, "ALTER TABLE numbers ADD COLUMN name TEXT NOT NULL DEFAULT ''")
	if got := columns(); got != 2 {
		t.Errorf("%d columns after the table was changed, want 2", got)
	}
}

func TestPragmasAreNotKept(t *testing.T) {
	conn, prepared := openCounted(t)
	for _, want := range []string{"NORMAL", "FULL", "NORMAL"} {
		execute(t, conn, "PRAGMA synchronous = "+want)
		var level int
		if err := conn.QueryRowContext(t.Context(), "PRAGMA synchronous").Scan(&level); err != nil {
			t.Fatal(err)
		}
		if (level == 1) != (want == "NORMAL") {
			t.Errorf("synchronous is %d after it was set to %s", level, want)
		}
	}
	if len(prepared) != 0 {
		t.Errorf("kept %v", prepared)
	}
}

func TestStatementsKeptAreBounded(t *testing.T) {
	conn, _ := openCounted(t)
	for n := range 2 * statementsKept {
		execute(t, conn, fmt.Sprintf("INSERT INTO numbers (n) VALUES (%d)", n))
	}
	err := conn.Raw(func(raw any) error {
		if kept := len(raw.(*statementConn).kept); kept != statementsKept { //nolint:forcetypeassert // else the test fails
			t.Errorf("%d statements are kept, want %d", kept, statementsKept)
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
}

func TestTransactionsEndOnTheirConnection(t *testing.T) {
	conn, prepared := openCounted(t)
	begin := func(ctx context.Context) *sql.Tx {
		tx, err := conn.BeginTx(ctx, nil)
		if err != nil {
			t.Fatal(err)
		}
		return tx
	}
	insert := func(tx *sql.Tx, n int) {
		if _, err := tx.ExecContext(t.Context(), insertNumber, n); err != nil {
			t.Fatal(err)
		}
	}
	for n := range 3 {
		kept, dropped := 2*n, 2*n+1
		tx := begin(t.Context())
		insert(tx, kept)
		if err := tx.Commit(); err != nil {
			t.Fatal(err)
		}
		tx = begin(t.Context())
		insert(tx, dropped)
		if err := tx.Rollback(); err != nil {
			t.Fatal(err)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := conn.BeginTx(ctx, nil); err == nil {
		t.Fatal("a transaction began although its context was over")
	}
	var count int
	if err := conn.QueryRowContext(t.Context(), "SELECT count(*) FROM numbers").Scan(&count); err != nil || count != 3 {
		t.Errorf("%d numbers, %v, want the three that were committed", count, err)
	}
	for _, query := range []string{"BEGIN IMMEDIATE", "COMMIT", "ROLLBACK"} {
		if prepared[query] != 1 {
			t.Errorf("%s was parsed %d times", query, prepared[query])
		}
	}
}
