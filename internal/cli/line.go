package cli

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/spf13/cobra"
)

// askEvery is how often a line asks how far something is.
const askEvery = time.Second

// eraseLine moves a terminal's cursor to the beginning of its line and erases that.
const eraseLine = "\r\x1b[K"

// errNothingYet says that there is nothing to show yet.
var errNothingYet = errors.New("nothing yet")

// Line is one line on a terminal's standard error that says how far something long is, and that is written anew in its
// place. Where standard error is no terminal, or the answer is JSON, it writes nothing and asks nothing. It is safe for
// concurrent use.
type Line struct {
	out   io.Writer // nil without a terminal
	width func() int

	mu    sync.Mutex
	shown bool
}

// Line returns the command's line. Clear it before anything else is written.
func (o *Output) Line(cmd *cobra.Command) *Line {
	out := cmd.ErrOrStderr()
	if o.format == "json" || width(out) == 0 {
		return &Line{}
	}
	return &Line{out: out, width: func() int { return width(out) }}
}

// Show writes a text in the line's place.
func (l *Line) Show(format string, args ...any) {
	if l.out == nil {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	var text bytes.Buffer
	fmt.Fprintf(printable{&text}, format, args...)
	line := bytes.Map(func(r rune) rune {
		if r == '\n' || r == '\t' {
			return ' '
		}
		return r
	}, text.Bytes())
	// One column less than there are: some terminals wrap behind the last one.
	fmt.Fprintf(l.out, "%s%s", eraseLine, cut(line, max(2, l.width()-1)))
	l.shown = true
}

// Clear takes the line away.
func (l *Line) Clear() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.shown {
		fmt.Fprint(l.out, eraseLine)
		l.shown = false
	}
}

// Follow shows what ask answers, every second until stop is called, which takes the line away. A question that fails
// changes nothing: whoever waits hears by the answer what is wrong.
func (l *Line) Follow(ctx context.Context, ask func(ctx context.Context) (string, error)) (stop func()) {
	if l.out == nil {
		return func() {}
	}
	ctx, cancel := context.WithCancel(ctx)
	var asking sync.WaitGroup
	asking.Go(func() {
		tick := time.NewTicker(askEvery)
		defer tick.Stop()
		for {
			if text, err := ask(ctx); err == nil && ctx.Err() == nil {
				l.Show("%s", text)
			}
			select {
			case <-tick.C:
			case <-ctx.Done():
				return
			}
		}
	})
	return func() {
		cancel()
		asking.Wait()
		l.Clear()
	}
}

// Doing shows what is done, and for how long it has been, until stop is called: tell it what comes next by say.
func (l *Line) Doing(ctx context.Context, verb string) (say func(what string), stop func()) {
	var mu sync.Mutex
	now, since := "", time.Now()
	stop = l.Follow(ctx, func(context.Context) (string, error) {
		mu.Lock()
		defer mu.Unlock()
		if now == "" {
			return "", errNothingYet
		}
		return fmt.Sprintf("%s %s: %s", verb, now, Duration(time.Since(since).Round(time.Second))), nil
	})
	say = func(what string) {
		mu.Lock()
		defer mu.Unlock()
		now, since = what, time.Now()
	}
	return say, stop
}

// Pace tells from how far something was, and is, how long the rest will take.
type Pace struct {
	began time.Time
	first int64
}

// Left words how long the rest takes at the rate so far, with a comma before it; nothing while that cannot be told.
func (p *Pace) Left(done, total int64) string {
	if p.began.IsZero() || done < p.first {
		p.began, p.first = time.Now(), done
	}
	took, made := time.Since(p.began), done-p.first
	if made <= 0 || total <= done || took < askEvery {
		return ""
	}
	left := time.Duration(float64(took) / float64(made) * float64(total-done))
	return ", about " + Duration(max(left, time.Second).Round(time.Second)) + " left"
}

// Bytes words a number of bytes.
func Bytes(n int64) string {
	units := []string{"bytes", "KiB", "MiB", "GiB", "TiB"}
	value, unit := float64(max(n, 0)), 0
	for value >= 1024 && unit < len(units)-1 {
		value, unit = value/1024, unit+1
	}
	if unit == 0 {
		return fmt.Sprintf("%d bytes", n)
	}
	return fmt.Sprintf("%.1f %s", value, units[unit])
}
