package feed_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"

	"github.com/antipode-registry/antipode/internal/database"
	"github.com/antipode-registry/antipode/primaryd/internal/feed"
)

// TestFollowersShareReads: those that are woken by a change and ask after the same cursor get the rows of one read, and
// what is committed after that read is in the next.
func TestFollowersShareReads(t *testing.T) {
	each(t, func(t *testing.T, db *database.DB) {
		f := start(t, db)
		cursor := feed.Cursor{}
		for change := range 3 {
			appendChanges(t, f, push(fmt.Sprint("r", change), "v1"))
			firsts := followers(t, f, cursor, 50)
			for _, first := range firsts {
				if first != firsts[0] {
					t.Fatal("two followers made two reads")
				}
			}
			if want := fmt.Sprint("r", change); firsts[0].Repository != want {
				t.Fatalf("read %s, want %s", firsts[0].Repository, want)
			}
			// The same question after another change.
			appendChanges(t, f, push(fmt.Sprint("x", change), "v1"))
			rows, standing, err := f.Follow(t.Context(), cursor, 100)
			if err != nil || len(rows) != 2 || &rows[0] == firsts[0] {
				t.Fatalf("%d rows, %v: the change after a shared read is missing", len(rows), err)
			}
			cursor = feed.Cursor{Revision: standing.Head, Incarnation: standing.Incarnation}
		}
	})
}

// followers returns the first row that each of many simultaneous callers got.
func followers(t *testing.T, f *feed.Feed, cursor feed.Cursor, count int) []*feed.Row {
	t.Helper()
	firsts := make([]*feed.Row, count)
	var group sync.WaitGroup
	for i := range firsts {
		group.Go(func() {
			rows, _, err := f.Follow(t.Context(), cursor, 100)
			if err != nil || len(rows) != 1 {
				t.Errorf("%d rows, %v", len(rows), err)
				return
			}
			firsts[i] = &rows[0]
		})
	}
	group.Wait()
	if t.Failed() {
		t.FailNow()
	}
	return firsts
}

// TestFollowFails: a failure is told to who asked, and not kept for who asks later.
func TestFollowFails(t *testing.T) {
	each(t, func(t *testing.T, db *database.DB) {
		f := start(t, db)
		beyond := feed.Cursor{Revision: 1}
		if _, _, err := f.Follow(t.Context(), beyond, 10); !errors.Is(err, feed.ErrOutOfRange) {
			t.Errorf("a cursor above the head: %v", err)
		}
		ended, cancel := context.WithCancel(t.Context())
		cancel()
		if _, _, err := f.Follow(ended, feed.Cursor{}, 10); err != nil && !errors.Is(err, context.Canceled) {
			t.Errorf("a caller that gave up: %v", err)
		}
		appendChanges(t, f, push("a", "v1"))
		if rows, _, err := f.Follow(t.Context(), beyond, 10); err != nil || len(rows) != 0 {
			t.Errorf("a cursor at the head: %d rows, %v", len(rows), err)
		}
	})
}
