package tracking

import (
	"context"
	"fmt"
	"slices"

	"github.com/antipode-registry/antipode/internal/database"
)

// Pin is a tag that an operator brought back after it was removed.
type Pin struct {
	Tag, Digest string
}

// Pins returns the pins of a repository, by tag.
func (s *Store) Pins(ctx context.Context, repository string) (pins []Pin, err error) {
	err = s.read(ctx, "read pins", func(ctx context.Context, q database.Queryer) error {
		pins, err = selectPins(ctx, q, "SELECT tag, digest FROM pin WHERE repository = $1 ORDER BY tag", repository)
		return err
	})
	return pins, err
}

// Pin keeps removed tags (not manifests that had none) from now on, with the digests that the journal has of their last removal, and makes the
// repository due. Without tags it pins every tag whose newest entry is its removal. It returns what it pinned, which
// is less than asked when the journal does not know a tag; found is false when the repository is not tracked.
func (s *Store) Pin(ctx context.Context, repository string, tags []string) (pins []Pin, found bool, err error) {
	err = s.write(ctx, "pin", func(ctx context.Context, tx *database.Tx, now int64) error {
		pins = nil
		removed, err := selectPins(ctx, tx, `SELECT reference, previous_digest FROM journal j
			WHERE repository = $1 AND action = 'removed' AND previous_digest <> '' AND reference NOT LIKE '@%' AND id = (SELECT max(id) FROM journal n
				WHERE n.repository = j.repository AND n.reference = j.reference AND n.action IN ('removed', 'tagged'))
			ORDER BY reference`, repository)
		if err != nil {
			return err
		}
		for _, pin := range removed {
			if len(tags) > 0 && !slices.Contains(tags, pin.Tag) {
				continue
			}
			pins = append(pins, pin)
			if _, err := tx.ExecContext(ctx, `INSERT INTO pin (repository, tag, digest) VALUES ($1, $2, $3)
				ON CONFLICT (repository, tag) DO UPDATE SET digest = excluded.digest`,
				repository, pin.Tag, pin.Digest); err != nil {
				return err
			}
		}
		found, err = s.repin(ctx, tx, repository, "kept from now on", pins, now)
		return err
	})
	return pins, found, err
}

// Unpin lets the next sync follow the primary again: without tags, for all of the repository's pins.
func (s *Store) Unpin(ctx context.Context, repository string, tags []string) (pins []Pin, found bool, err error) {
	err = s.write(ctx, "unpin", func(ctx context.Context, tx *database.Tx, now int64) error {
		pins = nil
		all, err := selectPins(ctx, tx, "SELECT tag, digest FROM pin WHERE repository = $1 ORDER BY tag", repository)
		if err != nil {
			return err
		}
		for _, pin := range all {
			if len(tags) > 0 && !slices.Contains(tags, pin.Tag) {
				continue
			}
			pins = append(pins, pin)
			if err := deletePin(ctx, tx, repository, pin.Tag); err != nil {
				return err
			}
		}
		found, err = s.repin(ctx, tx, repository, "no longer kept", pins, now)
		return err
	})
	return pins, found, err
}

// DropPin forgets a pin because the primary has the tag again. The repository does not become due by it.
func (s *Store) DropPin(ctx context.Context, repository, tag string) error {
	return s.write(ctx, "drop a pin", func(ctx context.Context, tx *database.Tx, _ int64) error {
		return deletePin(ctx, tx, repository, tag)
	})
}

func deletePin(ctx context.Context, tx *database.Tx, repository, tag string) error {
	_, err := tx.ExecContext(ctx, "DELETE FROM pin WHERE repository = $1 AND tag = $2", repository, tag)
	return err
}

// repin makes the repository due after its pins changed.
func (s *Store) repin(
	ctx context.Context, tx *database.Tx, repository, what string, pins []Pin, now int64,
) (found bool, err error) {
	if len(pins) == 0 {
		row := tx.QueryRowContext(ctx, "SELECT EXISTS (SELECT 1 FROM repository WHERE name = $1)", repository)
		return found, row.Scan(&found)
	}
	n, err := resync(ctx, tx, "class = $2 WHERE name = $3", now, int64(Live), repository)
	if err != nil || n == 0 {
		return false, err
	}
	entries := make([]Entry, 0, len(pins))
	for _, pin := range pins {
		entries = append(entries, Entry{
			Action: "restore", Reference: pin.Tag, Digest: pin.Digest, Detail: askedFor(ctx, what+", asked for"),
		})
	}
	return true, s.record(ctx, tx, repository, entries, now)
}

func selectPins(ctx context.Context, q database.Queryer, query, repository string) ([]Pin, error) {
	rows, err := q.QueryContext(ctx, query, repository)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var pins []Pin
	for rows.Next() {
		var pin Pin
		if err := rows.Scan(&pin.Tag, &pin.Digest); err != nil {
			return nil, fmt.Errorf("read a pin: %w", err)
		}
		pins = append(pins, pin)
	}
	return pins, rows.Err()
}
