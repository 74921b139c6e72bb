package service

import (
	"context"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/antipode-registry/antipode/primaryd/internal/node"
)

// collector shows the nodes as metrics, made afresh at each scrape: they can never say anything else than ListNodes
// does.
type collector struct {
	nodes                                                 *node.Directory
	head                                                  Head
	state, lagSeconds, lagRevisions, cursor, repositories *prometheus.Desc
}

// scrapeTimeout bounds one scrape; Prometheus gives up after ten seconds by default.
const scrapeTimeout = 8 * time.Second

// RegisterNodeMetrics registers the metrics of every configured node with reg.
func RegisterNodeMetrics(reg prometheus.Registerer, nodes *node.Directory, head Head) {
	desc := func(name, help string, labels ...string) *prometheus.Desc {
		return prometheus.NewDesc("antipode_node_"+name, help, append([]string{"node"}, labels...), nil)
	}
	reg.MustRegister(&collector{
		nodes: nodes, head: head,
		state: desc("state", "1 for the state that the site is in, 0 for the others: `unknown`, `healthy`, `syncing`, `degraded`, "+
			"`paused`, `stale`, `down`.", "state"),
		lagSeconds:   desc("lag_seconds", "Age of the oldest change that the site is known to lack. Grows while it does not report."),
		lagRevisions: desc("lag_revisions", "The feed's head less what the site has synced."),
		cursor:       desc("cursor_revision", "How far the site has read the feed, as it last reported. Not there before its first report."),
		repositories: desc("repositories", "The site's repositories by state, as it last reported: `synced`, `pending`, `syncing`, `failed`, "+
			"`held`. Not there before its first report.", "state"),
	})
}

// Describe implements prometheus.Collector.
func (c *collector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{c.state, c.lagSeconds, c.lagRevisions, c.cursor, c.repositories} {
		ch <- d
	}
}

// Collect implements prometheus.Collector. While the database does not answer there is nothing to show.
func (c *collector) Collect(ch chan<- prometheus.Metric) {
	ctx, cancel := context.WithTimeout(context.Background(), scrapeTimeout)
	defer cancel()
	head, err := c.head.Head(ctx)
	if err != nil {
		return
	}
	nodes, err := c.nodes.List(ctx, head)
	if err != nil {
		return
	}
	for _, n := range nodes {
		c.collect(ch, n)
	}
}

func (c *collector) collect(ch chan<- prometheus.Metric, n node.Node) {
	gauge := func(d *prometheus.Desc, value float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, value, append([]string{n.Name}, labels...)...)
	}
	for state := range stateToProto {
		value := 0.0
		if state == n.State {
			value = 1
		}
		gauge(c.state, value, string(state))
	}
	gauge(c.lagSeconds, n.Lag.Seconds())
	gauge(c.lagRevisions, float64(n.LagRevisions))
	if n.Status == nil {
		return
	}
	gauge(c.cursor, float64(n.Status.CursorRevision))
	counts := n.Status.Repositories
	for state, count := range map[string]int64{
		"synced": counts.Synced, "pending": counts.Pending, "syncing": counts.Syncing, "failed": counts.Failed,
		"held": counts.Held,
	} {
		gauge(c.repositories, float64(count), state)
	}
}
