// Package feed is the change feed of the primary: one row per repository, with the revision of its newest change.
//
// It guarantees that an Append which returned nil is durable; that revisions follow the order of commits, so a reader
// that continues after the highest revision it has seen misses nothing; that many changes of a repository are one row,
// so the feed is never larger than the registry's list of repositories and is never pruned; and that a row's hint names
// every tag touched after the hint's base. It refuses to be the truth about tags: what a registry holds, it alone says.
package feed

import (
	"context"
	"crypto/rand"
	"database/sql"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"sync"
	"time"

	"github.com/antipode-registry/antipode/internal/database"
	"github.com/antipode-registry/antipode/internal/telemetry"
)

//go:embed migrations
var migrationFiles embed.FS

// channel is what commits notify.
const channel = "feed"

// ErrStopped is returned by Append once Run has ended.
var ErrStopped = errors.New("feed: stopped")

// Change says that something in a repository changed.
type Change struct {
	Repository string
	Tags       []Touch // the tags touched; at least one unless Unknown
	// Unknown says that anything in the repository may have changed: its hint starts over.
	Unknown bool
	// At is when it happened; zero, or a time to come, means now.
	At time.Time
}

// Row is a repository of the feed.
type Row struct {
	Repository  string
	Revision    int64     // of the newest change; at least 1
	ChangedAt   time.Time // when that change happened
	Hint        Hint
	Fingerprint string    // of the listing that all sites saw at this revision; "" when there is none to rely on
	SweptAt     time.Time // when a sweep last compared the row with the registry; zero = never
	TraceParent string    // the span that the newest change came from, see package telemetry; "" = it is not traced
}

// Options are what a Feed needs beside its database. The zero value works.
type Options struct {
	Logger  *slog.Logger // nil discards
	Metrics *Metrics     // nil counts nothing
	Tracer  *telemetry.Tracer
}

// Feed is the change feed in a database. Several processes may share one on Postgres. Its methods may be called from
// many goroutines; their errors match database.ErrUnavailable where trying again later may help.
type Feed struct {
	db      *database.DB
	id      string
	logger  *slog.Logger
	metrics *Metrics
	tracer  *telemetry.Tracer

	queue   chan *appending // unbuffered: what was handed over, the committer answers
	started sync.Once
	stopped chan struct{}

	watchers watchers
	reads    reads
}

// Open creates or migrates the feed's tables and, once in the life of the database, makes the feed's id.
func Open(ctx context.Context, db *database.DB, opts Options) (*Feed, error) {
	migrations, err := fs.Sub(migrationFiles, "migrations")
	if err != nil {
		return nil, fmt.Errorf("feed: migrations: %w", err)
	}
	if err := db.Migrate(ctx, "feed", migrations); err != nil {
		return nil, fmt.Errorf("feed: %w", err)
	}
	f := &Feed{
		db: db, logger: opts.Logger, metrics: opts.Metrics, tracer: opts.Tracer,
		queue: make(chan *appending), stopped: make(chan struct{}),
		watchers: watchers{channels: make(map[chan struct{}]struct{})},
		reads:    reads{running: make(map[readKey]*read)},
	}
	if f.logger == nil {
		f.logger = slog.New(slog.DiscardHandler)
	}
	if f.metrics == nil {
		f.metrics = NewMetrics(nil)
	}
	standing, err := f.identify(ctx)
	if err != nil {
		return nil, fmt.Errorf("feed: read its id: %w", err)
	}
	f.advance(standing)
	return f, nil
}

// identify makes the feed's id if there is none yet, reads it, and begins an incarnation. Of several processes that start
// on an empty database one makes the id, and all get the same.
func (f *Feed) identify(ctx context.Context) (standing Standing, err error) {
	var origin string
	err = f.db.Write(ctx, func(ctx context.Context, tx *database.Tx) error {
		_, err := tx.ExecContext(ctx,
			"INSERT INTO feed (singleton, id, head) VALUES (1, $1, 0) ON CONFLICT (singleton) DO NOTHING", rand.Text())
		if err != nil {
			return err
		}
		// Locked before the head is read, as by everyone who moves it.
		row := tx.QueryRowContext(ctx, "UPDATE feed SET head = head RETURNING id, head")
		if err := row.Scan(&f.id, &standing.Head); err != nil {
			return err
		}
		if origin, err = tx.Origin(ctx); err != nil {
			return err
		}
		standing.Incarnation, err = begin(ctx, tx, standing.Head, origin)
		return err
	})
	if err == nil && origin == "" && f.db.Dialect() == database.Postgres {
		f.logger.WarnContext(ctx, "the database's role may not ask for its history's origin (pg_control_system, "+
			"pg_walfile_name, pg_current_wal_lsn): after a failover that loses changes, restart primaryd")
	}
	return standing, err
}

