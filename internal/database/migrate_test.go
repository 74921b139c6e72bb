package database_test

import (
	"context"
	"strings"
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
	replicas := []*database.DB{db}
	for range 7 {
		replicas = append(replicas, databasetest.Shared(t, db))
	}
	migrations := tables(map[string]string{
		"00001_a.sql": "CREATE TABLE a (n BIGINT);", "00002_a.sql": "INSERT INTO a VALUES (1);",
	})
	var starting sync.WaitGroup
	for _, replica := range replicas {
		starting.Go(func() {
			if err := replica.Migrate(t.Context(), "letters", migrations); err != nil {
				t.Error(err)
			}
		})
	}
	starting.Wait()
	var inserted, recorded int64
	err := db.Read(t.Context(), func(ctx context.Context, q database.Queryer) error {
		return q.QueryRowContext(ctx,
			"SELECT (SELECT count(*) FROM a), (SELECT count(*) FROM schema_letters WHERE version_id > 0)").Scan(&inserted, &recorded)
	})
	if err != nil || inserted != 1 || recorded != 2 {
		t.Errorf("two migrations were run %d times and inserted %d rows: %v", recorded, inserted, err)
	}
}

func TestMigrationThatFailsLeavesNothing(t *testing.T) {
	good := "CREATE TABLE a (n BIGINT);"
	databasetest.Each(t, func(t *testing.T, open func(testing.TB) *database.DB) {
		db := open(t)
		broken := tables(map[string]string{
			"00001_a.sql": good, "00002_b.sql": "CREATE TABLE b (n BIGINT); INSERT INTO a SELECT n FROM nowhere;",
		})
		for range 2 { // the second time it fails alike: not because the first left something
			if err := db.Migrate(t.Context(), "letters", broken); err == nil || !strings.Contains(err.Error(), "nowhere") {
				t.Fatalf("a broken migration: %v", err)
			}
		}
		if err := db.Write(t.Context(), countAll("SELECT count(*) FROM b")); err == nil {
			t.Error("half of the migration is there")
		}
		mended := tables(map[string]string{"00001_a.sql": good, "00002_b.sql": "CREATE TABLE b (n BIGINT);"})
		if err := db.Migrate(t.Context(), "letters", mended); err != nil {
			t.Fatal(err)
		}
		if err := db.Write(t.Context(), countAll("SELECT count(*) FROM a, b")); err != nil {
			t.Error(err)
		}
	})
}

func countAll(query string) func(context.Context, *database.Tx) error {
	return func(ctx context.Context, tx *database.Tx) error {
		var n int64
		return tx.QueryRowContext(ctx, query).Scan(&n)
	}
}
