package bench

import (
	"fmt"
	"html"
	"strings"
	"testing"
	"time"
)

// plots are the pictures of docs/performance.md, by the name of their file.
func plots(all []median) map[string]string {
	made := map[string]string{}
	for _, rtt := range []time.Duration{0, 50 * time.Millisecond} {
		walls := panels(all, rtt, func(m, floor median) []float64 { return []float64{m.Wall.Seconds() / floor.Wall.Seconds()} })
		if len(walls) == 0 {
			continue // not measured
		}
		made[fmt.Sprintf("bench-wall-%dms.svg", rtt.Milliseconds())] = picture(
			fmt.Sprintf("Wall time over the floor's, %s to the source", trip(rtt)), []string{"wall"}, walls)
	}
	made["bench-requests.svg"] = picture("Requests over the floor's: to the source, to the destination, primaryd to its registry",
		[]string{"to the source", "to the destination", "primaryd to its registry"},
		panels(all, 0, func(m, floor median) []float64 {
			sum := float64(floor.Source.Requests + floor.Destination.Requests)
			return []float64{
				float64(m.Source.Requests) / sum, float64(m.Destination.Requests) / sum, float64(m.Own.Requests) / sum,
			}
		}))
	made["bench-cpu.svg"] = picture("CPU over the floor's", []string{"CPU"},
		panels(all, 0, func(m, floor median) []float64 { return []float64{m.cpu.Seconds() / floor.cpu.Seconds()} }))
	return made
}

// panel is a workload with a bar for each program.
type panel struct {
	name string
	bars []bar
}

// bar has parts one behind the other.
type bar struct {
	name  string
	parts []float64
	pale  bool // what it stands for left the destination incomplete
}

func (b bar) sum() (sum float64) {
	for _, part := range b.parts {
		sum += part
	}
	return sum
}

func panels(all []median, rtt time.Duration, figure func(m, floor median) []float64) []panel {
	var list []panel
	for _, m := range all {
		floor := floorOf(all, m)
		if m.RTT != rtt || floor == nil || m.Workload == unchangedName || m.Workload == oneNewTagName {
			continue
		}
		if len(list) == 0 || list[len(list)-1].name != m.Workload {
			list = append(list, panel{name: m.Workload})
		}
		last := &list[len(list)-1]
		last.bars = append(last.bars, bar{name: m.Program, parts: figure(m, *floor), pale: m.Incomplete != ""})
	}
	return list
}

// Measures of a picture, in pixels.
const (
	pictureWidth = 720
	barsFrom     = 150
	barsTo       = 640
	barStep      = 18
	panelGap     = 14
	headHeight   = 48
)

// style follows the reader's choice of light or dark.
const style = `<style>
text{font:12px system-ui,sans-serif;fill:#1f2328}
.title{font-weight:600;font-size:14px}.pale{opacity:.4}.rule{stroke:#8c959f;stroke-dasharray:3 3}
.p0{fill:#0969da}.p1{fill:#8250df}.p2{fill:#bf8700}
@media(prefers-color-scheme:dark){text{fill:#e6edf3}.p0{fill:#4493f8}.p1{fill:#ab7df8}.p2{fill:#d29922}}
</style>
`

// picture draws panels of horizontal bars, each panel on a scale of its own, with a rule at the floor's 1.
func picture(title string, parts []string, all []panel) string {
	var body strings.Builder
	y := headHeight
	for _, p := range all {
		most := 1.0
		for _, b := range p.bars {
			most = max(most, b.sum())
		}
		scale := float64(barsTo-barsFrom) / most
		fmt.Fprintf(&body, "<text class=\"title\" x=\"10\" y=\"%d\">%s</text>\n", y+13, html.EscapeString(p.name))
		fmt.Fprintf(&body, "<line class=\"rule\" x1=\"%.1f\" x2=\"%.1f\" y1=\"%d\" y2=\"%d\"/>\n", barsFrom+scale, barsFrom+scale,
			y-2, y+len(p.bars)*barStep)
		for _, b := range p.bars {
			draw(&body, b, y, scale)
			y += barStep
		}
		y += panelGap
	}
	var b strings.Builder
	fmt.Fprintf(&b, "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 %d %d\" role=\"img\" aria-label=\"%s\">\n%s", pictureWidth, y,
		html.EscapeString(title), style)
	fmt.Fprintf(&b, "<text class=\"title\" x=\"10\" y=\"20\">%s</text>\n", html.EscapeString(title))
	if len(parts) > 1 {
		x := barsFrom
		for i, part := range parts {
			fmt.Fprintf(&b, "<rect class=\"p%d\" x=\"%d\" y=\"29\" width=\"10\" height=\"10\"/><text x=\"%d\" y=\"38\">%s</text>\n", i, x, x+15,
				html.EscapeString(part))
			x += 30 + len(part)*7
		}
	}
	b.WriteString(body.String() + "</svg>\n")
	return b.String()
}

func draw(body *strings.Builder, b bar, y int, scale float64) {
	class, note := "", ""
	if b.pale {
		class, note = " class=\"pale\"", " (incomplete)"
	}
	fmt.Fprintf(body, "<g%s><text x=\"%d\" y=\"%d\" text-anchor=\"end\">%s</text>\n", class, barsFrom-8, y+12, html.EscapeString(b.name))
	x := float64(barsFrom)
	for i, part := range b.parts {
		fmt.Fprintf(body, "<rect class=\"p%d\" x=\"%.1f\" y=\"%d\" width=\"%.1f\" height=\"%d\"/>\n", i, x, y, part*scale, barStep-4)
		x += part * scale
	}
	fmt.Fprintf(body, "<text x=\"%.1f\" y=\"%d\">%.2f%s</text></g>\n", x+6, y+12, b.sum(), note)
}

func TestPictureHoldsEachBarOnce(t *testing.T) {
	t.Parallel()
	svg := picture("A & B", []string{"one", "two"}, []panel{{name: "W<1>", bars: []bar{
		{name: "floor", parts: []float64{0.5, 0.5}}, {name: "other", parts: []float64{1, 1}, pale: true},
	}}})
	for text, count := range map[string]int{"<rect": 6, "A &amp; B": 2, "W&lt;1&gt;": 1, "2.00 (incomplete)": 1, "class=\"pale\"": 1} {
		if n := strings.Count(svg, text); n != count {
			t.Errorf("%q is there %d times, not %d", text, n, count)
		}
	}
}
