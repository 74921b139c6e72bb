package feed_test

import (
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/antipode-registry/antipode/internal/database"
	"github.com/antipode-registry/antipode/internal/database/databasetest"
	"github.com/antipode-registry/antipode/primaryd/internal/feed"
)

// TestReadersMissNothing has writers on two replicas and readers that follow each with a cursor. Were revisions not in
// the order of commits, a row would appear at or below a cursor and its repository's last revision would be missed.
func TestReadersMissNothing(t *testing.T) {
	const writers, appends, repositories, readers = 16, 25, 40, 4
	each(t, func(t *testing.T, db *database.DB) {
		first := start(t, db)
		second := start(t, databasetest.Shared(t, db))
		replicas := []*feed.Feed{first, second}
		written := make(chan struct{})
		var writing, reading sync.WaitGroup
		for w := range writers {
			writing.Go(func() {
				for i := range appends {
					// The two replicas meet on the same repositories, in opposite orders.
					a, b := (w*7+i)%repositories, (w*3+i*5)%repositories
					f := replicas[w%2]
					if _, err := f.Append(t.Context(), push(name(a), fmt.Sprint("v", w)), push(name(b), "latest")); err != nil {
						t.Error(err)
					}
				}
			})
		}
		seen := make([]map[string]int64, readers)
		for r := range readers {
			reading.Go(func() {
				var err error
				if seen[r], err = followUntil(t, replicas[r%2], written, 7+r); err != nil {
					t.Error(err)
				}
			})
		}
		writing.Wait()
		close(written)
		reading.Wait()
		rows, standing, err := first.Read(t.Context(), feed.Cursor{}, 1000)
		if err != nil || len(rows) != repositories || rows[len(rows)-1].Revision != standing.Head {
			t.Fatalf("%d rows, head %d, %v", len(rows), standing.Head, err)
		}
		for r, last := range seen {
			for _, row := range rows {
				if last[row.Repository] != row.Revision {
					t.Errorf("reader %d has %s at %d, want %d", r, row.Repository, last[row.Repository], row.Revision)
				}
			}
		}
	})
}

func name(i int) string { return fmt.Sprintf("repository/%02d", i) }

// followUntil follows the feed as a subscriber does until everything that was there when written closed has been read.
func followUntil(
	t *testing.T, f *feed.Feed, written <-chan struct{}, limit int,
) (last map[string]int64, err error) {
	wake, stop := f.Watch()
	defer stop()
	last = make(map[string]int64)
	cursor, final := int64(0), false
	for {
		rows, standing, err := f.Read(t.Context(), feed.Cursor{Revision: cursor}, limit)
		if err != nil {
			return nil, err
		}
		for _, row := range rows {
			if row.Revision <= cursor || row.Revision <= last[row.Repository] || row.Revision > standing.Head {
				return nil, fmt.Errorf("revision %d of %s after cursor %d", row.Revision, row.Repository, cursor)
			}
			cursor = row.Revision
			last[row.Repository] = row.Revision
		}
		if len(rows) == limit {
			continue
		}
		if final {
			return last, nil
		}
		select {
		case <-wake:
		case <-written:
			final = true
		case <-time.After(2 * time.Minute):
			return nil, errors.New("no wake")
		}
	}
}
