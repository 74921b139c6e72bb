package main

import (
	"context"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/antipode-registry/antipode/internal/gateway"
	"github.com/antipode-registry/antipode/internal/httpaccess"
)

// handler is everything that secondaryd serves over HTTP.
func (d *daemon) handler(ctx context.Context) (http.Handler, error) {
	api, err := gateway.Secondary(ctx, d.local)
	if err != nil {
		return nil, err
	}
	mux := http.NewServeMux()
	mux.Handle("/api/", d.room.Admit(api, nil))
	mux.Handle("GET /metrics", promhttp.HandlerFor(d.metrics, promhttp.HandlerOpts{}))
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) {
		_, _ = w.Write([]byte("ok\n"))
	})
	mux.HandleFunc("GET /readyz", d.ready)
	return httpaccess.Locked(mux), nil
}

// ready answers 200 while the site can do its work: its database and its registry answer. The primary is not part of
// it: a site that waits for its primary is well.
func (d *daemon) ready(w http.ResponseWriter, r *http.Request) {
	ctx, cancel := context.WithTimeout(r.Context(), 2*time.Second)
	defer cancel()
	if err := d.db.Ping(ctx); err != nil {
		d.unready(w, "the database cannot be reached", "local", err)
		return
	}
	if err := d.site.Ping(ctx); err != nil {
		d.unready(w, "the registry does not answer", "destination", err)
		return
	}
	_, _ = w.Write([]byte("ready\n"))
}

func (d *daemon) unready(w http.ResponseWriter, why, side string, err error) {
	d.logger.Warn("not ready", "side", side, "error", err)
	http.Error(w, why, http.StatusServiceUnavailable)
}
