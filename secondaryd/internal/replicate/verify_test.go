package replicate_test

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/antipode-registry/antipode/internal/registrytest"
	"github.com/antipode-registry/antipode/secondaryd/internal/replicate"
	"github.com/antipode-registry/antipode/secondaryd/internal/tracking"
)

// verified is the repository of these tests.
const verified = "team/app"

// file is where distribution keeps a blob or a manifest.
func file(p *registrytest.Process, digest string) string {
	_, encoded, _ := strings.Cut(digest, ":")
	return filepath.Join(p.Dir(), "docker/registry/v2/blobs/sha256", encoded[:2], encoded, "data")
}

// Whatever goes missing or changes on the site behind our back, verify finds and mends, an existing parent
// notwithstanding.
func TestVerifyMends(t *testing.T) {
	t.Parallel()
	child, image := imageOf("child"), registrytest.NewImage(77, 2, 512)
	index := registrytest.NewIndex(child, imageOf("sibling"))
	tests := map[string]struct {
		depth  tracking.Depth
		damage func(s *stage, p *registrytest.Process) error
		found  bool // as damage of content, not by the comparison of tags
	}{
		"a layer's file is gone": {depth: tracking.Graphs, found: true, damage: func(_ *stage, p *registrytest.Process) error {
			return os.Remove(file(p, image.Layers()[1]))
		}},
		"a blob is deleted": {depth: tracking.Graphs, found: true, damage: func(s *stage, _ *registrytest.Process) error {
			return deleteOnSite(s, "blobs/"+image.Layers()[0])
		}},
		"a child manifest is deleted": {depth: tracking.Graphs, found: true, damage: func(s *stage, _ *registrytest.Process) error {
			return deleteOnSite(s, child.Digest)
		}},
		"a child's layer is deleted": {depth: tracking.Graphs, found: true, damage: func(s *stage, _ *registrytest.Process) error {
			return deleteOnSite(s, "blobs/"+child.Layers()[0])
		}},
		"a tag is moved": {depth: tracking.Graphs, damage: func(s *stage, _ *registrytest.Process) error {
			return registrytest.PushErr(s.Context(), s.site, verified, "image", imageOf("intruder"))
		}},
		"a tag is deleted": {depth: tracking.Graphs, damage: func(s *stage, _ *registrytest.Process) error {
			return deleteOnSite(s, "index")
		}},
		"everything is gone": {depth: tracking.Deep, damage: func(_ *stage, p *registrytest.Process) error {
			p.Kill()
			err := os.RemoveAll(filepath.Join(p.Dir(), "docker"))
			p.Start()
			return err
		}},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			metrics := prometheus.NewRegistry()
			process := registrytest.Distribution(t)
			s := newStage(t, registrytest.InMemory(t, false).URL(), process.URL(), func(o *replicate.Options) {
				o.Metrics = replicate.NewMetrics(metrics)
			})
			registrytest.Push(t, s.source, verified, "image", image)
			registrytest.Push(t, s.source, verified, "index", index)
			s.changed(verified)
			s.wantEqual(verified)
			s.must(tc.damage(s, process))

			s.verify(tc.depth)
			s.wantEqual(verified)
			if row := s.row(verified); row.VerifiedAt.IsZero() {
				t.Errorf("the row does not say when it was verified: %+v", row)
			}
			story := s.story(verified)
			if found := strings.Contains(story, "damaged"); found != tc.found || !strings.Contains(story, "verified") {
				t.Errorf("damage in the journal %t, want %t:\n%s", found, tc.found, story)
			}
			s.to.Reset()
			s.verify(tc.depth)
			s.wantEqual(verified)
			if n := s.to.Count("PUT", "") + s.to.Count("POST", ""); n > 0 {
				t.Errorf("verifying what is whole wrote to the site:%s", sent(s.to))
			}
		})
	}
}

// deleteOnSite deletes behind our back.
func deleteOnSite(s *stage, reference string) error {
	c := registrytest.NewClient(s.site)
	defer c.Close()
	return c.Delete(s.Context(), verified, reference)
}

// verify asks for a check and waits for it.
func (s *stage) verify(depth tracking.Depth) {
	s.Helper()
	s.operate(func(ctx context.Context) (bool, error) { return s.store.Verify(ctx, verified, depth) })
}

