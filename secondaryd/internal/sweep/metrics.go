package sweep

import "github.com/prometheus/client_golang/prometheus"

// Metrics counts what sweeps did. A nil *Metrics counts nothing.
type Metrics struct {
	rounds  *prometheus.CounterVec
	damages prometheus.Counter
}

// NewMetrics registers the sweep's metrics with reg.
func NewMetrics(reg prometheus.Registerer) *Metrics {
	m := &Metrics{
		rounds: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "antipode_site_sweep_rounds_total", Help: "Rounds of the site's sweep: `complete` or `failed`.",
		}, []string{"result"}),
		damages: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "antipode_site_sweep_damaged_total", Help: "Repositories that the site's sweep found to differ from what was synced.",
		}),
	}
	reg.MustRegister(m.rounds, m.damages)
	return m
}

func (m *Metrics) round(result string) {
	if m != nil {
		m.rounds.WithLabelValues(result).Inc()
	}
}

func (m *Metrics) damaged() {
	if m != nil {
		m.damages.Inc()
	}
}
