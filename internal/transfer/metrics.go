package transfer

import "github.com/prometheus/client_golang/prometheus"

// Metrics counts what all copies do. A nil *Metrics counts nothing.
type Metrics struct {
	bytes   prometheus.Counter
	blobs   *prometheus.CounterVec
	resumes prometheus.Counter
}

// NewMetrics returns Metrics that are registered with reg. Like promauto it panics when they are registered already.
func NewMetrics(reg prometheus.Registerer) *Metrics {
	m := &Metrics{
		bytes: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "antipode_transfer_bytes_total",
			Help: "Bytes of blobs read from the primary's registry, those of copies that failed included.",
		}),
		blobs: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "antipode_transfer_blobs_total",
			Help: "Blobs by how they came to be on the site: `copied`, `mounted` from another repository, `known` to be " +
				"there, `waited` for another copy that brought them. All are there from the start, at 0.",
		}, []string{"result"}),
		resumes: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "antipode_transfer_resumes_total",
			Help: "Downloads that broke and were taken up again.",
		}),
	}
	reg.MustRegister(m.bytes, m.blobs, m.resumes)
	for _, result := range []string{blobCopied, blobMounted, blobKnown, blobWaited} {
		m.blobs.WithLabelValues(result)
	}
	return m
}

func (m *Metrics) read(n int) {
	if m != nil {
		m.bytes.Add(float64(n))
	}
}

func (m *Metrics) blob(result string) {
	if m != nil {
		m.blobs.WithLabelValues(result).Inc()
	}
}

func (m *Metrics) resumed() {
	if m != nil {
		m.resumes.Inc()
	}
}