// Wrong bytes are found by a deep check alone. Distribution keeps them whatever is uploaded, so they are reported, with
// what to do; once they are gone the site is mended.
func TestDeepVerifyReportsCorruption(t *testing.T) {
	t.Parallel()
	image := registrytest.NewImage(5, 2, 1024)
	process := registrytest.Distribution(t)
	s := newStage(t, registrytest.InMemory(t, false).URL(), process.URL())
	registrytest.Push(t, s.source, verified, "v1", image)
	s.push(verified, "v2")
	s.changed(verified)
	s.wantEqual(verified)
	layer := image.Layers()[1]
	s.must(os.WriteFile(file(process, layer), make([]byte, 1024), 0o600))

	s.verify(tracking.Graphs)
	s.wantState(verified, tracking.Synced)
	before := s.row(verified).VerifiedAt

	s.verify(tracking.Deep)
	row := s.wantState(verified, tracking.Failed)
	f := row.LastError
	if f.Side != "destination" || f.Reference != "v1" || !strings.Contains(f.Message, layer) ||
		!strings.Contains(f.Message, "still damaged") {
		t.Errorf("failure %+v", f)
	}
	if !row.VerifiedAt.Equal(before) {
		t.Errorf("verified at %v although it is damaged", row.VerifiedAt)
	}
	s.wantCounted(verified, verified)
	sum, err := s.store.Summary(t.Context())
	if s.must(err); sum.Damaged != 1 || sum.Verified != 1 {
		t.Errorf("%d damaged, %d verified once, want 1 of each", sum.Damaged, sum.Verified)
	}

	// The check is still asked for: it is repeated with the next attempt.
	s.must(os.Remove(file(process, layer)))
	s.resync(verified)
	s.wantEqual(verified)
	if row := s.row(verified); !row.VerifiedAt.After(before) {
		t.Errorf("not verified since %v", before)
	}
}

// What a verifying sync copies itself is checked too: the copy takes layers for granted that it wrote before.
func TestVerifyLooksAtWhatItCopied(t *testing.T) {
	t.Parallel()
	shared := registrytest.Bytes(1, 1, 2048)
	first := registrytest.NewImage(1, 1, 64, registrytest.WithLayers(shared))
	second := registrytest.NewImage(2, 1, 64, registrytest.WithLayers(shared))
	process := registrytest.Distribution(t)
	s := newStage(t, registrytest.InMemory(t, false).URL(), process.URL())
	registrytest.Push(t, s.source, verified, "v1", first)
	s.changed(verified)
	s.must(os.WriteFile(file(process, registrytest.Digest(shared)), make([]byte, 2048), 0o600))
	registrytest.Push(t, s.source, verified, "v1", second)
	s.verify(tracking.Deep)
	if f := s.wantState(verified, tracking.Failed).LastError; !strings.Contains(f.Message, registrytest.Digest(shared)) {
		t.Errorf("failure %+v", f)
	}
}

// A restored tag, of which nothing but the digest is known, is verified like any other.
func TestVerifyRestored(t *testing.T) {
	t.Parallel()
	s := newStage(t, registrytest.InMemory(t, false).URL(), registrytest.Distribution(t).URL())
	s.push(verified, "v1", "v2")
	s.changed(verified)
	s.untag(verified, "v1")
	s.changed(verified)
	s.operate(func(ctx context.Context) (bool, error) {
		pins, _, err := s.store.Pin(ctx, verified, nil)
		return len(pins) == 1, err
	})
	s.must(deleteOnSite(s, "blobs/"+imageOf("v1").Layers()[0]))
	s.verify(tracking.Deep)
	s.wantState(verified, tracking.Synced)
	s.wantTags(verified, "v1", "v2")
	c := registrytest.NewClient(s.site)
	defer c.Close()
	if _, err := c.Blob(t.Context(), verified, imageOf("v1").Layers()[0]); err != nil {
		t.Errorf("the restored tag's layer was not mended: %v", err)
	}
}

// A registry that cannot be asked is no damage: nothing is written, and the check is repeated.
func TestVerifyWithoutAnswers(t *testing.T) {
	t.Parallel()
	s := memoryStage(t)
	s.push(verified, "v1", "v2")
	s.changed(verified)
	faultOn(s.to, "HEAD", imageOf("v1").Layers()[0], denied())
	s.to.Reset()
	s.verify(tracking.Graphs)
	f := s.wantState(verified, tracking.Failed).LastError
	if f.Side != "destination" || f.Reference != "v1" {
		t.Errorf("failure %+v", f)
	}
	if n := s.to.Count("PUT", "") + s.to.Count("POST", ""); n > 0 {
		t.Errorf("what could not be checked was written:%s", sent(s.to))
	}
	s.to.Fault(nil)
	s.resync(verified)
	s.wantEqual(verified)
	if s.row(verified).VerifiedAt.IsZero() {
		t.Error("the check was not repeated")
	}
}
