package service_test

import (
	"context"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	antipodev1 "github.com/antipode-registry/antipode/gen/antipode/v1"
	"github.com/antipode-registry/antipode/secondaryd/internal/replicate"
	"github.com/antipode-registry/antipode/secondaryd/internal/service"
)

// besides makes another process on the same database, which does not lead, and has it tell the others.
func (p *place) besides(change func(p *place)) *place {
	p.Helper()
	other := (&place{T: p.T, name: "two/2", db: p.db, store: p.store}).open()
	other.standby.Store(true)
	change(other)
	p.must(p.store.ReportReplica(p.Context(), other.name, other.status.Describe()))
	return other
}

// Whichever process is asked says of all what they do, and of the leader whether it is connected.
func TestStatusOfSeveral(t *testing.T) {
	t.Parallel()
	p := newPlace(t)
	p.bytes, p.active = 5, []*replicate.Active{{Repository: "a", StartedAt: time.Now()}}
	p.must(p.store.ReportReplica(t.Context(), p.name, p.status.Describe()))
	other := p.besides(func(o *place) {
		o.bytes, o.active = 3, []*replicate.Active{{Repository: "b", StartedAt: time.Now()}}
	})
	p.must(p.store.ReportReplica(t.Context(), "three/3", "of another version"))
	for asked, st := range map[string]*antipodev1.NodeStatus{p.name: p.make(), other.name: other.make()} {
		if !st.GetConnected() || len(st.GetProblems()) > 0 || st.GetBytesCopied() != 8 {
			t.Errorf("%s says %v", asked, st)
		}
		replicas, active := st.GetReplicas(), st.GetActive()
		if len(replicas) != 2 || replicas[0].GetName() != "one/1" || !replicas[0].GetLeads() || replicas[1].GetLeads() {
			t.Errorf("%s says of the processes %v", asked, replicas)
		}
		slices.SortFunc(active, func(a, b *antipodev1.ActiveSync) int { return strings.Compare(a.GetReplica(), b.GetReplica()) })
		if len(active) != 2 || active[0].GetReplica() != "one/1" || active[1].GetRepository() != "b" {
			t.Errorf("%s says of the syncs %v", asked, active)
		}
	}
}

// One that waits for others to end is a problem that all tell of.
func TestStatusOfOneThatWaits(t *testing.T) {
	t.Parallel()
	p := newPlace(t)
	p.besides(func(o *place) { o.waits = true })
	if st := p.make(); !st.GetConnected() || len(st.GetProblems()) != 1 || !strings.Contains(st.GetProblems()[0], "two/2 waits") {
		t.Errorf("status %v", st)
	}
}

// A process that does not lead is silent while the database answers, for the leader speaks. One that begins to lead
// reports at once. When the database does not answer nobody leads, and the primary is told just that.
func TestReportsOfOneThatDoesNotLead(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		p, d := newPlace(t), &desk{}
		p.standby.Store(true)
		reporter := service.NewReporter("eu-west", p.status, d, func() (<-chan struct{}, func()) {
			return nil, func() {}
		}, slog.New(slog.DiscardHandler))
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- reporter.Run(ctx) }()
		<-time.After(25 * time.Second)
		if n := d.count(); n > 0 {
			t.Errorf("%d reports of one that does not lead", n)
		}
		p.standby.Store(false)
		reporter.Begin()
		synctest.Wait()
		if n := d.count(); n != 1 {
			t.Errorf("%d reports of a new leader, want 1", n)
		}
		p.standby.Store(true)
		synctest.Wait()
		p.cut.Store(true)
		<-time.After(10 * time.Second)
		synctest.Wait()
		if n, st := d.count(), p.make(); n != 2 || st.GetDatabaseReachable() {
			t.Errorf("%d reports, of them the second without a database: %v", n, st)
		}
		cancel()
		p.must(<-done)
	})
}
