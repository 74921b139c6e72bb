package main

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"
)

// inject carries a plan out, each fault at its time, and returns when all have ended. When ctx ends, the faults that
// have begun end at once and no other begins.
func (w *world) inject(ctx context.Context, faults []fault) {
	for _, f := range faults {
		w.turns[f.Target] = &sync.Mutex{}
	}
	var all sync.WaitGroup
	for _, f := range faults {
		all.Go(func() { w.one(ctx, f) })
	}
	all.Wait()
}

func (w *world) one(ctx context.Context, f fault) {
	if !sleep(ctx, f.At-w.diary.Since()) {
		return
	}
	// On a busy machine the fault before it on the same target may take longer than planned.
	turn := w.turns[f.Target]
	turn.Lock()
	defer turn.Unlock()
	if ctx.Err() != nil {
		return
	}
	w.diary.Note("fault", "%s, for %s", f, f.Lasts)
	w.diary.Count("fault: " + string(f.Kind) + " " + f.Target)
	if f.Kind == misbehave || f.Kind == notify || f.Kind == rewind {
		w.diary.Count("how: " + f.How)
	}
	end, err := w.begin(context.WithoutCancel(ctx), f)
	if err != nil {
		w.diary.Note("fault", "%s could not begin: %v", f, err)
		w.harness(err)
		return
	}
	if end == nil {
		return
	}
	sleep(ctx, f.Lasts)
	if err := end(); err != nil {
		w.diary.Note("fault", "%s could not end: %v", f, err)
		w.harness(err)
		return
	}
	w.diary.Note("fault", "%s is over", f)
}

// begin begins a fault and returns what ends it, nil where it is over at once.
func (w *world) begin(ctx context.Context, f fault) (end func() error, err error) {
	switch f.Kind {
	case kill:
		p := w.processes[f.Target]
		p.Kill()
		return p.Start, nil
	case restart:
		p := w.processes[f.Target]
		p.Stop()
		return p.Start, nil
	case freeze:
		p := w.processes[f.Target]
		p.Freeze()
		return func() error { p.Thaw(); return nil }, nil
	case cut:
		l := w.links[f.Target]
		l.Cut()
		return l.Join, nil
	case delay:
		return w.poison(f, "latency", map[string]any{"latency": f.Amount, "jitter": f.Amount / 3})
	case throttle:
		return w.poison(f, "bandwidth", map[string]any{"rate": f.Amount})
	case halfOpen:
		return w.poison(f, "timeout", map[string]any{"timeout": 0})
	case broken:
		return w.poison(f, "reset_peer", map[string]any{"timeout": f.Amount})
	case misbehave:
		front := w.fronts[f.Target]
		front.Set(mood(f.How))
		return func() error { front.Set(sane); return nil }, nil
	case notify:
		w.hook.Set(delivery(f.How))
		return func() error { w.hook.Set(delivered); return nil }, nil
	case full:
		return w.fill(f.Target)
	case renew:
		return nil, w.renew(f.Target)
	case rewind:
		return w.rewind(ctx, f)
	}
	return nil, fmt.Errorf("no fault is called %s", f.Kind)
}

func (w *world) poison(f fault, toxic string, attributes map[string]any) (func() error, error) {
	l := w.links[f.Target]
	return l.Cure, l.Poison(toxic, f.How, attributes)
}

// harness keeps the first error of the torture itself: a run in which a fault could not be made says nothing.
func (w *world) harness(err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.failed = errors.Join(w.failed, err)
}

// sleep waits, and says whether ctx let it.
func sleep(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}
