package tracking_test

import (
	"context"
	"math"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/antipode-registry/antipode/internal/database"
	"github.com/antipode-registry/antipode/internal/database/databasetest"
	"github.com/antipode-registry/antipode/secondaryd/internal/tracking"
)

// reserve asks for n removals and says whether they were granted. What is foreseen has to be what is then answered.
func (s *site) reserve(n int64, brake tracking.SiteBrake) bool {
	s.Helper()
	foreseen, err := s.RefuseRemovals(s.Context(), n, brake)
	s.must(err)
	refusal, err := s.ReserveRemovals(s.Context(), n, brake)
	s.must(err)
	if refusal != foreseen {
		s.Errorf("foreseen was %q, the answer was %q", foreseen, refusal)
	}
	return refusal == ""
}

// holds makes repositories with that many tags each.
func (s *site) holds(tags ...int64) {
	s.Helper()
	for i, n := range tags {
		name := string(rune('a' + i))
		s.change(name, int64(i+1), tracking.Live)
		s.finish(s.take(name), tracking.Outcome{Synced: true, TagCount: n})
	}
}

// Both the share and the count have to be exceeded.
func TestSiteBrake(t *testing.T) {
	tests := map[string]struct {
		brake tracking.SiteBrake
		ask   []int64
		want  []bool
	}{
		"count": {
			brake: tracking.SiteBrake{Share: 0, Count: 10, Window: 24 * time.Hour},
			ask:   []int64{6, 4, 1, 0}, want: []bool{true, true, false, true},
		},
		"share of all tags, removed ones included": {
			brake: tracking.SiteBrake{Share: 0.2, Count: 0, Window: 24 * time.Hour}, // of 100, and of what is counted twice
			ask:   []int64{20, 5, 1}, want: []bool{true, false, true},
		},
		"a refusal counts nothing": {
			brake: tracking.SiteBrake{Share: 0, Count: 10, Window: 24 * time.Hour},
			ask:   []int64{11, 10, 1}, want: []bool{false, true, false},
		},
		"off":         {brake: tracking.SiteBrake{Share: 1, Window: time.Hour}, ask: []int64{100000, 100000}, want: []bool{true, true}},
		"no number":   {brake: tracking.SiteBrake{Share: math.NaN(), Window: time.Hour}, ask: []int64{1}, want: []bool{false}},
		"all at once": {brake: tracking.SiteBrake{Share: 0.99, Count: 5, Window: time.Hour}, ask: []int64{100, 99}, want: []bool{false, true}},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			each(t, tracking.Options{}, func(t *testing.T, s *site) {
				s.holds(60, 0, 40)
				for i, n := range tc.ask {
					if got := s.reserve(n, tc.brake); got != tc.want[i] {
						t.Errorf("request %d, for %d: granted %t, want %t", i, n, got, tc.want[i])
					}
				}
			})
		})
	}
}

func TestReturnedRemovals(t *testing.T) {
	each(t, tracking.Options{}, func(t *testing.T, s *site) {
		brake := tracking.SiteBrake{Count: 10, Window: 24 * time.Hour}
		s.must(s.ReturnRemovals(t.Context(), 5)) // nothing to take back: nothing happens
		for range 20 {
			if !s.reserve(7, brake) {
				t.Fatal("what was given back counts still")
			}
			s.must(s.ReturnRemovals(t.Context(), 7))
		}
		if !s.reserve(8, brake) || s.reserve(3, brake) {
			t.Error("8 and not 11 should have been granted")
		}
		s.must(s.ReturnRemovals(t.Context(), 100))
		if s.reserve(11, brake) || !s.reserve(10, brake) {
			t.Error("more was given back than there was")
		}
	})
}

func TestRefusalSaysWhy(t *testing.T) {
	each(t, tracking.Options{}, func(t *testing.T, s *site) {
		s.holds(100)
		brake := tracking.SiteBrake{Share: 0.05, Count: 3, Window: 24 * time.Hour}
		s.reserve(3, brake)
		why, err := s.ReserveRemovals(t.Context(), 20, brake)
		s.must(err)
		for _, part := range []string{"remove 20 tags", "after 3 within 24h", "of 103", "5%", "more than 3"} {
			if !strings.Contains(why, part) {
				t.Errorf("the reason %q does not say %q", why, part)
			}
		}
	})
}

// Simultaneous requests are granted as if they had come one after the other.
func TestReserveAtOnce(t *testing.T) {
	each(t, tracking.Options{}, func(t *testing.T, s *site) {
		brake := tracking.SiteBrake{Count: 25, Window: 24 * time.Hour}
		var granted atomic.Int64
		var all sync.WaitGroup
		ask := func() {
			for range 4 {
				all.Go(func() {
					refusal, err := s.ReserveRemovals(t.Context(), 10, brake)
					if err != nil {
						t.Error(err)
					}
					if refusal == "" {
						granted.Add(1)
					}
				})
			}
		}
		if s.db.Dialect() == database.SQLite {
			ask() // it has one writer
		} else {
			s.holdRemovals(ask)
		}
		all.Wait()
		if n := granted.Load(); n != 2 {
			t.Errorf("%d times 10 were granted, of 25", n)
		}
	})
}

// holdRemovals keeps a transaction open that whoever counts a removal has to wait for, until several wait.
func (s *site) holdRemovals(begin func()) {
	s.Helper()
	ctx, cancel := context.WithTimeout(s.Context(), time.Minute)
	defer cancel()
	s.must(s.db.Write(ctx, func(ctx context.Context, tx *database.Tx) error {
		hour := time.Now().UnixMilli() / time.Hour.Milliseconds()
		if _, err := tx.ExecContext(ctx, "INSERT INTO removal (hour, count) VALUES ($1, 0)", hour); err != nil {
			return err
		}
		begin()
		for waiting := 0; waiting < 2; {
			// A transaction sees the activity of its first look, unless it asks for another.
			if _, err := tx.ExecContext(ctx, "SELECT pg_stat_clear_snapshot()"); err != nil {
				return err
			}
			err := tx.QueryRowContext(ctx, `SELECT count(*) FROM pg_stat_activity
				WHERE datname = current_database() AND wait_event_type = 'Lock'`).Scan(&waiting)
			if err != nil {
				return err
			}
		}
		return nil
	}))
}

// The window slides by whole hours, the present one included.
func TestBrakeWindowSlides(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t, databasetest.OpenSQLite(t), tracking.Options{})
		brake := tracking.SiteBrake{Count: 10, Window: 3 * time.Hour}
		for hour, want := range []bool{true, true, false, true, true, false, true} {
			// 5 an hour, if they are granted: hours 0 and 1 fill the window until hour 3.
			if got := s.reserve(5, brake); got != want {
				t.Errorf("in hour %d granted %t, want %t", hour, got, want)
			}
			<-time.After(time.Hour)
		}
		<-time.After(3 * time.Hour)
		if !s.reserve(10, brake) || s.reserve(1, brake) {
			t.Error("after three hours the window should be empty")
		}
	})
}
