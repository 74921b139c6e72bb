package main

import (
	"context"
	"os"
	"os/signal"
	"reflect"
	"syscall"
)

// hangups receives SIGHUPs from now on, which end the process until then.
func hangups() (received <-chan os.Signal, stop func()) {
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGHUP)
	return signals, func() { signal.Stop(signals) }
}

// reload reads the configuration again at each SIGHUP, until ctx ends. It returns nil.
func (d *daemon) reload(ctx context.Context, received <-chan os.Signal) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-received:
			d.reconfigure(ctx)
		}
	}
}

// reconfigure takes the nodes and operators that the file names now. A file with a mistake changes nothing.
func (d *daemon) reconfigure(ctx context.Context) {
	next, err := loadSettings(d.path)
	if err == nil {
		err = d.access.Reconfigure(next.nodes(), next.Operators)
	}
	if err != nil {
		d.logger.ErrorContext(ctx, "configuration not read again; all stays as it was", "file", d.path, "error", err)
		return
	}
	d.logger.InfoContext(ctx, "nodes and operators read again", "file", d.path,
		"nodes", len(next.Nodes), "operators", len(next.Operators))
	rest := *next
	rest.Nodes, rest.Operators = d.cfg.Nodes, d.cfg.Operators
	if !reflect.DeepEqual(rest, *d.cfg) {
		d.logger.WarnContext(ctx, "other keys of the configuration have changed too; they count from the next start",
			"file", d.path)
	}
}
