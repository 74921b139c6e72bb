package feed

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
)

// Metrics counts what a Feed does.
type Metrics struct {
	head    prometheus.Gauge
	commits prometheus.Counter
	changes prometheus.Counter
	seconds prometheus.Histogram
}

// NewMetrics registers the feed's metrics; a nil registerer registers them nowhere.
func NewMetrics(reg prometheus.Registerer) *Metrics {
	factory := promauto.With(reg)
	return &Metrics{
		head: factory.NewGauge(prometheus.GaugeOpts{
			Name: "antipode_feed_head_revision",
			Help: "The newest revision of the change feed.",
		}),
		commits: factory.NewCounter(prometheus.CounterOpts{
			Name: "antipode_feed_commits_total",
			Help: "Transactions that recorded notified changes.",
		}),
		changes: factory.NewCounter(prometheus.CounterOpts{
			Name: "antipode_feed_changes_total",
			Help: "Repositories that notified changes gave a new revision.",
		}),
		seconds: factory.NewHistogram(prometheus.HistogramOpts{
			Name:    "antipode_feed_commit_seconds",
			Help:    "How long a transaction that records notified changes took, the commit included.",
			Buckets: prometheus.ExponentialBuckets(0.0005, 2, 14),
		}),
	}
}

func (m *Metrics) committed(changes int, took time.Duration) {
	m.commits.Inc()
	m.changes.Add(float64(changes))
	m.seconds.Observe(took.Seconds())
}
