package checkup

import "time"

// Clocks that differ by this much are complained about, and by this much are wrong: certificates and tokens are judged
// by them, and lag is measured with them.
const (
	clockDoubt = 5 * time.Second
	clockWrong = time.Minute
)

// checkClock compares another clock with this machine's, both read at the same time. A zero time says nothing.
func (r *Report) checkClock(whose string, there, here time.Time) {
	if there.IsZero() {
		return
	}
	const mend = "let both machines set their clocks by NTP"
	switch off := there.Sub(here).Round(time.Second); {
	case off.Abs() >= clockWrong:
		r.Fail("clock", mend, "the clock of the %s differs by %v", whose, off)
	case off.Abs() >= clockDoubt:
		r.Warn("clock", mend, "the clock of the %s differs by %v", whose, off)
	default:
		r.OK("clock", "the clock of the %s agrees", whose)
	}
}
