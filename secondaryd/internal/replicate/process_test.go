package replicate_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/antipode-registry/antipode/client"
	"github.com/antipode-registry/antipode/internal/database"
	"github.com/antipode-registry/antipode/internal/database/databasetest"
	"github.com/antipode-registry/antipode/internal/registry"
	"github.com/antipode-registry/antipode/internal/registrytest"
	"github.com/antipode-registry/antipode/internal/transfer"
	"github.com/antipode-registry/antipode/secondaryd/internal/plan"
	"github.com/antipode-registry/antipode/secondaryd/internal/replicate"
	"github.com/antipode-registry/antipode/secondaryd/internal/tracking"
)

// These in the environment make this binary a process that works on a site; see work.
const (
	workerDatabase = "REPLICATE_TEST_DATABASE"
	workerSource   = "REPLICATE_TEST_SOURCE"
	workerSite     = "REPLICATE_TEST_SITE"
)

// shortLease is waited for by tests of processes that stop. It is long enough for a loaded machine to renew it.
const shortLease = 5 * time.Second

// work replicates like secondaryd, with one request to the site's registry at a time, until it is killed. What it logs
// goes to its output.
func work() error {
	ctx := context.Background()
	db, err := database.Open(ctx, os.Getenv(workerDatabase), nil)
	if err != nil {
		return err
	}
	store, err := tracking.Open(ctx, db, tracking.Options{Lease: shortLease})
	if err != nil {
		return err
	}
	turns := &turnstile{next: &http.Transport{}}
	site, err := registry.Open(registry.Config{
		URL: os.Getenv(workerSite), Side: registry.Destination, Concurrency: 1, Transport: turns,
	})
	if err != nil {
		return err
	}
	turns.block = sync.OnceFunc(func() { go func() { _ = site.Ping(registry.WithUrgency(ctx)) }() })
	source, err := registry.Open(registry.Config{URL: os.Getenv(workerSource), Side: registry.Source})
	if err != nil {
		return err
	}
	return replicate.New(replicate.Parts{
		Tracking: store, Primary: completely{newAnnouncer(source, os.Getenv(workerSource))}, Site: site,
		Copier: transfer.New(site, store.Content(), transfer.Options{}),
	}, replicate.Options{
		Owner: "process", Workers: 1, Lease: shortLease,
		Policy:     plan.Policy{Deletions: true, BrakeShare: 1},
		SiteBrake:  tracking.SiteBrake{Share: 1, Window: time.Hour},
		Target:     func(repository string) string { return repository },
		OpenSource: func(string) (*registry.Registry, error) { return source, nil },
		Logger:     slog.New(slog.NewTextHandler(os.Stdout, nil)),
	}).Run(ctx)
}

// completely lists whole repositories.
type completely struct{ *announcer }

func (c completely) Tags(ctx context.Context, repository string, _ client.Position) (client.Listing, error) {
	return c.announcer.Tags(ctx, repository, client.Position{})
}

// turnstile is a registry that is too busy for the first delete, until something else has taken the only turn in the
// queue. So the delete waits there to be tried again, until a line on the standard input frees the turn.
type turnstile struct {
	next  http.RoundTripper
	block func() // asks for the turn

	mu   sync.Mutex
	held bool
}

func (s *turnstile) RoundTrip(req *http.Request) (*http.Response, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.held:
	case req.Method == http.MethodDelete:
		s.block()
		return &http.Response{StatusCode: http.StatusServiceUnavailable, Body: http.NoBody}, nil
	case req.URL.Path == "/v2/":
		s.held = true
		fmt.Println("held")
		if _, err := bufio.NewReader(os.Stdin).ReadString('\n'); err != nil {
			return nil, err
		}
	}
	return s.next.RoundTrip(req)
}

// process is a worker of its own, with a proxy of its own before the site's registry.
type process struct {
	*stage
	cmd *exec.Cmd
	to  *registrytest.Proxy
	in  io.WriteCloser
	out *bufio.Scanner
}

