package bench

import (
	"cmp"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/antipode-registry/antipode/internal/reference"
)

const (
	recordFile = "testdata/results.jsonl"
	document   = "../docs/performance.md"
	images     = "../docs/images"
)

// TestComparisonIsReported compares the tables and plots of docs/performance.md with the recorded results; `make
// bench-report` writes them.
func TestComparisonIsReported(t *testing.T) {
	t.Parallel()
	all, err := recorded(recordFile)
	if err != nil {
		t.Fatal(err)
	}
	medians := medians(all)
	errs := []error{
		reference.Current(document, "comparison", comparison(medians)),
		reference.Current(document, "one new tag", latencies(medians)),
		reference.Current(document, "nothing changed", steady(medians)),
	}
	for name, svg := range plots(medians) {
		errs = append(errs, reference.CurrentFile(filepath.Join(images, name), svg))
	}
	if err := errors.Join(errs...); err != nil {
		t.Error(err)
	}
}

// median is the runs of one program at one workload: the middle of each figure.
type median struct {
	result
	runs int
	cpu  time.Duration
	rss  []int64 // KiB, of each process
}

// medians groups results and keeps the order in which groups first appear in all.
func medians(all []result) []median {
	type key struct {
		workload, program string
		rtt               time.Duration
	}
	var order []key
	groups := map[key][]result{}
	for _, r := range all {
		k := key{r.Workload, r.Program, r.RTT}
		if groups[k] == nil {
			order = append(order, k)
		}
		groups[k] = append(groups[k], r)
	}
	slices.SortStableFunc(order, func(a, b key) int {
		return cmp.Or(cmp.Compare(a.workload, b.workload), cmp.Compare(a.rtt, b.rtt))
	})
	var list []median
	for _, k := range order {
		list = append(list, middle(groups[k]))
	}
	return list
}

// middle takes the middle of what is compared, each by itself; the rest is the last run's.
func middle(runs []result) median {
	m := median{result: runs[len(runs)-1], runs: len(runs)}
	m.Wall = of(runs, func(r result) time.Duration { return r.Wall })
	m.cpu = of(runs, result.cpu)
	for i := range m.Processes {
		m.rss = append(m.rss, of(runs, func(r result) int64 { return r.Processes[i].RSS }))
	}
	for _, side := range []func(*result) *traffic{
		func(r *result) *traffic { return &r.Source }, func(r *result) *traffic { return &r.Destination },
		func(r *result) *traffic { return &r.Own },
	} {
		into := side(&m.result)
		into.Requests = of(runs, func(r result) int { return side(&r).Requests })
		into.Bytes = of(runs, func(r result) int64 { return side(&r).Bytes })
		into.Connections = of(runs, func(r result) int { return side(&r).Connections })
	}
	return m
}

func of[T cmp.Ordered](runs []result, figure func(result) T) T {
	var values []T
	for _, r := range runs {
		values = append(values, figure(r))
	}
	return quantile(values, 50)
}

// comparison is a table for each workload and round trip, figures beside their ratio to the floor's.
func comparison(all []median) string {
	var b strings.Builder
	for i, m := range all {
		if m.Workload == unchangedName || m.Workload == oneNewTagName {
			continue
		}
		if i == 0 || all[i-1].Workload != m.Workload || all[i-1].RTT != m.RTT {
			heading(&b, m)
			b.WriteString("| | wall | CPU | peak RSS | requests to the source | connections | bytes | requests to the destination " +
				"| own | equal after |\n|---|---|---|---|---|---|---|---|---|---|\n")
		}
		row(&b, m, floorOf(all, m))
	}
	return b.String()
}

func heading(b *strings.Builder, m median) {
	what := ""
	for _, w := range workloads {
		if w.name == m.Workload {
			what = ": " + w.what
		}
	}
	fmt.Fprintf(b, "\n**%s**%s; %s to the source, %s:\n\n", m.Workload, what, trip(m.RTT), count(m.runs))
}

func count(runs int) string {
	if runs == 1 {
		return "one run"
	}
	return fmt.Sprintf("median of %d", runs)
}

func trip(rtt time.Duration) string { return fmt.Sprintf("%d ms", rtt.Milliseconds()) }

// floorOf is the floor's median beside m, or nil.
func floorOf(all []median, m median) *median {
	for i := range all {
		if all[i].Program == floorName && all[i].Workload == m.Workload && all[i].RTT == m.RTT {
			return &all[i]
		}
	}
	return nil
}

