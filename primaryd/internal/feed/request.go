package feed

import (
	"context"
	"fmt"

	"github.com/antipode-registry/antipode/internal/database"
)

// sweepChannel is what requests for a sweep notify.
const sweepChannel = "sweep"

// RequestSweep asks whichever replica sweeps for a sweep now. The request is durable when it returns nil.
func (f *Feed) RequestSweep(ctx context.Context) error {
	err := f.db.Write(ctx, func(ctx context.Context, tx *database.Tx) error {
		if _, err := tx.ExecContext(ctx, "UPDATE feed SET sweeps_requested = sweeps_requested + 1"); err != nil {
			return err
		}
		return tx.Notify(ctx, sweepChannel)
	})
	if err != nil {
		return fmt.Errorf("feed: request a sweep: %w", err)
	}
	return nil
}

// SweepsRequested is how many sweeps were requested in the life of the database.
func (f *Feed) SweepsRequested(ctx context.Context) (count int64, err error) {
	err = f.db.Read(ctx, func(ctx context.Context, q database.Queryer) error {
		return q.QueryRowContext(ctx, "SELECT sweeps_requested FROM feed").Scan(&count)
	})
	if err != nil {
		return 0, fmt.Errorf("feed: read what sweeps were requested: %w", err)
	}
	return count, nil
}

// WatchSweeps returns a channel that receives after a request, and at times without one: compare SweepsRequested. stop
// ends it.
func (f *Feed) WatchSweeps() (wake <-chan struct{}, stop func()) { return f.db.Listen(sweepChannel) }
