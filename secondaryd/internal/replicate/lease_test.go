package replicate

import (
	"errors"
	"testing"
	"time"

	"github.com/antipode-registry/antipode/secondaryd/internal/tracking"
)

func TestGuardIsNeverLaterThanTheDatabase(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		asked time.Time
		want  error
	}{
		"in time":           {asked: time.Now()},
		"run out":           {asked: time.Now().Add(-time.Hour), want: tracking.ErrLeaseLost},
		"within the margin": {asked: time.Now().Add(-time.Hour + time.Minute), want: tracking.ErrLeaseLost},
	}
	for name, tt := range tests {
		held := &heldLease{}
		held.extend(tt.asked, time.Hour)
		if err := held.guard(); !errors.Is(err, tt.want) {
			t.Errorf("%s: the guard said %v, want %v", name, err, tt.want)
		}
		held.extend(time.Now(), time.Hour)
		if err := held.guard(); err != nil {
			t.Errorf("%s, and renewed: the guard said %v", name, err)
		}
	}
}

// A suspended machine's monotonic clock stands still, and a wall clock can be set back.
func TestGuardBelievesTheClockThatIsAhead(t *testing.T) {
	t.Parallel()
	now := time.Now()
	soon, past := now.Add(time.Minute), now.Add(-time.Minute)
	for name, tt := range map[string]struct {
		until deadline
		want  bool
	}{
		"both":      {deadline{past, past.Round(0)}, true},
		"neither":   {deadline{soon, soon.Round(0)}, false},
		"stopped":   {deadline{past, soon.Round(0)}, true},
		"suspended": {deadline{soon, past.Round(0)}, true},
	} {
		if got := tt.until.passed(now); got != tt.want {
			t.Errorf("%s: passed is %t", name, got)
		}
	}
}
