package feed

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/antipode-registry/antipode/internal/database"
)

// chunkRows bounds the rows of one statement: 256 rows have 1,792 parameters, and SQLite takes 32,766.
const chunkRows = 256

// record is a row to be written.
type record struct {
	name            string
	revision        int64
	changedAt       time.Time
	hint            Hint
	fingerprint     string
	fingerprintOpen bool
	traceParent     string
}

// write gives every changed repository a new revision and returns the standing.
//
// The counter is moved first. Its row stays locked until the commit, so transactions that hand out revisions commit in
// the order of their revisions, and none of them can deadlock with another. A sequence would not do: it hands numbers
// out before the commit, a reader could see 8 before 7 and would never look for 7 again.
func (f *Feed) write(ctx context.Context, tx *database.Tx, changes map[string]merged) (standing Standing, err error) {
	names := slices.Sorted(maps.Keys(changes))
	if standing, err = f.move(ctx, tx, len(names)); err != nil {
		return Standing{}, err
	}
	rows, err := existing(ctx, tx, names)
	if err != nil {
		return Standing{}, err
	}
	first := standing.Head - int64(len(names)) + 1
	records := make([]record, 0, len(names))
	for i, name := range names {
		change, revision := changes[name], first+int64(i)
		hint := rows[name].Hint.next(rows[name].Revision, revision, change)
		records = append(records, record{
			name: name, revision: revision, changedAt: change.at, hint: hint,
			// A hint that names touches lets sites do without a complete listing, and nothing vouches for what they have.
			fingerprintOpen: hint.Base == revision,
			traceParent:     change.traceParent,
		})
	}
	return standing, upsert(ctx, tx, records)
}

// move adds to the counter, locks it for this transaction, sees to it that what follows is written in the right
// incarnation, and notifies. With 0 it does all but add and notify.
func (f *Feed) move(ctx context.Context, tx *database.Tx, by int) (standing Standing, err error) {
	var origin string
	err = tx.QueryRowContext(ctx, "UPDATE feed SET head = head + $1 RETURNING head, incarnation, origin", by).
		Scan(&standing.Head, &standing.Incarnation, &origin)
	if err != nil {
		return Standing{}, fmt.Errorf("move the head: %w", err)
	}
	before := Standing{Head: standing.Head - int64(by), Incarnation: standing.Incarnation}
	if standing.Incarnation, err = f.continueHistory(ctx, tx, before, origin); err != nil || by == 0 {
		return standing, err
	}
	return standing, tx.Notify(ctx, channel)
}

// existing returns those rows of the names that there are.
func existing(ctx context.Context, q database.Queryer, names []string) (map[string]Row, error) {
	rows := make(map[string]Row, len(names))
	for chunk := range chunks(names) {
		args := make([]any, len(chunk))
		for i, name := range chunk {
			args[i] = name
		}
		found, err := selectRows(ctx, q, "WHERE name IN ("+placeholders(0, len(chunk))+")", args...)
		if err != nil {
			return nil, err
		}
		for _, row := range found {
			rows[row.Repository] = row
		}
	}
	return rows, nil
}

func upsert(ctx context.Context, tx *database.Tx, records []record) error {
	for chunk := range chunks(records) {
		values := make([]string, len(chunk))
		var args []any
		for i, r := range chunk {
			hint, err := r.hint.encode()
			if err != nil {
				return err
			}
			values[i] = "(" + placeholders(len(args), 7) + ")"
			args = append(args,
				r.name, r.revision, r.changedAt.UnixMilli(), hint, r.fingerprint, boolean(r.fingerprintOpen),
				r.traceParent)
		}
		_, err := tx.ExecContext(ctx,
			`INSERT INTO repository (name, revision, changed_at, hint, fingerprint, fingerprint_open, traceparent)
			VALUES `+strings.Join(values, ", ")+`
			ON CONFLICT (name) DO UPDATE SET revision = excluded.revision, changed_at = excluded.changed_at,
				hint = excluded.hint, fingerprint = excluded.fingerprint,
				fingerprint_open = excluded.fingerprint_open, traceparent = excluded.traceparent`, args...)
		if err != nil {
			return fmt.Errorf("write rows: %w", err)
		}
	}
	return nil
}

// chunks cuts a list into pieces whose lengths are powers of two: there are nine texts of each statement then, which
// the server and the driver can keep prepared, instead of one for every length.
func chunks[T any](list []T) func(yield func([]T) bool) {
	return func(yield func([]T) bool) {
		for size := chunkRows; len(list) > 0; {
			for size > len(list) {
				size /= 2
			}
			if !yield(list[:size]) {
				return
			}
			list = list[size:]
		}
	}
}

// placeholders is "$3, $4" after 2 of 2.
func placeholders(after, count int) string {
	list := make([]string, count)
	for i := range list {
		list[i] = "$" + strconv.Itoa(after+i+1)
	}
	return strings.Join(list, ", ")
}

func boolean(b bool) int64 {
	if b {
		return 1
	}
	return 0
}

const columns = "SELECT name, revision, changed_at, hint, fingerprint, swept_at, traceparent FROM repository "

func selectRow(ctx context.Context, q database.Queryer, repository string) (Row, error) {
	return scan(q.QueryRowContext(ctx, columns+"WHERE name = $1", repository).Scan)
}

func selectRows(ctx context.Context, q database.Queryer, where string, args ...any) ([]Row, error) {
	found, err := q.QueryContext(ctx, columns+where, args...)
	if err != nil {
		return nil, fmt.Errorf("select rows: %w", err)
	}
	defer found.Close()
	var rows []Row
	for found.Next() {
		row, err := scan(found.Scan)
		if err != nil {
			return nil, err
		}
		rows = append(rows, row)
	}
	if err := found.Err(); err != nil {
		return nil, fmt.Errorf("select rows: %w", err)
	}
	return rows, nil
}

func scan(into func(...any) error) (row Row, err error) {
	var changed, swept int64
	var hint string
	if err := into(&row.Repository, &row.Revision, &changed, &hint, &row.Fingerprint, &swept, &row.TraceParent); err != nil {
		return Row{}, fmt.Errorf("read a row: %w", err)
	}
	if row.Hint, err = decodeHint(hint); err != nil {
		return Row{}, fmt.Errorf("row of %s: %w", row.Repository, err)
	}
	row.ChangedAt = time.UnixMilli(changed).UTC()
	if swept != 0 {
		row.SweptAt = time.UnixMilli(swept).UTC()
	}
	return row, nil
}
