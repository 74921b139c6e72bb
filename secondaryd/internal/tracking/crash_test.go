package tracking_test

import (
	"context"
	"errors"
	"reflect"
	"slices"
	"testing"
	"time"

	"github.com/antipode-registry/antipode/internal/database"
	"github.com/antipode-registry/antipode/internal/database/databasetest"
	"github.com/antipode-registry/antipode/secondaryd/internal/tracking"
)

// operation is a writing method with what leads up to it.
type operation = databasetest.Operation[*tracking.Store]

// reads are the methods that write nothing. A new method is either here or among the operations.
var reads = []string{
	"Content", "Cursor", "Get", "InForce", "Journal", "List", "NextDue", "Paused", "Promoted", "Pins", "Referrers",
	"RefuseRemovals", "Replicas", "SinceSweep", "SiteJournal", "Summary", "Troubled", "Watch", "Find",
}

// TestEveryStatementMayFail has each statement of each operation fail once.
func TestEveryStatementMayFail(t *testing.T) {
	t.Parallel()
	stores := map[*database.DB]*tracking.Store{}
	crash := databasetest.Crash[*tracking.Store]{
		// Once for each database: SQLite's store ends at its opening the leases that the operations are about.
		Open: func(t testing.TB, db *database.DB) *tracking.Store {
			t.Helper()
			if stores[db] == nil {
				stores[db] = newSite(t, db, tracking.Options{Lease: time.Hour, JournalPerRepository: 3}).Store
			}
			return stores[db]
		},
		Check:    whole,
		Volatile: []string{"journal.id", "site_journal.id"},
	}
	crash.Test(t, operations())
}

// TestEveryWriteIsAmongTheCrashPoints fails when a method is neither known as reading nor among the operations.
func TestEveryWriteIsAmongTheCrashPoints(t *testing.T) {
	t.Parallel()
	known := slices.Clone(reads)
	for _, operation := range operations() {
		known = append(known, operation.Name)
	}
	for _, of := range []reflect.Type{reflect.TypeFor[*tracking.Store](), reflect.TypeFor[*tracking.Content]()} {
		for method := range of.Methods() {
			if !slices.Contains(known, method.Name) {
				t.Errorf("%v.%s: does it write? Then it is an operation of TestEveryStatementMayFail, else one of reads",
					of, method.Name)
			}
		}
	}
}

