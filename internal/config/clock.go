package config

import (
	"fmt"
	"regexp"
	"time"
)

// Clock is a time of the day on the wall, as a duration since midnight, that a config file writes like "08:30"; "24:00"
// is the end of the day.
type Clock time.Duration

var clockPattern = regexp.MustCompile(`^(([01][0-9]|2[0-3]):[0-5][0-9]|24:00)$`)

// UnmarshalText reads HH:MM.
func (c *Clock) UnmarshalText(text []byte) error {
	if !clockPattern.Match(text) {
		return fmt.Errorf("expected a time of the day such as 08:30, from 00:00 to 24:00, got %q", text)
	}
	minutes := digits(text[:2])*60 + digits(text[3:])
	*c = Clock(time.Duration(minutes) * time.Minute)
	return nil
}

// digits reads two of them.
func digits(text []byte) int { return int(text[0]-'0')*10 + int(text[1]-'0') }

// MarshalText returns what UnmarshalText reads. A nil *Clock stands for a key that was left out and is empty.
func (c *Clock) MarshalText() ([]byte, error) {
	if c == nil {
		return nil, nil
	}
	return []byte(c.String()), nil
}

// String returns HH:MM.
func (c Clock) String() string {
	d := time.Duration(c)
	return fmt.Sprintf("%02d:%02d", d/time.Hour, d%time.Hour/time.Minute)
}
