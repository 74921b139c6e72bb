package replicate

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/antipode-registry/antipode/secondaryd/internal/tracking"
)

// Metrics counts syncs. A nil *Metrics counts nothing.
type Metrics struct {
	syncs   *prometheus.CounterVec
	seconds prometheus.Histogram
	arrival prometheus.Histogram
	tags    *prometheus.CounterVec
	brakes  *prometheus.CounterVec
	damages prometheus.Counter
}

// NewMetrics registers the engine's metrics with reg.
func NewMetrics(reg prometheus.Registerer) *Metrics {
	m := &Metrics{
		syncs: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "antipode_syncs_total", Help: "Syncs of one repository: `synced`, `failed`, `held`, `unsettled` (looked at again at once), `lost` " +
				"(the outcome could not be recorded). `side` is set for failures: `primary`, `source`, `destination` " +
				"or `local`.",
		}, []string{"result", "side"}),
		seconds: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "antipode_sync_seconds", Help: "How long a sync of one repository took.",
			Buckets: prometheus.ExponentialBuckets(0.01, 4, 9),
		}),
		tags: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "antipode_sync_tags_total", Help: "Tags changed on the site: `written` or `removed`.",
		}, []string{"action"}),
	}
	m.brakes = prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "antipode_brakes_total", Help: "Syncs whose removals were withheld, by the brake that did it: `repository` or `site`.",
	}, []string{"brake"})
	m.damages = prometheus.NewCounter(prometheus.CounterOpts{
		Name: "antipode_verify_damaged_total", Help: "Images and referrers that verification found incomplete or damaged on the site.",
	})
	m.arrival = prometheus.NewHistogram(prometheus.HistogramOpts{
		Name: "antipode_push_to_pullable_seconds",
		Help: "From a change at the primary, by the event's own time, to the end of the sync that brought it: after " +
			"it the change can be pulled here. Live changes alone; backfill and what an operator asked for do not " +
			"count. Classic and native buckets. The clocks of both ends should agree.",
		Buckets: []float64{.1, .25, .5, 1, 2, 3, 5, 10, 20, 30, 60, 120, 300, 900, 3600},
		// Native as well, for those who scrape such: any quantile, whatever a site's promise is.
		NativeHistogramBucketFactor: 1.1, NativeHistogramMaxBucketNumber: 160, NativeHistogramMinResetDuration: time.Hour,
	})
	reg.MustRegister(m.arrival, m.syncs, m.seconds, m.tags, m.brakes, m.damages)
	return m
}

func (m *Metrics) synced(result, side string, took time.Duration) {
	if m != nil {
		m.syncs.WithLabelValues(result, side).Inc()
		m.seconds.Observe(took.Seconds())
	}
}

// arrived observes how long what a sync brought was on its way. Backfill, resyncs and verifications were waited for by
// nobody, and do not count.
func (m *Metrics) arrived(lease *tracking.Lease, now time.Time) {
	live := lease.Class == tracking.Live && lease.Verify == tracking.TagsOnly && lease.Synced >= 0
	if m == nil || !live || lease.ChangedAt.IsZero() {
		return
	}
	m.arrival.Observe(max(0, now.Sub(lease.ChangedAt).Seconds())) // clocks may differ
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
