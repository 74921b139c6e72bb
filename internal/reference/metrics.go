package reference

import (
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/prometheus/client_golang/prometheus"
)

// ours begins the names of our own metrics; those of the Go runtime and of the process are documented elsewhere.
const ours = "antipode_"

// Metric is a metric that the code registers.
type Metric struct {
	Name   string
	Labels []string // sorted; constant ones too
}

// description reads what a Desc tells of itself, which has no accessors.
var description = regexp.MustCompile(`^Desc\{fqName: "([^"]+)", .*constLabels: \{(.*)\}, variableLabels: \{(.*)\}\}$`)

// Metrics returns our own metrics among those of a collector, by name, whether they have a value yet or not. A
// prometheus.Registry is a collector of all that was registered with it.
func Metrics(collector prometheus.Collector) ([]Metric, error) {
	descriptions := make(chan *prometheus.Desc)
	go func() {
		defer close(descriptions)
		collector.Describe(descriptions)
	}()
	var list []Metric
	var err error
	for desc := range descriptions { // to the end, so that the collector's goroutine ends too
		parts := description.FindStringSubmatch(desc.String())
		switch {
		case parts == nil:
			err = fmt.Errorf("reference: cannot read the description %s", desc)
		case strings.HasPrefix(parts[1], ours):
			list = append(list, Metric{Name: parts[1], Labels: labels(parts[2], parts[3])})
		}
	}
	slices.SortFunc(list, func(a, b Metric) int { return strings.Compare(a.Name, b.Name) })
	return list, err
}

// labels reads the two lists: `a="x",b="y"` of constant ones and `c,d` of variable ones.
func labels(constant, variable string) []string {
	names := []string{}
	for _, pair := range regexp.MustCompile(`(\w+)="(?:[^"\\]|\\.)*"`).FindAllStringSubmatch(constant, -1) {
		names = append(names, pair[1])
	}
	for name := range strings.SplitSeq(variable, ",") {
		// A label whose values are constrained is shown as c(name).
		if name = strings.TrimSuffix(strings.TrimPrefix(name, "c("), ")"); name != "" {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

// CheckMetrics compares metrics with the rows of a reference, whose columns Metric and Labels it reads. Types and words
// are the reader's to check.
func CheckMetrics(document string, rows []Row, metrics []Metric) []string {
	stated := make(map[string][]string, len(rows))
	documented := make([]string, len(rows))
	for i, row := range rows {
		documented[i] = Code(row.Cells["Metric"])
		stated[documented[i]] = spans(row.Cells["Labels"])
	}
	names := make([]string, len(metrics))
	for i, metric := range metrics {
		names[i] = metric.Name
	}
	problems := Differences(document, documented, names)
	for _, metric := range metrics {
		found, ok := stated[metric.Name]
		if ok && !slices.Equal(found, metric.Labels) {
			problems = append(problems, fmt.Sprintf("%s gives %s the labels %q, the code has %q",
				document, metric.Name, found, metric.Labels))
		}
	}
	return problems
}

// spans returns the code spans of a cell, sorted.
func spans(cell string) []string {
	names := []string{}
	for _, span := range regexp.MustCompile("`([^`]+)`").FindAllStringSubmatch(cell, -1) {
		names = append(names, span[1])
	}
	slices.Sort(names)
	return names
}
