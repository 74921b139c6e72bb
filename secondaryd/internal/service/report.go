package service

import (
	"context"
	"log/slog"
	"time"

	antipodev1 "github.com/antipode-registry/antipode/gen/antipode/v1"
)

// Intervals of the reports: one at least every ten seconds, and one on change, but not more often than twice a second.
const (
	reportEvery  = 10 * time.Second
	reportAtMost = 500 * time.Millisecond
	reportWithin = 10 * time.Second
)

// Primary takes reports; *client.Client implements it.
type Primary interface {
	Report(ctx context.Context, node string, status *antipodev1.NodeStatus) error
}

// Reporter tells the primary how the site is. Of several processes the leader does, and every one while the site's
// database does not answer, for nobody leads then.
type Reporter struct {
	node    string
	status  *Status
	primary Primary
	wake    func() (<-chan struct{}, func())
	logger  *slog.Logger
	began   chan struct{} // to lead
}

// NewReporter returns a Reporter that also reports whenever wake's channel fires.
func NewReporter(node string, s *Status, p Primary, wake func() (<-chan struct{}, func()), l *slog.Logger) *Reporter {
	return &Reporter{node: node, status: s, primary: p, wake: wake, logger: l, began: make(chan struct{}, 1)}
}

// Begin has a process that begins to lead report now.
func (r *Reporter) Begin() {
	select {
	case r.began <- struct{}{}:
	default:
	}
}

// Run reports until ctx ends. A report that does not arrive is replaced by the next one.
func (r *Reporter) Run(ctx context.Context) error {
	changed, stop := r.wake()
	defer stop()
	every := time.NewTicker(reportEvery)
	defer every.Stop()
	for failed := false; ; {
		if r.speaks(ctx) {
			failed = r.report(ctx, failed)
		}
		// What changes in quick succession is told once.
		if !rest(ctx, reportAtMost) {
			return nil
		}
		select {
		case <-changed:
		case <-r.began:
		case <-every.C:
		case <-ctx.Done():
			return nil
		}
	}
}

// speaks says whether it is on this process to report.
func (r *Reporter) speaks(ctx context.Context) bool {
	return r.status.from.Replica.Leads() || ping(ctx, r.status.from.Database) != nil
}

// report sends one status, and logs when that begins or ceases to fail.
func (r *Reporter) report(ctx context.Context, failedBefore bool) (failed bool) {
	bounded, cancel := context.WithTimeout(ctx, reportWithin)
	defer cancel()
	err := r.primary.Report(bounded, r.node, r.status.Make(bounded))
	switch {
	case err != nil && !failedBefore && ctx.Err() == nil:
		r.logger.Warn("could not report the status", "side", "primary", "error", err)
	case err == nil && failedBefore:
		r.logger.Info("reporting the status again")
	}
	return err != nil
}

func rest(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}
