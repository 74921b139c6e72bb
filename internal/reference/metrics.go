package reference

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/prometheus/client_golang/prometheus"
)

// ours begins the names of our own metrics; those of the Go runtime and of the process are documented elsewhere.
const ours = "antipode_"

// Metric is a metric that the code registers.
type Metric struct {
	Name   string
	Type   string   // counter, gauge or histogram
	Labels []string // constant ones first
	Help   string
}

// description reads what a Desc tells of itself, which has no accessors.
var description = regexp.MustCompile(
	`^Desc\{fqName: "([^"]+)", help: ("(?:[^"\\]|\\.)*"), .*constLabels: \{(.*)\}, variableLabels: \{(.*)\}\}$`)

// Metrics returns our own metrics of a registry, by name, whether they have a value yet or not.
func Metrics(registry *prometheus.Registry) ([]Metric, error) {
	types, err := gathered(registry)
	if err != nil {
		return nil, err
	}
	var list []Metric
	for _, desc := range described(registry) {
		parts := description.FindStringSubmatch(desc.String())
		if parts == nil {
			return nil, fmt.Errorf("reference: cannot read the description %s", desc)
		}
		help, err := strconv.Unquote(parts[2])
		if err != nil {
			return nil, fmt.Errorf("reference: the help of %s: %w", parts[1], err)
		}
		if !strings.HasPrefix(parts[1], ours) {
			continue
		}
		kind := types[parts[1]]
		if kind == "" {
			kind = silent(registry, desc, parts[1])
		}
		list = append(list, Metric{Name: parts[1], Type: kind, Labels: labels(parts[3], parts[4]), Help: help})
	}
	slices.SortFunc(list, func(a, b Metric) int { return strings.Compare(a.Name, b.Name) })
	return list, nil
}

// MetricTable is the reference of those metrics that both daemons have, or of those that are one's own.
func MetricTable(metrics []Metric, shared bool) string {
	var rows [][]string
	for _, m := range metrics {
		if isShared(m.Name) == shared {
			rows = append(rows, []string{code(m.Name), m.Type, codes(m.Labels), m.Help})
		}
	}
	return table([]string{"Metric", "Type", "Labels", "Meaning"}, rows)
}

// isShared says whether both daemons have a metric: those of the program, of its gRPC server and of the registries that
// it asks.
func isShared(name string) bool {
	return regexp.MustCompile(`^antipode_(build_info$|grpc_server_|link_|registry_(requests?|bytes|in_flight|throttled)_?)`).MatchString(name)
}

func described(collector prometheus.Collector) []*prometheus.Desc {
	descriptions := make(chan *prometheus.Desc)
	go func() {
		defer close(descriptions)
		collector.Describe(descriptions)
	}()
	var list []*prometheus.Desc
	for desc := range descriptions {
		list = append(list, desc)
	}
	return list
}

// gathered are the types of the metrics that have a value.
func gathered(registry *prometheus.Registry) (map[string]string, error) {
	families, err := registry.Gather()
	if err != nil {
		return nil, fmt.Errorf("reference: %w", err)
	}
	types := make(map[string]string, len(families))
	for _, family := range families {
		types[family.GetName()] = strings.ToLower(family.GetType().String())
	}
	return types, nil
}

// only is a collector that has one description and nothing else.
type only struct{ desc *prometheus.Desc }

func (o only) Describe(ch chan<- *prometheus.Desc) { ch <- o.desc }
func (only) Collect(chan<- prometheus.Metric)      {}

// silent is the type of a metric that has no value. To register its description once more makes the registry name the
// collector that has it, if it has no other. Of those with several the one of the RPCs has a histogram; ours make what
// they have at each scrape, counters and gauges, and a counter's name ends with _total.
func silent(registry *prometheus.Registry, desc *prometheus.Desc, name string) string {
	if taken, ok := errors.AsType[prometheus.AlreadyRegisteredError](registry.Register(only{desc})); ok {
		switch taken.ExistingCollector.(type) {
		case *prometheus.HistogramVec:
			return "histogram"
		case *prometheus.CounterVec:
			return "counter"
		}
	}
	switch {
	case name == "antipode_grpc_server_handling_seconds":
		return "histogram"
	case strings.HasSuffix(name, "_total"):
		return "counter"
	default:
		return "gauge"
	}
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
	return names
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
