package bench

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/antipode-registry/antipode/internal/registrytest"
)

func TestMain(m *testing.M) {
	var err error
	switch {
	case os.Getenv(launchVariable) != "":
		err = runLaunch(os.Getenv(launchVariable))
	case os.Getenv("ANTIPODE_BENCH_FLOOR") != "":
		err = runFloor(os.Getenv("ANTIPODE_BENCH_FLOOR"), os.Getenv("ANTIPODE_BENCH_FROM"), os.Getenv("ANTIPODE_BENCH_TO"))
	default:
		os.Exit(m.Run())
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// BenchmarkCopy runs the workloads of ANTIPODE_BENCH_WORKLOADS at the round trips of ANTIPODE_BENCH_RTT, each
// ANTIPODE_BENCH_RUNS times by each of the programs of ANTIPODE_BENCH_PROGRAMS in turn, and appends each result to
// ANTIPODE_BENCH_RESULTS as a line of JSON. W5 and W6 go on where W1 ends, so W1 is measured with them.
func BenchmarkCopy(b *testing.B) {
	runs, err := strconv.Atoi(value("ANTIPODE_BENCH_RUNS", "1"))
	if err != nil {
		b.Fatal(err)
	}
	storage := b.TempDir()
	for _, w := range workloads {
		if !w.chosen() {
			continue
		}
		for _, rtt := range rtts(b) {
			for run := range runs {
				for _, name := range programs {
					if !chosen("ANTIPODE_BENCH_PROGRAMS", name) || name == byTagName && !w.sharesManifests {
						continue
					}
					b.Run(fmt.Sprintf("%s/%s/%d/%s", w.name, rtt, run+1, name), func(b *testing.B) {
						once(b, w, name, filepath.Join(storage, w.name), rtt)
					})
				}
			}
		}
	}
}

const (
	floorName = "floor"
	// byTagName is a floor that knows the names of tags and not what they name: it reads a manifest for each. It differs
	// from the floor where tags share manifests.
	byTagName = "floor-by-tag"
)

var programs = []string{floorName, byTagName, "antipode", "regsync", "crane", "oras", "skopeo"}

func isFloor(name string) bool { return name == floorName || name == byTagName }

// stage is what one run stands on.
type stage struct {
	workload            workload
	source, destination registry
	before, after, own  *registrytest.Proxy
	program             program
	run                 run
	name                string
	rtt                 time.Duration
}

// registry is one of either kind.
type registry interface{ URL() string }

// once lets one program copy one workload into an empty registry, and goes on from there where the workload does.
func once(b *testing.B, w workload, name, storage string, rtt time.Duration) {
	b.Helper()
	s := set(b, w, name, storage, rtt)
	known := measure(s.own) // what primaryd asked to know the source
	r := s.measured(b, w.name)
	if name == "antipode" {
		r.Own.add(known)
	}
	record(b, r)
	if r.Incomplete != "" || !w.goesOn {
		return
	}
	if chosen("ANTIPODE_BENCH_WORKLOADS", unchangedName) && !isFloor(name) {
		record(b, s.unchanged(b))
	}
	if chosen("ANTIPODE_BENCH_WORKLOADS", oneNewTagName) {
		record(b, s.oneNewTag(b))
	}
}

// measured lets the program copy, counts from here on, and compares at the end.
func (s *stage) measured(b *testing.B, workload string) result {
	b.Helper()
	if err := s.program.prepare(b, s.run); err != nil {
		b.Fatal(err)
	}
	s.reset()
	began := time.Now()
	used, err := s.program.copy(b, s.run)
	if err != nil {
		b.Fatal(err)
	}
	r := result{
		Workload: workload, Program: s.name, RTT: s.rtt, Wall: time.Since(began), Processes: used,
		Source: measure(s.before), Destination: measure(s.after), Own: measure(s.own), At: began,
	}
	r.Incomplete = s.compare(b)
	return r
}

// compare says what the destination lacks. The floor and the pair must lack nothing.
func (s *stage) compare(b *testing.B) string {
	b.Helper()
	err := equal(b.Context(), s.source.URL(), s.destination.URL(), s.workload.referrersAPI)
	switch {
	case err == nil:
		return ""
	case isFloor(s.name) || s.name == "antipode":
		b.Fatalf("%s left the registries unequal: %.4000v", s.name, err)
	}
	return fmt.Sprintf("%.300v", err)
}

// unchanged lets the program run again over what it has copied; the pair runs on.
func (s *stage) unchanged(b *testing.B) result {
	b.Helper()
	p, isPair := s.program.(*pair)
	if !isPair {
		return s.measured(b, unchangedName)
	}
	s.reset()
	r := result{Workload: unchangedName, Program: s.name, RTT: s.rtt, At: time.Now()}
	before := p.used(b)
	r.Link = p.idle(b)
	r.Wall, r.Processes = time.Since(r.At), less(p.used(b), before)
	r.Source, r.Destination, r.Own = measure(s.before), measure(s.after), measure(s.own)
	s.reset()
	p.sweep(b)
	swept := measure(s.own)
	r.Sweep = &swept
	return r
}

// oneNewTag pushes an image and lets the program copy that. Of the pair a series of pushes is measured, too.
func (s *stage) oneNewTag(b *testing.B) result {
	b.Helper()
	to := registrytest.NewClient(s.source.URL())
	defer to.Close()
	if p, isPair := s.program.(*pair); isPair {
		r := s.push(b, to, p)
		r.Pushes = s.series(b, to)
		r.Incomplete = s.compare(b)
		return r
	}
	if err := to.Push(b.Context(), repository(1), "new", newImage(0)); err != nil {
		b.Fatal(err)
	}
	if _, isFloor := s.program.(*floorProgram); isFloor {
		s.program = &floorProgram{repository: repository(1), tag: "new"}
	}
	return s.measured(b, oneNewTagName)
}

func (s *stage) reset() {
	for _, p := range []*registrytest.Proxy{s.before, s.after, s.own} {
		if p != nil {
			p.Reset()
		}
	}
}

// set starts the registries and what stands between them and the program. The workload's content is made once; a
// change to the source must not stay, so such a workload has a copy of it for each run.
func set(b *testing.B, w workload, name, storage string, rtt time.Duration) *stage {
	b.Helper()
	s := &stage{workload: w, name: name, rtt: rtt, run: run{dir: b.TempDir(), rtt: rtt, referrersAPI: w.referrersAPI}}
	var notify []registrytest.Option
	var p *pair
	if name == "antipode" {
		p = newPair(b)
		notify = append(notify, registrytest.WithNotifications("http://"+p.httpAddress+"/notifications", secret))
	}
	s.source, s.destination = w.registries(b, storage, notify...)
	s.before, s.after = registrytest.NewProxy(b, s.source.URL()), registrytest.NewProxy(b, s.destination.URL())
	s.run.source, s.run.destination, s.run.direct = s.before.URL(), s.after.URL(), s.source.URL()
	if cap := bandwidth(b); rtt > 0 || cap > 0 {
		s.run.source = "http://" + newRelay(b, s.before.Host(), rtt, cap).address()
	}
	if p == nil {
		s.program = named(name)
		return s
	}
	s.program = p
	s.own = registrytest.NewProxy(b, s.source.URL())
	p.own, p.after = s.own.URL(), s.after
	p.start(b, s.run)
	return s
}

func named(name string) program {
	switch name {
	case floorName:
		return &floorProgram{}
	case byTagName:
		return &floorProgram{byTag: true}
	case "regsync":
		return &regsync{}
	case "crane":
		return crane()
	case "oras":
		return oras()
	}
	return skopeo()
}

func value(variable, otherwise string) string {
	if text := os.Getenv(variable); text != "" {
		return text
	}
	return otherwise
}

// chosen says whether a list in the environment names it; an empty list names all.
func chosen(variable, name string) bool {
	list := os.Getenv(variable)
	return list == "" || slices.Contains(strings.Split(list, ","), name)
}

func rtts(b *testing.B) []time.Duration {
	b.Helper()
	var all []time.Duration
	for text := range strings.SplitSeq(value("ANTIPODE_BENCH_RTT", "0s"), ",") {
		rtt, err := time.ParseDuration(text)
		if err != nil {
			b.Fatal(err)
		}
		all = append(all, rtt)
	}
	return all
}

// bandwidth is the cap of the line to the source, in bytes a second; 0 = none.
func bandwidth(b *testing.B) int {
	b.Helper()
	mib, err := strconv.ParseFloat(value("ANTIPODE_BENCH_BANDWIDTH", "0"), 64)
	if err != nil {
		b.Fatal(err)
	}
	return int(mib * (1 << 20))
}
