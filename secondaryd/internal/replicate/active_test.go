package replicate

import (
	"testing"
	"testing/synctest"
	"time"
)

// The rate is the mean of the last five seconds, and falls to nothing when nothing is written.
func TestRate(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		work := &Active{}
		progress, other := work.progress(), work.progress()
		for i := range int64(20) {
			progress(100*(i+1), 0)
			other(50*(i+1), 0)
			<-time.After(500 * time.Millisecond)
		}
		if rate := work.Rate(); rate != 300 {
			t.Errorf("%d bytes a second, want 300", rate)
		}
		<-time.After(time.Minute)
		if rate := work.Rate(); rate != 0 {
			t.Errorf("%d bytes a second of one that stands still", rate)
		}
	})
}
