package feed_test

import (
	"testing"

	"github.com/antipode-registry/antipode/internal/database"
	"github.com/antipode-registry/antipode/internal/database/databasetest"
	"github.com/antipode-registry/antipode/primaryd/internal/feed"
)

// step is one thing that happens to a repository; the listings carry the registry's fingerprint at that time.
type step func(t *testing.T, f *feed.Feed, repository string)

func pushed(t *testing.T, f *feed.Feed, repository string) {
	appendChanges(t, f, push(repository, "v"))
}

func changed(t *testing.T, f *feed.Feed, repository string) { appendChanges(t, f, unknown(repository)) }

func added(t *testing.T, f *feed.Feed, repository string) {
	if n, err := f.AddMissing(t.Context(), []string{repository, repository}); err != nil || n != 1 {
		t.Errorf("AddMissing = %d, %v", n, err)
	}
}

// listed is a site's complete listing at the row's revision less behind.
func listed(fingerprint string, behind int64) step {
	return func(t *testing.T, f *feed.Feed, repository string) {
		if err := f.RecordListing(t.Context(), repository, row(t, f, repository).Revision-behind, fingerprint); err != nil {
			t.Error(err)
		}
	}
}

// swept is a sweep's listing at the row's revision less behind.
func swept(fingerprint string, behind int64, wantBump bool) step {
	return func(t *testing.T, f *feed.Feed, repository string) {
		before, _, err := f.Get(t.Context(), repository)
		if err != nil {
			t.Fatal(err)
		}
		bumped, err := f.RecordSweep(t.Context(), repository, before.Revision-behind, fingerprint, true)
		if err != nil || bumped != wantBump {
			t.Errorf("RecordSweep(%s) = %v, %v; want %v", fingerprint, bumped, err, wantBump)
		}
		after := row(t, f, repository)
		if (after.Revision > before.Revision) != wantBump || after.SweptAt.IsZero() {
			t.Errorf("from %+v to %+v", before, after)
		}
		if wantBump && (after.Hint.Base != after.Revision || len(after.Hint.Touches) != 0) {
			t.Errorf("hint after the sweep: %+v", after.Hint)
		}
	}
}

func TestSweepFindsWhatNotificationsLost(t *testing.T) {
	cases := map[string][]step{
		"new to the feed":        {swept("F0", 0, true), swept("F0", 0, false), swept("F1", 0, true), swept("F1", 0, false)},
		"added, nobody listed":   {added, swept("F0", 0, false), swept("F1", 0, true)},
		"added, a site listed":   {added, listed("F0", 0), swept("F0", 0, false)},
		"added, then lost":       {added, listed("F0", 0), swept("F1", 0, true)},
		"unknown, a site listed": {changed, listed("F0", 0), listed("F0", 0), swept("F0", 0, false)},
		// The first site lacks what the second one saw: registry and newer listing are equal, but the sites are not.
		"two sites differ": {added, listed("F0", 0), listed("F1", 0), swept("F1", 0, true), swept("F1", 0, false)},
		// The site that listed between two sweeps saw a tag come that was gone again before the second.
		"come and gone": {added, swept("F0", 0, false), listed("F1", 0), swept("F0", 0, true)},
		// The push was heard of, the delete was not: the registry is back where it was, the sites are not.
		"push heard, delete lost": {added, listed("F0", 0), pushed, swept("F0", 0, true), swept("F0", 0, false)},
		// A site that listed all after a push says nothing about one that followed the push by its tag.
		"listing after a push":    {added, listed("F0", 0), pushed, listed("F1", 0), swept("F1", 0, true)},
		"listing of before":       {added, changed, listed("F0", 1), swept("F1", 0, false), swept("F1", 0, false)},
		"moved during the sweep":  {added, listed("F0", 0), pushed, swept("F1", 1, true), swept("F1", 0, false)},
		"unknown during a sweep":  {added, listed("F0", 0), changed, swept("F1", 1, false), swept("F2", 0, false)},
		"swept after too many":    {added, swept("F0", 0, false), tooMany, swept("F1", 0, false), swept("F2", 0, true)},
		"nothing happens forever": {added, listed("F0", 0), swept("F0", 0, false), listed("F0", 0), swept("F0", 0, false)},
	}
	each(t, func(t *testing.T, db *database.DB) {
		f := start(t, db)
		for name, steps := range cases {
			t.Run(name, func(t *testing.T) {
				for _, step := range steps {
					step(t, f, name)
				}
			})
		}
	})
}

