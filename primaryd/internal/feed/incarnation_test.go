package feed_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/antipode-registry/antipode/internal/database"
	"github.com/antipode-registry/antipode/internal/database/databasetest"
	"github.com/antipode-registry/antipode/internal/registrytest"
	"github.com/antipode-registry/antipode/primaryd/internal/feed"
)

// execute runs statements in one transaction.
func execute(t *testing.T, db *database.DB, statements ...string) {
	t.Helper()
	err := db.Write(t.Context(), func(ctx context.Context, tx *database.Tx) error {
		for _, statement := range statements {
			if _, err := tx.ExecContext(ctx, statement); err != nil {
				return fmt.Errorf("%s: %w", statement, err)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

var feedTables = []string{"feed", "repository", "incarnation"}

// backUp keeps a copy of the feed's tables beside them.
func backUp(t *testing.T, db *database.DB) {
	t.Helper()
	for _, table := range feedTables {
		execute(t, db, "CREATE TABLE saved_"+table+" AS SELECT * FROM "+table)
	}
}

// restore puts the copy back.
func restore(t *testing.T, db *database.DB) {
	t.Helper()
	var statements []string
	for _, table := range feedTables {
		statements = append(statements, "DELETE FROM "+table, "INSERT INTO "+table+" SELECT * FROM saved_"+table)
	}
	execute(t, db, statements...)
}

func read(t *testing.T, f *feed.Feed, after feed.Cursor) ([]feed.Row, feed.Standing) {
	t.Helper()
	rows, standing, err := f.Read(t.Context(), after, 1000)
	if err != nil {
		t.Fatal(err)
	}
	return rows, standing
}

func cursor(s feed.Standing) feed.Cursor {
	return feed.Cursor{Revision: s.Head, Incarnation: s.Incarnation}
}

func wantLost(t *testing.T, f *feed.Feed, after feed.Cursor) {
	t.Helper()
	if rows, standing, err := f.Read(t.Context(), after, 1000); !errors.Is(err, feed.ErrOutOfRange) {
		t.Errorf("a cursor of a lost history was let in: %d rows, %+v, %v", len(rows), standing, err)
	}
	if _, err := f.Stand(t.Context(), after); !errors.Is(err, feed.ErrOutOfRange) {
		t.Errorf("a cursor of a lost history fits: %v", err)
	}
	if _, _, fits, err := f.Base(t.Context(), "a", after); fits || err != nil {
		t.Errorf("a base of a lost history fits: %v", err)
	}
}

// A database is restored from an older copy, and its head passes the cursor of a site again with other changes: the site
// is told to start over, and one that had read no more than the copy holds is not.
func TestRestoreFromAnOlderCopy(t *testing.T) {
	each(t, func(t *testing.T, db *database.DB) {
		before := open(t, db, feed.Options{})
		stop := run(t, before)
		appendChanges(t, before, push("a", "v1"), push("b", "v1"))
		_, early := read(t, before, feed.Cursor{})
		backUp(t, db)
		appendChanges(t, before, push("a", "v2"))
		appendChanges(t, before, push("c", "v1"))
		_, late := read(t, before, cursor(early))
		stop()
		restore(t, db)
		after := start(t, db)
		wantLost(t, after, cursor(late)) // above the head
		for i := range 3 {
			appendChanges(t, after, push("other", fmt.Sprint("v", i)))
		}
		if _, standing := read(t, after, feed.Cursor{}); standing.Head <= late.Head {
			t.Fatalf("head %d did not pass %d", standing.Head, late.Head)
		}
		wantLost(t, after, cursor(late)) // below it
		if rows, _ := read(t, after, cursor(early)); len(rows) != 1 || rows[0].Repository != "other" {
			t.Errorf("a cursor that the copy holds reads %+v", rows)
		}
		if _, _, fits, err := after.Base(t.Context(), "a", cursor(early)); !fits || err != nil {
			t.Errorf("a base that the copy holds does not fit: %v", err)
		}
		if rows, _ := read(t, after, feed.Cursor{Revision: late.Head}); len(rows) != 1 {
			t.Errorf("a cursor of no incarnation is held against the head alone, and read %+v", rows)
		}
		wantLost(t, after, feed.Cursor{Incarnation: "of another copy"})
	})
}

// The copy of before is played back under a primary that runs: it has seen a higher head.
func TestRestoreUnderARunningPrimary(t *testing.T) {
	each(t, func(t *testing.T, db *database.DB) {
		f := start(t, db)
		appendChanges(t, f, push("a", "v1"))
		backUp(t, db)
		appendChanges(t, f, push("b", "v1"))
		_, late := read(t, f, feed.Cursor{})
		restore(t, db)
		appendChanges(t, f, push("c", "v1"))
		if _, standing := read(t, f, feed.Cursor{}); standing.Head != late.Head || standing.Incarnation == late.Incarnation {
			t.Fatalf("%+v after %+v", standing, late)
		}
		wantLost(t, f, cursor(late))
		_, now := read(t, f, feed.Cursor{})
		appendChanges(t, f, push("d", "v1"))
		if _, next := read(t, f, cursor(now)); next.Incarnation != now.Incarnation {
			t.Error("an ordinary change began an incarnation")
		}
	})
}

// Replicas are replaced one after the other, and write by turns: nobody starts over.
func TestNewReplicasKeepCursors(t *testing.T) {
	each(t, func(t *testing.T, db *database.DB) {
		var cursors []feed.Cursor
		for i := range 4 {
			replica := start(t, databasetest.Shared(t, db))
			if i%2 == 0 { // others begin where the one before did
				appendChanges(t, replica, push("a", fmt.Sprint("v", i)))
			}
			_, standing := read(t, replica, feed.Cursor{})
			cursors = append(cursors, cursor(standing))
			for _, cursor := range cursors {
				read(t, replica, cursor)
			}
		}
	})
}

// The database says that its history has another origin, as after a failover: an incarnation begins although nothing is
// written, and readers are woken.
func TestAnotherOrigin(t *testing.T) {
	databasetest.SkipWithoutPostgres(t)
	db := databasetest.OpenPostgres(t)
	f := start(t, db)
	appendChanges(t, f, push("a", "v1"))
	_, before := read(t, f, feed.Cursor{})
	wake, stop := f.Watch()
	defer stop()
	execute(t, db, "UPDATE feed SET origin = 'of before'")
	registrytest.Eventually(t, time.Minute, func(ctx context.Context) error {
		select {
		case <-wake:
		case <-ctx.Done():
			return ctx.Err()
		}
		if _, now := read(t, f, cursor(before)); now.Incarnation == before.Incarnation {
			return errors.New("the incarnation is the same")
		}
		return nil
	})
	execute(t, db, "UPDATE feed SET origin = 'of before'")
	_, before = read(t, f, feed.Cursor{})
	appendChanges(t, f, push("a", "v2"))
	if _, now := read(t, f, cursor(before)); now.Incarnation == before.Incarnation {
		t.Error("a change was written in the incarnation of another origin")
	}
}

// Of incarnations, the newest ten thousand are known.
func TestOldIncarnationsAreForgotten(t *testing.T) {
	each(t, func(t *testing.T, db *database.DB) {
		_, first := read(t, open(t, db, feed.Options{}), feed.Cursor{})
		execute(t, db, "UPDATE incarnation SET number = -9998")
		f := open(t, db, feed.Options{})
		read(t, f, cursor(first))
		execute(t, db, "UPDATE incarnation SET number = 1 WHERE number > -9998")
		execute(t, db, "UPDATE incarnation SET number = -9999 WHERE number = -9998")
		wantLost(t, open(t, db, feed.Options{}), cursor(first))
	})
}
