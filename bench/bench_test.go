package bench

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/antipode-registry/antipode/internal/registrytest"
)

func TestMain(m *testing.M) {
	if path := os.Getenv("ANTIPODE_BENCH_FLOOR"); path != "" {
		if err := runFloor(path, os.Getenv("ANTIPODE_BENCH_FROM"), os.Getenv("ANTIPODE_BENCH_TO")); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// result is one run of one program.
type result struct {
	Workload, Program string
	RTT               time.Duration
	Wall, CPU         time.Duration
	RSS               int64 // KiB, of the largest process
	Source            traffic
	Destination       traffic
	Own               traffic // between primaryd and its registry; the pair's alone
	At                time.Time
}

// traffic is what passed one proxy.
type traffic struct {
	Requests int
	Bytes    int64 // of bodies, both ways
	Kinds    map[string]int
}

func measure(p *registrytest.Proxy) traffic {
	if p == nil {
		return traffic{}
	}
	t := traffic{Kinds: map[string]int{}}
	for _, r := range p.Requests() {
		t.Requests++
		t.Bytes += r.RequestBytes + r.ResponseBytes
		t.Kinds[r.Method+" "+r.Kind]++
	}
	return t
}

// BenchmarkCopy runs the workloads of ANTIPODE_BENCH_WORKLOADS by the programs of ANTIPODE_BENCH_PROGRAMS at the round
// trips of ANTIPODE_BENCH_RTT and appends each result to ANTIPODE_BENCH_RESULTS as a line of JSON.
func BenchmarkCopy(b *testing.B) {
	storage := b.TempDir()
	for _, w := range workloads {
		if !chosen("ANTIPODE_BENCH_WORKLOADS", w.name) {
			continue
		}
		for _, name := range []string{"floor", "antipode", "regsync", "crane", "oras", "skopeo"} {
			if !chosen("ANTIPODE_BENCH_PROGRAMS", name) {
				continue
			}
			for _, rtt := range rtts(b) {
				b.Run(fmt.Sprintf("%s/%s/%s", w.name, name, rtt), func(b *testing.B) {
					for b.Loop() {
						record(b, once(b, w, name, filepath.Join(storage, w.name), rtt))
					}
				})
			}
		}
	}
}

// stage is what one run stands on.
type stage struct {
	source, destination *registrytest.Process
	before, after, own  *registrytest.Proxy
	program             program
	run                 run
}

func once(b *testing.B, w workload, name, storage string, rtt time.Duration) result {
	b.Helper()
	s := set(b, w, name, storage, rtt)
	if w.before {
		if _, err := s.program.copy(b, s.run); err != nil {
			b.Fatal(err)
		}
	}
	own := measure(s.own) // what primaryd asked to know the source
	s.reset()
	if w.change != nil {
		to := registrytest.NewClient(s.source.URL())
		defer to.Close()
		if err := w.change(b.Context(), to); err != nil {
			b.Fatal(err)
		}
	}
	began := time.Now()
	used, err := s.program.copy(b, s.run)
	if err != nil {
		b.Fatal(err)
	}
	r := result{
		Workload: w.name, Program: name, RTT: rtt, Wall: time.Since(began), CPU: used.cpu, RSS: used.rss,
		Source: measure(s.before), Destination: measure(s.after), Own: measure(s.own), At: began,
	}
	if !w.before {
		r.Own.add(own)
	}
	if err := registrytest.Equal(b.Context(), s.source.URL(), s.destination.URL()); err != nil {
		b.Fatalf("%s left the registries unequal: %v", name, err)
	}
	return r
}

func (t *traffic) add(other traffic) {
	t.Requests, t.Bytes = t.Requests+other.Requests, t.Bytes+other.Bytes
	for kind, n := range other.Kinds {
		if t.Kinds == nil {
			t.Kinds = map[string]int{}
		}
		t.Kinds[kind] += n
	}
}

func (s *stage) reset() {
	for _, p := range []*registrytest.Proxy{s.before, s.after, s.own} {
		if p != nil {
			p.Reset()
		}
	}
}

// set starts the registries and what stands between them and the program. A change to the source must not stay, so such
// a workload has a source of its own for each run.
func set(b *testing.B, w workload, name, storage string, rtt time.Duration) *stage {
	b.Helper()
	if w.change != nil {
		storage = filepath.Join(b.TempDir(), "source")
	}
	s := &stage{run: run{dir: b.TempDir()}}
	var pairs *pair
	var notify []registrytest.Option
	if name == "antipode" {
		pairs = &pair{
			httpAddress: fmt.Sprintf("127.0.0.1:%d", registrytest.ReservePort(b)),
			grpcAddress: fmt.Sprintf("127.0.0.1:%d", registrytest.ReservePort(b)),
		}
		if w.change != nil {
			notify = append(notify, registrytest.WithNotifications("http://"+pairs.httpAddress+"/notifications", secret))
		}
	}
	s.source = w.source(b, storage, notify...)
	s.destination = registrytest.Distribution(b)
	s.before, s.after = registrytest.NewProxy(b, s.source.URL()), registrytest.NewProxy(b, s.destination.URL())
	if rtt > 0 {
		s.before.Fault(func(*http.Request) registrytest.Fault { return registrytest.Fault{Delay: after(rtt)} })
	}
	s.run.source, s.run.destination, s.run.direct = s.before.URL(), s.after.URL(), s.source.URL()
	s.program = named(name, pairs)
	if pairs != nil {
		s.own = registrytest.NewProxy(b, s.source.URL())
		from := registrytest.NewClient(s.source.URL())
		defer from.Close()
		all, err := from.Repositories(b.Context())
		if err != nil {
			b.Fatal(err)
		}
		pairs.own, pairs.repositories = s.own.URL(), len(all)
		pairs.prepare(b, s.run)
	}
	return s
}

// after is a channel that gives a value when the time has passed.
func after(d time.Duration) <-chan struct{} {
	passed := make(chan struct{})
	time.AfterFunc(d, func() { close(passed) })
	return passed
}

func named(name string, p *pair) program {
	switch name {
	case "floor":
		return floorProgram{}
	case "antipode":
		return p
	case "regsync":
		return regsync{}
	case "crane":
		return crane()
	case "oras":
		return oras()
	}
	return skopeo()
}

// chosen says whether a list in the environment names it; an empty list names all.
func chosen(variable, name string) bool {
	list := os.Getenv(variable)
	return list == "" || slices.Contains(strings.Split(list, ","), name)
}

func rtts(b *testing.B) []time.Duration {
	b.Helper()
	var all []time.Duration
	for text := range strings.SplitSeq(os.Getenv("ANTIPODE_BENCH_RTT"), ",") {
		if text == "" {
			text = "0s"
		}
		rtt, err := time.ParseDuration(text)
		if err != nil {
			b.Fatal(err)
		}
		all = append(all, rtt)
	}
	return all
}

// record shows a result and keeps it.
func record(b *testing.B, r result) {
	b.Helper()
	b.Logf("%s %s: wall %.2fs, cpu %.2fs, rss %d MiB, source %d requests %.1f MB, destination %d requests %.1f MB, own %d requests",
		r.Workload, r.Program, r.Wall.Seconds(), r.CPU.Seconds(), r.RSS>>10, r.Source.Requests, float64(r.Source.Bytes)/1e6,
		r.Destination.Requests, float64(r.Destination.Bytes)/1e6, r.Own.Requests)
	b.Logf("  source %v, destination %v, own %v", r.Source.Kinds, r.Destination.Kinds, r.Own.Kinds)
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

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}
