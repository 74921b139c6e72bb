package service_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"google.golang.org/protobuf/proto"

	antipodev1 "github.com/antipode-registry/antipode/gen/antipode/v1"
	"github.com/antipode-registry/antipode/internal/database"
	"github.com/antipode-registry/antipode/internal/database/databasetest"
	"github.com/antipode-registry/antipode/secondaryd/internal/replicate"
	"github.com/antipode-registry/antipode/secondaryd/internal/service"
	"github.com/antipode-registry/antipode/secondaryd/internal/tracking"
)

var errCut = errors.New("the connection was cut")

// place is a site whose parts are set by the test.
type place struct {
	*testing.T
	store  *tracking.Store
	db     *database.DB
	status *service.Status

	name               string
	standby            atomic.Bool // it does not lead
	cut                atomic.Bool // the database does not answer
	waits              bool        // its configuration is not in force
	connected          bool
	why                error // why it is not connected
	registry, database error
	active             []*replicate.Active
	bytes              int64
	pings              int
}

func newPlace(t *testing.T) *place {
	t.Helper()
	p := &place{T: t, name: "one/1", db: databasetest.OpenSQLite(t), connected: true}
	var err error
	p.store, err = tracking.Open(t.Context(), p.db, tracking.Options{BackoffMin: time.Hour, BackoffMax: time.Hour})
	p.must(err)
	return p.open()
}

func (p *place) open() *place {
	p.status = service.NewStatus(service.StatusSources{
		Version: "v1", StartedAt: time.Now(), Tracking: p.store, Replica: p, Follower: p, Engine: p,
		Database: pinger(func(ctx context.Context) error {
			if p.cut.Load() {
				return errCut
			}
			return errors.Join(p.database, p.db.Ping(ctx))
		}),
		Registry: pinger(func(context.Context) error { p.pings++; return p.registry }),
		Bytes:    func() int64 { return p.bytes },
	})
	return p
}

type pinger func(ctx context.Context) error

func (p pinger) Ping(ctx context.Context) error { return p(ctx) }

func (p *place) Name() string { return p.name }
func (p *place) Leads() bool  { return !p.standby.Load() }
func (p *place) Works() bool  { return !p.waits }

func (p *place) Leader(context.Context) (string, error) { return "one/1", nil }

func (p *place) Connected() (bool, error)    { return p.connected, p.why }
func (p *place) Active() []*replicate.Active { return p.active }

func (p *place) must(err error) {
	p.Helper()
	if err != nil {
		p.Fatal(err)
	}
}

func (p *place) make() *antipodev1.NodeStatus {
	p.Helper()
	st := p.status.Make(p.Context())
	if _, err := proto.Marshal(st); err != nil {
		p.Errorf("the status cannot be sent: %v", err)
	}
	return st
}

// apply stores live changes of these repositories, the first one at revision from.
func (p *place) apply(from, head int64, names ...string) {
	p.Helper()
	var changes []tracking.Change
	last := from - 1
	for _, name := range names {
		last++
		changes = append(changes, tracking.Change{Repository: name, Revision: last})
	}
	p.must(p.store.Apply(p.Context(), tracking.Batch{FeedID: "feed", Changes: changes, Cursor: last, Head: head}))
}

// finish claims what is due and ends it so.
func (p *place) finish(o tracking.Outcome) {
	p.Helper()
	lease, err := p.store.Claim(p.Context(), "w", tracking.LiveFirst)
	p.must(err)
	if lease == nil {
		p.Fatal("nothing is due")
	}
	p.must(p.store.Finish(p.Context(), lease, o))
}

func (p *place) wantLag(revisions int64, age time.Duration) {
	p.Helper()
	st := p.make()
	if st.GetLagRevisions() != revisions || st.GetLag().AsDuration() != age {
		p.Errorf("lag %d revisions, %v; want %d, %v", st.GetLagRevisions(), st.GetLag().AsDuration(), revisions, age)
	}
}

