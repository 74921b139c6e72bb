package node_test

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/antipode-registry/antipode/internal/database"
	"github.com/antipode-registry/antipode/internal/database/databasetest"
	"github.com/antipode-registry/antipode/primaryd/internal/node"
)

// history is eu-west's, of the last since.
func history(t testing.TB, d *node.Directory, since time.Duration) []node.Sample {
	t.Helper()
	samples, found, err := d.History(t.Context(), "eu-west", since)
	if err != nil || !found {
		t.Fatalf("History = %v, %v", found, err)
	}
	return samples
}

// until moves a bubble's clock to the beginning of a minute, counted from the bubble's start.
func until(minute int) {
	start := time.Date(2000, time.January, 1, 0, 0, 0, 0, time.UTC)
	<-time.After(time.Until(start.Add(time.Duration(minute) * time.Minute)))
}

func TestHistoryIsASampleForEachMinute(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		db := databasetest.OpenSQLite(t)
		d := open(t, db)
		started := time.Now()
		say := func(lag time.Duration, revisions, bytes, failed int64) {
			s := well(9)
			s.StartedAt, s.Lag, s.LagRevisions, s.BytesCopied = started, lag, revisions, bytes
			s.Repositories.Failed, s.Repositories.Held = failed, failed
			report(t, d, s)
			<-time.After(10 * time.Second)
		}
		say(time.Second, 1, 1000, 0) // what was copied before the first report is of no known minute
		say(9*time.Second, 5, 1500, 2)
		say(3*time.Second, 7, 1700, 1)
		until(1)
		say(0, 0, 1700, 0)
		until(5) // silent for three minutes
		started = time.Now()
		say(time.Minute, 3, 40, 0) // a new process, with a new counter
		say(0, 0, 50, 0)
		started = started.Add(-time.Hour)
		say(0, 0, 900_000, 0) // another process of the site, which ran before
		say(0, 0, 900_001, 0)

		at := time.Date(2000, time.January, 1, 0, 0, 0, 0, time.UTC)
		want := []node.Sample{
			{At: at, Lag: 9 * time.Second, LagRevisions: 7, BytesCopied: 700, Failed: 1, Held: 1},
			{At: at.Add(time.Minute)},
			{At: at.Add(5 * time.Minute), Lag: time.Minute, LagRevisions: 3, BytesCopied: 51},
		}
		if diff := cmp.Diff(want, history(t, d, 0)); diff != "" {
			t.Error(diff)
		}
		if diff := cmp.Diff(want[2:], history(t, d, 2*time.Minute)); diff != "" {
			t.Error(diff)
		}
	})
}

func TestHistoryIsOfOneDay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := open(t, databasetest.OpenSQLite(t))
		for minute := range 3 {
			until(minute)
			report(t, d, well(1))
		}
		until(24*60 + 1)
		if got := history(t, d, 100*time.Hour); len(got) != 1 {
			t.Errorf("a day and a minute later: %+v", got)
		}
		report(t, d, well(1))
		if got := history(t, d, 0); len(got) != 2 || got[1].At.Sub(got[0].At) != 23*time.Hour+59*time.Minute {
			t.Errorf("after another report: %+v", got)
		}
	})
}

func TestHistoryIsSharedByReplicas(t *testing.T) {
	databasetest.Each(t, func(t *testing.T, newDatabase func(testing.TB) *database.DB) {
		db := newDatabase(t)
		s := well(3)
		s.BytesCopied = 10
		report(t, open(t, db), s)
		s.BytesCopied, s.Lag, s.Repositories.Held = 25, time.Second, 4
		other := open(t, databasetest.Shared(t, db))
		report(t, other, s)
		samples := history(t, other, 0)
		// The two reports may fall into two minutes.
		last := samples[len(samples)-1]
		if len(samples) > 2 || last.BytesCopied != 15 || last.Lag != time.Second || last.Held != 4 {
			t.Errorf("History = %+v", samples)
		}
		if samples, found, err := other.History(t.Context(), "nobody", 0); found || err != nil || samples != nil {
			t.Errorf("History of nobody = %v, %v, %v", samples, found, err)
		}
	})
}
