// Package node is the directory of the sites: who they are, what each may see, what each last reported, and how each was
// in the last day.
//
// It guarantees that every configured node is listed, those that never reported included, and that what a report says
// is weighed against the time since and the head now: a silent node is never shown as it was. It refuses reports of
// nodes that are not configured, and forgets nothing about them but shows them no longer.
package node

import (
	"context"
	"database/sql"
	"embed"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/antipode-registry/antipode/internal/database"
)

//go:embed migrations
var migrationFiles embed.FS

const (
	// channel is what reports notify.
	channel         = "node"
	defaultInterval = 10 * time.Second
)

// ErrUnknownNode matches (errors.Is) the refusal of a report of a node that is not configured.
var ErrUnknownNode = errors.New("no such node is configured")

// Config is a node of the configuration.
type Config struct {
	Name         string   // as in its certificate
	Repositories []string // doublestar globs; "**" = all, none = nothing
}

// Options are what a Directory needs beside its database. The zero value works.
type Options struct {
	ReportInterval time.Duration // how often nodes report; 0 = 10 s
	Logger         *slog.Logger  // nil discards
}

// Directory keeps the configured nodes. Its methods may be called from many goroutines; errors match
// database.ErrUnavailable where trying again later may help.
type Directory struct {
	db       *database.DB
	interval time.Duration
	logger   *slog.Logger
	grants   atomic.Pointer[grants]

	mu            sync.Mutex
	subscriptions map[string]int
}

// Open creates or migrates the directory's tables. Names must be there once each, and globs must be globs.
func Open(ctx context.Context, db *database.DB, nodes []Config, opts Options) (*Directory, error) {
	d := &Directory{
		db: db, interval: opts.ReportInterval, logger: opts.Logger, subscriptions: make(map[string]int),
	}
	if d.interval <= 0 {
		d.interval = defaultInterval
	}
	if d.logger == nil {
		d.logger = slog.New(slog.DiscardHandler)
	}
	configured, err := newGrants(nodes)
	if err != nil {
		return nil, err
	}
	d.grants.Store(configured)
	migrations, err := fs.Sub(migrationFiles, "migrations")
	if err != nil {
		return nil, fmt.Errorf("node: migrations: %w", err)
	}
	if err := db.Migrate(ctx, "node", migrations); err != nil {
		return nil, fmt.Errorf("node: %w", err)
	}
	return d, nil
}

// Report stores a node's status in place of the one before, with the database's time, and adds it to the node's history.
func (d *Directory) Report(ctx context.Context, name string, s Status) error {
	if !d.Known(name) {
		return fmt.Errorf("node: report of %q: %w", name, ErrUnknownNode)
	}
	if err := s.validate(); err != nil {
		return fmt.Errorf("node: report of %s: %w", name, err)
	}
	text, err := json.Marshal(s)
	if err != nil {
		return fmt.Errorf("node: report of %s: %w: %w", name, ErrInvalidStatus, err)
	}
	err = d.db.Write(ctx, func(ctx context.Context, tx *database.Tx) error {
		now, err := tx.Now(ctx)
		if err != nil {
			return err
		}
		if err := d.sample(ctx, tx, name, s, now); err != nil {
			return err
		}
		_, err = tx.ExecContext(ctx,
			`INSERT INTO node (name, reported_at, status) VALUES ($1, $2, $3)
			ON CONFLICT (name) DO UPDATE SET reported_at = excluded.reported_at, status = excluded.status`,
			name, now.UnixMilli(), string(text))
		if err != nil {
			return err
		}
		return tx.Notify(ctx, channel)
	})
	if err != nil {
		return fmt.Errorf("node: report of %s: %w", name, err)
	}
	return nil
}

// List returns every configured node by name, judged by the database's time and the given head of the feed.
func (d *Directory) List(ctx context.Context, head int64) ([]Node, error) {
	reports, now, err := d.reports(ctx)
	if err != nil {
		return nil, fmt.Errorf("node: list: %w", err)
	}
	configured := d.grants.Load()
	nodes := make([]Node, 0, len(configured.names))
	for _, name := range configured.names {
		nodes = append(nodes, d.node(configured.nodes[name], reports[name], now, head))
	}
	return nodes, nil
}