// How far the site is behind, through its life.
func TestLag(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		p := newPlace(t)
		p.wantLag(0, 0)
		p.apply(3, 10, "a", "b", "c") // 3, 4, 5
		<-time.After(time.Minute)
		p.wantLag(8, time.Minute) // 3 to 10
		p.finish(tracking.Outcome{Synced: true})
		<-time.After(time.Minute)
		p.wantLag(7, 2*time.Minute)
		p.finish(tracking.Outcome{Synced: true})
		p.finish(tracking.Outcome{Synced: true})
		p.wantLag(5, 0) // what it heard of and does not know
		p.apply(10, 10, "d")
		p.finish(tracking.Outcome{Synced: true})
		p.wantLag(0, 0)
		<-time.After(time.Hour)
		p.wantLag(0, 0)

		// Disconnected it knows no better.
		p.connected, p.why = false, errCut
		p.wantLag(0, 0)
		p.connected = true

		// A feed that is read anew: everything is to be compared.
		p.must(p.store.StartOver(t.Context()))
		<-time.After(time.Second)
		p.wantLag(0, time.Second)
		p.must(p.store.Heard(t.Context(), 4, time.Time{}))
		p.wantLag(4, time.Second)
		p.apply(1, 4, "a", "b", "c", "d")
		for range 4 {
			p.finish(tracking.Outcome{Synced: true})
		}
		p.wantLag(0, 0)
	})
}

func TestStatus(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		p := newPlace(t)
		p.apply(1, 9, "a", "b", "c", "d") // claimed in this order
		p.finish(tracking.Outcome{Synced: true})
		p.finish(tracking.Outcome{Failure: &tracking.Failure{Reference: "v1", Side: "destination", Message: "507"}})
		p.finish(tracking.Outcome{Held: "too many"})
		_, err := p.store.Claim(t.Context(), "w", tracking.LiveFirst)
		p.must(err)
		p.apply(5, 9, "e")
		p.must(p.store.SetPaused(t.Context(), true))
		p.bytes, p.active = 77, []*replicate.Active{{Repository: "d", StartedAt: time.Now()}}
		<-time.After(time.Hour)

		st := p.make()
		want := &antipodev1.RepositoryCounts{Total: 5, Synced: 1, Pending: 2, Failed: 1, Held: 1, SyncedPercentage: 20}
		if !proto.Equal(want, st.GetRepositories()) {
			t.Errorf("repositories %v, want %v", st.GetRepositories(), want)
		}
		if st.GetVersion() != "v1" || st.GetUptime().AsDuration() != time.Hour || st.GetBytesCopied() != 77 || !st.GetPaused() ||
			st.GetFeedId() != "feed" || st.GetCursorRevision() != 5 || st.GetHeadRevision() != 9 || !st.GetConnected() ||
			!st.GetRegistryReachable() || !st.GetDatabaseReachable() {
			t.Errorf("status %v", st)
		}
		if e := st.GetLastError(); e.GetRepository() != "b" || e.GetReference() != "v1" || e.GetMessage() != "507" ||
			e.GetSide() != antipodev1.Side_SIDE_DESTINATION || e.GetAttempts() != 1 || e.GetOccurredAt() == nil {
			t.Errorf("last error %v", e)
		}
		if len(st.GetActive()) != 1 || st.GetActive()[0].GetRepository() != "d" {
			t.Errorf("active %v", st.GetActive())
		}
		if troubled := st.GetTroubled(); len(troubled) != 2 ||
			troubled[0].GetName() != "c" || !troubled[0].GetHeld() || troubled[0].GetReason() != "too many" ||
			troubled[0].GetUnsyncedSince() == nil || troubled[0].GetNextAttemptAt() != nil ||
			troubled[1].GetName() != "b" || troubled[1].GetHeld() || troubled[1].GetReason() != "v1, destination side: 507" ||
			troubled[1].GetFailures() != 1 || troubled[1].GetFailedAt() == nil || troubled[1].GetNextAttemptAt() == nil {
			t.Errorf("troubled %v", troubled)
		}
		problems := []string{"1 repository failed", "1 repository held: removals wait for an operator"}
		if diff := cmp.Diff(problems, st.GetProblems()); diff != "" {
			t.Errorf("problems (-want +got):\n%s", diff)
		}
	})
}

