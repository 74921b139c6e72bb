package tracking_test

import (
	"context"
	"maps"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/antipode-registry/antipode/internal/database"
	"github.com/antipode-registry/antipode/secondaryd/internal/tracking"
)

const repository = "r"

type step func(s *site, l *tracking.Lease)

func fresh(*site) *tracking.Lease { return nil }

func pending(s *site) *tracking.Lease {
	s.Helper()
	s.change(repository, 1, tracking.Live)
	return nil
}

func syncing(s *site) *tracking.Lease {
	s.Helper()
	pending(s)
	return s.take(repository)
}

// after is where a first sync with that outcome leads.
func after(o tracking.Outcome) func(s *site) *tracking.Lease {
	return func(s *site) *tracking.Lease {
		s.Helper()
		s.finish(syncing(s), o)
		return nil
	}
}

// syncingAgain is syncing with a failed attempt behind it.
func syncingAgain(s *site) *tracking.Lease {
	s.Helper()
	after(failed())(s)
	s.backOffIsOver(repository)
	return s.take(repository)
}

// syncingHeld is syncing because of a change to a held row.
func syncingHeld(s *site) *tracking.Lease {
	s.Helper()
	after(held())(s)
	backfill(s, nil)
	return s.take(repository)
}

func apply(s *site, _ *tracking.Lease) {
	s.Helper()
	s.change(repository, 9, tracking.Live)
}

func backfill(s *site, _ *tracking.Lease) {
	s.Helper()
	s.change(repository, 9, tracking.Backfill)
}

func resync(s *site, _ *tracking.Lease) {
	s.Helper()
	_, err := s.Resync(s.Context(), repository)
	s.must(err)
}

func release(s *site, _ *tracking.Lease) {
	s.Helper()
	_, err := s.Release(s.Context(), repository)
	s.must(err)
}

func startOver(s *site, _ *tracking.Lease) {
	s.Helper()
	s.must(s.StartOver(s.Context()))
}

func claim(s *site, _ *tracking.Lease) {
	s.Helper()
	s.take(repository)
}

func claimAfterBackOff(s *site, l *tracking.Lease) {
	s.Helper()
	s.backOffIsOver(repository)
	claim(s, l)
}

func renew(s *site, l *tracking.Lease) {
	s.Helper()
	s.must(s.Renew(s.Context(), l))
}

func runOut(s *site, _ *tracking.Lease) {
	s.Helper()
	s.expire(repository)
}

func finish(o tracking.Outcome) step {
	return func(s *site, l *tracking.Lease) {
		s.Helper()
		s.finish(l, o)
	}
}

func then(steps ...step) step {
	return func(s *site, l *tracking.Lease) {
		s.Helper()
		for _, do := range steps {
			do(s, l)
		}
	}
}

// edge is how to get to the one end of an arrow and what leads along it.
type edge struct {
	begin func(s *site) *tracking.Lease
	act   step
}

// edges has an entry for every arrow of the picture.
var edges = map[string]edge{
	"[*] --> pending: Apply":                                        {fresh, apply},
	"pending --> pending: Apply":                                    {pending, apply},
	"pending --> pending: Resync":                                   {pending, resync},
	"pending --> pending: StartOver":                                {pending, startOver},
	"pending --> syncing: Claim":                                    {pending, claim},
	"syncing --> syncing: Apply":                                    {syncing, apply},
	"syncing --> syncing: Resync":                                   {syncing, resync},
	"syncing --> syncing: Release":                                  {syncingHeld, release},
	"syncing --> syncing: Renew":                                    {syncing, renew},
	"syncing --> synced: Finish Synced":                             {syncing, finish(synced())},
	"syncing --> pending: Finish Synced, changed meanwhile":         {syncing, then(apply, finish(synced()))},
	"syncing --> held: Finish Held":                                 {syncing, finish(held())},
	"syncing --> pending: Finish Held, changed meanwhile":           {syncing, then(apply, finish(held()))},
	"syncing --> failed: Finish Failure":                            {syncing, finish(failed())},
	"syncing --> pending: Finish Retry":                             {syncing, finish(retry())},
	"syncing --> failed: Finish Retry, failed before":               {syncingAgain, finish(retry())},
	"syncing --> pending: the lease runs out":                       {syncing, runOut},
	"syncing --> failed: the lease runs out, failed before":         {syncingAgain, runOut},
	"syncing --> pending: StartOver":                                {syncing, startOver},
	"syncing --> failed: StartOver, failed before":                  {syncingAgain, startOver},
	"synced --> pending: Apply":                                     {after(synced()), apply},
	"synced --> pending: Resync":                                    {after(synced()), resync},
	"synced --> pending: StartOver":                                 {after(synced()), startOver},
	"failed --> syncing: Claim, after the back-off":                 {after(failed()), claimAfterBackOff},
	"failed --> syncing: Claim, after a live Apply or after Resync": {after(failed()), then(apply, claim)},
	"failed --> failed: Apply":                                      {after(failed()), apply},
	"failed --> failed: Resync":                                     {after(failed()), resync},
	"failed --> failed: StartOver":                                  {after(failed()), startOver},
	"held --> pending: Apply":                                       {after(held()), backfill},
	"held --> pending: Release":                                     {after(held()), release},
	"held --> pending: Resync":                                      {after(held()), resync},
	"held --> pending: StartOver":                                   {after(held()), startOver},
}

