package tracking

import (
	"context"

	"github.com/antipode-registry/antipode/internal/database"
)

// Referrer is a manifest with a subject, which a registry with the referrers API lists by itself.
type Referrer struct {
	Digest, Subject string
	// Present says that it was written by its digest. Otherwise it may be there: the site was about to write it, or wrote
	// it under a tag or below an index.
	Present bool
}

// Referrers returns what this site wrote with a subject to a repository of its registry, by digest. The registry cannot
// be asked for them all at once; without this memory those that the primary no longer has could not be found.
func (s *Store) Referrers(ctx context.Context, repository string) (list []Referrer, err error) {
	err = s.read(ctx, "read referrers", func(ctx context.Context, q database.Queryer) error {
		list = nil
		rows, err := q.QueryContext(ctx,
			"SELECT digest, subject, present FROM referrer WHERE repository = $1 ORDER BY digest", repository)
		if err != nil {
			return err
		}
		defer rows.Close()
		for rows.Next() {
			var r Referrer
			if err := rows.Scan(&r.Digest, &r.Subject, &r.Present); err != nil {
				return err
			}
			list = append(list, r)
		}
		return rows.Err()
	})
	return list, err
}

// AddReferrer remembers a manifest with a subject: before it is written, so that no crash makes it be forgotten, and
// once it is. What is known to be present stays so.
func (s *Store) AddReferrer(ctx context.Context, repository string, r Referrer) error {
	return s.write(ctx, "remember a referrer", func(ctx context.Context, tx *database.Tx, _ int64) error {
		_, err := tx.ExecContext(ctx, `INSERT INTO referrer (repository, digest, subject, present)
			VALUES ($1, $2, $3, $4) ON CONFLICT (repository, digest)
			DO UPDATE SET subject = excluded.subject, present = (referrer.present OR excluded.present)`,
			repository, r.Digest, r.Subject, r.Present)
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
