package feed

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"

	"github.com/antipode-registry/antipode/internal/database"
)

// A row's fingerprint stands for what every site that synced the row's revision has seen. Only then does "the registry
// still has this fingerprint" mean that no site lacks anything. So:
//
//   - A change that names tags forgets it: sites follow such a change without a complete listing, and a later change
//     whose notification is lost could bring the registry back to the fingerprint of before.
//   - A change that names none (unknown, found by a sweep, or a new row) makes every site list all. The first complete
//     listing at exactly that revision is taken as the fingerprint.
//   - A site's complete listing that differs from the one taken at the same revision saw a change that no notification
//     told of. It must not replace the fingerprint: the other site lacks that change, and a sweep would find registry
//     and row equal. The row is left without one, and the next sweep makes every site list again.

// RecordListing takes note of a complete listing that a site is about to be given, read after the row had the revision.
// It never makes a revision. Call it before the listing's end is sent; if it fails, the listing must not be sent as
// complete, since a sweep would not know what that site has seen.
func (f *Feed) RecordListing(ctx context.Context, repository string, revision int64, fingerprint string) error {
	err := f.db.Write(ctx, func(ctx context.Context, tx *database.Tx) error {
		_, err := tx.ExecContext(ctx,
			`UPDATE repository
			SET fingerprint = CASE fingerprint_open WHEN 1 THEN $3 ELSE '' END, fingerprint_open = 0
			WHERE name = $1 AND revision = $2 AND fingerprint <> $3 AND (fingerprint_open = 1 OR fingerprint <> '')`,
			repository, revision, fingerprint)
		return err
	})
	if err != nil {
		return fmt.Errorf("feed: record a listing of %s: %w", repository, err)
	}
	return nil
}

// RecordSweep compares a sweep's complete listing with the row. revision is what the row had before the listing was
// read, 0 if there was none; present says whether the registry knows the repository.
//
// Where the row's fingerprint does not vouch for the listing, the repository gets a new revision and an unknown hint,
// and bumped is true: sites will list all of it. A repository without a row gets one if it is present.
func (f *Feed) RecordSweep(
	ctx context.Context, repository string, revision int64, fingerprint string, present bool,
) (bumped bool, err error) {
	if fingerprint == "" {
		return false, fmt.Errorf("feed: sweep of %s: no fingerprint", repository)
	}
	if err := storable("repository", repository); err != nil {
		return false, fmt.Errorf("feed: sweep: %w", err)
	}
	swept := sweep{feed: f, repository: repository, revision: revision, fingerprint: fingerprint, present: present}
	var standing Standing
	err = f.db.Write(ctx, func(ctx context.Context, tx *database.Tx) (err error) {
		standing, bumped, err = swept.record(ctx, tx)
		return err
	})
	if err != nil {
		return false, fmt.Errorf("feed: sweep of %s: %w", repository, err)
	}
	if bumped {
		f.advance(standing)
	}
	return bumped, nil
}

// sweep is one complete listing of a sweep.
type sweep struct {
	feed        *Feed
	repository  string
	revision    int64
	fingerprint string
	present     bool
	now         time.Time
}

func (s sweep) record(ctx context.Context, tx *database.Tx) (standing Standing, bumped bool, err error) {
	if s.now, err = tx.Now(ctx); err != nil {
		return Standing{}, false, err
	}
	if confirmed, err := s.confirm(ctx, tx); confirmed || err != nil {
		return Standing{}, false, err
	}
	return s.bump(ctx, tx)
}

// confirm handles the usual case, without touching the counter: the row's fingerprint is the listing's, or the listing
// is the first one at a revision that makes every site list all.
func (s sweep) confirm(ctx context.Context, tx *database.Tx) (bool, error) {
	result, err := tx.ExecContext(ctx,
		`UPDATE repository SET swept_at = $4, fingerprint = $3, fingerprint_open = 0
		WHERE name = $1 AND (fingerprint = $3 OR fingerprint_open = 1 AND revision = $2)`,
		s.repository, s.revision, s.fingerprint, s.now.UnixMilli())
	if err != nil {
		return false, fmt.Errorf("compare: %w", err)
	}
	confirmed, err := result.RowsAffected()
	return confirmed > 0, err
}

