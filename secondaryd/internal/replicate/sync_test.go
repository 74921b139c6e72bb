package replicate_test

import (
	"errors"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/antipode-registry/antipode/client"
	"github.com/antipode-registry/antipode/internal/registrytest"
	"github.com/antipode-registry/antipode/secondaryd/internal/replicate"
	"github.com/antipode-registry/antipode/secondaryd/internal/tracking"
)

// The life of a repository, on each kind of registry that a site may have.
func TestLifeOfARepository(t *testing.T) {
	t.Parallel()
	sites := map[string]func(t *testing.T) string{
		"memory":       func(t *testing.T) string { return registrytest.InMemory(t, false).URL() },
		"distribution": func(t *testing.T) string { return registrytest.Distribution(t).URL() },
		"debian":       func(t *testing.T) string { return registrytest.Debian(t).URL() },
	}
	for name, site := range sites {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newStage(t, registrytest.InMemory(t, false).URL(), site(t))
			const repository = "team/app"
			image, index := registrytest.NewImage(1, 3, 256), registrytest.NewIndex(imageOf("amd64"), imageOf("arm64"))

			registrytest.Push(t, s.source, repository, "v1", image)
			s.changed(repository, "v1")
			s.wantEqual(repository)

			s.from.Reset()
			s.to.Reset()
			more := numbered("alias", 5)
			for _, tag := range more {
				registrytest.Retag(t, s.source, repository, image.Digest, tag)
			}
			s.changed(repository, more...)
			s.wantEqual(repository)
			if n := s.to.Count("PUT", "manifest"); n != len(more) || s.to.Count("", "blob")+s.to.Count("", "upload") > 0 {
				t.Errorf("%d tags on a digest that is there took:%s", len(more), sent(s.to))
			}
			if n := s.from.Count("GET", ""); n > 0 {
				t.Errorf("%d tags on a digest that is there asked the source:%s", len(more), sent(s.from))
			}

			registrytest.Push(t, s.source, repository, "v1", index)
			s.changed(repository, "v1")
			s.wantEqual(repository)

			s.untag(repository, "alias00", "alias01")
			s.changed(repository, "alias00", "alias01")
			s.wantEqual(repository)
			s.wantTags(repository, "alias02", "alias03", "alias04", "v1")

			s.untag(repository, "alias02", "alias03", "alias04", "v1")
			s.changed(repository)
			s.wantEqual(repository)
			s.wantTags(repository)
		})
	}
}

// A repository that the primary's registry does not know has no tags on the site either.
func TestAbsentRepository(t *testing.T) {
	t.Parallel()
	s := memoryStage(t)
	registrytest.Push(t, s.site, "team/gone", "v1", imageOf("v1"))
	s.changed("team/gone")
	s.wantState("team/gone", tracking.Synced)
	s.wantTags("team/gone")
	s.changed("team/never")
	s.wantEqual("team/never")
}

func TestRepositoryBrake(t *testing.T) {
	t.Parallel()
	metrics := prometheus.NewRegistry()
	s := memoryStage(t, func(o *replicate.Options) {
		o.Policy.BrakeShare, o.Policy.BrakeCount = 0.5, 3
		o.Metrics = replicate.NewMetrics(metrics)
	})
	const repository = "team/app"
	tags := numbered("v", 8)
	s.push(repository, tags...)
	s.changed(repository)
	s.wantEqual(repository)

	s.untag(repository, tags[:6]...)
	s.push(repository, "new")
	s.changed(repository)
	row := s.wantState(repository, tracking.Held)
	if !strings.Contains(row.HeldReason, "would remove 6 of 8 tags") || row.LastError != nil {
		t.Errorf("held for %q, last error %v", row.HeldReason, row.LastError)
	}
	s.wantTags(repository, append([]string{"new"}, tags...)...)
	s.wantCounted(repository, repository)
	list, err := s.store.List(t.Context(), tracking.Held, "", 10)
	if err != nil || len(list) != 1 || list[0].HeldReason != row.HeldReason {
		t.Errorf("held repositories: %+v, %v", list, err)
	}
	if n := counted(t, metrics, "antipode_brakes_total", "brake", "repository"); n != 1 {
		t.Errorf("the repository's brake was counted %v times", n)
	}

	// A change goes on being copied, and does not let the brake off.
	s.push(repository, "newer")
	s.changed(repository, "newer")
	s.wantState(repository, tracking.Held)
	s.wantTags(repository, append([]string{"new", "newer"}, tags...)...)

	s.release(repository)
	s.wantEqual(repository)
	if row := s.row(repository); row.HeldReason != "" || row.Released {
		t.Errorf("a hold is left behind: %+v", row)
	}
}