func startProcess(s *stage) *process {
	s.Helper()
	p := &process{stage: s, cmd: exec.CommandContext(s.Context(), os.Args[0]), to: registrytest.NewProxy(s.T, s.site)}
	p.cmd.Env = append(os.Environ(), workerDatabase+"="+databasetest.URL(s.T, s.db), workerSource+"="+s.source,
		workerSite+"="+p.to.URL())
	p.cmd.Stderr = os.Stderr
	in, err := p.cmd.StdinPipe()
	s.must(err)
	out, err := p.cmd.StdoutPipe()
	s.must(err)
	p.in, p.out = in, bufio.NewScanner(out)
	s.must(p.cmd.Start())
	s.Cleanup(func() {
		_ = p.cmd.Process.Kill()
		_ = p.cmd.Wait()
	})
	return p
}

func (p *process) signal(signal syscall.Signal) {
	p.Helper()
	p.must(p.cmd.Process.Signal(signal))
}

// until reads what the process says until a line has all of the parts in it.
func (p *process) until(parts ...string) {
	p.Helper()
	for p.out.Scan() {
		missing := 0
		for _, part := range parts {
			if !strings.Contains(p.out.Text(), part) {
				missing++
			}
		}
		if missing == 0 {
			return
		}
		p.Log("the process says", p.out.Text())
	}
	p.Fatalf("the process ended (%v) and did not say %q", p.out.Err(), parts)
}

// whileLocked calls fn while nobody can read or write what is tracked.
func (s *stage) whileLocked(fn func()) {
	s.Helper()
	s.must(s.db.Write(s.Context(), func(ctx context.Context, tx *database.Tx) error {
		if _, err := tx.ExecContext(ctx, "LOCK TABLE repository IN ACCESS EXCLUSIVE MODE"); err != nil {
			return err
		}
		fn()
		return nil
	}))
}

// waitForFinish waits until somebody who ends a lease waits for a lock.
func (s *stage) waitForFinish() {
	s.Helper()
	registrytest.Eventually(s.T, enough, func(ctx context.Context) error {
		return s.db.Read(ctx, func(ctx context.Context, q database.Queryer) error {
			var waiting int
			err := q.QueryRowContext(ctx, `SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()
				AND wait_event_type = 'Lock' AND query LIKE 'SELECT wanted_revision%FOR UPDATE'`).Scan(&waiting)
			if err == nil && waiting == 0 {
				err = fmt.Errorf("nobody is about to end a lease")
			}
			return err
		})
	})
}

// A process that is stopped with a delete in its queue loses the repository to another one. The tag is pushed again, and
// synced. When the first one wakes up, its delete is the next to be sent, and nothing but its own clock can tell it not
// to: the database does not answer it.
func TestStoppedProcessSendsNoDelete(t *testing.T) {
	t.Parallel()
	databasetest.SkipWithoutPostgres(t)
	s := buildStage(t, registrytest.InMemory(t, false).URL(), registrytest.InMemory(t, false).URL())
	s.db = databasetest.OpenPostgres(t)
	var err error
	s.store, err = tracking.Open(t.Context(), s.db, tracking.Options{Lease: shortLease})
	s.must(err)
	another := func(owner string) {
		s.engine = s.build(func(o *replicate.Options) { o.Owner, o.Lease = owner, shortLease })
		s.start()
	}
	const repository = "team/app"
	another("before")
	s.push(repository, "stays", "returns")
	s.changed(repository)
	s.wantEqual(repository)
	s.stop()

	s.untag(repository, "returns")
	s.deliver(s.primary.announce(repository, tracking.Live))
	p := startProcess(s)
	p.until("held")
	p.signal(syscall.SIGSTOP)
	s.push(repository, "returns")
	another("after")
	s.changed(repository)
	s.wantEqual(repository)

	s.whileLocked(func() {
		_, err := io.WriteString(p.in, "go on\n")
		s.must(err)
		p.signal(syscall.SIGCONT)
		s.waitForFinish()
	})
	p.until("could not record the outcome", tracking.ErrLeaseLost.Error())
	if n := p.to.Count("", "base"); n != 1 {
		t.Errorf("the process sent %d requests after it woke up, want the one that was before the delete", n)
	}
	if n := writes(p.to); n > 0 {
		t.Errorf("the process made %d writes without a lease:%s", n, sent(p.to))
	}
	s.wantEqual(repository)
}