// bump gives the repository a new revision, unless one that came meanwhile makes every site list all anyway.
func (s sweep) bump(ctx context.Context, tx *database.Tx) (standing Standing, bumped bool, err error) {
	if _, err := s.feed.move(ctx, tx, 0); err != nil { // locks: the row cannot change between the look and the write
		return Standing{}, false, err
	}
	row, err := selectRow(ctx, tx, s.repository)
	missing := errors.Is(err, sql.ErrNoRows)
	switch {
	case err != nil && !missing:
		return Standing{}, false, err
	case missing && !s.present:
		return Standing{}, false, nil
	case row.Revision != s.revision && row.Hint.Base == row.Revision && !missing:
		return Standing{}, false, s.touch(ctx, tx)
	}
	if standing, err = s.feed.move(ctx, tx, 1); err != nil {
		return Standing{}, false, err
	}
	r := record{name: s.repository, revision: standing.Head, changedAt: s.now, hint: Hint{Base: standing.Head}}
	if row.Revision == s.revision || missing {
		r.fingerprint = s.fingerprint
	} else {
		// The row moved while the listing was read, which is then neither of before nor of after.
		r.fingerprintOpen = true
	}
	if err := upsert(ctx, tx, []record{r}); err != nil {
		return Standing{}, false, err
	}
	return standing, true, s.touch(ctx, tx)
}

func (s sweep) touch(ctx context.Context, tx *database.Tx) error {
	_, err := tx.ExecContext(ctx,
		"UPDATE repository SET swept_at = $2 WHERE name = $1", s.repository, s.now.UnixMilli())
	return err
}

// AddMissing makes a row for every repository that has none, such as those that were there before the feed was, and
// returns how many it made. Their hints are unknown. The others are left alone.
func (f *Feed) AddMissing(ctx context.Context, repositories []string) (added int, err error) {
	for _, name := range repositories {
		if err := storable("repository", name); err != nil {
			return 0, fmt.Errorf("feed: add: %w", err)
		}
	}
	for chunk := range chunks(repositories) {
		made, err := f.addChunk(ctx, chunk)
		if err != nil {
			return added, fmt.Errorf("feed: add: %w", err)
		}
		added += made
	}
	return added, nil
}

// addChunk adds in a transaction of its own, so that a large catalog does not keep changes waiting.
func (f *Feed) addChunk(ctx context.Context, names []string) (added int, err error) {
	var missing []string
	err = f.db.Read(ctx, func(ctx context.Context, q database.Queryer) error {
		missing, err = without(ctx, q, names)
		return err
	})
	if err != nil || len(missing) == 0 {
		return 0, err
	}
	var standing Standing
	err = f.db.Write(ctx, func(ctx context.Context, tx *database.Tx) error {
		standing, added, err = f.insertMissing(ctx, tx, missing)
		return err
	})
	if err != nil {
		return 0, err
	}
	f.advance(standing)
	return added, nil
}

func (f *Feed) insertMissing(
	ctx context.Context, tx *database.Tx, names []string,
) (standing Standing, added int, err error) {
	if standing, err = f.move(ctx, tx, 0); err != nil {
		return Standing{}, 0, err
	}
	// Again, now that nobody else can add.
	missing, err := without(ctx, tx, names)
	if err != nil || len(missing) == 0 {
		return standing, 0, err
	}
	now, err := tx.Now(ctx)
	if err != nil {
		return Standing{}, 0, err
	}
	records := make([]record, 0, len(missing))
	for i, name := range missing {
		revision := standing.Head + int64(i) + 1
		records = append(records, record{
			name: name, revision: revision, changedAt: now, hint: Hint{Base: revision}, fingerprintOpen: true,
		})
	}
	if standing, err = f.move(ctx, tx, len(missing)); err != nil {
		return Standing{}, 0, err
	}
	return standing, len(missing), upsert(ctx, tx, records)
}

// without returns the names that have no row, each once, in order.
func without(ctx context.Context, q database.Queryer, names []string) ([]string, error) {
	rows, err := existing(ctx, q, names)
	if err != nil {
		return nil, err
	}
	var missing []string
	seen := make(map[string]bool, len(names))
	for _, name := range names {
		if _, found := rows[name]; !found && !seen[name] {
			seen[name] = true
			missing = append(missing, name)
		}
	}
	return missing, nil
}
