package service

import "github.com/prometheus/client_golang/prometheus"

// Metrics counts what the services do beyond what every RPC counts. A nil *Metrics counts nothing.
type Metrics struct {
	subscribers prometheus.Gauge
	listings    *prometheus.CounterVec
	listedTags  prometheus.Counter
}

// NewMetrics registers the services' metrics with reg.
func NewMetrics(reg prometheus.Registerer) *Metrics {
	m := &Metrics{
		subscribers: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "antipode_feed_subscribers", Help: "Subscriptions to the feed that this process serves now.",
		}),
		listings: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "antipode_listings_total", Help: "Tag listings answered: `complete` or `delta`.",
		}, []string{"kind"}),
		listedTags: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "antipode_listed_tags_total", Help: "Tags in the listings answered.",
		}),
	}
	reg.MustRegister(m.subscribers, m.listings, m.listedTags)
	return m
}

func (m *Metrics) subscribed() (done func()) {
	if m == nil {
		return func() {}
	}
	m.subscribers.Inc()
	return m.subscribers.Dec
}

func (m *Metrics) listed(complete bool, tags int) {
	if m == nil {
		return
	}
	kind := "delta"
	if complete {
		kind = "complete"
	}
	m.listings.WithLabelValues(kind).Inc()
	m.listedTags.Add(float64(tags))
}
