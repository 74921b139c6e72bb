// Package databasetest gives tests real databases: SQLite files, and a private Postgres cluster that lives as long as
// the test binary does, or the server that DATABASE_URL names.
//
// It guarantees that every database is empty and gone after its test. It refuses to skip Postgres in silence: where
// there is none, tests fail and say what to install, unless ANTIPODE_SKIP_POSTGRES=1.
package databasetest

import (
	"context"
	"crypto/rand"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/antipode-registry/antipode/internal/database"
)

// opened remembers which URL a DB was opened by, for Shared and URL.
var opened sync.Map // *database.DB -> string

// Each runs fn as the subtests "sqlite" and "postgres". Every call of open makes a new, empty database, which is closed
// and removed when the test given to open ends.
func Each(t *testing.T, fn func(t *testing.T, open func(t testing.TB) *database.DB)) {
	t.Helper()
	t.Run("sqlite", func(t *testing.T) { fn(t, OpenSQLite) })
	t.Run("postgres", func(t *testing.T) {
		SkipWithoutPostgres(t)
		fn(t, OpenPostgres)
	})
}

// SkipWithoutPostgres skips the test where ANTIPODE_SKIP_POSTGRES=1 asks for that.
func SkipWithoutPostgres(t testing.TB) {
	t.Helper()
	if os.Getenv("ANTIPODE_SKIP_POSTGRES") == "1" {
		t.Skip("ANTIPODE_SKIP_POSTGRES=1")
	}
}

// OpenSQLite opens a new file in the test's temporary folder.
func OpenSQLite(t testing.TB) *database.DB {
	t.Helper()
	return Open(t, "sqlite:"+filepath.Join(t.TempDir(), "test.db"))
}

// OpenPostgres opens a new database on the test binary's cluster, or on the server that DATABASE_URL names (whose user
// must be allowed to create databases).
func OpenPostgres(t testing.TB) *database.DB {
	t.Helper()
	return Open(t, NewDatabase(t, Server(t)))
}

// Server is the URL of the server that DATABASE_URL names, or of the test binary's own cluster.
func Server(t testing.TB) string {
	t.Helper()
	if server := os.Getenv("DATABASE_URL"); server != "" {
		return server
	}
	return sharedCluster(t).URL("postgres")
}

// Open opens the URL and closes it when the test ends.
func Open(t testing.TB, url string, opts ...database.Option) *database.DB {
	t.Helper()
	db, err := database.Open(context.WithoutCancel(t.Context()), url, nil, opts...)
	if err != nil {
		t.Fatalf("open the test's database: %v", err)
	}
	opened.Store(db, url)
	t.Cleanup(func() {
		opened.Delete(db)
		if err := db.Close(); err != nil {
			t.Errorf("close the test's database: %v", err)
		}
	})
	return db
}

// Shared opens the database of db once more, as another process would: a second replica, or the same one after a crash.
func Shared(t testing.TB, db *database.DB) *database.DB {
	t.Helper()
	return Open(t, URL(t, db))
}

// URL is what db was opened by.
func URL(t testing.TB, db *database.DB) string {
	t.Helper()
	url, found := opened.Load(db)
	if !found {
		t.Fatal("databasetest: the database was not opened by this package")
	}
	return url.(string) //nolint:forcetypeassert // only Open stores
}

// NewDatabase creates an empty database on the server of the URL and returns the new one's URL. It is dropped when the
// test ends.
func NewDatabase(t testing.TB, server string) string {
	t.Helper()
	name := "antipode_" + strings.ToLower(rand.Text()[:12])
	execute(t, server, "CREATE DATABASE "+name)
	t.Cleanup(func() { execute(t, server, "DROP DATABASE IF EXISTS "+name+" WITH (FORCE)") })
	parsed, err := url.Parse(server)
	if err != nil {
		t.Fatal("databasetest: DATABASE_URL is not a URL")
	}
	parsed.Path = "/" + name
	return parsed.String()
}

func execute(t testing.TB, server, statement string) {
	t.Helper()
	if err := tryExecute(context.WithoutCancel(t.Context()), server, statement); err != nil {
		t.Errorf("databasetest: %s: %v", statement, err)
	}
}

func tryExecute(ctx context.Context, server, statement string) error {
	conn, err := pgx.Connect(ctx, server)
	if err != nil {
		return fmt.Errorf("connect: %w", err)
	}
	defer conn.Close(ctx)
	_, err = conn.Exec(ctx, statement)
	return err
}

// Snapshot copies the database of a URL, which nobody may be connected to, and returns the copy's URL.
func Snapshot(t testing.TB, server, from string) string {
	t.Helper()
	to := NewDatabase(t, server)
	Restore(t, server, to, from)
	return to
}

// Restore puts a copy of the database `from`, or an empty one if that is "", in the place of the database of a URL.
func Restore(t testing.TB, server, to, from string) {
	t.Helper()
	name := databaseName(t, to)
	execute(t, server, "DROP DATABASE "+name+" WITH (FORCE)")
	template := ""
	if from != "" {
		template = " TEMPLATE " + databaseName(t, from)
	}
	execute(t, server, "CREATE DATABASE "+name+template)
}

func databaseName(t testing.TB, of string) string {
	t.Helper()
	parsed, err := url.Parse(of)
	if err != nil {
		t.Fatal("databasetest: a database's URL is not a URL")
	}
	return strings.TrimPrefix(parsed.Path, "/")
}
