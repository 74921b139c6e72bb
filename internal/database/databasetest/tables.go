package databasetest

import (
	"context"
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"

	"github.com/antipode-registry/antipode/internal/database"
)

// tables reads and restores all rows of a database. What it keeps lies in tables of its own beside the others.
type tables struct {
	sound    *database.DB
	volatile []string
}

// kept begins the names of the tables that hold the rows to restore.
const kept = "kept_"

// write fails the test on an error. It is not subject to faults.
func (d tables) write(t testing.TB, fn func(ctx context.Context, tx *database.Tx) error) {
	t.Helper()
	if err := d.sound.Write(context.WithoutCancel(t.Context()), fn); err != nil {
		t.Fatalf("databasetest: %v", err)
	}
}

// keep notes all rows as they are.
func (d tables) keep(t testing.TB) {
	t.Helper()
	d.write(t, func(ctx context.Context, tx *database.Tx) error {
		names, err := d.names(ctx, tx)
		if err != nil {
			return err
		}
		for _, name := range names {
			if _, err := tx.ExecContext(ctx, fmt.Sprintf("CREATE TABLE %s%s AS SELECT * FROM %s", kept, name, name)); err != nil {
				return err
			}
		}
		return nil
	})
}

// restore brings all rows back to what keep noted.
func (d tables) restore(t testing.TB) {
	t.Helper()
	d.write(t, func(ctx context.Context, tx *database.Tx) error {
		names, err := d.names(ctx, tx)
		if err != nil {
			return err
		}
		// Rows come back in the order of their tables' names, which foreign keys do not know of.
		unchecked, overriding := "PRAGMA defer_foreign_keys = ON", ""
		if d.sound.Dialect() == database.Postgres {
			unchecked, overriding = "SET LOCAL session_replication_role = replica", "OVERRIDING SYSTEM VALUE"
		}
		statements := []string{unchecked}
		for _, name := range names {
			statements = append(statements, "DELETE FROM "+name)
		}
		for _, name := range names {
			columns, err := d.columns(ctx, tx, name)
			if err != nil {
				return err
			}
			list := strings.Join(columns, ", ")
			statements = append(statements, fmt.Sprintf("INSERT INTO %s (%s) %s SELECT %s FROM %s%s",
				name, list, overriding, list, kept, name))
		}
		for _, statement := range statements {
			if _, err := tx.ExecContext(ctx, statement); err != nil {
				return fmt.Errorf("%s: %w", statement, err)
			}
		}
		return nil
	})
}

// dump is all rows in words, the same for two databases that say the same.
func (d tables) dump(t testing.TB) string {
	t.Helper()
	var lines []string
	err := d.sound.Read(context.WithoutCancel(t.Context()), func(ctx context.Context, q database.Queryer) error {
		names, err := d.names(ctx, q)
		if err != nil {
			return err
		}
		for _, name := range names {
			rows, err := d.rows(ctx, q, name)
			if err != nil {
				return err
			}
			lines = append(lines, rows...)
		}
		return nil
	})
	if err != nil {
		t.Fatalf("databasetest: %v", err)
	}
	return strings.Join(lines, "\n")
}

// rows are a table's rows, sorted.
func (d tables) rows(ctx context.Context, q database.Queryer, table string) ([]string, error) {
	if slices.Contains(d.volatile, table) {
		return nil, nil
	}
	found, err := q.QueryContext(ctx, "SELECT * FROM "+table)
	if err != nil {
		return nil, err
	}
	defer found.Close()
	columns, err := found.Columns()
	if err != nil {
		return nil, err
	}
	var list []string
	for found.Next() {
		values, into := make([]any, len(columns)), make([]any, len(columns))
		for i := range values {
			into[i] = &values[i]
		}
		if err := found.Scan(into...); err != nil {
			return nil, err
		}
		words := []string{table}
		for i, column := range columns {
			if !slices.Contains(d.volatile, table+"."+column) {
				words = append(words, column+"="+word(values[i]))
			}
		}
		list = append(list, strings.Join(words, " "))
	}
	slices.Sort(list)
	return list, found.Err()
}

// word is a value as it compares between runs: moments since the year 2001 are the clock's and all alike.
func word(value any) string {
	const recent = 1_000_000_000_000 // unix milliseconds
	switch v := value.(type) {
	case int64:
		if v > recent && v < math.MaxInt64 {
			return "a moment"
		}
	case []byte:
		return fmt.Sprintf("%q", v)
	case string:
		return fmt.Sprintf("%q", v)
	}
	return fmt.Sprint(value)
}

// names are the tables of the components, by name; the histories of their migrations are not among them.
func (d tables) names(ctx context.Context, q database.Queryer) ([]string, error) {
	query := "SELECT name FROM sqlite_schema WHERE type = 'table' ORDER BY name"
	if d.sound.Dialect() == database.Postgres {
		query = "SELECT tablename FROM pg_tables WHERE schemaname = current_schema() ORDER BY tablename"
	}
	all, err := texts(ctx, q, query)
	return slices.DeleteFunc(all, func(name string) bool {
		return strings.HasPrefix(name, kept) || strings.HasPrefix(name, "sqlite_") || strings.HasPrefix(name, "schema_")
	}), err
}

// columns are those of a table that are not computed from others.
func (d tables) columns(ctx context.Context, q database.Queryer, table string) ([]string, error) {
	query := "SELECT name FROM pragma_table_xinfo($1) WHERE hidden = 0"
	if d.sound.Dialect() == database.Postgres {
		query = `SELECT column_name FROM information_schema.columns
			WHERE table_schema = current_schema() AND table_name = $1 AND is_generated = 'NEVER'`
	}
	return texts(ctx, q, query, table)
}

func texts(ctx context.Context, q database.Queryer, query string, args ...any) ([]string, error) {
	rows, err := q.QueryContext(ctx, query, args...)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var list []string
	for rows.Next() {
		var text string
		if err := rows.Scan(&text); err != nil {
			return nil, err
		}
		list = append(list, text)
	}
	return list, rows.Err()
}
