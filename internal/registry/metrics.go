package registry

import (
	"net/http"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// Metrics counts what handles send and receive. One value serves all handles of a process; a nil *Metrics counts
// nothing. Token requests and requests to redirected addresses are counted under the registry that caused them.
type Metrics struct {
	requests  *prometheus.CounterVec
	seconds   *prometheus.HistogramVec
	bytes     *prometheus.CounterVec
	inFlight  *prometheus.GaugeVec
	limit     *prometheus.GaugeVec
	throttled *prometheus.CounterVec
}

// NewMetrics makes the metrics and registers them with reg.
func NewMetrics(reg prometheus.Registerer) *Metrics {
	host := []string{"side", "host"}
	with := func(further ...string) []string { return slices.Concat(host, further) }
	m := &Metrics{
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "antipode_registry_requests_total",
			Help: "Requests sent to a registry, each try counted. `side` is `source` (the primary's) or `destination` " +
				"(the site's); `kind` is `base`, `catalog`, `tags`, `manifest`, `blob`, `upload`, `referrers` or " +
				"`token`; `code` is the HTTP status, or `none` without an answer.",
		}, with("method", "kind", "code")),
		seconds: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name:    "antipode_registry_request_seconds",
			Help:    "From sending a request to its whole answer; for blob downloads to the answer's headers.",
			Buckets: []float64{.005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60},
		}, with("method", "kind")),
		bytes: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "antipode_registry_bytes_total",
			Help: "Bytes of bodies: `in` from the registry, `out` to it.",
		}, with("direction")),
		inFlight: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "antipode_registry_in_flight",
			Help: "Requests in flight now.",
		}, host),
		limit: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "antipode_registry_in_flight_limit",
			Help: "How many may be in flight now: the configured number, less after 429 and 503 answers.",
		}, host),
		throttled: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "antipode_registry_throttled_seconds_total",
			Help: "Time for which the registry asked for a pause by `Retry-After`.",
		}, host),
	}
	reg.MustRegister(m.requests, m.seconds, m.bytes, m.inFlight, m.limit, m.throttled)
	return m
}

// counts is the metrics of one handle; nil counts nothing.
type counts struct {
	requests           *prometheus.CounterVec
	seconds            prometheus.ObserverVec
	in, out, throttled prometheus.Counter
	inFlight, limit    prometheus.Gauge
	answers            sync.Map // of answerLabels to *answerSeries: looking one up by its labels costs more than counting
}

// answerLabels are those of an answer; code 0 = none came.
type answerLabels struct {
	method, kind string
	code         int
}

type answerSeries struct {
	requests prometheus.Counter
	seconds  prometheus.Observer
}

// handle returns the metrics for one registry.
func (m *Metrics) handle(side Side, host string) *counts {
	if m == nil {
		return nil
	}
	labels := prometheus.Labels{"side": string(side), "host": host}
	volume := m.bytes.MustCurryWith(labels)
	return &counts{
		requests:  m.requests.MustCurryWith(labels),
		seconds:   m.seconds.MustCurryWith(labels),
		in:        volume.WithLabelValues("in"),
		out:       volume.WithLabelValues("out"),
		throttled: m.throttled.With(labels),
		inFlight:  m.inFlight.With(labels),
		limit:     m.limit.With(labels),
	}
}

// answered counts one try of a request.
func (c *counts) answered(method, kind string, resp *http.Response, took time.Duration) {
	if c == nil {
		return
	}
	labels := answerLabels{method: method, kind: kind}
	if resp != nil {
		labels.code = resp.StatusCode
	}
	series := c.series(labels)
	series.requests.Inc()
	series.seconds.Observe(took.Seconds())
}

func (c *counts) series(labels answerLabels) *answerSeries {
	if known, ok := c.answers.Load(labels); ok {
		return known.(*answerSeries) //nolint:forcetypeassert // nothing else is stored
	}
	code := "none"
	if labels.code != 0 {
		code = strconv.Itoa(labels.code)
	}
	series := &answerSeries{
		requests: c.requests.WithLabelValues(labels.method, labels.kind, code),
		seconds:  c.seconds.WithLabelValues(labels.method, labels.kind),
	}
	c.answers.Store(labels, series)
	return series
}

func (c *counts) received(n int) {
	if c != nil {
		c.in.Add(float64(n))
	}
}

func (c *counts) sent(n int) {
	if c != nil {
		c.out.Add(float64(n))
	}
}

func (c *counts) paused(d time.Duration) {
	if c != nil {
		c.throttled.Add(d.Seconds())
	}
}

func (c *counts) load(inFlight, limit int) {
	if c != nil {
		c.inFlight.Set(float64(inFlight))
		c.limit.Set(float64(limit))
	}
}
