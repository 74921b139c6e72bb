package tracking

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/antipode-registry/antipode/internal/database"
)

// Finish ends a lease with what came of it, and appends to the journal, in one transaction; ErrLeaseLost, and nothing
// is written, when the lease is lost. A change, a resync or a release that came meanwhile leaves the row due at once.
func (s *Store) Finish(ctx context.Context, l *Lease, o Outcome) error {
	if err := o.check(); err != nil {
		return wrap("finish "+l.Repository, err)
	}
	return s.write(ctx, "finish", func(ctx context.Context, tx *database.Tx, now int64) error {
		if o.Synced && l.Verify != TagsOnly {
			// It may be counted there. Who locks both, locks the site first.
			if _, err := s.lockSite(ctx, tx); err != nil {
				return err
			}
		}
		r, err := s.leased(ctx, tx, l, now)
		if err != nil {
			return err
		}
		before := r.verifiedAt.Valid
		r.settle(l, o, now, s.opts)
		if !before && r.verifiedAt.Valid {
			if _, err := tx.ExecContext(ctx, "UPDATE site SET verified = verified + 1"); err != nil {
				return fmt.Errorf("count what is verified: %w", err)
			}
		}
		if err := r.store(ctx, tx, l.Repository); err != nil {
			return err
		}
		if err := s.record(ctx, tx, l.Repository, o.Journal, now); err != nil {
			return err
		}
		return tx.Notify(ctx, channel)
	})
}

func (o Outcome) check() error {
	ways := 0
	for _, set := range []bool{o.Synced, o.Retry > 0, o.Failure != nil, o.Held != "" && o.Failure == nil} {
		if set {
			ways++
		}
	}
	if ways != 1 {
		return fmt.Errorf("an outcome is just one of synced, retry, failure and held, not %d of them", ways)
	}
	return nil
}

// row is what a sync's end may change.
type row struct {
	wanted, synced     int64
	class              Class
	nextAttempt        int64
	relist             bool
	failures           int64
	failedAt           sql.NullInt64
	failure            Failure
	held               string
	released           bool
	oldest, sinceClaim sql.NullInt64
	lastSynced         sql.NullInt64
	tagCount           int64
	sum                string
	verify             Depth
	verifiedAt         sql.NullInt64
	damaged            bool
}

// leased reads and locks the row of a lease that holds.
func (s *Store) leased(ctx context.Context, tx *database.Tx, l *Lease, now int64) (*row, error) {
	r := &row{}
	err := tx.QueryRowContext(ctx, `SELECT wanted_revision, synced_revision, class, next_attempt_at, relist, failures,
		failed_at, failure_reference, failure_side, failure_message, held_reason, released, oldest_unsynced_at,
		changed_since_claim_at, last_synced_at, tag_count, tag_sum, verify, verified_at, damaged
		FROM repository WHERE name = $1 AND fence = $2 AND lease_until > $3`+s.forUpdate(), l.Repository, l.Fence, now,
	).Scan(&r.wanted, &r.synced, &r.class, &r.nextAttempt, &r.relist, &r.failures, &r.failedAt, &r.failure.Reference,
		&r.failure.Side, &r.failure.Message, &r.held, &r.released, &r.oldest, &r.sinceClaim, &r.lastSynced,
		&r.tagCount, &r.sum,
		&r.verify, &r.verifiedAt, &r.damaged)
	if errors.Is(err, sql.ErrNoRows) {
		return nil, lost(l)
	}
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", l.Repository, err)
	}
	return r, nil
}

// store writes the row back and ends its lease. Once all is on the site, its trace is told to the end: what is done with
// the row later, a verification or a resync, is not of it.
func (r *row) store(ctx context.Context, tx *database.Tx, name string) error {
	_, err := tx.ExecContext(ctx, `UPDATE repository SET lease_until = 0, lease_owner = '', relist = FALSE,
		synced_revision = $2, next_attempt_at = $3, failures = $4, failed_at = $5, failure_reference = $6,
		failure_side = $7, failure_message = $8, held_reason = $9, released = $10, oldest_unsynced_at = $11,
		last_synced_at = $12, tag_count = $13, tag_sum = $14, verify = $15, verified_at = $16,
		damaged = $17, hint = CASE WHEN wanted_revision = $2 THEN '' ELSE hint END,
		traceparent = CASE WHEN wanted_revision = $2 THEN '' ELSE traceparent END WHERE name = $1`,
		name, r.synced, r.nextAttempt, r.failures, r.failedAt, r.failure.Reference, r.failure.Side, r.failure.Message,
		r.held, r.released, r.oldest, r.lastSynced, r.tagCount, r.sum, int64(r.verify), r.verifiedAt,
		r.damaged)
	if err != nil {
		return fmt.Errorf("write %s: %w", name, err)
	}
	return nil
}

// settle is the end of a sync. It reads the row as it is now, which may have changed since the claim.
func (r *row) settle(l *Lease, o Outcome, now int64, opts Options) {
	changed := r.wanted > l.Wanted || r.relist
	released := r.released && !l.Released
	// What makes the row due at once whatever the outcome says; a backfill change waits with the row.
	urgent := r.relist || released || r.wanted > l.Wanted && r.class == Live
	if o.TagCount >= 0 {
		r.tagCount = o.TagCount
	}
	r.sum, r.damaged = o.Sum, r.damaged || o.Damaged
	switch {
	case o.Synced:
		r.succeed(l, now)
	case o.Failure != nil:
		r.fail(*o.Failure, now)
		if o.Held != "" {
			r.held = text(o.Held)
		}
		r.nextAttempt = now
		if !urgent {
			r.nextAttempt += backoff(r.failures, opts).Milliseconds()
		}
	case o.Held != "":
		r.held, r.released = text(o.Held), released
		r.clearFailure() // all that could be done was done: failures in a row end here
		r.nextAttempt = never
		if changed || released {
			r.nextAttempt = now
		}
	default:
		r.nextAttempt = now
		if !urgent {
			r.nextAttempt += max(1, o.Retry.Milliseconds())
		}
	}
}

// succeed brings the row to what the lease saw. A resync that was asked for meanwhile still wants its complete listing.
func (r *row) succeed(l *Lease, now int64) {
	r.clearFailure()
	r.held, r.released = "", false
	r.lastSynced = sql.NullInt64{Int64: now, Valid: true}
	if l.Verify != TagsOnly {
		r.verifiedAt, r.damaged = r.lastSynced, false
		if !r.relist { // else another check may have been asked for since
			r.verify = TagsOnly
		}
	}
	if !r.relist {
		r.synced = l.Wanted
	}
	r.oldest, r.nextAttempt = r.sinceClaim, now
}

func (r *row) fail(f Failure, now int64) {
	r.failures++
	r.failure = Failure{Reference: text(f.Reference), Side: text(f.Side), Message: text(f.Message)}
	r.failedAt = sql.NullInt64{Int64: orNow(f.At, now), Valid: true}
}

func (r *row) clearFailure() {
	r.failures, r.failure, r.failedAt = 0, Failure{}, sql.NullInt64{}
}

// backoff is the wait after so many failures in a row: twice as long each time, and by chance in its upper half, so
// that repositories that failed together do not come back together.
func backoff(failures int64, opts Options) time.Duration {
	wait := opts.BackoffMin
	for range failures - 1 {
		if wait >= opts.BackoffMax/2 {
			wait = opts.BackoffMax
			break
		}
		wait *= 2
	}
	half := wait / 2
	return half + rand.N(wait-half+1)
}
