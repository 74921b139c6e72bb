package service

import (
	"context"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// collector shows the status as metrics, made afresh at each scrape: they can never say anything else than the status
// does.
type collector struct {
	status                                        *Status
	repositories, lagSeconds, lagRevisions        *prometheus.Desc
	cursor, head, paused, connected, registry, db *prometheus.Desc
	bytes                                         *prometheus.Desc
}

// scrapeTimeout bounds the status of one scrape; Prometheus gives up after ten seconds by default.
const scrapeTimeout = 8 * time.Second

// RegisterMetrics registers the status' metrics with reg.
func RegisterMetrics(reg prometheus.Registerer, s *Status) {
	desc := func(name, help string, labels ...string) *prometheus.Desc {
		return prometheus.NewDesc("antipode_"+name, help, labels, nil)
	}
	reg.MustRegister(&collector{
		status:       s,
		repositories: desc("repositories", "Tracked repositories: `synced`, `pending`, `syncing`, `failed`, `held`.", "state"),
		lagSeconds:   desc("lag_seconds", "Age of the oldest change that is not on the site; 0 when it has all that it has heard of."),
		lagRevisions: desc("lag_revisions", "Revisions from the first one that is not on the site to the feed's head."),
		cursor:       desc("cursor_revision", "Every change up to this revision is in the site's tracking table."),
		head:         desc("head_revision", "The newest revision of the feed that the site has heard of."),
		paused:       desc("paused", "1 while an operator has paused the site."),
		connected:    desc("connected", "1 while the subscription to the primary is up."),
		registry:     desc("registry_reachable", "1 while the site's registry answers."),
		db:           desc("database_reachable", "1 while the site's database answers. While it does not, what only it knows is left out."),
		bytes:        desc("copied_bytes_total", "Bytes of blobs copied to the site by this process since it started."),
	})
}

// Describe implements prometheus.Collector.
func (c *collector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{
		c.repositories, c.lagSeconds, c.lagRevisions, c.cursor, c.head, c.paused, c.connected, c.registry, c.db, c.bytes,
	} {
		ch <- d
	}
}

// Collect implements prometheus.Collector. What the database knows is left out while it does not answer.
func (c *collector) Collect(ch chan<- prometheus.Metric) {
	ctx, cancel := context.WithTimeout(context.Background(), scrapeTimeout)
	defer cancel()
	st := c.status.Make(ctx)
	gauge := func(d *prometheus.Desc, value float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, value, labels...)
	}
	gauge(c.connected, number(st.GetConnected()))
	gauge(c.registry, number(st.GetRegistryReachable()))
	gauge(c.db, number(st.GetDatabaseReachable()))
	ch <- prometheus.MustNewConstMetric(c.bytes, prometheus.CounterValue, float64(c.status.from.Bytes()))
	if !st.GetDatabaseReachable() {
		return
	}
	counts := st.GetRepositories()
	for state, n := range map[string]int64{
		"synced": counts.GetSynced(), "pending": counts.GetPending(), "syncing": counts.GetSyncing(),
		"failed": counts.GetFailed(), "held": counts.GetHeld(),
	} {
		gauge(c.repositories, float64(n), state)
	}
	gauge(c.lagSeconds, st.GetLag().AsDuration().Seconds())
	gauge(c.lagRevisions, float64(st.GetLagRevisions()))
	gauge(c.cursor, float64(st.GetCursorRevision()))
	gauge(c.head, float64(st.GetHeadRevision()))
	gauge(c.paused, number(st.GetPaused()))
}

func number(b bool) float64 {
	if b {
		return 1
	}
	return 0
}
