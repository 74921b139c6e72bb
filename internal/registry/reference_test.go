package registry

import (
	"strings"
	"testing"

	"pgregory.net/rapid"
)

func TestValidNames(t *testing.T) {
	t.Parallel()
	repositories := map[string]bool{
		"a": true, "team/app": true, "a.b_c__d-e--f/0": true, strings.Repeat("a", 255): true,
		"": false, "A": false, "a/": false, "/a": false, "a//b": false, "a___b": false, "a..b": false, "-a": false, "a-": false,
		"a b": false, "a:b": false, "a/../b": false, "a\n": false, "a?x=1": false, strings.Repeat("a", 256): false,
	}
	for name, want := range repositories {
		if err := ValidRepository(name); (err == nil) != want {
			t.Errorf("repository %q: %v", name, err)
		}
	}
	tags := map[string]bool{
		"v1": true, "_": true, "V1.0-rc_2": true, strings.Repeat("a", 128): true,
		"": false, ".a": false, "-a": false, "a/b": false, "a:b": false, "a\n": false, "ä": false, strings.Repeat("a", 129): false,
	}
	for name, want := range tags {
		if err := ValidTag(name); (err == nil) != want {
			t.Errorf("tag %q: %v", name, err)
		}
	}
}

func TestFingerprint(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		name := rapid.StringMatching(`[a-c]{1,2}`)
		tag := rapid.Custom(func(t *rapid.T) Tag {
			return Tag{Name: name.Draw(t, "name"), Digest: "sha256:" + name.Draw(t, "digest"), Size: rapid.Int64().Draw(t, "size")}
		})
		pairs := func(tags []Tag) map[[2]string]bool {
			set := map[[2]string]bool{}
			for _, tag := range tags {
				set[[2]string{tag.Name, tag.Digest}] = true
			}
			return set
		}
		a := rapid.SliceOfN(tag, 0, 6).Draw(t, "a")
		b := rapid.OneOf(rapid.Permutation(a), rapid.SliceOfN(tag, 0, 6)).Draw(t, "b")
		same := len(pairs(a)) == len(pairs(b))
		for pair := range pairs(a) {
			same = same && pairs(b)[pair]
		}
		if got := Fingerprint(a) == Fingerprint(b); got != same {
			t.Fatalf("fingerprints equal: %t, sets equal: %t", got, same)
		}
	})
	const want = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
	if got := Fingerprint(nil); got != want {
		t.Errorf("of nothing: %s: stored fingerprints would no longer match", got)
	}
}
