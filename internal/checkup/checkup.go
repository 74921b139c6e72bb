// Package checkup is what the doctors of both daemons share: findings, and the checks of what both daemons have, such as
// certificates, a database, a registry and a clock.
//
// It guarantees that each check makes at least one finding, that every finding which is not good says how to mend it,
// and that checking changes nothing that it does not take back. It never fails: what goes wrong is a finding. It bounds
// each check in time, so that a doctor is done while somebody waits for it.
//
// It refuses to guess: a check that cannot be made says so instead of passing.
package checkup

import (
	"context"
	"fmt"
	"io"
	"time"
)

// checkTime bounds one check against something remote.
const checkTime = 8 * time.Second

// Level says how good a finding is.
type Level string

// The levels.
const (
	OK   Level = "ok"   // as it should be
	Warn Level = "warn" // works, and should be looked at; or could not be checked
	Fail Level = "fail" // does not work
)

// Finding is what one check found.
type Finding struct {
	Level Level  `json:"level"`
	Check string `json:"check"`          // what was looked at: a part of the daemon or of its surroundings
	Found string `json:"found"`          // in a sentence
	Mend  string `json:"mend,omitempty"` // what to do about it; empty for OK
}

// Report gathers findings, in the order of the checks. It is for one goroutine.
type Report struct {
	Findings []Finding `json:"findings"`
}

// OK adds a finding that all is well.
func (r *Report) OK(check, format string, args ...any) { r.add(OK, check, "", format, args) }

// Warn adds a finding that should be looked at, with its mend.
func (r *Report) Warn(check, mend, format string, args ...any) {
	r.add(Warn, check, mend, format, args)
}

// Fail adds a finding of something that does not work, with its mend.
func (r *Report) Fail(check, mend, format string, args ...any) {
	r.add(Fail, check, mend, format, args)
}

func (r *Report) add(level Level, check, mend, format string, args []any) {
	r.Findings = append(r.Findings, Finding{Level: level, Check: check, Found: fmt.Sprintf(format, args...), Mend: mend})
}

// Err returns an error when something does not work, and nil otherwise; warnings are none.
func (r *Report) Err() error {
	failed := 0
	for _, finding := range r.Findings {
		if finding.Level == Fail {
			failed++
		}
	}
	if failed == 0 {
		return nil
	}
	return fmt.Errorf("%d of %d findings need mending", failed, len(r.Findings))
}

// Table writes a line for each finding, cells separated by tabs, and its mend in a line below.
func (r *Report) Table(w io.Writer) {
	for _, finding := range r.Findings {
		fmt.Fprintf(w, "%s\t%s\t%s\n", finding.Level, finding.Check, finding.Found)
		if finding.Mend != "" {
			fmt.Fprintf(w, "\t\t-> %s\n", finding.Mend)
		}
	}
}

// Within bounds one check in time.
func Within(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(ctx, checkTime)
}
