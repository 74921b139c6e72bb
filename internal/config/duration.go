package config

import (
	"fmt"
	"time"
)

// Duration is a time.Duration that a config file writes like "30s", "5m" or "1h30m"; zero or more.
type Duration time.Duration

// UnmarshalText parses the form of time.ParseDuration. It refuses a number without a unit and what is below zero.
func (d *Duration) UnmarshalText(text []byte) error {
	value, err := time.ParseDuration(string(text))
	if err != nil {
		return fmt.Errorf("expected a duration such as 30s, got %q", text)
	}
	if value < 0 {
		return fmt.Errorf("expected a duration of zero or more, got %q", text)
	}
	*d = Duration(value)
	return nil
}

// MarshalText returns what UnmarshalText reads.
func (d Duration) MarshalText() ([]byte, error) {
	return []byte(d.String()), nil
}

// String returns the form of time.Duration.
func (d Duration) String() string {
	return time.Duration(d).String()
}
