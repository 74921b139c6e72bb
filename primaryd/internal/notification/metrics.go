package notification

import (
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
)

// Metrics counts notifications and the events in them.
type Metrics struct {
	notifications *prometheus.CounterVec
	events        *prometheus.CounterVec
	seconds       prometheus.Histogram
	last          *prometheus.GaugeVec
	restarts      prometheus.Counter
}

// NewMetrics registers the handler's metrics; a nil registerer registers them nowhere.
func NewMetrics(reg prometheus.Registerer) *Metrics {
	factory := promauto.With(reg)
	m := &Metrics{
		notifications: factory.NewCounterVec(prometheus.CounterOpts{
			Name: "antipode_notifications_total",
			Help: "Requests to `/notifications` by what they were answered: `accepted` (200), `method` (405), " +
				"`unauthorized` (401), `too_large` (413), `unparseable` (400), `unavailable` (503), `slow` (408: the body " +
				"did not arrive), `limited` (429: over `notifications.rate`), `busy` (429: too many at once), `throttled` " +
				"(429: too many wrong secrets). All are there from the start, at 0.",
		}, []string{"result"}),
		events: factory.NewCounterVec(prometheus.CounterOpts{
			Name: "antipode_notification_events_total",
			Help: "Events in accepted notifications: `change` (recorded), `ignored` (says nothing about tags), " +
				"`untagged` (a manifest pushed by digest), `invalid` (no valid repository or tag), `malformed` (no " +
				"event). All are there from the start, at 0.",
		}, []string{"result"}),
		seconds: factory.NewHistogram(prometheus.HistogramOpts{
			Name:    "antipode_notification_seconds",
			Help:    "How long a notification took to answer, the commit included.",
			Buckets: prometheus.ExponentialBuckets(0.0005, 2, 14),
		}),
		last: factory.NewGaugeVec(prometheus.GaugeOpts{
			Name: "antipode_notification_last_timestamp_seconds",
			Help: "When a request to `/notifications` was last answered so, by the results of `antipode_notifications_total`; 0 is never since the " +
				"start. An accepted one without events does not count.",
		}, []string{"result"}),
		restarts: factory.NewCounter(prometheus.CounterOpts{
			Name: "antipode_notification_instance_changes_total",
			Help: "Instances of the registry that began to notify after another one: the registry restarted, may have " +
				"lost what it had not delivered, and is swept. What a sweep then finds is in " +
				"`antipode_sweep_changed_total`.",
		}),
	}
	// From the start at zero, so that the first refusal is an increase to whoever watches.
	for _, answer := range answers {
		m.notifications.WithLabelValues(answer.result)
		m.last.WithLabelValues(answer.result)
	}
	for _, result := range []string{resultChange, resultIgnored, resultUntagged, resultInvalid, resultMalformed} {
		m.events.WithLabelValues(result)
	}
	return m
}