// Get returns one node as List would, and whether it is configured.
func (d *Directory) Get(ctx context.Context, name string, head int64) (node Node, found bool, err error) {
	if !d.Known(name) {
		return Node{}, false, nil
	}
	nodes, err := d.List(ctx, head)
	if err != nil {
		return Node{}, false, err
	}
	at := slices.IndexFunc(nodes, func(n Node) bool { return n.Name == name })
	if at < 0 { // taken out of the configuration meanwhile
		return Node{}, false, nil
	}
	return nodes[at], true, nil
}

// report is a row of the table.
type report struct {
	at     time.Time
	status *Status
}

func (d *Directory) node(config Config, last report, now time.Time, head int64) Node {
	d.mu.Lock()
	subscriptions := d.subscriptions[config.Name]
	d.mu.Unlock()
	n := Node{
		Name: config.Name, Repositories: slices.Clone(config.Repositories), Head: head,
		ReportedAt: last.at, Subscriptions: subscriptions, Status: last.status,
	}
	n.judge(now, d.interval)
	return n
}

// reports reads the table and the clock. Nodes are a handful, and rows of nodes no longer configured a handful more.
func (d *Directory) reports(ctx context.Context) (reports map[string]report, now time.Time, err error) {
	err = d.db.Read(ctx, func(ctx context.Context, q database.Queryer) error {
		rows, err := q.QueryContext(ctx, "SELECT name, reported_at, status FROM node")
		if err != nil {
			return err
		}
		defer rows.Close()
		if reports, err = d.scan(rows); err != nil {
			return err
		}
		now, err = d.db.Now(ctx, q)
		return err
	})
	return reports, now, err
}

func (d *Directory) scan(rows *sql.Rows) (map[string]report, error) {
	reports := make(map[string]report)
	for rows.Next() {
		var name, text string
		var at int64
		if err := rows.Scan(&name, &at, &text); err != nil {
			return nil, err
		}
		if !d.Known(name) {
			continue
		}
		status := new(Status)
		if err := json.Unmarshal([]byte(text), status); err != nil {
			return nil, fmt.Errorf("status of %s: %w", name, err)
		}
		reports[name] = report{at: time.UnixMilli(at).UTC(), status: status}
	}
	return reports, rows.Err()
}

// Subscribed counts a live subscription of the node until done is called.
func (d *Directory) Subscribed(name string) (done func()) {
	d.count(name, 1)
	var once sync.Once
	return func() { once.Do(func() { d.count(name, -1) }) }
}

func (d *Directory) count(name string, by int) {
	d.mu.Lock()
	d.subscriptions[name] += by
	if d.subscriptions[name] == 0 {
		delete(d.subscriptions, name)
	}
	d.mu.Unlock()
	d.db.Wake(channel)
}

// Watch returns a channel that receives when a node has reported to any replica, when its subscriptions here have
// changed, and, while Run runs, when time alone has changed a state. It holds one wake, which may be spurious. The feed's
// head is not watched. stop ends it; the channel is not closed.
func (d *Directory) Watch() (wake <-chan struct{}, stop func()) { return d.db.Listen(channel) }

// Run wakes the watchers when a node becomes stale or down because it does not report. It returns nil when ctx ends.
func (d *Directory) Run(ctx context.Context) error {
	wake, stop := d.db.Listen(channel)
	defer stop()
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-wake:
		case <-timer.C:
			d.db.Wake(channel) // also ourselves: the next round looks for the next change
			<-wake
		}
		timer.Reset(d.untilNextChange(ctx))
	}
}

// untilNextChange is how long the states will stay as they are if nobody reports.
func (d *Directory) untilNextChange(ctx context.Context) time.Duration {
	reports, now, err := d.reports(ctx)
	if err != nil {
		if ctx.Err() == nil {
			d.logger.WarnContext(ctx, "cannot look which nodes are silent", "error", err)
		}
		return d.interval
	}
	soonest := now.Add(downAfter)
	for _, report := range reports {
		if at := nextChange(report.at, now, d.interval); !at.IsZero() && at.Before(soonest) {
			soonest = at
		}
	}
	return soonest.Sub(now)
}
