package database_test

import (
	"context"
	"sync"
	"testing"

	"github.com/antipode-registry/antipode/internal/database"
	"github.com/antipode-registry/antipode/internal/database/databasetest"
)

func TestMigrate(t *testing.T) {
	first := map[string]string{"00001_a.sql": "CREATE TABLE a (n BIGINT);"}
	second := map[string]string{"00001_a.sql": first["00001_a.sql"], "00002_b.sql": "CREATE TABLE b (n BIGINT);"}
	databasetest.Each(t, func(t *testing.T, open func(testing.TB) *database.DB) {
		db := open(t)
		for _, migrations := range []map[string]string{first, second, second, first} { // the last: a version back
			if err := db.Migrate(t.Context(), "letters", tables(migrations)); err != nil {
				t.Fatal(err)
			}
		}
		other := map[string]string{"00001_c.sql": "CREATE TABLE c (n BIGINT);"} // the same number, another component
		if err := db.Migrate(t.Context(), "others", tables(other)); err != nil {
			t.Fatal(err)
		}
		if err := db.Write(t.Context(), countAll("SELECT count(*) FROM a, b, c")); err != nil {
			t.Error(err)
		}
		if version, err := db.SchemaVersion(t.Context(), "letters"); err != nil || version != "2" {
			t.Errorf("schema %q, %v", version, err)
		}
		if err := db.Migrate(t.Context(), "Bad;Name", tables(first)); err == nil {
			t.Error("a component's name that is no word was taken")
		}
		for _, name := range []string{"Bad;Name", "never"} {
			if version, err := db.SchemaVersion(t.Context(), name); err == nil {
				t.Errorf("%s has the schema %q", name, version)
			}
		}
	})
}

func TestPostgresMigratesOnceHoweverManyStart(t *testing.T) {
	databasetest.SkipWithoutPostgres(t)
	db := databasetest.OpenPostgres(t)
	replicas := []*database.DB{db, databasetest.Shared(t, db), databasetest.Shared(t, db)}
	migrations := tables(map[string]string{"00001_a.sql": "CREATE TABLE a (n BIGINT);"})
	var starting sync.WaitGroup
	for _, replica := range replicas {
		starting.Go(func() {
			if err := replica.Migrate(t.Context(), "letters", migrations); err != nil {
				t.Error(err)
			}
		})
	}
	starting.Wait()
}

func countAll(query string) func(context.Context, *database.Tx) error {
	return func(ctx context.Context, tx *database.Tx) error {
		var n int64
		return tx.QueryRowContext(ctx, query).Scan(&n)
	}
}
