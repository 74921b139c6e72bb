package registry

import (
	"regexp"
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

// The grammars are regular; what is asked for each request is written out, and must say the same.
func TestNamesAreThoseOfTheGrammars(t *testing.T) {
	t.Parallel()
	grammars := map[string]struct {
		pattern *regexp.Regexp
		told    func(string) bool
	}{
		"repository": {
			regexp.MustCompile(`^[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*(/[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*)*$`), isRepository,
		},
		"tag":    {regexp.MustCompile(`^[a-zA-Z0-9_][a-zA-Z0-9._-]*$`), isTag},
		"sha256": {regexp.MustCompile(`^sha256:[a-f0-9]{64}$`), isSHA256},
	}
	for name, grammar := range grammars {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			near := rapid.OneOf(
				rapid.StringMatching(`[a-c0A_./:\n é-]{0,9}`), rapid.StringMatching(`[a0]{1,2}([._/-]{1,3}[a0]{1,2}){0,3}`),
				rapid.StringMatching(`sha256:[a-g0-9]{63,65}`), rapid.StringMatching(`sha256:[a-f0-9]{64}`), rapid.String(),
			)
			rapid.Check(t, func(t *rapid.T) {
				s := near.Draw(t, "name")
				if told := grammar.told(s); told != grammar.pattern.MatchString(s) {
					t.Fatalf("%q: %t", s, told)
				}
			})
		})
	}
}
