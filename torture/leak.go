package main

import (
	"context"
	"fmt"
	"sync"
	"time"
)

// samplePause is the time from one look at what a daemon holds to the next.
const samplePause = 2 * time.Second

// A daemon is judged by the life of a process: the least that it held in the last third of it, less the least in the
// first. The least is what it holds while it rests. A life that is too short to have rested in both says nothing; the
// first samples of each are left out, as a daemon takes what it needs then.
const (
	samplesLeft = 5
	samplesMost = 15 // at least so many are judged
)

// Bounds of that growth. A daemon that has much to do at the one time and little at the other differs by some
// connections and their goroutines, and by what the collector has not given back yet.
const (
	moreGoroutines  = 100
	moreDescriptors = 60
	moreMemory      = 64 << 20
)

// usage is what a daemon holds.
type usage struct{ goroutines, descriptors, memory int64 }

func (u usage) String() string {
	return fmt.Sprintf("%d goroutines, %d descriptors, %d MiB", u.goroutines, u.descriptors, u.memory>>20)
}

// less is a usage without another.
func (u usage) less(other usage) usage {
	return usage{u.goroutines - other.goroutines, u.descriptors - other.descriptors, u.memory - other.memory}
}

// above says whether any of it is above a bound.
func (u usage) above(bound usage) bool {
	return u.goroutines > bound.goroutines || u.descriptors > bound.descriptors || u.memory > bound.memory
}

// least is the least of each.
func least(of []usage) usage {
	low := of[0]
	for _, u := range of[1:] {
		low = usage{min(low.goroutines, u.goroutines), min(low.descriptors, u.descriptors), min(low.memory, u.memory)}
	}
	return low
}

// leaks samples what the daemons hold.
type leaks struct {
	world *world
	lives map[lifetime][]usage
}

// lifetime is one process of a daemon.
type lifetime struct {
	name string
	pid  int
}

// Run samples until ctx ends, and then judges.
func (l *leaks) Run(ctx context.Context) {
	for sleep(ctx, samplePause) {
		var all sync.WaitGroup
		var mu sync.Mutex
		for _, name := range l.world.daemonNames() {
			all.Go(func() {
				pid := l.world.processes[name].PID()
				limited, cancel := context.WithTimeout(ctx, answerPatience)
				defer cancel()
				held, err := l.world.usage(limited, name)
				if err != nil || pid == 0 || l.world.processes[name].PID() != pid {
					return // it is down, or frozen
				}
				mu.Lock()
				defer mu.Unlock()
				life := lifetime{name, pid}
				l.lives[life] = append(l.lives[life], held)
			})
		}
		all.Wait()
	}
	for life, samples := range l.lives {
		l.judge(life, samples)
	}
}

func (l *leaks) judge(life lifetime, samples []usage) {
	if len(samples) < samplesLeft+samplesMost {
		return
	}
	samples = samples[samplesLeft:]
	third := len(samples) / 3
	first, last := least(samples[:third]), least(samples[len(samples)-third:])
	l.world.diary.Count("check: lives of daemons judged for growth")
	l.world.diary.Note("leaks", "%s (process %d), %d samples: from %s to %s", life.name, life.pid, len(samples), first, last)
	if last.less(first).above(usage{moreGoroutines, moreDescriptors, moreMemory}) {
		l.world.diary.Violation("%s (process %d) grew from %s to %s", life.name, life.pid, first, last)
	}
}