func row(b *strings.Builder, m median, floor *median) {
	ratio := func(figure func(median) float64) string {
		if floor == nil || m.Program == floorName || figure(*floor) == 0 {
			return ""
		}
		return fmt.Sprintf(" (%.2f)", figure(m)/figure(*floor))
	}
	counted := func(figure func(median) int) string {
		return thousands(figure(m)) + ratio(func(m median) float64 { return float64(figure(m)) })
	}
	var rss []string
	for _, one := range m.rss {
		rss = append(rss, fmt.Sprint(one>>10))
	}
	own, after := "", "yes"
	if m.Program == "antipode" {
		own = thousands(m.Own.Requests)
	}
	if m.Incomplete != "" {
		after = "no"
	}
	name := m.Program
	if floor != nil && m.runs != floor.runs {
		name += ", " + count(m.runs)
	}
	fmt.Fprintf(b, "| %s | %.1f s%s | %.1f s%s | %s MiB | %s | %s | %.1f MB%s | %s | %s | %s |\n", name,
		m.Wall.Seconds(), ratio(func(m median) float64 { return m.Wall.Seconds() }),
		m.cpu.Seconds(), ratio(func(m median) float64 { return m.cpu.Seconds() }), strings.Join(rss, " + "),
		counted(func(m median) int { return m.Source.Requests }), thousands(m.Source.Connections),
		float64(m.Source.Bytes)/1e6, ratio(func(m median) float64 { return float64(m.Source.Bytes) }),
		counted(func(m median) int { return m.Destination.Requests }), own, after)
}

func thousands(n int) string {
	if n < 1000 {
		return fmt.Sprint(n)
	}
	return fmt.Sprintf("%s,%03d", thousands(n/1000), n%1000)
}

// steady is what it costs that nothing changed.
func steady(all []median) string {
	var b strings.Builder
	b.WriteString("| | round trip | requests to the source | to the destination | primaryd to its registry | on the link |\n" +
		"|---|---|---|---|---|---|\n")
	for _, m := range all {
		if m.Workload != unchangedName {
			continue
		}
		own, onLink := "", ""
		if m.Link != nil && m.Sweep != nil {
			own = fmt.Sprintf("%s; a sweep %s", thousands(m.Own.Requests), thousands(m.Sweep.Requests))
			onLink = fmt.Sprintf("%.1f KB in %s: %s", float64(m.Link.Bytes)/1e3, m.Link.For, messages(m.Link.Messages))
		}
		fmt.Fprintf(&b, "| %s | %s | %s | %s | %s | %s |\n", m.Program, trip(m.RTT), thousands(m.Source.Requests),
			thousands(m.Destination.Requests), own, onLink)
	}
	return b.String()
}

func messages(counts map[string]int) string {
	var list []string
	for name, count := range counts {
		list = append(list, fmt.Sprintf("%d %s", count, name))
	}
	slices.Sort(list)
	return strings.Join(list, ", ")
}

// latencies is what one new tag costs, and how long it takes.
func latencies(all []median) string {
	var b strings.Builder
	b.WriteString("| | round trip | wall | requests to the source | to the destination | primaryd to its registry |\n" +
		"|---|---|---|---|---|---|\n")
	for _, m := range all {
		if m.Workload != oneNewTagName {
			continue
		}
		own := ""
		if m.Pushes != nil {
			own = thousands(m.Own.Requests)
		}
		fmt.Fprintf(&b, "| %s | %s | %.2f s | %s | %s | %s |\n", m.Program, trip(m.RTT), m.Wall.Seconds(),
			thousands(m.Source.Requests), thousands(m.Destination.Requests), own)
	}
	b.WriteString("\n| pushes, one after another | round trip | push to pullable, p50 / p99 | the push itself | above the push | " +
		"requests at the source each, and at most |\n|---|---|---|---|---|---|\n")
	for _, m := range all {
		if p := m.Pushes; p != nil {
			fmt.Fprintf(&b, "| %d | %s | %s / %s | %s / %s | %s / %s | %.2f, %d |\n", p.Count, trip(m.RTT), ms(p.P50), ms(p.P99),
				ms(p.OwnP50), ms(p.OwnP99), ms(p.AboveP50), ms(p.AboveP99), p.RequestsEach, p.RequestsMost)
		}
	}
	return b.String()
}

func ms(d time.Duration) string { return fmt.Sprintf("%d ms", d.Milliseconds()) }