// A site that starts over compares with what it has not read yet: that it lacks nothing says nothing then.
func TestProblemUntilTheFeedIsReadAnew(t *testing.T) {
	t.Parallel()
	p := newPlace(t)
	want := func(want ...string) {
		t.Helper()
		if diff := cmp.Diff(want, p.make().GetProblems()); diff != "" {
			t.Errorf("problems (-want +got):\n%s", diff)
		}
	}
	want()
	p.apply(1, 1, "a")
	p.finish(tracking.Outcome{Synced: true})
	want()
	p.must(p.store.StartOver(t.Context()))
	p.finish(tracking.Outcome{Synced: true})
	p.must(p.store.Heard(t.Context(), 1, time.Time{}))
	want("the primary's feed was not read since the site started over")
	p.apply(1, 1, "a")
	want()
}

// However many failed, a status names a few.
func TestManyTroubled(t *testing.T) {
	t.Parallel()
	p := newPlace(t)
	for revision := range int64(25) {
		p.apply(revision+1, 25, fmt.Sprintf("r%02d", revision))
		p.finish(tracking.Outcome{Held: "too many"})
	}
	if n := len(p.make().GetTroubled()); n != 20 {
		t.Errorf("%d repositories are named, want 20", n)
	}
}

// What does not answer is said, with the reason, and is no error of the status.
func TestProblems(t *testing.T) {
	t.Parallel()
	p := newPlace(t)
	p.apply(1, 1, "a")
	p.connected, p.why = false, errCut
	p.registry = errors.New("no route to host")
	p.database = errors.New("the disk is full")
	st := p.make()
	want := []string{
		"not connected to the primary: the connection was cut",
		"the site's registry does not answer: no route to host",
		"the site's database does not answer: the disk is full",
	}
	if diff := cmp.Diff(want, st.GetProblems()); diff != "" {
		t.Errorf("problems (-want +got):\n%s", diff)
	}
	if st.GetConnected() || st.GetRegistryReachable() || st.GetDatabaseReachable() || st.GetRepositories().GetTotal() != 0 {
		t.Errorf("status %v", st)
	}
	p.why = nil
	if got := p.make().GetProblems()[0]; got != "not connected to the primary" {
		t.Errorf("without a reason: %q", got)
	}
}

// Texts of any length and kind fit into a message.
func TestTextsFit(t *testing.T) {
	t.Parallel()
	for name, text := range map[string]string{
		"no UTF-8":             "latin1: \xe9\xff",
		"long":                 strings.Repeat("x", 10_000),
		"long, of long runes":  strings.Repeat("x", 2047) + strings.Repeat("語", 1000),
		"long and no UTF-8":    strings.Repeat("é\xff", 10_000),
		"just as long as fits": strings.Repeat("x", 2048),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := newPlace(t)
			p.apply(1, 1, "a")
			p.finish(tracking.Outcome{Failure: &tracking.Failure{Side: "source", Message: text}})
			p.connected, p.why = false, errors.New(text)
			st := p.make()
			if reason := st.GetTroubled()[0].GetReason(); len(reason) > 512 || !utf8.ValidString(reason) {
				t.Errorf("a reason of %d bytes: %q", len(reason), reason)
			}
			for _, said := range append(st.GetProblems(), st.GetLastError().GetMessage()) {
				if len(said) > 4096 || !utf8.ValidString(said) {
					t.Errorf("%d bytes, valid %t: %q", len(said), utf8.ValidString(said), said)
				}
			}
		})
	}
}

