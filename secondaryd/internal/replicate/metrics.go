package replicate

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// Metrics counts syncs. A nil *Metrics counts nothing.
type Metrics struct {
	syncs   *prometheus.CounterVec
	seconds prometheus.Histogram
	tags    *prometheus.CounterVec
	brakes  *prometheus.CounterVec
	damages prometheus.Counter
}

// NewMetrics registers the engine's metrics with reg.
func NewMetrics(reg prometheus.Registerer) *Metrics {
	m := &Metrics{
		syncs: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "antipode_syncs_total", Help: "Syncs of one repository, by result and, for failures, by the side that failed.",
		}, []string{"result", "side"}),
		seconds: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "antipode_sync_seconds", Help: "How long a sync of one repository took.",
			Buckets: prometheus.ExponentialBuckets(0.01, 4, 9),
		}),
		tags: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "antipode_sync_tags_total", Help: "Tags changed on the site, by what was done.",
		}, []string{"action"}),
	}
	m.brakes = prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "antipode_brakes_total", Help: "Syncs whose removals were withheld, by the brake that did it.",
	}, []string{"brake"})
	m.damages = prometheus.NewCounter(prometheus.CounterOpts{
		Name: "antipode_verify_damaged_total", Help: "Manifests found incomplete or damaged on the site by verification.",
	})
	reg.MustRegister(m.syncs, m.seconds, m.tags, m.brakes, m.damages)
	return m
}

func (m *Metrics) synced(result, side string, took time.Duration) {
	if m != nil {
		m.syncs.WithLabelValues(result, side).Inc()
		m.seconds.Observe(took.Seconds())
	}
}

func (m *Metrics) changed(result applied) {
	if m != nil {
		m.tags.WithLabelValues("written").Add(float64(result.written))
		m.tags.WithLabelValues("removed").Add(float64(result.removed))
	}
}

func (m *Metrics) braked(brake string) {
	if m != nil {
		m.brakes.WithLabelValues(brake).Inc()
	}
}

func (m *Metrics) damaged() {
	if m != nil {
		m.damages.Inc()
	}
}