// tooMany touches more tags than a hint names, so every site lists all.
func tooMany(t *testing.T, f *feed.Feed, repository string) {
	var tags []string
	for i := range 40 {
		tags = append(tags, string(rune('a'+i%26))+string(rune('a'+i/26)))
	}
	appendChanges(t, f, push(repository, tags...))
}

func TestSweepOfWhatIsNotThere(t *testing.T) {
	each(t, func(t *testing.T, db *database.DB) {
		f := start(t, db)
		if bumped, err := f.RecordSweep(t.Context(), "r", 0, "F0", false); bumped || err != nil {
			t.Errorf("RecordSweep = %v, %v", bumped, err)
		}
		if head, err := f.Head(t.Context()); head != 0 || err != nil {
			t.Errorf("Head = %d, %v", head, err)
		}
		if bumped, err := f.RecordSweep(t.Context(), "r", 0, "", true); bumped || err == nil {
			t.Errorf("RecordSweep without a fingerprint = %v, %v", bumped, err)
		}
		if _, err := f.AddMissing(t.Context(), []string{"a\x00"}); err == nil {
			t.Error("AddMissing took a name that is none")
		}
	})
}

func TestAddMissing(t *testing.T) {
	each(t, func(t *testing.T, db *database.DB) {
		f := start(t, db)
		appendChanges(t, f, push("b", "v1"))
		wake, stop := f.Watch()
		defer stop()
		n, err := f.AddMissing(t.Context(), []string{"c", "b", "a"})
		if n != 2 || err != nil {
			t.Fatalf("AddMissing = %d, %v", n, err)
		}
		<-wake
		rows, standing, err := f.Read(t.Context(), feed.Cursor{Revision: 1}, 10)
		if err != nil || standing.Head != 3 || len(rows) != 2 || rows[0].Repository != "c" || rows[1].Revision != 3 {
			t.Errorf("Read = %+v, %d, %v", rows, standing.Head, err)
		}
		if n, err := f.AddMissing(t.Context(), []string{"a", "b", "c"}); n != 0 || err != nil {
			t.Errorf("AddMissing again = %d, %v", n, err)
		}
		if r := row(t, f, "b"); r.Revision != 1 || len(r.Hint.Touches) != 1 {
			t.Errorf("b was touched: %+v", r)
		}
	})
}

// TestSweepsAndAppendsDoNotDeadlock lets two replicas write the same few repositories in every way at once.
func TestSweepsAndAppendsDoNotDeadlock(t *testing.T) {
	databasetest.SkipWithoutPostgres(t)
	db := databasetest.OpenPostgres(t)
	first := start(t, db)
	second := start(t, databasetest.Shared(t, db))
	names := []string{"a", "b", "c"}
	done := make(chan error)
	writers := 0
	write := func(fn func(i int) error) {
		writers++
		go func() {
			var err error
			for i := 0; i < 40 && err == nil; i++ {
				err = fn(i)
			}
			done <- err
		}()
	}
	for _, f := range []*feed.Feed{first, second} {
		write(func(i int) error {
			_, err := f.Append(t.Context(), push(names[i%3], "v"), push(names[(i+1)%3], "v"), unknown(names[(i+2)%3]))
			return err
		})
		write(func(i int) error {
			_, err := f.RecordSweep(t.Context(), names[i%3], int64(i), string(rune('A'+i%5)), true)
			return err
		})
		write(func(i int) error {
			return f.RecordListing(t.Context(), names[(i*2)%3], int64(i), string(rune('A'+i%5)))
		})
		write(func(int) error {
			_, err := f.AddMissing(t.Context(), []string{"c", "a", "b", "d"})
			return err
		})
	}
	for range writers {
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
}
