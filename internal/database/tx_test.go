package database_test

import (
	"context"
	"testing"

	"github.com/antipode-registry/antipode/internal/database"
	"github.com/antipode-registry/antipode/internal/database/databasetest"
)

// What the commit of each kind of write waits for, asked from inside; SQLite says 1 for NORMAL and 2 for FULL.
func TestWriteWaitsForTheDiskUnlessRelaxed(t *testing.T) {
	t.Parallel()
	databasetest.Each(t, func(t *testing.T, open func(t testing.TB) *database.DB) {
		db := open(t)
		question, durable, relaxed := "PRAGMA synchronous", "2", "1"
		if db.Dialect() == database.Postgres {
			question, relaxed = "SHOW synchronous_commit", "off"
			if err := db.Read(t.Context(), func(ctx context.Context, q database.Queryer) error {
				return q.QueryRowContext(ctx, question).Scan(&durable)
			}); err != nil {
				t.Fatal(err)
			}
		}
		for _, write := range []struct {
			name string
			run  func(context.Context, func(context.Context, *database.Tx) error) error
			want string
		}{
			{"Write", db.Write, durable},
			{"WriteRelaxed", db.WriteRelaxed, relaxed},
			{"WriteRelaxed again", db.WriteRelaxed, relaxed},
			{"Write after it", db.Write, durable},
		} {
			var got string
			err := write.run(t.Context(), func(ctx context.Context, tx *database.Tx) error {
				return tx.QueryRowContext(ctx, question).Scan(&got)
			})
			if err != nil || got != write.want {
				t.Errorf("%s: the commit waits as %q says, want %q (%v)", write.name, got, write.want, err)
			}
		}
	})
}

// A switch to commits that do not wait, whose answer is lost, must not leave the next durable one without its wait.
func TestWriteWaitsAfterASwitchThatNobodyHeardOf(t *testing.T) {
	t.Parallel()
	for _, fault := range []databasetest.Fault{databasetest.Refused, databasetest.Unheard, databasetest.Severed} {
		db, faults := databasetest.OpenFailing(t, databasetest.URL(t, databasetest.OpenSQLite(t)))
		faults.Arm(1, fault)
		if err := db.WriteRelaxed(t.Context(), func(context.Context, *database.Tx) error { return nil }); err == nil {
			t.Fatalf("%s: the switch did not fail", fault)
		}
		faults.Disarm()
		var level int
		if err := db.Write(t.Context(), func(ctx context.Context, tx *database.Tx) error {
			return tx.QueryRowContext(ctx, "PRAGMA synchronous").Scan(&level)
		}); err != nil || level != 2 {
			t.Errorf("%s: the commit waits as %d says, want 2 (%v)", fault, level, err)
		}
	}
}