func TestManyActive(t *testing.T) {
	t.Parallel()
	p := newPlace(t)
	for range 100 {
		p.active = append(p.active, &replicate.Active{Repository: "r"})
	}
	if n := len(p.make().GetActive()); n != 64 {
		t.Errorf("%d running syncs are named, want 64", n)
	}
}

// A registry that hangs does not hang the status.
func TestRegistryHangs(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		p := newPlace(t)
		hanging := service.NewStatus(service.StatusSources{
			StartedAt: time.Now(), Tracking: p.store, Replica: p, Follower: p, Engine: p, Bytes: func() int64 { return 0 }, Database: p.db,
			Registry: pinger(func(ctx context.Context) error {
				<-ctx.Done()
				return ctx.Err()
			}),
		})
		start := time.Now()
		if st := hanging.Make(t.Context()); st.GetRegistryReachable() || !st.GetDatabaseReachable() {
			t.Errorf("status %v", st)
		}
		if took := time.Since(start); took > 5*time.Second {
			t.Errorf("the status took %v", took)
		}
	})
}

// The metrics say what the status says, are well named, and leave out what cannot be known.
func TestCollector(t *testing.T) {
	t.Parallel()
	p := newPlace(t)
	p.apply(1, 9, "a", "b", "c")
	p.finish(tracking.Outcome{Synced: true})
	p.finish(tracking.Outcome{Held: "too many"})
	p.bytes = 5
	metrics := prometheus.NewPedanticRegistry()
	service.RegisterMetrics(metrics, p.status)
	problems, err := testutil.GatherAndLint(metrics)
	if err != nil || len(problems) > 0 {
		t.Errorf("lint: %v, %v", problems, err)
	}
	want := `
# HELP antipode_repositories Tracked repositories: ` + "`synced`" + `, ` + "`pending`" + `, ` + "`syncing`" + `, ` + "`failed`" + `, ` + "`held`" + `.
# TYPE antipode_repositories gauge
antipode_repositories{state="failed"} 0
antipode_repositories{state="held"} 1
antipode_repositories{state="pending"} 1
antipode_repositories{state="synced"} 1
antipode_repositories{state="syncing"} 0
# HELP antipode_lag_revisions Revisions from the first one that is not on the site to the feed's head.
# TYPE antipode_lag_revisions gauge
antipode_lag_revisions 8
# HELP antipode_connected 1 while the subscription to the primary is up.
# TYPE antipode_connected gauge
antipode_connected 1
# HELP antipode_cursor_revision Every change up to this revision is in the site's tracking table.
# TYPE antipode_cursor_revision gauge
antipode_cursor_revision 3
# HELP antipode_copied_bytes_total Bytes of blobs copied to the site by this process since it started.
# TYPE antipode_copied_bytes_total counter
antipode_copied_bytes_total 5
`
	names := []string{
		"antipode_repositories", "antipode_lag_revisions", "antipode_connected", "antipode_cursor_revision",
		"antipode_copied_bytes_total",
	}
	if err := testutil.GatherAndCompare(metrics, strings.NewReader(want), names...); err != nil {
		t.Error(err)
	}

	p.database, p.connected = errors.New("away"), false
	families, err := metrics.Gather()
	p.must(err)
	got := map[string]float64{}
	for _, family := range families {
		m := family.GetMetric()[0]
		got[family.GetName()] = m.GetGauge().GetValue() + m.GetCounter().GetValue()
	}
	left := map[string]float64{
		"antipode_connected": 0, "antipode_registry_reachable": 1, "antipode_database_reachable": 0,
		"antipode_copied_bytes_total": 5,
	}
	if diff := cmp.Diff(left, got); diff != "" {
		t.Errorf("metrics without a database (-want +got):\n%s", diff)
	}
}