// counted returns the value of the counter with that label.
func counted(t *testing.T, from prometheus.Gatherer, name, label, value string) float64 {
	t.Helper()
	families, err := from.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, family := range families {
		for _, metric := range family.GetMetric() {
			for _, pair := range metric.GetLabel() {
				if family.GetName() == name && pair.GetName() == label && pair.GetValue() == value {
					return metric.GetCounter().GetValue()
				}
			}
		}
	}
	return 0
}

// The brake over the whole site counts what other repositories removed; diff says so before.
func TestSiteBrake(t *testing.T) {
	t.Parallel()
	metrics := prometheus.NewRegistry()
	s := memoryStage(t, func(o *replicate.Options) {
		o.SiteBrake = tracking.SiteBrake{Share: 0.1, Count: 3, Window: 24 * time.Hour}
		o.Metrics = replicate.NewMetrics(metrics)
	})
	for _, repository := range []string{"team/a", "team/b"} {
		s.push(repository, "v1", "v2", "v3", "v4")
		s.changed(repository)
		s.wantEqual(repository)
		s.untag(repository, "v1", "v2")
	}
	s.changed("team/a")
	s.wantEqual("team/a")

	s.push("team/b", "new")
	foreseen, err := s.engine.Diff(t.Context(), "team/b")
	if err != nil || len(foreseen.Removals) > 0 || len(foreseen.Copies) != 1 {
		t.Errorf("diff shows %+v, %v", foreseen, err)
	}
	s.changed("team/b")
	row := s.wantState("team/b", tracking.Held)
	if want := "would remove 2 tags after 2 within 24h0m0s"; !strings.Contains(row.HeldReason, want) || row.HeldReason != foreseen.Held {
		t.Errorf("held for %q; diff said %q", row.HeldReason, foreseen.Held)
	}
	s.wantTags("team/b", "new", "v1", "v2", "v3", "v4")
	s.wantCounted("team/b", "team/b")
	for brake, want := range map[string]float64{"site": 1, "repository": 0} {
		if n := counted(t, metrics, "antipode_brakes_total", "brake", brake); n != want {
			t.Errorf("the %s's brake was counted %v times, want %v", brake, n, want)
		}
	}
	summary, err := s.store.Summary(t.Context())
	if err != nil || summary.Counts[tracking.Held] != 1 {
		t.Errorf("summary %+v, %v", summary, err)
	}

	s.release("team/b")
	s.wantEqual("team/b")
	s.wantTags("team/b", "new", "v3", "v4")
}

// A removal that fails again and again does not use up what the site may remove.
func TestFailedRemovalsAreGivenBack(t *testing.T) {
	t.Parallel()
	s := memoryStage(t, func(o *replicate.Options) {
		o.SiteBrake = tracking.SiteBrake{Count: 4, Window: 24 * time.Hour}
	})
	for _, repository := range []string{"team/a", "team/b"} {
		s.push(repository, "v1", "v2", "v3")
		s.changed(repository)
		s.untag(repository, "v1", "v2")
	}
	s.to.Fault(func(r *http.Request) registrytest.Fault {
		if r.Method == http.MethodDelete {
			return denied()
		}
		return registrytest.Fault{}
	})
	s.changed("team/a")
	for range 5 {
		s.resync("team/a")
		s.wantState("team/a", tracking.Failed)
		s.wantCounted("team/a", "team/a")
	}
	s.to.Fault(nil)
	s.changed("team/b")
	s.wantEqual("team/b")
	s.resync("team/a")
	s.wantEqual("team/a")
}

