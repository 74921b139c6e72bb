package tracking

import (
	"context"
	"fmt"
	"time"

	"github.com/antipode-registry/antipode/internal/database"
)

// replicaGone is after how long without a word a process counts as dead.
const replicaGone = 15 * time.Second

// Replica is one of the processes that share the store.
type Replica struct {
	Name   string
	SeenAt time.Time // when it last reported
	Report string    // what it says of itself; the store does not read it
}

// ReportReplica notes that the process lives, and what it says of itself. Those that have said nothing for 15 seconds
// are forgotten.
func (s *Store) ReportReplica(ctx context.Context, name, report string) error {
	return s.writeRelaxed(ctx, "report the process", func(ctx context.Context, tx *database.Tx, now int64) error {
		scope := Scope{}
		if mine := s.adopted.Load(); mine != nil {
			scope = *mine
		}
		if err := s.enter(ctx, tx, name, scope, now); err != nil {
			return err
		}
		_, err := tx.ExecContext(ctx, "UPDATE replica SET report = $1 WHERE name = $2", text(report), name)
		return err
	})
}

// DropReplica forgets a process that ends.
func (s *Store) DropReplica(ctx context.Context, name string) error {
	return s.writeRelaxed(ctx, "forget the process", func(ctx context.Context, tx *database.Tx, _ int64) error {
		if _, err := tx.ExecContext(ctx, "DELETE FROM replica WHERE name = $1", name); err != nil {
			return err
		}
		return tx.Notify(ctx, channel) // one that waits to adopt its scope may go on
	})
}

// Replicas returns the processes that live, by name.
func (s *Store) Replicas(ctx context.Context) (list []Replica, err error) {
	err = s.read(ctx, "read the processes", func(ctx context.Context, q database.Queryer) error {
		now, err := s.now(ctx, q)
		if err != nil {
			return err
		}
		rows, err := q.QueryContext(ctx, "SELECT name, seen_at, report FROM replica WHERE seen_at > $1 ORDER BY name",
			now-replicaGone.Milliseconds())
		if err != nil {
			return err
		}
		defer rows.Close()
		for rows.Next() {
			var r Replica
			var seen int64
			if err := rows.Scan(&r.Name, &seen, &r.Report); err != nil {
				return err
			}
			r.SeenAt = time.UnixMilli(seen).UTC()
			list = append(list, r)
		}
		return rows.Err()
	})
	return list, err
}

// enter notes that the process lives and by which scope it works, and forgets the dead.
func (s *Store) enter(ctx context.Context, tx *database.Tx, name string, scope Scope, now int64) error {
	_, err := tx.ExecContext(ctx, `INSERT INTO replica (name, scope, seen_at) VALUES ($1, $2, $3)
		ON CONFLICT (name) DO UPDATE SET scope = excluded.scope, seen_at = excluded.seen_at`, name, scope.key(), now)
	if err != nil {
		return fmt.Errorf("enter the process: %w", err)
	}
	if _, err := tx.ExecContext(ctx, "DELETE FROM replica WHERE seen_at <= $1", now-replicaGone.Milliseconds()); err != nil {
		return fmt.Errorf("forget dead processes: %w", err)
	}
	return nil
}

// countUnder counts the other processes that live and work by the scope.
func countUnder(ctx context.Context, tx *database.Tx, name string, scope Scope, now int64) (n int64, err error) {
	err = tx.QueryRowContext(ctx, "SELECT count(*) FROM replica WHERE scope = $1 AND name <> $2 AND seen_at > $3",
		scope.key(), name, now-replicaGone.Milliseconds()).Scan(&n)
	if err != nil {
		return 0, fmt.Errorf("count processes: %w", err)
	}
	return n, nil
}
