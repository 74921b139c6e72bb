package tracking

import (
	"context"

	"github.com/antipode-registry/antipode/internal/database"
)

// Referrer is a manifest on the site that is reached by its subject and not by a tag.
type Referrer struct {
	Digest, Subject string
}

// Referrers returns what this site copied as referrers in a repository of its registry, by digest. The registry cannot
// be asked for them all at once; without this memory those that the primary no longer has could not be found.
func (s *Store) Referrers(ctx context.Context, repository string) (list []Referrer, err error) {
	err = s.read(ctx, "read referrers", func(ctx context.Context, q database.Queryer) error {
		rows, err := q.QueryContext(ctx,
			"SELECT digest, subject FROM referrer WHERE repository = $1 ORDER BY digest", repository)
		if err != nil {
			return err
		}
		defer rows.Close()
		for rows.Next() {
			var r Referrer
			if err := rows.Scan(&r.Digest, &r.Subject); err != nil {
				return err
			}
			list = append(list, r)
		}
		return rows.Err()
	})
	return list, err
}

// AddReferrer remembers a referrer that was copied.
func (s *Store) AddReferrer(ctx context.Context, repository string, r Referrer) error {
	return s.write(ctx, "remember a referrer", func(ctx context.Context, tx *database.Tx, _ int64) error {
		_, err := tx.ExecContext(ctx, `INSERT INTO referrer (repository, digest, subject) VALUES ($1, $2, $3)
			ON CONFLICT (repository, digest) DO UPDATE SET subject = excluded.subject`, repository, r.Digest, r.Subject)
		return err
	})
}

// DropReferrer forgets a referrer that was removed.
func (s *Store) DropReferrer(ctx context.Context, repository, digest string) error {
	return s.write(ctx, "forget a referrer", func(ctx context.Context, tx *database.Tx, _ int64) error {
		_, err := tx.ExecContext(ctx, "DELETE FROM referrer WHERE repository = $1 AND digest = $2", repository, digest)
		return err
	})
}
