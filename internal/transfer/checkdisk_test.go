package transfer_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/antipode-registry/antipode/internal/registrytest"
	"github.com/antipode-registry/antipode/internal/transfer"
)

// TestDamageOnDisk damages what real registries have stored, as a failing disk or an interrupted write does. All is
// found. What is missing is healed by copying it again; what is there with wrong bytes is not: CNCF distribution takes
// the upload and keeps what it has under that digest.
func TestDamageOnDisk(t *testing.T) {
	t.Parallel()
	damages := map[string]struct {
		change   func(body []byte) []byte // nil = the file is removed
		onlyDeep bool                     // of a layer
	}{
		"removed":   {change: nil},
		"truncated": {change: func(body []byte) []byte { return body[:len(body)/2] }},
		"emptied":   {change: func([]byte) []byte { return nil }},
		"zeroed":    {change: func(body []byte) []byte { return make([]byte, len(body)) }, onlyDeep: true},
	}
	start := map[string]func(testing.TB, ...registrytest.Option) *registrytest.Process{
		"distribution": registrytest.Distribution, "debian": registrytest.Debian,
	}
	for kind, start := range start {
		process := start(t)
		s := newSite(t, registrytest.InMemory(t, true).URL(), process.URL())
		seed := int64(0)
		for name, damage := range damages {
			for _, what := range []string{"layer", "manifest"} {
				if what == "manifest" && (name == "emptied" || name == "zeroed") {
					continue // answered like a truncated one, and each takes seconds: an internal error is asked for again
				}
				seed++
				img := registrytest.NewImage(seed, 1, 1000)
				root := registrytest.NewIndex(img)
				hit := map[string]string{"layer": img.Layers()[0], "manifest": img.Digest}[what]
				t.Run(kind+" "+what+" "+name, func(t *testing.T) {
					t.Parallel()
					s.push(t, "app", "latest", root)
					s.copyAgain(t, root, false)
					spoil(t, process.Dir(), hit, damage.change)
					if what == "layer" {
						s.wantDamage(t, root, false, hit, damage.onlyDeep, damage.change == nil)
					}
					s.wantDamage(t, root, true, hit, false, damage.change == nil)
					s.copyAgain(t, root, true)
					s.wantDamage(t, root, true, hit, damage.change == nil, false)
				})
			}
		}
	}
}

func (s *site) copyAgain(t *testing.T, img registrytest.Image, repair bool) {
	t.Helper()
	req := request(s.from, "app", img, "latest")
	req.Repair = repair
	if _, err := s.copier.Copy(t.Context(), req); err != nil {
		t.Fatal(err)
	}
}

// wantDamage checks, and expects hit to be damaged unless all should look right.
func (s *site) wantDamage(t *testing.T, img registrytest.Image, deep bool, hit string, right, missing bool) {
	t.Helper()
	found := check(t, s.to, img, transfer.CheckOptions{Deep: deep})
	switch {
	case right && len(found.Damages) == 0:
	case !right && len(found.Damages) == 1 && found.Damages[0].Digest == hit && found.Damages[0].Missing == missing:
	default:
		t.Errorf("deep %v: found %+v", deep, found.Damages)
	}
}

// spoil changes a blob in the storage of a CNCF distribution.
func spoil(t *testing.T, storage, digest string, change func([]byte) []byte) {
	t.Helper()
	hex := strings.TrimPrefix(digest, "sha256:")
	file := filepath.Join(storage, "docker/registry/v2/blobs/sha256", hex[:2], hex, "data")
	body, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if change == nil {
		err = os.Remove(file)
	} else {
		err = os.WriteFile(file, change(body), 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
}
