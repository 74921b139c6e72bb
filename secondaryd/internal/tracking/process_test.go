package tracking_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"sync"
	"testing"

	"github.com/antipode-registry/antipode/internal/database"
	"github.com/antipode-registry/antipode/internal/database/databasetest"
	"github.com/antipode-registry/antipode/secondaryd/internal/tracking"
)

// claimerDatabase in the environment makes this binary a process that claims; see claimer.
const claimerDatabase = "TRACKING_TEST_DATABASE"

// claimer claims with four workers all that is due, once for each line that it reads, and says what it got. It renews
// and ends nothing.
func claimer(url string) error {
	ctx := context.Background()
	db, err := database.Open(ctx, url, nil)
	if err != nil {
		return err
	}
	store, err := tracking.Open(ctx, db, tracking.Options{})
	if err != nil {
		return err
	}
	lines := bufio.NewScanner(os.Stdin)
	for lines.Scan() {
		var workers sync.WaitGroup
		for i := range 4 {
			workers.Go(func() {
				owner := fmt.Sprintf("process %d, worker %d", os.Getpid(), i)
				for {
					l, err := store.Claim(ctx, owner, tracking.LiveFirst)
					if err != nil {
						fmt.Println("failed", 0, err)
					}
					if l == nil {
						return
					}
					fmt.Println(l.Repository, l.Fence)
				}
			})
		}
		workers.Wait()
		fmt.Println("done", 0)
	}
	return lines.Err()
}

// claims are what a process got in one round: fences by repository.
type claims map[string]int64

// startClaimer starts a process; each call of the returned function is one of its rounds.
func startClaimer(s *site) (round func() claims) {
	s.Helper()
	cmd := exec.CommandContext(s.Context(), os.Args[0])
	cmd.Env = append(os.Environ(), claimerDatabase+"="+databasetest.URL(s.TB, s.db))
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	s.must(err)
	out, err := cmd.StdoutPipe()
	s.must(err)
	s.must(cmd.Start())
	s.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	lines := bufio.NewScanner(out)
	return func() claims {
		if _, err := io.WriteString(in, "claim\n"); err != nil {
			s.Error(err)
		}
		got := claims{}
		for lines.Scan() {
			var name string
			var fence int64
			_, err := fmt.Sscan(lines.Text(), &name, &fence)
			switch {
			case err != nil || fence == 0 && name != "done":
				s.Errorf("the process said %q", lines.Text())
			case name == "done":
				return got
			case got[name] != 0:
				s.Errorf("%s was leased twice to one process: with %d and with %d", name, got[name], fence)
			}
			got[name] = fence
		}
		s.Errorf("the process ended: %v", lines.Err())
		return got
	}
}

// Two processes claim thousands of rows from one Postgres at the same time. Each row is one's, none is left, and once
// the leases have run out the next ones have higher fences.
func TestProcessesShareDueRows(t *testing.T) {
	t.Parallel()
	databasetest.SkipWithoutPostgres(t)
	const repositories = 3000
	s := newSite(t, databasetest.OpenPostgres(t), tracking.Options{})
	s.fill(repositories)
	rounds := []func() claims{startClaimer(s), startClaimer(s)}
	before := claims{}
	for n := range 3 {
		got := make([]claims, len(rounds))
		var processes sync.WaitGroup
		for i, round := range rounds {
			processes.Go(func() { got[i] = round() })
		}
		processes.Wait()
		all := claims{}
		for i, part := range got {
			if len(part) == 0 {
				t.Errorf("round %d: process %d got nothing, so nothing was shared", n, i)
			}
			for name, fence := range part {
				if other, twice := all[name]; twice {
					t.Errorf("round %d: %s is leased to both, with %d and with %d", n, name, other, fence)
				}
				if fence <= before[name] {
					t.Errorf("round %d: %s has the fence %d after %d", n, name, fence, before[name])
				}
				all[name] = fence
			}
		}
		if len(all) != repositories {
			t.Errorf("round %d: %d rows were claimed, want %d", n, len(all), repositories)
		}
		before = all
		s.exec("UPDATE repository SET lease_until = 1") // all leases run out
	}
}
