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
			grpcprom.WithServerCounterOptions(grpcprom.WithNamespace(namespace), describeCounter),
			grpcprom.WithServerHandlingTimeHistogram(grpcprom.WithHistogramNamespace(namespace), describeTime),
		),
		refusals: prometheus.NewCounter(prometheus.CounterOpts{
			Namespace: namespace, Subsystem: subsystem, Name: "handshakes_refused_total",
			Help: "TLS handshakes that the gRPC server refused: no certificate, one of another authority, an expired " +
				"one.",
		}),
		panics: prometheus.NewCounter(prometheus.CounterOpts{
			Namespace: namespace, Subsystem: subsystem, Name: "panics_total",
			Help: "Panics recovered in RPC handlers. Each is a bug.",
		}),
		expiry: prometheus.NewGauge(prometheus.GaugeOpts{
			Namespace: namespace, Subsystem: subsystem, Name: "certificate_expiry_timestamp_seconds",
			Help: "When the certificate that the gRPC server presents expires.",
		}),
	}
	reg.MustRegister(m.rpc, m.refusals, m.panics, m.expiry)
	return m
}

// describeCounter says what the interceptors' counters mean in our words; one that it does not know keeps its own.
func describeCounter(opts *prometheus.CounterOpts) {
	help, ok := map[string]string{
		"grpc_server_started_total":      "RPCs that began.",
		"grpc_server_handled_total":      "RPCs that ended, by gRPC code.",
		"grpc_server_msg_received_total": "Messages received.",
		"grpc_server_msg_sent_total":     "Messages sent.",
	}[opts.Name]
	if ok {
		opts.Help = help
	}
}

func describeTime(opts *prometheus.HistogramOpts) {
	opts.Help = "How long RPCs took. A subscription counts when it ends."
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