// ID identifies the feed: it was made with its database. A cursor that belongs to another id means nothing here.
func (f *Feed) ID() string { return f.id }

// Head is the newest revision, as the database has it now; 0 while the feed is empty.
func (f *Feed) Head(ctx context.Context) (head int64, err error) {
	err = f.db.Read(ctx, func(ctx context.Context, q database.Queryer) error {
		standing, err := readStanding(ctx, q)
		head = standing.Head
		return err
	})
	if err != nil {
		return 0, fmt.Errorf("feed: %w", err)
	}
	return head, nil
}

// Read returns up to limit rows after the cursor, in revision order, and the standing, all of one snapshot: when fewer
// than limit rows come, there is nothing else up to the head. A cursor that does not fit the snapshot is
// ErrOutOfRange, so that nothing is ever read on top of a history that was lost.
func (f *Feed) Read(ctx context.Context, after Cursor, limit int) (rows []Row, standing Standing, err error) {
	if limit < 1 {
		return nil, Standing{}, fmt.Errorf("feed: read of %d rows", limit)
	}
	err = f.db.Read(ctx, func(ctx context.Context, q database.Queryer) error {
		if standing, err = readStanding(ctx, q); err != nil {
			return err
		}
		if err := standing.fits(ctx, q, after); err != nil || after.Revision == standing.Head {
			return err
		}
		rows, err = selectRows(ctx, q, "WHERE revision > $1 ORDER BY revision LIMIT $2", after.Revision, limit)
		return err
	})
	if err != nil {
		return nil, Standing{}, fmt.Errorf("feed: read after revision %d: %w", after.Revision, err)
	}
	return rows, standing, nil
}

// Base returns a repository's row for who holds the repository as of the cursor, whether there is a row, and whether the
// cursor fits the row's history: if not, the row's hint says nothing to it.
func (f *Feed) Base(ctx context.Context, repository string, since Cursor) (row Row, found, fits bool, err error) {
	err = f.db.Read(ctx, func(ctx context.Context, q database.Queryer) error {
		standing, err := readStanding(ctx, q)
		if err != nil {
			return err
		}
		err = standing.fits(ctx, q, since)
		if fits = err == nil; err != nil && !errors.Is(err, ErrOutOfRange) {
			return err
		}
		row, err = selectRow(ctx, q, repository)
		found = err == nil
		if errors.Is(err, sql.ErrNoRows) {
			return nil
		}
		return err
	})
	if err != nil {
		return Row{}, false, false, fmt.Errorf("feed: read %s: %w", repository, err)
	}
	return row, found, fits, nil
}

// Get returns one repository's row, and whether there is one.
func (f *Feed) Get(ctx context.Context, repository string) (row Row, found bool, err error) {
	err = f.db.Read(ctx, func(ctx context.Context, q database.Queryer) error {
		row, err = selectRow(ctx, q, repository)
		return err
	})
	if errors.Is(err, sql.ErrNoRows) {
		return Row{}, false, nil
	}
	if err != nil {
		return Row{}, false, fmt.Errorf("feed: read %s: %w", repository, err)
	}
	return row, true, nil
}

// List returns up to limit rows whose names come after afterName, bytewise, in that order.
func (f *Feed) List(ctx context.Context, afterName string, limit int) (rows []Row, err error) {
	if limit < 1 {
		return nil, fmt.Errorf("feed: list of %d rows", limit)
	}
	err = f.db.Read(ctx, func(ctx context.Context, q database.Queryer) error {
		rows, err = selectRows(ctx, q, "WHERE name > $1 ORDER BY name LIMIT $2", afterName, limit)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("feed: list after %q: %w", afterName, err)
	}
	return rows, nil
}