// One broken manifest fails its repository, with what, where and how named; its siblings are synced.
func TestOneBrokenTag(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		damage func(s *stage, broken string)
		side   string
		says   string
	}{
		"at the source": {side: "source", says: "403", damage: func(s *stage, broken string) {
			s.from.Fault(func(r *http.Request) registrytest.Fault {
				if strings.HasSuffix(r.URL.Path, "/manifests/"+broken) && r.Method == http.MethodGet {
					return denied()
				}
				return registrytest.Fault{}
			})
		}},
		"at the destination": {side: "destination", says: "403", damage: func(s *stage, _ string) {
			s.to.Fault(func(r *http.Request) registrytest.Fault {
				if strings.HasSuffix(r.URL.Path, "/manifests/broken") && r.Method == http.MethodPut {
					return denied()
				}
				return registrytest.Fault{}
			})
		}},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := memoryStage(t)
			const repository = "team/app"
			s.push(repository, "gone", "v1", "v2")
			s.changed(repository)
			s.untag(repository, "gone")
			s.push(repository, "broken", "v3", "v4")
			tc.damage(s, imageOf("broken").Digest)
			s.changed(repository)
			row := s.wantState(repository, tracking.Failed)
			f := row.LastError
			if f.Reference != "broken" || f.Side != tc.side || !strings.Contains(f.Message, tc.says) || f.Attempts != 1 {
				t.Errorf("failure %+v", f)
			}
			s.wantTags(repository, "v1", "v2", "v3", "v4")
			s.wantCounted(repository, repository)
			s.from.Fault(nil)
			s.to.Fault(nil)
			s.resync(repository)
			s.wantEqual(repository)
		})
	}
}

// What primaryd answers, or that it does not, fails the repository and touches nothing.
func TestPrimaryDoesNotList(t *testing.T) {
	t.Parallel()
	s := memoryStage(t)
	s.push("team/app", "v1")
	s.changed("team/app")
	s.primary.after = func(*client.Listing) error { return errors.New("the walk broke off") }
	s.from.Reset()
	s.to.Reset()
	s.changed("team/app")
	f := s.wantState("team/app", tracking.Failed).LastError
	if f.Side != "primary" || !strings.Contains(f.Message, "the walk broke off") {
		t.Errorf("failure %+v", f)
	}
	if n := s.to.Count("", ""); n > 0 {
		t.Errorf("the site was asked without a listing:%s", sent(s.to))
	}
	s.wantTags("team/app", "v1")
}

// Metrics are what the linter of Prometheus asks for.
func TestMetrics(t *testing.T) {
	t.Parallel()
	metrics := prometheus.NewRegistry()
	s := memoryStage(t, func(o *replicate.Options) { o.Metrics = replicate.NewMetrics(metrics) })
	s.push("team/app", "v1", "v2")
	s.changed("team/app")
	problems, err := testutil.GatherAndLint(metrics)
	if err != nil || len(problems) > 0 {
		t.Errorf("lint: %v, %v", problems, err)
	}
	s.stop() // counts are made after the row was written
	if n := counted(t, metrics, "antipode_syncs_total", "result", "synced"); n != 1 {
		t.Errorf("%v syncs counted", n)
	}
	if n := counted(t, metrics, "antipode_sync_tags_total", "action", "written"); n != 2 {
		t.Errorf("%v tags counted", n)
	}
}

// TestArrivalsAreMeasuredFromTheEvent counts live changes alone, by the time that their event told.
func TestArrivalsAreMeasuredFromTheEvent(t *testing.T) {
	t.Parallel()
	metrics := prometheus.NewRegistry()
	s := memoryStage(t, func(o *replicate.Options) { o.Metrics = replicate.NewMetrics(metrics) })
	pushed := time.Now().Add(-90 * time.Second)
	s.push("team/app", "v1")
	s.deliver(tracking.Change{Repository: "team/app", Revision: 1, ChangedAt: pushed, Class: tracking.Live})
	s.settle()
	s.push("team/old", "v1")
	s.deliver(tracking.Change{Repository: "team/old", Revision: 2, ChangedAt: pushed, Class: tracking.Backfill})
	s.settle()
	s.resync("team/app") // nobody waits for it
	s.wantEqual("team/app")
	s.wantEqual("team/old")
	s.stop() // counts are made after the row was written
	families, err := metrics.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, family := range families {
		if family.GetName() != "antipode_push_to_pullable_seconds" {
			continue
		}
		h := family.GetMetric()[0].GetHistogram()
		if h.GetSampleCount() != 1 || h.GetSampleSum() < 90 || len(h.GetPositiveSpan()) == 0 {
			t.Errorf("%d arrivals in %v seconds, native buckets %v", h.GetSampleCount(), h.GetSampleSum(), h.GetPositiveSpan())
		}
		return
	}
	t.Error("arrivals are not measured")
}
