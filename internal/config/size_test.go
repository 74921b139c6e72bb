package config_test

import (
	"strings"
	"testing"
	"time"

	"github.com/antipode-registry/antipode/internal/config"
)

func TestSize(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]struct {
		size    config.Size
		written string
	}{
		"0": {0, "0"}, "0MiB": {0, "0"}, "1": {1, "1"}, "1500": {1500, "1500"}, "1024": {1024, "1KiB"}, "64KiB": {64 << 10, "64KiB"},
		"50MiB": {50 << 20, "50MiB"}, "2GiB": {2 << 30, "2GiB"}, "1024MiB": {1 << 30, "1GiB"}, "3kB": {3000, "3kB"},
		"10MB": {10_000_000, "10MB"}, "1GB": {1_000_000_000, "1GB"}, "10 MiB": {10 << 20, "10MiB"},
		"9223372036854775807": {1<<63 - 1, "9223372036854775807"}, "8589934591GiB": {8589934591 << 30, "8589934591GiB"},
	} {
		var size config.Size
		if err := size.UnmarshalText([]byte(text)); err != nil || size != want.size {
			t.Errorf("%s: %d, %v", text, size, err)
		}
		if written, err := size.MarshalText(); err != nil || string(written) != want.written {
			t.Errorf("%s: written as %s, %v", text, written, err)
		}
	}
	for _, text := range []string{
		"", "-1", "MiB", "1.5MiB", "10m", "10M", "10mb", "10MiB/s", "10 MiB ", " 1", "1e6", "0x10", "1_000", "10KB", "10TB",
		"9223372036854775808", "8589934592GiB", "99999999999999999999",
	} {
		var size config.Size
		if err := size.UnmarshalText([]byte(text)); err == nil || !strings.Contains(err.Error(), "expected a size") {
			t.Errorf("%q was taken as %d: %v", text, size, err)
		}
	}
	var none *config.Size
	if text, err := none.MarshalText(); len(text) > 0 || err != nil {
		t.Errorf("a size that was left out is written as %q, %v", text, err)
	}
}

func TestClock(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]time.Duration{
		"00:00": 0, "08:30": 8*time.Hour + 30*time.Minute, "23:59": 24*time.Hour - time.Minute, "24:00": 24 * time.Hour,
	} {
		var clock config.Clock
		if err := clock.UnmarshalText([]byte(text)); err != nil || time.Duration(clock) != want {
			t.Errorf("%s: %v, %v", text, clock, err)
		}
		if written, err := clock.MarshalText(); err != nil || string(written) != text {
			t.Errorf("%s: written as %s, %v", text, written, err)
		}
	}
	for _, text := range []string{"", "8:00", "08:60", "24:01", "25:00", "0800", "08:00:00", "8am", "-1:00", "08:00 "} {
		var clock config.Clock
		if err := clock.UnmarshalText([]byte(text)); err == nil || !strings.Contains(err.Error(), "time of the day") {
			t.Errorf("%q was taken as %v: %v", text, clock, err)
		}
	}
	var none *config.Clock
	if text, err := none.MarshalText(); len(text) > 0 || err != nil {
		t.Errorf("a time that was left out is written as %q, %v", text, err)
	}
}

func TestCheckRate(t *testing.T) {
	t.Parallel()
	for value, want := range map[config.Size]string{
		0: "", 1024: "", 50 << 20: "", 50: "must be 0 for no cap or at least 1KiB per second, not 50",
	} {
		if got := refusal(t, func(p *config.Problems) { p.CheckRate("key", value) }); got != want {
			t.Errorf("%s: got %q, want %q", value, got, want)
		}
	}
}
