package feed_test

import (
	"testing"
	"time"

	"github.com/antipode-registry/antipode/internal/database"
	"github.com/antipode-registry/antipode/internal/database/databasetest"
)

// A sweep that one replica asks for is heard of on another, and the request outlives both.
func TestRequestedSweepsAreHeardOf(t *testing.T) {
	each(t, func(t *testing.T, db *database.DB) {
		here, there := start(t, db), start(t, db)
		if db.Dialect() == database.Postgres {
			there = start(t, databasetest.Shared(t, db))
		}
		wake, stop := there.WatchSweeps()
		defer stop()
		if err := here.RequestSweep(t.Context()); err != nil {
			t.Fatal(err)
		}
		for {
			count, err := there.SweepsRequested(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if count == 1 {
				return
			}
			select {
			case <-wake:
			case <-time.After(30 * time.Second):
				t.Fatalf("%d sweeps were requested", count)
			}
		}
	})
}
