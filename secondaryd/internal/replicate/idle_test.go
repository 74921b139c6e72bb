package replicate_test

import (
	"context"
	"log/slog"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/antipode-registry/antipode/internal/database/databasetest"
	"github.com/antipode-registry/antipode/secondaryd/internal/replicate"
	"github.com/antipode-registry/antipode/secondaryd/internal/tracking"
)

// counter counts what is logged, by message.
type counter struct{ claims atomic.Int64 }

func (c *counter) Enabled(context.Context, slog.Level) bool { return true }
func (c *counter) WithAttrs([]slog.Attr) slog.Handler       { return c }
func (c *counter) WithGroup(string) slog.Handler            { return c }
func (c *counter) Handle(_ context.Context, r slog.Record) error {
	if r.Message == "could not claim work" {
		c.claims.Add(1)
	}
	return nil
}

// rest runs an engine that has nothing to do for a while of the bubble's time, which passes only when all is at rest.
func rest(t *testing.T, logs slog.Handler, prepare func(store *tracking.Store)) {
	t.Helper()
	db := databasetest.OpenSQLite(t)
	store, err := tracking.Open(t.Context(), db, tracking.Options{})
	if err != nil {
		t.Fatal(err)
	}
	prepare(store)
	engine := replicate.New(replicate.Parts{Tracking: store}, replicate.Options{
		Owner: "bench", Workers: 3, Lease: time.Minute, Logger: slog.New(logs),
	})
	ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
	defer cancel()
	if err := engine.Run(ctx); err != nil {
		t.Fatal(err)
	}
}

// An engine without work sleeps. Would it ask the database over and over, time would stand still in the bubble.
func TestIdleEngineRests(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		rest(t, slog.DiscardHandler, func(*tracking.Store) {})
	})
}

// A paused one sleeps beside due work.
func TestPausedEngineRests(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		rest(t, slog.DiscardHandler, func(store *tracking.Store) {
			changes := []tracking.Change{{Repository: "a", Revision: 1}}
			if err := store.SetPaused(t.Context(), true); err != nil {
				t.Fatal(err)
			}
			if err := store.Apply(t.Context(), tracking.Batch{FeedID: "feed", Changes: changes, Cursor: 1, Head: 1}); err != nil {
				t.Fatal(err)
			}
		})
	})
}

// A database that is gone is asked once a second.
func TestFailedClaimsDoNotSpin(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var logs counter
		db := databasetest.OpenSQLite(t)
		store, err := tracking.Open(t.Context(), db, tracking.Options{})
		if err != nil {
			t.Fatal(err)
		}
		if err := db.Close(); err != nil {
			t.Fatal(err)
		}
		engine := replicate.New(replicate.Parts{Tracking: store}, replicate.Options{
			Owner: "bench", Workers: 3, Lease: time.Minute, Logger: slog.New(&logs),
		})
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		if err := engine.Run(ctx); err != nil {
			t.Fatal(err)
		}
		if n := logs.claims.Load(); n < 30 || n > 61 {
			t.Errorf("%d claims failed within a minute", n)
		}
	})
}