// whole checks what must be true at every moment beyond what the schema sees to and what a dump shows: the site's row
// counts the others.
func whole(t testing.TB, db *database.DB) {
	t.Helper()
	err := db.Read(t.Context(), func(ctx context.Context, q database.Queryer) error {
		var total, rows, counted, verified int64
		err := q.QueryRowContext(ctx, `SELECT total, (SELECT count(*) FROM repository), verified,
			(SELECT count(*) FROM repository WHERE verified_at IS NOT NULL) FROM site`).
			Scan(&total, &rows, &counted, &verified)
		if counted != verified {
			t.Errorf("the site counts %d verified repositories and has %d", counted, verified)
		}
		if total != rows {
			t.Errorf("the site counts %d repositories and has %d", total, rows)
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
}

// known brings three repositories about, none of which is synced.
func known(t testing.TB, s *tracking.Store) {
	t.Helper()
	on(t, s).must(s.Apply(t.Context(), tracking.Batch{FeedID: feedID, Changes: []tracking.Change{
		{Repository: "a", Revision: 1, ChangedAt: at(1), Class: tracking.Live, TraceParent: firstTrace},
		{Repository: "b", Revision: 2, ChangedAt: at(2), Class: tracking.Backfill},
		{Repository: "c", Revision: 3, ChangedAt: at(3), Class: tracking.Backfill},
	}, Cursor: 3, Head: 3}))
}

func on(t testing.TB, s *tracking.Store) *site { t.Helper(); return &site{TB: t, Store: s} }

// finished syncs the repository a with that outcome.
func finished(t testing.TB, s *tracking.Store, o tracking.Outcome) {
	t.Helper()
	known(t, s)
	site := on(t, s)
	site.finish(site.take("a"), o)
}

// repositoryA is an operation that only needs the repository's name, on a repository that was held once.
func repositoryA(name string, run func(ctx context.Context, s *tracking.Store, repository string) error) operation {
	return operation{
		Name:    name,
		Prepare: func(t testing.TB, s *tracking.Store) { t.Helper(); finished(t, s, held()) },
		Run:     func(ctx context.Context, s *tracking.Store) error { return run(ctx, s, "a") },
	}
}

func operations() []operation {
	return slices.Concat(following(), sharing(), working(), controlling(), promoting(), remembering(), braking())
}

func following() []operation {
	return []operation{
		{Name: "Apply", Prepare: known, Run: func(ctx context.Context, s *tracking.Store) error {
			return s.Apply(ctx, tracking.Batch{FeedID: feedID, Changes: []tracking.Change{
				{Repository: "a", Revision: 4, ChangedAt: at(4), Class: tracking.Live, TraceParent: secondTrace},
				{Repository: "d", Revision: 5, ChangedAt: at(5), Class: tracking.Live, TraceParent: firstTrace},
				{Repository: "e", Revision: 6, ChangedAt: at(6), Class: tracking.Backfill},
			}, Cursor: 6, Head: 9})
		}},
		{
			Name: "Apply of a scope that was adopted",
			Prepare: func(t testing.TB, s *tracking.Store) {
				t.Helper()
				known(t, s)
				_, _, err := s.Adopt(t.Context(), "one", tracking.Scope{
					Selection: "all", Names: "as they are", Wants: func(string) bool { return true },
				})
				on(t, s).must(err)
			},
			Run: func(ctx context.Context, s *tracking.Store) error {
				return s.Apply(ctx, tracking.Batch{FeedID: feedID, Changes: []tracking.Change{
					{Repository: "a", Revision: 4, ChangedAt: at(4), Class: tracking.Live},
				}, Cursor: 4, Head: 4})
			},
		},
		{Name: "Heard", Prepare: known, Run: func(ctx context.Context, s *tracking.Store) error { return s.Heard(ctx, 7, at(7)) }},
		{
			Name:    "StartOver",
			Prepare: func(t testing.TB, s *tracking.Store) { t.Helper(); known(t, s); on(t, s).take("a") },
			Run:     func(ctx context.Context, s *tracking.Store) error { return s.StartOver(ctx) },
		},
		{
			Name: "SetScope",
			Prepare: func(t testing.TB, s *tracking.Store) {
				t.Helper()
				finished(t, s, synced())
				_, err := s.SetScope(t.Context(), tracking.Scope{Selection: "all", Names: "as they are"})
				on(t, s).must(err)
			},
			Run: func(ctx context.Context, s *tracking.Store) error {
				_, err := s.SetScope(ctx, tracking.Scope{
					Selection: "not b", Names: "others", Wants: func(repository string) bool { return repository != "b" },
				})
				return err
			},
		},
	}
}

// sharing are the operations of one of several processes.
func sharing() []operation {
	reported := func(t testing.TB, s *tracking.Store) {
		t.Helper()
		on(t, s).must(s.ReportReplica(t.Context(), "one", "first"))
	}
	return []operation{
		{
			Name: "Adopt",
			Prepare: func(t testing.TB, s *tracking.Store) {
				t.Helper()
				finished(t, s, synced())
				_, err := s.SetScope(t.Context(), tracking.Scope{Selection: "all", Names: "as they are"})
				on(t, s).must(err)
			},
			Run: func(ctx context.Context, s *tracking.Store) error {
				_, _, err := s.Adopt(ctx, "one", tracking.Scope{
					Selection: "not b", Names: "others", Wants: func(repository string) bool { return repository != "b" },
				})
				return err
			},
		},
		{Name: "ReportReplica", Prepare: reported, Run: func(ctx context.Context, s *tracking.Store) error {
			return s.ReportReplica(ctx, "one", "second")
		}},
		{Name: "DropReplica", Prepare: reported, Run: func(ctx context.Context, s *tracking.Store) error {
			return s.DropReplica(ctx, "one")
		}},
	}
}

// working are the operations of a worker. The first claim that nobody heard of keeps its row until the lease ends: a
// second one gets another row.
func working() []operation {
	var lease *tracking.Lease
	take := func(t testing.TB, s *tracking.Store) {
		t.Helper()
		known(t, s)
		lease = on(t, s).take("a")
	}
	finish := func(what string, o tracking.Outcome) operation {
		o.Journal = []tracking.Entry{tagged("t", "sha256:1"), removed("u", "sha256:2")}
		return operation{Name: what, Prepare: take, Run: func(ctx context.Context, s *tracking.Store) error {
			return s.Finish(ctx, lease, o)
		}}
	}
	return []operation{
		{Name: "Claim", Prepare: known, Run: func(ctx context.Context, s *tracking.Store) error {
			_, err := s.Claim(ctx, "worker", tracking.OldestFirst)
			return err
		}},
		{Name: "Renew", Prepare: take, Run: func(ctx context.Context, s *tracking.Store) error { return s.Renew(ctx, lease) }},
		finish("Finish", synced()), finish("Finish failed", failed()), finish("Finish held", held()),
		finish("Finish for a while", retry()),
		{
			Name: "Finish of what is verified for the first time",
			Prepare: func(t testing.TB, s *tracking.Store) {
				t.Helper()
				finished(t, s, synced())
				_, err := s.Verify(t.Context(), "a", tracking.Deep)
				on(t, s).must(err)
				lease = on(t, s).take("a")
			},
			Run: func(ctx context.Context, s *tracking.Store) error { return s.Finish(ctx, lease, synced()) },
		},
		{Name: "AddReferrer under a lease", Prepare: take, Run: func(ctx context.Context, s *tracking.Store) error {
			return s.AddReferrer(tracking.UnderLease(ctx, lease), "a", tracking.Referrer{Digest: "sha256:5", Subject: "sha256:1"})
		}},
	}
}

func controlling() []operation {
	prepared := func(t testing.TB, s *tracking.Store) { t.Helper(); finished(t, s, synced()) }
	return []operation{
		{Name: "Swept", Run: func(ctx context.Context, s *tracking.Store) error { return s.Swept(ctx) }},
		{Name: "SetPaused", Run: func(ctx context.Context, s *tracking.Store) error { return s.SetPaused(ctx, true) }},
		repositoryA("Resync", func(ctx context.Context, s *tracking.Store, repository string) error {
			_, err := s.Resync(ctx, repository)
			return err
		}),
		{Name: "ResyncAll", Prepare: prepared, Run: func(ctx context.Context, s *tracking.Store) error {
			_, err := s.ResyncAll(ctx)
			return err
		}},
		repositoryA("Verify", func(ctx context.Context, s *tracking.Store, repository string) error {
			_, err := s.Verify(ctx, repository, tracking.Deep)
			return err
		}),
		{Name: "VerifyAll", Prepare: prepared, Run: func(ctx context.Context, s *tracking.Store) error {
			_, err := s.VerifyAll(ctx, tracking.Graphs)
			return err
		}},
		{Name: "VerifyStale", Prepare: prepared, Run: func(ctx context.Context, s *tracking.Store) error {
			_, err := s.VerifyStale(ctx, time.Now().Add(time.Hour), 10)
			return err
		}},
		repositoryA("Release", func(ctx context.Context, s *tracking.Store, repository string) error {
			_, err := s.Release(ctx, repository)
			return err
		}),
	}
}

// promoting are operations that refuse what is done already: whoever did not hear of the first time finds it so.
func promoting() []operation {
	done := func(err, already error) error {
		if errors.Is(err, already) {
			return nil
		}
		return err
	}
	return []operation{
		{
			Name:    "Promote",
			Prepare: func(t testing.TB, s *tracking.Store) { t.Helper(); known(t, s); on(t, s).take("a") },
			Run: func(ctx context.Context, s *tracking.Store) error {
				return done(s.Promote(ctx, -1), tracking.ErrPromoted)
			},
		},
		{
			Name: "Demote",
			Prepare: func(t testing.TB, s *tracking.Store) {
				t.Helper()
				finished(t, s, synced())
				on(t, s).must(s.Promote(t.Context(), -1))
			},
			Run: func(ctx context.Context, s *tracking.Store) error {
				return done(s.Demote(ctx), tracking.ErrNotPromoted)
			},
		},
	}
}

func remembering() []operation {
	story := func(t testing.TB, s *tracking.Store) {
		t.Helper()
		o := synced()
		o.Journal = []tracking.Entry{removed("t", "sha256:1"), removed("u", "sha256:2")}
		finished(t, s, o)
	}
	pinned := func(t testing.TB, s *tracking.Store) {
		t.Helper()
		story(t, s)
		_, _, err := s.Pin(t.Context(), "a", nil)
		on(t, s).must(err)
	}
	noted := func(t testing.TB, s *tracking.Store) {
		t.Helper()
		on(t, s).must(s.Content().Record(t.Context(), "a", "sha256:1", "sha256:2", "sha256:3"))
		on(t, s).must(s.AddReferrer(t.Context(), "a", tracking.Referrer{Digest: "sha256:4", Subject: "sha256:1", Present: true}))
	}
	return []operation{
		{Name: "Pin", Prepare: story, Run: func(ctx context.Context, s *tracking.Store) error {
			_, _, err := s.Pin(ctx, "a", nil)
			return err
		}},
		{Name: "Unpin", Prepare: pinned, Run: func(ctx context.Context, s *tracking.Store) error {
			_, _, err := s.Unpin(ctx, "a", []string{"t"})
			return err
		}},
		{Name: "DropPin", Prepare: pinned, Run: func(ctx context.Context, s *tracking.Store) error {
			return s.DropPin(ctx, "a", "t")
		}},
		{Name: "AddReferrer", Prepare: noted, Run: func(ctx context.Context, s *tracking.Store) error {
			return s.AddReferrer(ctx, "a", tracking.Referrer{Digest: "sha256:5", Subject: "sha256:1"})
		}},
		{Name: "DropReferrer", Prepare: noted, Run: func(ctx context.Context, s *tracking.Store) error {
			return s.DropReferrer(ctx, "a", "sha256:4")
		}},
		{Name: "Record", Prepare: noted, Run: func(ctx context.Context, s *tracking.Store) error {
			return s.Content().Record(ctx, "b", "sha256:1", "sha256:2", "sha256:6")
		}},
		{Name: "Forget", Prepare: noted, Run: func(ctx context.Context, s *tracking.Store) error {
			return s.Content().Forget(ctx, "a", "sha256:1", "sha256:2", "sha256:3")
		}},
		{Name: "Retain", Prepare: noted, Run: func(ctx context.Context, s *tracking.Store) error {
			return s.Content().Retain(ctx, "a", func(digest string) bool { return digest == "sha256:2" })
		}},
		{Name: "DropRepository", Prepare: noted, Run: func(ctx context.Context, s *tracking.Store) error {
			return s.Content().DropRepository(ctx, "a")
		}},
	}
}

// braking are the operations that count removals. A reservation that nobody heard of counts twice, which removes less.
func braking() []operation {
	reserve := func(ctx context.Context, s *tracking.Store) error {
		_, err := s.ReserveRemovals(ctx, 2, tracking.SiteBrake{Share: 0.5, Count: 100, Window: 24 * time.Hour})
		return err
	}
	return []operation{
		{Name: "ReserveRemovals", Run: reserve},
		{
			Name: "ReturnRemovals",
			Prepare: func(t testing.TB, s *tracking.Store) {
				t.Helper()
				on(t, s).must(errors.Join(reserve(t.Context(), s), reserve(t.Context(), s)))
			},
			Run: func(ctx context.Context, s *tracking.Store) error { return s.ReturnRemovals(ctx, 1) },
		},
	}
}

// TestOpenMayFailAnywhere: what an interrupted first start leaves, the next one completes.
func TestOpenMayFailAnywhere(t *testing.T) {
	t.Parallel()
	databasetest.Opening(t, func(ctx context.Context, db *database.DB) error {
		_, err := tracking.Open(ctx, db, tracking.Options{})
		return err
	})
}
