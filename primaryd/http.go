package main

import (
	"context"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/antipode-registry/antipode/internal/gateway"
	"github.com/antipode-registry/antipode/internal/httpaccess"
	"github.com/antipode-registry/antipode/primaryd/internal/dashboard"
	"github.com/antipode-registry/antipode/primaryd/internal/notification"
)

// handler is everything that primaryd serves over HTTP.
func (d *daemon) handler(ctx context.Context) (http.Handler, error) {
	api, err := gateway.Primary(ctx, d.local)
	if err != nil {
		return nil, err
	}
	mux := http.NewServeMux()
	mux.Handle("/api/", d.room.Admit(api, nil))
	mux.Handle("/notifications", notification.NewHandler(notification.Options{
		Secret: d.secret, Appender: d.feed, Logger: d.logger, Metrics: notification.NewMetrics(d.metrics),
		Tracer:   d.traces.Tracer(),
		Untagged: d.lister.HasReferrersAPI,
		Rate:     float64(d.cfg.Notifications.Rate), Burst: d.cfg.Notifications.Burst,
		OnInstance: func(id string) {
			d.logger.Warn("the registry restarted and may have lost notifications; sweeping", "instance", id)
			d.wantSweep()
		},
	}))
	page, err := dashboard.New(dashboard.Parts{
		Feed: d.feed, Nodes: d.nodes, Desk: d.requests, Locator: d.locator, Room: d.room, Logger: d.logger,
	})
	if err != nil {
		return nil, err
	}
	mux.Handle("/", page)
	mux.Handle("GET /metrics", promhttp.HandlerFor(d.metrics, promhttp.HandlerOpts{}))
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) {
		_, _ = w.Write([]byte("ok\n"))
	})
	mux.HandleFunc("GET /readyz", d.ready)
	return httpaccess.Locked(mux), nil
}

// ready answers 200 while notifications can be stored. The registry's health is not part of it: its notifications must
// be taken even while it does not answer our own requests.
func (d *daemon) ready(w http.ResponseWriter, r *http.Request) {
	ctx, cancel := context.WithTimeout(r.Context(), 2*time.Second)
	defer cancel()
	if err := d.db.Ping(ctx); err != nil {
		d.logger.Warn("not ready", "side", "local", "error", err)
		http.Error(w, "the database cannot be reached", http.StatusServiceUnavailable)
		return
	}
	_, _ = w.Write([]byte("ready\n"))
}
