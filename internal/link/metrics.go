package link

import (
	"time"

	grpcprom "github.com/grpc-ecosystem/go-grpc-middleware/providers/prometheus"
	"github.com/prometheus/client_golang/prometheus"
)

// Metrics counts what a Server does. A nil *Metrics counts nothing. It is safe for concurrent use.
type Metrics struct {
	rpc      *grpcprom.ServerMetrics
	refusals prometheus.Counter
	panics   prometheus.Counter
	expiry   prometheus.Gauge
}

// NewMetrics registers the metrics antipode_grpc_server_*, antipode_link_handshakes_refused_total,
// antipode_link_panics_total and antipode_link_certificate_expiry_timestamp_seconds. It panics when reg has them
// already, as prometheus registration does everywhere.
func NewMetrics(reg prometheus.Registerer) *Metrics {
	const namespace, subsystem = "antipode", "link"
	m := &Metrics{
		rpc: grpcprom.NewServerMetrics(
			grpcprom.WithServerCounterOptions(grpcprom.WithNamespace(namespace)),
			grpcprom.WithServerHandlingTimeHistogram(grpcprom.WithHistogramNamespace(namespace)),
		),
		refusals: prometheus.NewCounter(prometheus.CounterOpts{
			Namespace: namespace, Subsystem: subsystem, Name: "handshakes_refused_total",
			Help: "TLS handshakes that the gRPC server refused.",
		}),
		panics: prometheus.NewCounter(prometheus.CounterOpts{
			Namespace: namespace, Subsystem: subsystem, Name: "panics_total",
			Help: "Panics recovered in RPC handlers.",
		}),
		expiry: prometheus.NewGauge(prometheus.GaugeOpts{
			Namespace: namespace, Subsystem: subsystem, Name: "certificate_expiry_timestamp_seconds",
			Help: "When the gRPC server's certificate expires, in Unix time.",
		}),
	}
	reg.MustRegister(m.rpc, m.refusals, m.panics, m.expiry)
	return m
}

func (m *Metrics) countRefusal() {
	if m != nil {
		m.refusals.Inc()
	}
}

func (m *Metrics) countPanic() {
	if m != nil {
		m.panics.Inc()
	}
}

func (m *Metrics) setExpiry(at time.Time) {
	if m != nil {
		m.expiry.Set(float64(at.Unix()))
	}
}
