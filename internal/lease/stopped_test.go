package lease_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/antipode-registry/antipode/internal/database"
	"github.com/antipode-registry/antipode/internal/database/databasetest"
	"github.com/antipode-registry/antipode/internal/lease"
)

// processURL in the environment makes this binary a process that leads; see leader.
const processURL = "LEASE_TEST_DATABASE"

// shortTerm is waited for by tests of processes that die. It is long enough for a loaded machine to renew it.
const shortTerm = 3 * time.Second

func TestMain(m *testing.M) {
	if url := os.Getenv(processURL); url != "" {
		if err := leader(url); err != nil {
			fmt.Println("failed:", err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	goleak.VerifyTestMain(m)
}

// leader leads, says so, waits for a line, and then writes as if nothing had happened: with a context of its own.
func leader(url string) error {
	ctx := context.Background()
	db, err := database.Open(ctx, url, nil)
	if err != nil {
		return err
	}
	leases, err := lease.Open(ctx, db, lease.Options{Owner: "process", TTL: shortTerm})
	if err != nil {
		return err
	}
	return leases.Lead(ctx, role, func(_ context.Context, term *lease.Term) error {
		fmt.Println("leads")
		if _, err := bufio.NewReader(os.Stdin).ReadString('\n'); err != nil {
			return err
		}
		fmt.Println(db.Write(ctx, term.Check))
		return nil
	})
}

// process is a leader of its own.
type process struct {
	testing.TB
	cmd *exec.Cmd
	in  io.WriteCloser
	out *bufio.Scanner
}

func startProcess(t testing.TB, db *database.DB) *process {
	t.Helper()
	p := &process{TB: t, cmd: exec.CommandContext(t.Context(), os.Args[0])}
	p.cmd.Env = append(os.Environ(), processURL+"="+databasetest.URL(t, db))
	p.cmd.Stderr = os.Stderr
	var err error
	if p.in, err = p.cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	out, err := p.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	p.out = bufio.NewScanner(out)
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = p.cmd.Process.Kill()
		_ = p.cmd.Wait()
	})
	return p
}

func (p *process) signal(s syscall.Signal) {
	p.Helper()
	if err := p.cmd.Process.Signal(s); err != nil {
		p.Fatal(err)
	}
}

func (p *process) want(line string) {
	p.Helper()
	if !p.out.Scan() || p.out.Text() != line {
		p.Fatalf("the process said %q (%v), want %q", p.out.Text(), p.out.Err(), line)
	}
}

func TestKilledLeaderIsReplaced(t *testing.T) {
	databasetest.SkipWithoutPostgres(t)
	db := databasetest.OpenPostgres(t)
	p := startProcess(t, db)
	p.want("leads")
	second := stand(t, open(t, db, "second", shortTerm))
	p.signal(syscall.SIGKILL)
	<-second.terms
}

// A leader that is stopped is replaced like a dead one; when it wakes up, the database refuses what it writes.
func TestStoppedLeaderIsReplacedAndRefused(t *testing.T) {
	databasetest.SkipWithoutPostgres(t)
	db := databasetest.OpenPostgres(t)
	p := startProcess(t, db)
	p.want("leads")
	leases := open(t, db, "second", hour)
	second := stand(t, leases)
	p.signal(syscall.SIGSTOP)
	term := <-second.terms
	wantLeader(t, leases, "second")
	if _, err := io.WriteString(p.in, "write\n"); err != nil {
		t.Fatal(err)
	}
	p.signal(syscall.SIGCONT)
	p.want("lease: follow: no longer the leader")
	if err := check(t.Context(), db, term); err != nil {
		t.Errorf("the one that took over: %v", err)
	}
}
