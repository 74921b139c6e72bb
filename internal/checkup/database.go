package checkup

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/antipode-registry/antipode/internal/database"
)

// leastSpace is how much room a SQLite database should have left to grow, in bytes.
const leastSpace = 1 << 30

// CheckDatabase looks at a daemon's database: that it answers, which schema each component has there, its clock, and
// for SQLite how much room its disk has. It never creates one.
func (r *Report) CheckDatabase(ctx context.Context, url string, components ...string) {
	path, embedded := strings.CutPrefix(url, "sqlite:")
	if embedded {
		if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
			r.Warn("database", "start the daemon, which makes it; mind that its path is relative to the working directory",
				"there is no %s yet", path)
			return
		}
	}
	ctx, cancel := Within(ctx)
	defer cancel()
	db, err := database.Open(ctx, url, nil)
	if err != nil {
		r.Fail("database", "start it, or correct `database` in the configuration", "%v", err)
		return
	}
	defer func() { _ = db.Close() }() // nothing was written
	r.checkSchema(ctx, db, components)
	if embedded {
		r.checkSpace(filepath.Dir(path))
	}
}

func (r *Report) checkSchema(ctx context.Context, db *database.DB, components []string) {
	versions, now, err := inspect(ctx, db, components)
	if err != nil {
		r.Fail("database", "start the daemon once, which brings its tables up to date", "the database answers, but not about its tables: %v", err)
		return
	}
	r.OK("database", "%s answers, schema %s", db.Dialect(), strings.Join(versions, ", "))
	if db.Dialect() == database.Postgres {
		r.checkClock("database", now, time.Now())
	}
}

// inspect reads which schema each component has, and the time.
func inspect(ctx context.Context, db *database.DB, components []string) (versions []string, now time.Time, err error) {
	for _, component := range components {
		version, err := db.SchemaVersion(ctx, component)
		if err != nil {
			return nil, now, err
		}
		versions = append(versions, component+" "+version)
	}
	err = db.Read(ctx, func(ctx context.Context, q database.Queryer) error {
		now, err = db.Now(ctx, q)
		return err
	})
	return versions, now, err
}

func (r *Report) checkSpace(dir string) {
	free, known := freeSpace(dir)
	switch {
	case !known:
	case free < leastSpace:
		r.Warn("disk", "make room: a full disk stops the daemon", "%s has %d MiB left", dir, free>>20)
	default:
		r.OK("disk", "%s has %d GiB left", dir, free>>30)
	}
}
