package registrytest_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/antipode-registry/antipode/internal/registrytest"
)

func contains(body, part string) bool { return strings.Contains(body, part) }

func TestEqualOverDifferentRegistries(t *testing.T) {
	t.Parallel()
	source, destination := registrytest.Distribution(t), registrytest.Debian(t)
	for tag, img := range everything() {
		for _, url := range []string{source.URL(), destination.URL()} {
			registrytest.Push(t, url, "one", tag, img)
			registrytest.Push(t, url, "two/deep", tag, img)
		}
	}
	registrytest.AssertEqual(t, source.URL(), destination.URL())
	registrytest.AssertEqual(t, source.URL(), destination.URL(), "one", "two/deep", "neither")
}

func TestEqualSeesEachDifference(t *testing.T) {
	t.Parallel()
	img, other := registrytest.NewImage(1, 2, 128), registrytest.NewImage(2, 1, 128)
	nested := registrytest.NewIndex(registrytest.NewIndex(img), other)
	tests := []struct {
		name   string
		want   string
		damage func(t *testing.T, source, destination *registrytest.Process)
	}{
		{"missing tag", "not at the destination", func(t *testing.T, source, _ *registrytest.Process) {
			registrytest.Retag(t, source.URL(), "app", img.Digest, "more")
		}},
		{"stray tag", "only at the destination", func(t *testing.T, _, destination *registrytest.Process) {
			registrytest.Retag(t, destination.URL(), "app", img.Digest, "more")
		}},
		{"moved tag", "at the source, ", func(t *testing.T, source, _ *registrytest.Process) {
			registrytest.Retag(t, source.URL(), "app", img.Digest, "v1")
		}},
		{"stray repository", "only at the destination", func(t *testing.T, _, destination *registrytest.Process) {
			registrytest.Push(t, destination.URL(), "stray", "v1", img)
		}},
		{"lost child", "manifest is not at the destination", func(t *testing.T, _, destination *registrytest.Process) {
			registrytest.DeleteDigest(t, destination.URL(), "app", img.Digest)
		}},
		{
			"lost layer", "blob " + img.Layers()[0] + " is not at the destination",
			func(t *testing.T, _, destination *registrytest.Process) {
				registrytest.DeleteDigest(t, destination.URL(), "app", "blobs/"+img.Layers()[0])
			},
		},
		{"short layer", "bytes at the destination", func(t *testing.T, _, destination *registrytest.Process) {
			truncate(t, destination.Dir(), img.Layers()[0])
		}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			source, destination := registrytest.Distribution(t), registrytest.Distribution(t)
			registrytest.Push(t, source.URL(), "app", "v1", nested)
			registrytest.Push(t, destination.URL(), "app", "v1", nested)
			registrytest.AssertEqual(t, source.URL(), destination.URL())
			test.damage(t, source, destination)
			err := registrytest.Equal(t.Context(), source.URL(), destination.URL())
			if err == nil || !contains(err.Error(), test.want) {
				t.Errorf("Equal says %v, want %q", err, test.want)
			}
		})
	}
}

// truncate damages a blob in the registry's storage.
func truncate(t *testing.T, storage, digest string) {
	t.Helper()
	encoded := strings.TrimPrefix(digest, "sha256:")
	path := filepath.Join(storage, "docker/registry/v2/blobs/sha256", encoded[:2], encoded, "data")
	if err := os.Truncate(path, 5); err != nil {
		t.Fatal(err)
	}
}

// TestDifferencesInReferrers: what the source lists by its API must be listed by the destination, by its API or by a tag.
func TestDifferencesInReferrers(t *testing.T) {
	t.Parallel()
	img := registrytest.NewImage(1, 1, 128)
	signature := registrytest.NewArtifact(2, "application/vnd.example.signature", registrytest.WithSubject(img))
	list := registrytest.NewIndex(signature)
	for name, api := range map[string]bool{"by the API": true, "by a tag": false} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			source, destination := registrytest.InMemory(t, true), registrytest.InMemory(t, api)
			differ := func(want string) {
				t.Helper()
				differences, err := registrytest.Differences(t.Context(), source.URL(), destination.URL())
				if text := errors.Join(differences...); err != nil || (text != nil) != (want != "") ||
					text != nil && !contains(text.Error(), want) {
					t.Errorf("%v, %v; want %q", text, err, want)
				}
			}
			registrytest.Push(t, source.URL(), "app", "v1", img)
			registrytest.Push(t, source.URL(), "app", "", signature)
			registrytest.Push(t, destination.URL(), "app", "v1", img)
			differ("has the referrers [" + signature.Digest + "] at the source, [] at")
			if api {
				registrytest.Push(t, destination.URL(), "app", "", signature)
			} else {
				registrytest.Push(t, destination.URL(), "app", strings.Replace(img.Digest, ":", "-", 1), list)
			}
			differ("")
			registrytest.Push(t, destination.URL(), "app", "sha256-"+strings.Repeat("z", 64), img)
			differ("only at the destination")
		})
	}
}
