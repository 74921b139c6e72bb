package tracking

import (
	"context"
	"database/sql"
	"fmt"

	"github.com/antipode-registry/antipode/internal/database"
)

// Content remembers which blobs, and which manifests with all that they refer to, each repository of the site's
// registry holds, so that a copy knows what to skip and where to mount from. It is a memory, not the truth: the
// registry may have lost what is noted here, and then Forget corrects it.
type Content struct{ store *Store }

// Content returns the content index, which shares the store's database.
func (s *Store) Content() *Content { return &Content{store: s} }

// Find returns where the digests are known to be: the repository that is asked about where it holds one, else the first
// other one by name. A digest that is known nowhere is left out.
func (c *Content) Find(ctx context.Context, repository string, digests ...string) (map[string]string, error) {
	where := make(map[string]string, len(digests))
	for _, batch := range batches(unique(digests)) {
		if err := wrap("look up content", c.find(ctx, repository, batch, where)); err != nil {
			return nil, err
		}
	}
	return where, nil
}

func (c *Content) find(ctx context.Context, repository string, digests []string, where map[string]string) error {
	here := fmt.Sprintf("$%d", len(digests)+1)
	return c.store.db.ReadOne(ctx, func(ctx context.Context, q database.Queryer) error {
		rows, err := q.QueryContext(ctx, "WITH asked (digest) AS (VALUES "+placeholders(len(digests), 1)+`)
			SELECT digest, COALESCE(
				(SELECT repository FROM content WHERE repository = `+here+` AND content.digest = asked.digest),
				(SELECT repository FROM content WHERE content.digest = asked.digest ORDER BY repository LIMIT 1))
			FROM asked`, append(anys(digests), repository)...)
		if err != nil {
			return err
		}
		defer rows.Close()
		for rows.Next() {
			var digest string
			var held sql.NullString
			if err := rows.Scan(&digest, &held); err != nil {
				return err
			}
			if held.Valid {
				where[digest] = held.String
			}
		}
		return rows.Err()
	})
}

// Record notes that the repository holds the digests. Noting one twice is no error.
func (c *Content) Record(ctx context.Context, repository string, digests ...string) error {
	return c.each(ctx, "record content", digests, func(ctx context.Context, tx *database.Tx, batch []string) error {
		args := make([]any, 0, 2*len(batch))
		for _, digest := range batch {
			args = append(args, repository, digest)
		}
		_, err := tx.ExecContext(ctx, "INSERT INTO content (repository, digest) VALUES "+
			placeholders(len(batch), 2)+" ON CONFLICT DO NOTHING", args...)
		return err
	})
}

// Forget takes back Record. Forgetting what was not noted is no error.
func (c *Content) Forget(ctx context.Context, repository string, digests ...string) error {
	return c.each(ctx, "forget content", digests, func(ctx context.Context, tx *database.Tx, batch []string) error {
		_, err := tx.ExecContext(ctx, "DELETE FROM content WHERE repository = $1 AND digest IN ("+
			parameters(2, len(batch))+")", append([]any{repository}, anys(batch)...)...)
		return err
	})
}

// Retain forgets what the repository held, but for the digests that keep wants.
func (c *Content) Retain(ctx context.Context, repository string, keep func(digest string) bool) error {
	return c.store.write(ctx, "retain content", func(ctx context.Context, tx *database.Tx, _ int64) error {
		rest, err := names(ctx, tx, "SELECT digest FROM content WHERE repository = $1 ORDER BY digest",
			func(digest string) bool { return !keep(digest) }, repository)
		if err != nil {
			return err
		}
		for _, batch := range batches(rest) {
			_, err := tx.ExecContext(ctx, "DELETE FROM content WHERE repository = $1 AND digest IN ("+
				parameters(2, len(batch))+")", append([]any{repository}, anys(batch)...)...)
			if err != nil {
				return err
			}
		}
		return nil
	})
}

// DropRepository forgets all that the repository held, and that its referrers were written.
func (c *Content) DropRepository(ctx context.Context, repository string) error {
	return c.store.write(ctx, "drop content", func(ctx context.Context, tx *database.Tx, _ int64) error {
		if _, err := tx.ExecContext(ctx, "DELETE FROM content WHERE repository = $1", repository); err != nil {
			return err
		}
		_, err := tx.ExecContext(ctx, "UPDATE referrer SET present = FALSE WHERE repository = $1", repository)
		return err
	})
}

// each runs fn over the digests in batches, in one transaction.
func (c *Content) each(ctx context.Context, op string, digests []string,
	fn func(ctx context.Context, tx *database.Tx, batch []string) error,
) error {
	if len(digests) == 0 {
		return nil
	}
	return wrap(op, c.store.db.WriteRelaxed(ctx, func(ctx context.Context, tx *database.Tx) error {
		if err := c.store.checkLease(ctx, tx); err != nil {
			return err
		}
		for _, batch := range batches(unique(digests)) {
			if err := fn(ctx, tx, batch); err != nil {
				return err
			}
		}
		return nil
	}))
}
