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
			Help: "Notifications by what they were answered: accepted, method, unauthorized, too_large, unparseable, unavailable.",
		}, []string{"result"}),
		events: factory.NewCounterVec(prometheus.CounterOpts{
			Name: "antipode_notification_events_total",
			Help: "Events in notifications by what became of them: change, ignored, untagged, invalid, malformed.",
		}, []string{"result"}),
		seconds: factory.NewHistogram(prometheus.HistogramOpts{
			Name:    "antipode_notification_seconds",
			Help:    "Time to answer a notification, the commit included.",
			Buckets: prometheus.ExponentialBuckets(0.0005, 2, 14),
		}),
		last: factory.NewGaugeVec(prometheus.GaugeOpts{
			Name: "antipode_notification_last_timestamp_seconds",
			Help: "When a notification was last answered so since the start; 0 = never. Accepted ones without events do not count.",
		}, []string{"result"}),
		restarts: factory.NewCounter(prometheus.CounterOpts{
			Name: "antipode_notification_instance_changes_total",
			Help: "Instances of the registry that began to notify after another: each may have lost what it had not delivered.",
		}),
	}
	// From the start at zero, so that the first refusal is an increase to whoever watches.
	for _, answer := range []answer{accepted, wrongMethod, unauthorized, tooLarge, unparseable, unavailable} {
		m.notifications.WithLabelValues(answer.result)
		m.last.WithLabelValues(answer.result)
	}
	for _, result := range []string{resultChange, resultIgnored, resultUntagged, resultInvalid, resultMalformed} {
		m.events.WithLabelValues(result)
	}
	return m
}
