package cli

import (
	"bytes"
	"context"
	"errors"
	"io"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/spf13/cobra"
)

// lineOn is a command's line on a screen, or on what is none.
func lineOn(err io.Writer, format string) *Line {
	cmd := &cobra.Command{}
	cmd.SetErr(err)
	return (&Output{format: format}).Line(cmd)
}

func TestLineIsWrittenInItsPlace(t *testing.T) {
	t.Parallel()
	terminal := &screen{width: 20}
	line := lineOn(terminal, "table")
	line.Clear() // nothing is there yet
	line.Show("%d of %d\n\x1b[31m%s", 1, 2, "a repository with a name")
	line.Show("short")
	line.Clear()
	line.Clear()
	if got, want := terminal.String(), "\r\x1b[K1 of 2 \uFFFD[31ma repo…\r\x1b[Kshort\r\x1b[K"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
}

func TestLineIsForTerminalsAlone(t *testing.T) {
	t.Parallel()
	for name, line := range map[string]*Line{
		"piped": lineOn(&bytes.Buffer{}, "table"), "json": lineOn(&screen{width: 80}, "json"),
	} {
		line.Show("something")
		stop := line.Follow(t.Context(), func(context.Context) (string, error) {
			t.Errorf("%s: it asks", name)
			return "something", nil
		})
		stop()
		line.Clear()
		if line.shown {
			t.Errorf("%s: it was shown", name)
		}
	}
}

func TestLineFollows(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		terminal := &screen{width: 80}
		asked := 0
		stop := lineOn(terminal, "table").Follow(t.Context(), func(context.Context) (string, error) {
			if asked++; asked == 2 {
				return "", errors.New("gone for a moment")
			}
			return strings.Repeat("x", asked), nil
		})
		<-time.After(3500 * time.Millisecond)
		stop()
		<-time.After(time.Minute)
		if got, want := terminal.String(), "\r\x1b[Kx\r\x1b[Kxxx\r\x1b[Kxxxx\r\x1b[K"; got != want {
			t.Errorf("%q, want %q", got, want)
		}
	})
}

func TestLineSaysWhatIsDone(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		terminal := &screen{width: 80}
		say, stop := lineOn(terminal, "table").Doing(t.Context(), "examining")
		say("this")
		<-time.After(1500 * time.Millisecond)
		say("that")
		<-time.After(1200 * time.Millisecond)
		stop()
		if got := terminal.String(); !strings.HasSuffix(got, "\r\x1b[Kexamining this: 1s\r\x1b[Kexamining that: 1s\r\x1b[K") {
			t.Errorf("%q", got)
		}
	})
}

func TestPace(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var p Pace
		if left := p.Left(10, 110); left != "" {
			t.Errorf("at the beginning: %q", left)
		}
		<-time.After(10 * time.Second)
		if left := p.Left(30, 110); left != ", about 40s left" {
			t.Errorf("after a fifth: %q", left)
		}
		if left := p.Left(110, 110); left != "" {
			t.Errorf("at the end: %q", left)
		}
		if left := p.Left(0, 50); left != "" { // it began anew
			t.Errorf("from the beginning again: %q", left)
		}
		<-time.After(time.Hour)
		if left := p.Left(1, 3); left != ", about 2h0m left" {
			t.Errorf("slowly: %q", left)
		}
	})
	for n, want := range map[int64]string{0: "0 bytes", 1023: "1023 bytes", 1536: "1.5 KiB", 3 << 30: "3.0 GiB"} {
		if got := Bytes(n); got != want {
			t.Errorf("%d: %q, want %q", n, got, want)
		}
	}
}
