package database

import (
	"context"
	"fmt"
	"io/fs"
	"regexp"
	"strconv"

	"github.com/pressly/goose/v3"
	"github.com/pressly/goose/v3/lock"
)

// lockAttempts is for how many seconds a replica waits for another one that migrates.
const lockAttempts = 300

var componentName = regexp.MustCompile(`^[a-z]+$`)

// Migrate brings the component's tables up to date. migrations holds a folder per dialect, "sqlite" and "postgres", of
// goose files (NNNNN_name.sql, `-- +goose Up` only: migrations go forward). The component's name, lower-case letters,
// keeps its history in a table of its own, so that several components share one database.
//
// On Postgres a session lock lets one of several starting replicas do it while the others wait. A database that a newer
// version has migrated is left as it is: the version before must work on it while replicas are being replaced.
func (db *DB) Migrate(ctx context.Context, component string, migrations fs.FS) error {
	if !componentName.MatchString(component) {
		return fmt.Errorf("database: migrate: component %q is not a lower-case word", component)
	}
	provider, err := db.provider(component, migrations)
	if err != nil {
		return fmt.Errorf("database: migrate %s: %w", component, err)
	}
	results, err := provider.Up(ctx)
	if err != nil {
		return classify(ctx, fmt.Errorf("database: migrate %s: %w", component, err))
	}
	for _, result := range results {
		db.logger.InfoContext(ctx, "database migrated",
			"component", component, "version", result.Source.Version, "took", result.Duration)
	}
	return nil
}

func (db *DB) provider(component string, migrations fs.FS) (*goose.Provider, error) {
	folder, err := fs.Sub(migrations, string(db.dialect))
	if err != nil {
		return nil, err
	}
	options := []goose.ProviderOption{
		goose.WithTableName("schema_" + component),
		goose.WithDisableGlobalRegistry(true),
		goose.WithSlog(db.logger),
	}
	dialect := goose.DialectSQLite3
	if db.dialect == Postgres {
		dialect = goose.DialectPostgres
		locker, err := lock.NewPostgresSessionLocker(lock.WithLockTimeout(1, lockAttempts))
		if err != nil {
			return nil, err
		}
		options = append(options, goose.WithSessionLocker(locker))
	}
	return goose.NewProvider(dialect, db.writer, folder, options...)
}

// SchemaVersion is the newest migration of a component that this database has, which may be of a newer program. A
// database that has never seen the component is an error.
func (db *DB) SchemaVersion(ctx context.Context, component string) (version string, err error) {
	if !componentName.MatchString(component) {
		return "", fmt.Errorf("database: schema: component %q is not a lower-case word", component)
	}
	var newest int64
	err = db.Read(ctx, func(ctx context.Context, q Queryer) error {
		return q.QueryRowContext(ctx, "SELECT max(version_id) FROM schema_"+component).Scan(&newest)
	})
	return strconv.FormatInt(newest, 10), wrap("database: schema of "+component, err)
}
