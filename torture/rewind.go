package main

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	_ "modernc.org/sqlite" // copies a database that is in use
)

// How a database becomes an older copy of itself.
const (
	inUse    = "copied in use, put back under stopped daemons"
	crashed  = "copied after SIGKILL, put back under stopped daemons"
	failover = "copied after SIGKILL, recovered to another timeline under running daemons"
)

// rewindings are the ways that the contracts allow (docs/operations.md): daemons are stopped when their database is put
// back; only primaryd goes on when Postgres fails over and loses commits.
func (w *world) rewindings() []rewinding {
	if w.Database == "sqlite" {
		return []rewinding{{primaryData, inUse}, {siteData, inUse}, {primaryData, crashed}, {siteData, crashed}}
	}
	return []rewinding{{primaryData, crashed}, {siteData, crashed}, {primaryData, failover}}
}

// rewind copies a database; end puts the copy in its place.
func (w *world) rewind(ctx context.Context, f fault) (end func() error, err error) {
	side, daemon := "primary", "primaryd"
	if f.Target == siteData {
		side, daemon = "site", "secondaryd"
	}
	var server, daemons []*process
	for _, name := range w.named(daemon) {
		daemons = append(daemons, w.processes[name])
	}
	if w.Database == "postgres" {
		server = append(server, w.processes[side+"-postgres"])
	}
	kept := w.path(side + "-copy")
	switch {
	case f.How == inUse:
		err = w.backUp(ctx, side, kept)
	case w.Database == "sqlite":
		err = without(daemons, func() error { return w.copyData(side, kept) })
	default:
		err = without(server, func() error { return w.copyData(side, kept) })
	}
	if err != nil {
		return nil, fmt.Errorf("copy the database of the %s: %w", side, err)
	}
	stopped := append(daemons, server...)
	if f.How == failover {
		stopped = server
	}
	return func() error {
		return without(stopped, func() error {
			defer w.forgotten(side)
			return w.putBack(side, kept, f.How == failover)
		})
	}, nil
}

// forgotten tells the checks that what a side knew may be lost. Nobody writes to its database meanwhile.
func (w *world) forgotten(side string) {
	if side == "primary" {
		w.ledger.Rewound()
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.siteRewound = time.Now()
}

// backUp copies an SQLite database that is in use.
func (w *world) backUp(ctx context.Context, side, to string) error {
	file := filepath.Join(to, side+".db")
	if err := errors.Join(os.RemoveAll(to), os.Mkdir(to, 0o700)); err != nil {
		return err
	}
	db, err := sql.Open("sqlite", "file:"+strings.TrimPrefix(w.databaseURL(side), "sqlite:")+"?_pragma=busy_timeout(60000)")
	if err != nil {
		return err
	}
	_, err = db.ExecContext(ctx, "VACUUM INTO $1", file)
	return errors.Join(err, db.Close(), os.Chmod(file, 0o600))
}

// copyData copies what a database that nobody uses consists of.
func (w *world) copyData(side, to string) error {
	files, err := w.dataFiles(side)
	if err != nil {
		return err
	}
	return errors.Join(os.RemoveAll(to), os.Mkdir(to, 0o700), copyAll(to, files))
}

// putBack replaces a database that nobody uses. Another timeline is what Postgres begins at the end of a recovery from
// an archive.
func (w *world) putBack(side, from string, timeline bool) error {
	files, err := w.dataFiles(side)
	if err != nil {
		return err
	}
	for _, file := range files {
		if err := os.RemoveAll(file); err != nil {
			return err
		}
	}
	if files, err = filepath.Glob(filepath.Join(from, "*")); err != nil {
		return err
	}
	if err := copyAll(w.path(side+"-data"), files); err != nil || !timeline {
		return err
	}
	return os.WriteFile(w.path(side+"-data/data/recovery.signal"), nil, 0o644) // Postgres runs as another user
}

// dataFiles are an SQLite file with its log, or Postgres' folder.
func (w *world) dataFiles(side string) ([]string, error) {
	if w.Database == "postgres" {
		return []string{w.path(side + "-data/data")}, nil
	}
	return filepath.Glob(w.path(side + "-data/" + side + ".db*"))
}

// copyAll copies files and folders as they are, with their owners.
func copyAll(to string, files []string) error {
	args := append([]string{"-a", "--"}, append(files, to)...)
	output, err := exec.Command("cp", args...).CombinedOutput() //nolint:noctx // takes a second
	if err != nil {
		return fmt.Errorf("cp: %w: %s", err, output)
	}
	return nil
}
