package bench

import (
	"bufio"
	"cmp"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/antipode-registry/antipode/internal/registrytest"
)

// idleFor is how long the pair is watched while nothing changes: three heartbeats.
const idleFor = 31 * time.Second

// idle watches the link for a while.
func (p *pair) idle(t testing.TB) *linkUse {
	t.Helper()
	messages, passed := p.messages(t), p.link.passed.Load()
	timer := time.NewTimer(idleFor)
	defer timer.Stop()
	<-timer.C
	use := &linkUse{For: idleFor, Bytes: p.link.passed.Load() - passed, Messages: map[string]int{}}
	for name, count := range p.messages(t) {
		if count > messages[name] {
			use.Messages[name] = count - messages[name]
		}
	}
	return use
}

// messages are those that primaryd has received and sent over gRPC, by direction and method.
func (p *pair) messages(t testing.TB) map[string]int {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+p.httpAddress+"/metrics", nil)
	if err != nil {
		t.Fatal(err)
	}
	client := http.Client{}
	resp, err := client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer drain(resp)
	counts := map[string]int{}
	for lines := bufio.NewScanner(resp.Body); lines.Scan(); {
		series, count, _ := strings.Cut(lines.Text(), " ")
		_, rest, found := strings.Cut(series, "grpc_server_msg_")
		_, labels, _ := strings.Cut(rest, `grpc_method="`)
		method, _, _ := strings.Cut(labels, `"`)
		if n, err := strconv.ParseFloat(count, 64); found && err == nil {
			direction, _, _ := strings.Cut(rest, "_")
			counts[direction+" "+method] += int(n)
		}
	}
	return counts
}

// sweep has primaryd sweep, as it does when the registry has restarted, and waits until it has.
func (p *pair) sweep(t testing.TB) {
	t.Helper()
	before := p.sweeps(t)
	p.notify(t, "one")
	p.notify(t, "another")
	p.awaitSweeps(t, before+1)
}

// notify sends what an instance of a registry says of a pull.
func (p *pair) notify(t testing.TB, instance string) {
	t.Helper()
	event := fmt.Sprintf(`{"events":[{"id":"1","timestamp":"2026-01-01T00:00:00Z","action":"pull",`+
		`"target":{"repository":"any"},"source":{"instanceID":%q}}]}`, instance)
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://"+p.httpAddress+"/notifications",
		strings.NewReader(event))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+secret)
	client := http.Client{}
	resp, err := client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	drain(resp)
	if resp.StatusCode != http.StatusOK {
		t.Fatalf("notification: %s", resp.Status)
	}
}

// meet has primaryd hear from the source's registry for the first time, and sweep because of it.
func (s *stage) meet(b *testing.B, to *registrytest.Client, p *pair) {
	b.Helper()
	before := p.sweeps(b)
	p.notify(b, "one")
	arrived := p.arrivals(1)
	if err := to.Push(b.Context(), repository(1), "first", newImage(-1)); err != nil {
		b.Fatal(err)
	}
	<-arrived
	p.awaitSweeps(b, before+1)
	p.awaitSynced(b)
}

// push pushes one image, once the daemons know the registry, and waits until the destination has its tag and the pair has nothing more to do.
func (s *stage) push(b *testing.B, to *registrytest.Client, p *pair) result {
	b.Helper()
	s.meet(b, to, p)
	s.reset()
	before := p.used(b)
	arrived := p.arrivals(1)
	r := result{Workload: oneNewTagName, Program: s.name, RTT: s.rtt, At: time.Now()}
	if err := to.Push(b.Context(), repository(1), "new", newImage(0)); err != nil {
		b.Fatal(err)
	}
	<-arrived
	r.Wall = time.Since(r.At)
	p.awaitSynced(b)
	r.Processes = less(p.used(b), before)
	r.Source, r.Destination, r.Own = measure(s.before), measure(s.after), measure(s.own)
	return r
}

// series pushes images one after another, each to the next repository, and measures from the end of each push until the
// destination's registry has taken the tag.
func (s *stage) series(b *testing.B, to *registrytest.Client) *pushes {
	b.Helper()
	count, err := strconv.Atoi(value("ANTIPODE_BENCH_PUSHES", "100"))
	if err != nil {
		b.Fatal(err)
	}
	arrived := make(chan time.Time, 1)
	s.after.Ended(func(r registrytest.Request) {
		if isTagWrite(r) {
			arrived <- time.Now()
		}
	})
	defer s.after.Ended(nil)
	var took, own, above []time.Duration
	p := &pushes{Count: count}
	for i := range count {
		s.reset()
		img := newImage(i + 1)
		began := time.Now()
		if err := to.Push(b.Context(), repository(i%scaled(100)), fmt.Sprintf("push-%d", i), img); err != nil {
			b.Fatal(err)
		}
		pushed := time.Now()
		var at time.Time
		select {
		case at = <-arrived:
		case <-time.After(patience):
			b.Fatalf("push %d has not arrived after %s", i, patience)
		}
		own, took = append(own, pushed.Sub(began)), append(took, at.Sub(pushed))
		above = append(above, at.Sub(pushed)-pushed.Sub(began))
		requests := measure(s.before).Requests + measure(s.own).Requests
		p.RequestsEach += float64(requests) / float64(count)
		p.RequestsMost = max(p.RequestsMost, requests)
	}
	p.P50, p.P99 = quantile(took, 50), quantile(took, 99)
	p.OwnP50, p.OwnP99 = quantile(own, 50), quantile(own, 99)
	p.AboveP50, p.AboveP99 = quantile(above, 50), quantile(above, 99)
	return p
}

// quantile is the smallest value that so many of a hundred do not exceed.
func quantile[T cmp.Ordered](values []T, percent int) T {
	sorted := slices.Sorted(slices.Values(values))
	return sorted[max(0, (len(sorted)*percent+99)/100-1)]
}

// profileVariable names the file that a daemon writes its CPU profile to, if it was built to: see testdata/profile.go.
const profileVariable = "ANTIPODE_BENCH_PROFILE"

func profileOf(t testing.TB, daemon string) string {
	t.Helper()
	dir := os.Getenv("ANTIPODE_BENCH_PROFILES")
	if dir == "" {
		return ""
	}
	return filepath.Join(dir, strings.NewReplacer("BenchmarkCopy/", "", "/", "-").Replace(t.Name())+"-"+daemon+".cpu")
}

// profiled ends the daemons' profiles.
func (p *pair) profiled(t testing.TB) {
	t.Helper()
	if os.Getenv("ANTIPODE_BENCH_PROFILES") == "" {
		return
	}
	for _, daemon := range []*os.Process{p.primary.Process, p.secondary.Process} {
		if err := daemon.Signal(syscall.SIGUSR1); err != nil {
			t.Fatal(err)
		}
	}
}
