package e2e

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	antipodev1 "github.com/antipode-registry/antipode/gen/antipode/v1"
)

// TestOneLeads has several secondaryd share a site: one of them follows, and all say which. When it is killed, and when
// it is frozen, another takes over, and the one that wakes up finds that it leads no more.
func TestOneLeads(t *testing.T) {
	t.Parallel()
	f := newFleet(t)
	for i, end := range []struct {
		how         string
		away, again func(d *daemon)
	}{
		{"killed", (*daemon).Kill, (*daemon).Start},
		{"frozen", (*daemon).Freeze, (*daemon).Thaw},
		{"stopped", (*daemon).Stop, (*daemon).Start},
	} {
		leader := f.leader(t, nil)
		f.oneFollows(t)
		end.away(leader)
		began := time.Now()
		next := f.leader(t, leader)
		t.Logf("the leader was %s; another led after %s", end.how, time.Since(began))
		img := image(int64(700 + i))
		push(t, f.pair, "team/led", end.how, img)
		arrives(t, f.pair, "team/led", end.how, img.Digest)
		end.again(leader)
		f.oneFollows(t)
		if now := f.leader(t, nil); now != next {
			t.Errorf("after the one that was %s came back, it leads again", end.how)
		}
		f.Converges(t)
	}
}

// leader waits until each secondaryd but one says that the same process leads, which is not that one.
func (f *fleet) leader(t testing.TB, but *daemon) *daemon {
	t.Helper()
	var found *daemon
	eventually(t, func(ctx context.Context) error {
		found = nil
		for _, asked := range f.Secondaries {
			if asked == but {
				continue
			}
			site := antipodev1.NewReplicationServiceClient(f.connect(asked.GRPC(), operatorName))
			resp, err := site.GetStatus(ctx, &antipodev1.GetStatusRequest{}, patiently)
			if err != nil {
				return err
			}
			named := f.named(resp.GetStatus())
			if named == nil || named == but || found != nil && found != named || !resp.GetStatus().GetConnected() {
				return fmt.Errorf("%s says %v", asked.dir, resp.GetStatus())
			}
			found = named
		}
		return nil
	})
	return found
}

// named is the process that a status calls the leader.
func (f *fleet) named(st *antipodev1.NodeStatus) *daemon {
	for _, replica := range st.GetReplicas() {
		for _, d := range f.Secondaries {
			if d.running == nil || !replica.GetLeads() {
				continue
			}
			if strings.HasSuffix(replica.GetName(), fmt.Sprintf("/%d", d.running.process.Pid)) {
				return d
			}
		}
	}
	return nil
}

// oneFollows waits until the primaryd together have one subscription of the site, and pushes while it stays so.
func (f *fleet) oneFollows(t testing.TB) {
	t.Helper()
	eventually(t, func(ctx context.Context) error {
		if n, err := f.subscriptions(ctx); err != nil || n != 1 {
			return fmt.Errorf("%v subscriptions, want 1 (%w)", n, err)
		}
		return nil
	})
	for i := range 5 {
		push(t, f.pair, "team/busy", fmt.Sprintf("v%d", i), image(int64(750+i)))
		if n, err := f.subscriptions(t.Context()); err != nil || n != 1 {
			t.Errorf("%v subscriptions, want 1 (%v)", n, err)
		}
	}
}

func (f *fleet) subscriptions(ctx context.Context) (sum float64, err error) {
	for _, d := range f.Primaries {
		n, err := metric(ctx, d, "antipode_feed_subscribers")
		if err != nil {
			return 0, err
		}
		sum += n
	}
	return sum, nil
}

// TestOneSweeps has several primaryd share a feed: one of them sweeps, also when another hears that the registry
// restarted, and when it is killed another does.
func TestOneSweeps(t *testing.T) {
	t.Parallel()
	f := newFleet(t)
	sweeper, idle := f.sweeper(t, 1)
	push(t, f.pair, "team/swept", "v1", image(790))
	arrives(t, f.pair, "team/swept", "v1", image(790).Digest)
	f.Registry.Kill()
	f.Registry.Start()
	for i := range 8 { // to each primaryd, by turns: one of them hears of the new instance first
		push(t, f.pair, "team/swept", fmt.Sprintf("again-%d", i), image(int64(791+i)))
	}
	if again, _ := f.sweeper(t, 2); again != sweeper {
		t.Error("another one sweeps now")
	}
	sweeper.Kill()
	eventually(t, func(ctx context.Context) error {
		if n, err := metric(ctx, idle, sweepRounds); err != nil || n == 0 {
			return fmt.Errorf("%v rounds of the one that is left (%w)", n, err)
		}
		return nil
	})
	sweeper.Start()
	f.Converges(t)
}

const sweepRounds = `antipode_sweep_rounds_total{result="complete"}`

// sweeper waits until one primaryd has swept that often, and the other never.
func (f *fleet) sweeper(t testing.TB, rounds float64) (sweeper, idle *daemon) {
	t.Helper()
	eventually(t, func(ctx context.Context) error {
		sweeper, idle = f.Primaries[0], f.Primaries[1]
		done, err := metric(ctx, sweeper, sweepRounds)
		if err != nil {
			return err
		}
		none, err := metric(ctx, idle, sweepRounds)
		if err != nil {
			return err
		}
		if done == 0 {
			sweeper, idle, done, none = idle, sweeper, none, done
		}
		if done < rounds || none != 0 {
			return fmt.Errorf("%v and %v rounds, want %v or more of one alone", done, none, rounds)
		}
		return nil
	})
	return sweeper, idle
}
