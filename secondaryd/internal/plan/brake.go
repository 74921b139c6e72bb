package plan

import (
	"fmt"
	"strconv"
)

// brake says why n removals out of total tags are too many; "" when they are not.
func brake(n, total int64, p Policy) string {
	if p.Released || n == 0 || n <= p.BrakeCount {
		return ""
	}
	// Written as a negation for the sake of a share that is not a number: every comparison with it is false, and
	// the brake must then hold.
	overShare := !(float64(n) <= p.BrakeShare*float64(total))
	share := strconv.FormatFloat(p.BrakeShare*100, 'f', -1, 64)
	switch {
	case overShare:
		return fmt.Sprintf("would remove %d of %d tags, more than %s%% and more than %d", n, total, share, p.BrakeCount)
	case p.Held:
		return fmt.Sprintf("held before and not released: would still remove %d of %d tags, more than %d",
			n, total, p.BrakeCount)
	}
	return ""
}
