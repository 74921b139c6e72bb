package bench

import (
	"bufio"
	"encoding/json"
	"fmt"
	"os"
	"testing"
	"time"

	"github.com/antipode-registry/antipode/internal/registrytest"
)

// result is one run of one program.
type result struct {
	Workload, Program string
	RTT               time.Duration
	Wall              time.Duration
	Processes         []usage // the pair has two
	Source            traffic
	Destination       traffic
	Own               traffic // between primaryd and its registry; the pair's alone
	Link              *linkUse
	Sweep             *traffic // what a round of primaryd's sweep asks of its registry
	Pushes            *pushes
	Incomplete        string // what the destination lacks; "" = it is equal to the source
	At                time.Time
}

// usage is what a process took.
type usage struct {
	Name string
	CPU  time.Duration
	RSS  int64 // KiB, at its highest
}

// traffic is what passed one proxy.
type traffic struct {
	Requests    int
	Bytes       int64 // of bodies, both ways
	Connections int
	Kinds       map[string]int
}

// linkUse is what passed between the daemons.
type linkUse struct {
	Bytes    int64 // both ways, with TLS
	Messages map[string]int
	For      time.Duration
}

// pushes are what a series of pushes came to, one after another.
type pushes struct {
	Count              int
	RequestsEach       float64 // of both daemons to the source's registry, on average
	RequestsMost       int     // for one of them
	P50, P99           time.Duration
	OwnP50, OwnP99     time.Duration // the push itself
	AboveP50, AboveP99 time.Duration // from the end of the push to pullable, less the push
}

func measure(p *registrytest.Proxy) traffic {
	if p == nil {
		return traffic{}
	}
	t := traffic{Kinds: map[string]int{}, Connections: p.Connections()}
	for _, r := range p.Requests() {
		t.Requests++
		t.Bytes += r.RequestBytes + r.ResponseBytes
		t.Kinds[r.Method+" "+r.Kind]++
	}
	return t
}

func (t *traffic) add(other traffic) {
	t.Requests, t.Bytes, t.Connections = t.Requests+other.Requests, t.Bytes+other.Bytes, t.Connections+other.Connections
	for kind, n := range other.Kinds {
		if t.Kinds == nil {
			t.Kinds = map[string]int{}
		}
		t.Kinds[kind] += n
	}
}

func (r result) cpu() (sum time.Duration) {
	for _, one := range r.Processes {
		sum += one.CPU
	}
	return sum
}

// record shows a result and appends it to ANTIPODE_BENCH_RESULTS as a line of JSON.
func record(b *testing.B, r result) {
	b.Helper()
	b.Logf("%s %s: wall %.2fs, source %d requests %.1f MB on %d connections, destination %d requests %.1f MB on %d, own %d requests",
		r.Workload, r.Program, r.Wall.Seconds(), r.Source.Requests, float64(r.Source.Bytes)/1e6, r.Source.Connections,
		r.Destination.Requests, float64(r.Destination.Bytes)/1e6, r.Destination.Connections, r.Own.Requests)
	b.Logf("  source %v, destination %v, own %v", r.Source.Kinds, r.Destination.Kinds, r.Own.Kinds)
	for _, one := range r.Processes {
		b.Logf("  %s: cpu %.2fs, rss %d MiB", one.Name, one.CPU.Seconds(), one.RSS>>10)
	}
	for _, more := range []any{r.Link, r.Sweep, r.Pushes, r.Incomplete} {
		if text, err := json.Marshal(more); err == nil && string(text) != "null" && string(text) != `""` {
			b.Logf("  %.600s", text)
		}
	}
	path := os.Getenv("ANTIPODE_BENCH_RESULTS")
	if path == "" {
		return
	}
	line, err := json.Marshal(r)
	if err != nil {
		b.Fatal(err)
	}
	file, err := os.OpenFile(path, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o644)
	if err != nil {
		b.Fatal(err)
	}
	defer file.Close()
	if _, err := file.Write(append(line, '\n')); err != nil {
		b.Fatal(err)
	}
}

// recorded reads what record has written.
func recorded(path string) ([]result, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	var all []result
	lines := bufio.NewScanner(file)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		var r result
		if err := json.Unmarshal(lines.Bytes(), &r); err != nil {
			return nil, fmt.Errorf("%s: %w", path, err)
		}
		all = append(all, r)
	}
	return all, lines.Err()
}
