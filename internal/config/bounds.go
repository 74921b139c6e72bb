package config

import (
	"slices"
	"strings"
	"time"
)

// CheckBetween reports a duration outside of the two bounds, which are allowed.
func (p *Problems) CheckBetween(key string, value Duration, least, most time.Duration) {
	if d := time.Duration(value); d < least || d > most {
		p.Add(key, "must be %s to %s, not %s", least, most, d)
	}
}

// CheckNumber reports a number outside of the two bounds, which are allowed.
func (p *Problems) CheckNumber(key string, value, least, most int) {
	if value < least || value > most {
		p.Add(key, "must be %d to %d, not %d", least, most, value)
	}
}

// CheckShare reports a number that is no share: not 0 to 1, or no number at all.
func (p *Problems) CheckShare(key string, value float64) {
	if !(value >= 0 && value <= 1) {
		p.Add(key, "must be 0 to 1, not %v", value)
	}
}

// CheckOneOf reports a value that is none of the allowed ones.
func (p *Problems) CheckOneOf(key, value string, allowed ...string) {
	if !slices.Contains(allowed, value) {
		p.Add(key, "must be one of %s, not %q", strings.Join(allowed, ", "), value)
	}
}

// CheckDatabase reports a database URL of an unknown kind. It never repeats the value, which may hold a password.
func (p *Problems) CheckDatabase(key, value string) {
	if path, ok := strings.CutPrefix(value, "sqlite:"); ok {
		if path == "" {
			p.Add(key, "names no file: expected sqlite:PATH")
		}
		return
	}
	if !strings.HasPrefix(value, "postgres://") && !strings.HasPrefix(value, "postgresql://") {
		p.Add(key, "expected sqlite:PATH or postgres://USER@HOST/DATABASE")
	}
}
