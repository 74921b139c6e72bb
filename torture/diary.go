package main

import (
	"fmt"
	"io"
	"maps"
	"sync"
	"time"
)

// diary is the log of a run, a line for each thing that happened with the seconds since the start, and the counts for
// the summary. Safe for concurrent use.
type diary struct {
	mu         sync.Mutex
	began      time.Time
	out        io.Writer
	counts     map[string]int
	violations []string
}

func newDiary(out io.Writer) *diary {
	return &diary{began: time.Now(), out: out, counts: map[string]int{}}
}

// Restart lets the seconds begin anew.
func (d *diary) Restart() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.began = time.Now()
}

// Since is how long ago they began.
func (d *diary) Since() time.Duration {
	d.mu.Lock()
	defer d.mu.Unlock()
	return time.Since(d.began)
}

// Note writes a line about a part of the run.
func (d *diary) Note(part, format string, args ...any) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.write(part, format, args...)
}

func (d *diary) write(part, format string, args ...any) {
	// A log that cannot be written must not end the run: the summary still counts.
	_, _ = fmt.Fprintf(d.out, "%9.3f  %-9s %s\n", time.Since(d.began).Seconds(), part, fmt.Sprintf(format, args...))
}

// Count adds one to a count of the summary.
func (d *diary) Count(what string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.counts[what]++
}

// Violation writes down that something was not as promised. The run goes on: what else it finds helps to understand.
func (d *diary) Violation(format string, args ...any) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.violations = append(d.violations, fmt.Sprintf(format, args...))
	d.write("VIOLATION", format, args...)
}

// Counts returns a copy of the counts.
func (d *diary) Counts() map[string]int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return maps.Clone(d.counts)
}

// Violations returns what was found so far.
func (d *diary) Violations() []string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return append([]string{}, d.violations...)
}
