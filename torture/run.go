package main

import (
	"context"
	"fmt"
	"io"
	"path/filepath"
	"sync"
	"time"

	"github.com/antipode-registry/antipode/internal/registrytest"
)

// options say what a run is.
type options struct {
	Seed     uint64
	Duration time.Duration // of work and faults; starting and the end come on top
	Database string        // sqlite, or postgres for two replicas of each daemon
	Programs string        // the folder of primaryd and secondaryd
	Registry string        // the program of CNCF distribution
	Keep     bool          // leave the folder of the run even when nothing was found
}

// summary is what a run came to.
type summary struct {
	Seed       uint64         `json:"seed"`
	Database   string         `json:"database"`
	Cast       string         `json:"cast"` // the registries of the primary and of the site
	Duration   string         `json:"duration"`
	Began      time.Time      `json:"began"`
	EqualAfter string         `json:"equal_after"`
	Counts     map[string]int `json:"counts"`
	Violations []string       `json:"violations"`
}

// run makes one run and writes its log to out. Its error says that the run could not be made; what it found is in the
// summary.
func run(ctx context.Context, o options, out io.Writer) (summary, error) {
	d := newDiary(out)
	s := summary{Seed: o.Seed, Database: o.Database, Cast: o.cast().String(), Duration: o.Duration.String(), Began: d.began.UTC()}
	d.Note("run", "seed %d, %s, %s: %s", o.Seed, o.Duration, o.Database, o.cast())
	l := newLedger()
	alive, stop := context.WithCancel(ctx)
	defer stop()
	w, err := newWorld(alive, o, d, l)
	if w == nil {
		return s, err
	}
	defer func() { w.Close(o.Keep || err != nil || len(d.Violations()) > 0) }()
	if err != nil {
		return s, err
	}
	s.EqualAfter = w.torture(alive).Round(10 * time.Millisecond).String()
	s.Counts, s.Violations = d.Counts(), d.Violations()
	if err = w.failed; err == nil {
		err = ctx.Err()
	}
	return s, err
}

// torture works and breaks, watches meanwhile, and waits for the end to be good.
func (w *world) torture(ctx context.Context) (equalAfter time.Duration) {
	primary := registrytest.NewClient(w.url(primaryRegistry))
	defer primary.Close()
	site := registrytest.NewClient(w.url(siteRegistry))
	defer site.Close()
	watching, look := context.WithCancel(ctx)
	var watchers sync.WaitGroup
	watchers.Go(func() {
		(&watcher{client: site, ledger: w.ledger, diary: w.diary, told: map[string]bool{}}).Run(watching)
	})
	watchers.Go(func() {
		(&honesty{world: w, ledger: w.ledger, swept: map[string][]time.Time{}, told: map[string]bool{}}).Run(watching)
	})
	watchers.Go(func() { (&leaks{world: w, lives: map[lifetime][]usage{}}).Run(watching) })

	w.diary.Restart() // the plan's time begins when all is ready
	work := &workload{
		seed: w.Seed, client: primary, ledger: w.ledger, diary: w.diary, api: w.cast().primary == inMemory,
		storage: filepath.Join(w.path(primaryStorage), "registry"),
	}
	working, rest := context.WithTimeout(ctx, w.Duration)
	var workers sync.WaitGroup
	workers.Go(func() { work.Run(working) })
	w.inject(working, plan(w.Seed, w.Duration, w.parts()))
	workers.Wait()
	rest()
	w.diary.Note("finish", "the work and the faults are over")
	equalAfter = w.finish(ctx)
	look()
	watchers.Wait()
	return equalAfter
}

// programs fills in what was not given: programs built from, and tools installed in, the module at root.
func (o *options) programs(root string) error {
	if o.Registry == "" {
		o.Registry = filepath.Join(root, ".tools", "bin", "registry")
	}
	if o.Database != "sqlite" && o.Database != "postgres" {
		return fmt.Errorf("%q is no database: sqlite or postgres", o.Database)
	}
	return nil
}