func TestEveryEdge(t *testing.T) {
	each(t, tracking.Options{BackoffMin: time.Hour}, func(t *testing.T, s *site) {
		for line, e := range edges {
			t.Run(line, func(t *testing.T) {
				s := &site{TB: t, Store: s.Store, db: s.db}
				s.wipe()
				ends, _, _ := strings.Cut(line, ":")
				from, to, _ := strings.Cut(ends, " --> ")
				lease := e.begin(s)
				if from != "[*]" {
					s.wantState(repository, tracking.State(from))
				}
				e.act(s, lease)
				s.wantState(repository, tracking.State(to))
				s.wantCounted(tracking.State(to))
			})
		}
	})
}

// wipe makes the store as good as new.
func (s *site) wipe() {
	s.Helper()
	for _, statement := range []string{
		"DELETE FROM journal", "DELETE FROM repository", "DELETE FROM content",
		"UPDATE site SET feed_id = '', revision = 0, head = 0, total = 0, paused = FALSE",
	} {
		s.exec(statement)
	}
}

// wantCounted expects one repository, which every query agrees to be of that state.
func (s *site) wantCounted(want tracking.State) {
	s.Helper()
	sum, err := s.Summary(s.Context())
	s.must(err)
	for _, state := range []tracking.State{
		tracking.Pending, tracking.Syncing, tracking.Synced, tracking.Failed, tracking.Held,
	} {
		list, err := s.List(s.Context(), state, "", 10)
		s.must(err)
		n := 0
		if state == want {
			n = 1
		}
		if len(list) != n || sum.Counts[state] != int64(n) {
			s.Errorf("%d listed and %d counted as %s, want %d", len(list), sum.Counts[state], state, n)
		}
	}
}

// The picture for people and the edges that are tested are the same.
func TestPictureShowsTheEdges(t *testing.T) {
	picture, err := os.ReadFile("../../../docs/state-machine.md")
	if err != nil {
		t.Fatal(err)
	}
	arrow := regexp.MustCompile(`(?m)^ *(\S+ --> \S+: .*\S) *$`)
	var drawn []string
	for _, match := range arrow.FindAllStringSubmatch(string(picture), -1) {
		drawn = append(drawn, match[1])
	}
	slices.Sort(drawn)
	if diff := cmp.Diff(slices.Sorted(maps.Keys(edges)), drawn); diff != "" {
		t.Errorf("docs/state-machine.md (-tested +drawn):\n%s", diff)
	}
}

// What no code of ours does, no code can do: the schema refuses rows that mean nothing.
func TestSchemaRefusesImpossibleRows(t *testing.T) {
	each(t, tracking.Options{}, func(t *testing.T, s *site) {
		s.change(repository, 5, tracking.Live)
		s.finish(s.take(repository), synced())
		s.change("due", 6, tracking.Live)
		for what, statement := range map[string]string{
			"synced ahead of wanted":    "UPDATE repository SET synced_revision = 7 WHERE name = 'due'",
			"synced below -1":           "UPDATE repository SET synced_revision = -2 WHERE name = 'due'",
			"synced and failed":         "UPDATE repository SET failures = 1, failed_at = 1 WHERE name = 'r'",
			"synced and held":           "UPDATE repository SET held_reason = 'x' WHERE name = 'r'",
			"synced with a lag":         "UPDATE repository SET oldest_unsynced_at = 1 WHERE name = 'r'",
			"unsynced without a lag":    "UPDATE repository SET oldest_unsynced_at = NULL WHERE name = 'due'",
			"leased with nothing to do": "UPDATE repository SET lease_until = 1, lease_owner = 'x' WHERE name = 'r'",
			"leased to nobody":          "UPDATE repository SET lease_until = 1 WHERE name = 'due'",
			"an owner without a lease":  "UPDATE repository SET lease_owner = 'x' WHERE name = 'due'",
			"failed at no time":         "UPDATE repository SET failures = 1 WHERE name = 'due'",
			"released, not held":        "UPDATE repository SET released = TRUE WHERE name = 'due'",
			"held without a reason":     "UPDATE repository SET next_attempt_at = 9223372036854775807 WHERE name = 'due'",
			"held and released": `UPDATE repository SET next_attempt_at = 9223372036854775807, held_reason = 'x',
				released = TRUE WHERE name = 'due'`,
			"a class of its own": "UPDATE repository SET class = 2 WHERE name = 'due'",
			"a story of nobody": `INSERT INTO journal
				(repository, at, action, reference, digest, previous_digest, detail) VALUES ('nobody', 1, '', '', '', '', '')`,
			"a second site":             "INSERT INTO site (id) VALUES (2)",
			"a cursor beyond the head":  "UPDATE site SET revision = head + 1",
			"a repository with no name": "UPDATE repository SET name = '' WHERE name = 'due'",
		} {
			err := s.db.Write(t.Context(), func(ctx context.Context, tx *database.Tx) error {
				_, err := tx.ExecContext(ctx, statement)
				return err
			})
			if err == nil {
				t.Errorf("the schema took %s", what)
			}
		}
	})
}
