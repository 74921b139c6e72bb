package dashboard

import (
	"fmt"
	"strings"
	"time"

	"github.com/antipode-registry/antipode/primaryd/internal/node"
)

// The plot's own units: one of width is five minutes.
const (
	plotWide = 288
	plotHigh = 48
	plotStep = 5 * time.Minute
)

// plot is one value over the last day.
type plot struct {
	Area, Line string  // SVG paths
	Most       float64 // the largest value
	MostAt     time.Time
	Silent     time.Duration // for how long nothing was reported
	Any        bool
}

// newPlot keeps the largest value of each five minutes. Where nothing was reported the line has a gap: no value is not
// zero.
func newPlot(samples []node.Sample, now time.Time, value func(node.Sample) float64) plot {
	begin := now.Add(-node.HistoryKept)
	var values [plotWide]float64
	var known [plotWide]bool
	var p plot
	for _, sample := range samples {
		at := int(sample.At.Sub(begin) / plotStep)
		if at < 0 || at >= plotWide {
			continue
		}
		v := value(sample)
		values[at], known[at], p.Any = max(values[at], v), true, true
		if v > p.Most {
			p.Most, p.MostAt = v, sample.At
		}
	}
	p.draw(values[:], known[:])
	if len(samples) > 0 {
		p.Silent = now.Sub(samples[0].At).Truncate(time.Minute) - time.Duration(len(samples)-1)*time.Minute
	}
	return p
}

func (p *plot) draw(values []float64, known []bool) {
	var area, line strings.Builder
	height := func(v float64) float64 {
		if p.Most == 0 {
			return plotHigh - 1
		}
		return plotHigh - 1 - v/p.Most*(plotHigh-4)
	}
	for at := 0; at < len(values); at++ {
		if !known[at] {
			continue
		}
		first := at
		fmt.Fprintf(&line, "M%d %.1f", at, height(values[at]))
		fmt.Fprintf(&area, "M%d %d", at, plotHigh)
		for ; at < len(values) && known[at]; at++ {
			fmt.Fprintf(&line, "L%d %.1fH%d", at, height(values[at]), at+1)
			fmt.Fprintf(&area, "L%d %.1fH%d", at, height(values[at]), at+1)
		}
		fmt.Fprintf(&area, "V%dH%dZ", plotHigh, first)
	}
	p.Area, p.Line = area.String(), line.String()
}
