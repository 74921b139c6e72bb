package main

import (
	"io"
	"testing"
)

// TestLeaksAreJudged: what a daemon holds at its busiest says nothing, nor does what it takes at its start.
func TestLeaksAreJudged(t *testing.T) {
	t.Parallel()
	flat := func(int) int64 { return 40 }
	for name, test := range map[string]struct {
		goroutines func(i int) int64
		samples    int
		wrong      bool
	}{
		"rests":              {flat, 60, false},
		"leaks":              {func(i int) int64 { return 40 + 4*int64(i) }, 60, true},
		"lived too shortly":  {func(i int) int64 { return 40 + 400*int64(i) }, samplesLeft + samplesMost - 1, false},
		"is busy at the end": {func(i int) int64 { return 40 + 10*int64(i)*int64(i%10) }, 60, false},
		"starts with little": {func(i int) int64 { return 40 * int64(min(i, samplesLeft)) }, 60, false},
	} {
		var samples []usage
		for i := range test.samples {
			samples = append(samples, usage{goroutines: test.goroutines(i), descriptors: 20, memory: 30 << 20})
		}
		l := leaks{world: &world{diary: newDiary(io.Discard)}}
		l.judge(lifetime{name: "daemon", pid: 1}, samples)
		if found := l.world.diary.Violations(); (len(found) > 0) != test.wrong {
			t.Errorf("one that %s: %q", name, found)
		}
	}
}
