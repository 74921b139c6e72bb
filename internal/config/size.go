package config

import (
	"fmt"
	"math"
	"strconv"
	"strings"
)

// Size is a number of bytes that a config file writes like 1500, "64KiB" or "50MB"; zero or more.
type Size int64

// units in the order in which String tries them.
var units = []struct {
	name  string
	bytes int64
}{
	{"GiB", 1 << 30},
	{"MiB", 1 << 20},
	{"KiB", 1 << 10},
	{"GB", 1e9},
	{"MB", 1e6},
	{"kB", 1e3},
}

// UnmarshalText reads a whole number with one of the units KiB, MiB, GiB (powers of 1024), kB, MB, GB (powers of 1000),
// or of bytes without one.
func (s *Size) UnmarshalText(text []byte) error {
	number, factor := string(text), int64(1)
	for _, unit := range units {
		if rest, ok := strings.CutSuffix(number, unit.name); ok {
			number, factor = strings.TrimRight(rest, " "), unit.bytes
			break
		}
	}
	value, err := strconv.ParseUint(number, 10, 63)
	if err != nil || value > math.MaxInt64/uint64(factor) {
		return fmt.Errorf("expected a size such as 1500, 64KiB or 50MB (units: KiB, MiB, GiB, kB, MB, GB), got %q", text)
	}
	*s = Size(value) * Size(factor)
	return nil
}

// MarshalText returns what UnmarshalText reads. A nil *Size stands for a key that was left out and is empty.
func (s *Size) MarshalText() ([]byte, error) {
	if s == nil {
		return nil, nil
	}
	return []byte(s.String()), nil
}

// String writes the size without loss, in the largest unit that does.
func (s Size) String() string {
	for _, unit := range units {
		if s != 0 && int64(s)%unit.bytes == 0 {
			return strconv.FormatInt(int64(s)/unit.bytes, 10) + unit.name
		}
	}
	return strconv.FormatInt(int64(s), 10)
}

// CheckRate reports a number of bytes per second that is neither 0, for no cap, nor enough to get anything done.
func (p *Problems) CheckRate(key string, value Size) {
	const least = 1 << 10
	if value != 0 && value < least {
		p.Add(key, "must be 0 for no cap or at least %s per second, not %s", Size(least), value)
	}
}
