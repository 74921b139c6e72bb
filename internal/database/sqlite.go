package database

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"os"
	"path/filepath"
	"strings"

	"modernc.org/sqlite"
)

// sqliteReaders bounds the readers of one file. Reads are short and hit the page cache, so more only adds contention.
const sqliteReaders = 8

// openSQLite opens the file with one connection that writes and a pool of connections that cannot.
func openSQLite(ctx context.Context, path string, logger *slog.Logger, opts options) (*DB, error) {
	path, err := sqlitePath(path)
	if err != nil {
		return nil, err
	}
	if err := createPrivate(path); err != nil {
		return nil, classify(ctx, err)
	}
	writer, err := sqlitePool(path, writerParameters(), opts)
	if err != nil {
		return nil, err
	}
	// One writer: SQLite has one write lock. Queueing for it in the process is fair and cheap, queueing inside SQLite
	// is a sleep in a loop.
	writer.SetMaxOpenConns(1)
	reader, err := sqlitePool(path, readerParameters(), opts)
	if err != nil {
		return nil, errors.Join(err, writer.Close())
	}
	reader.SetMaxOpenConns(sqliteReaders)
	reader.SetMaxIdleConns(sqliteReaders)
	db := &DB{dialect: SQLite, writer: writer, reader: reader, logger: logger, hub: newHub(), patience: opts.patience}
	// The writer goes first: it turns the file to WAL, which a connection that is query_only could not.
	if err := writer.PingContext(ctx); err != nil {
		return nil, errors.Join(classify(ctx, fmt.Errorf("database: open %s: %w", path, err)), db.Close())
	}
	if err := db.Ping(ctx); err != nil {
		return nil, errors.Join(err, db.Close())
	}
	return db, nil
}

func sqlitePool(path string, parameters url.Values, opts options) (*sql.DB, error) {
	connector, err := sqlite.NewConnector(sqliteDSN(path, parameters))
	if err != nil {
		return nil, fmt.Errorf("database: open %s: %w", path, err)
	}
	return sql.OpenDB(opts.wrap(statements{connector})), nil
}

// sqlitePath makes the part after "sqlite:" an absolute path.
func sqlitePath(path string) (string, error) {
	switch {
	case path == "":
		return "", errors.New(`database: "sqlite:" needs a path`)
	case strings.HasPrefix(path, ":memory:"):
		return "", errors.New("database: an in-memory SQLite would lose what was promised to be durable; name a file")
	case strings.HasPrefix(path, "//") && !strings.HasPrefix(path, "///"):
		return "", errors.New(`database: write "sqlite:PATH" without the two slashes`)
	}
	absolute, err := filepath.Abs(path)
	return absolute, wrap("database: path of the SQLite file", err)
}

// createPrivate makes the file with mode 0600 before SQLite would make it by the umask; -wal and -shm take its mode.
func createPrivate(path string) error {
	file, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return fmt.Errorf("database: create the SQLite file: %w", err)
	}
	return wrap("database: create the SQLite file", file.Close())
}

func sqliteDSN(path string, parameters url.Values) string {
	return (&url.URL{Scheme: "file", Path: path, RawQuery: parameters.Encode()}).String()
}

// writerParameters are those of the connection that writes.
//
// synchronous=FULL syncs the WAL at every commit. NORMAL would survive a killed process but not a power cut: the last
// commits before it could be gone although a registry was already told 200 for them and has dropped its events. What
// FULL costs is one fsync per commit; the feed's group commit shares it among all who wait.
func writerParameters() url.Values {
	return url.Values{
		"_pragma": {
			"busy_timeout(10000)",
			"journal_mode(WAL)",
			"synchronous(FULL)",
			"foreign_keys(1)",
			"journal_size_limit(67108864)",
		},
	}
}

func readerParameters() url.Values {
	return url.Values{"_pragma": {"busy_timeout(10000)", "foreign_keys(1)", "query_only(1)"}}
}
