package sweep

import "github.com/prometheus/client_golang/prometheus"

// Metrics counts what sweeps did. A nil *Metrics counts nothing.
type Metrics struct {
	rounds     *prometheus.CounterVec
	discovered prometheus.Counter
	changed    prometheus.Counter
}

// NewMetrics registers the sweep's metrics with reg.
func NewMetrics(reg prometheus.Registerer) *Metrics {
	m := &Metrics{
		rounds: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "antipode_sweep_rounds_total", Help: "Rounds of the primary's sweep: `complete`, `incomplete` (some repositories could not be compared; " +
				"nothing was concluded about them) or `failed` (given up, tried again with back-off).",
		}, []string{"result"}),
		discovered: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "antipode_sweep_discovered_total", Help: "Repositories that a sweep found and the feed had never heard of.",
		}),
		changed: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "antipode_sweep_changed_total", Help: "Repositories that a sweep gave a new revision. A repository that was pushed to since the last sweep " +
				"counts once even if no notification was lost.",
		}),
	}
	reg.MustRegister(m.rounds, m.discovered, m.changed)
	for _, result := range []string{"complete", "incomplete", "failed"} {
		m.rounds.WithLabelValues(result) // there from the start: one that does not sweep says 0, and not nothing
	}
	return m
}

func (m *Metrics) round(result string) {
	if m != nil {
		m.rounds.WithLabelValues(result).Inc()
	}
}

func (m *Metrics) found(discovered, changed int) {
	if m != nil {
		m.discovered.Add(float64(discovered))
		m.changed.Add(float64(changed))
	}
}
