package node

import (
	"regexp"
	"strings"
	"testing"
)

// plainGlob is a pattern whose meaning can be said otherwise: letters, and stars that are whole path elements.
var plainGlob = regexp.MustCompile(`^(([a-z0-9-]+|\*|\*\*)(/([a-z0-9-]+|\*|\*\*))*)$`)

// FuzzGrants: whatever globs are configured, a node sees what one of them matches and another node nothing of it, and
// two grants with one view let see the same. Plain globs are held against a matcher of our own.
func FuzzGrants(f *testing.F) {
	for _, seed := range [][3]string{
		{"**", "a", "team/app"},
		{"prod/**", "prod/*", "prod/a/b"},
		{"{a,b}/c", "[ab]/c", "a/c"},
		{"a/**/b", "a/*/b", "a/b"},
		{"[", "a", "a"},
		{"\\*", "?", "*"},
		{"a\nb", "a", "b"},
		{"**/**/**/**/**/**", "**a**", "a/a/a/a/a/a/a/a"},
		{"prod/**", "", "prod"},
	} {
		f.Add(seed[0], seed[1], seed[2])
	}
	f.Fuzz(func(t *testing.T, first, second, name string) {
		if len(first)+len(second)+len(name) > 300 {
			t.Skip("longer than any name")
		}
		both, err := newGrants([]Config{{Name: "eu", Repositories: []string{first, second}}, {Name: "us"}})
		if err != nil {
			return
		}
		d := &Directory{}
		d.grants.Store(both)
		seen := d.MaySee("eu", name)
		if d.MaySee("us", name) || d.MaySee("", name) || d.MaySee("elsewhere", name) {
			t.Fatalf("%q is seen by who was granted nothing", name)
		}
		alone := false
		for _, pattern := range []string{first, second} {
			one, err := newGrants([]Config{{Name: "eu", Repositories: []string{pattern}}})
			if err != nil {
				t.Fatalf("%q was taken beside another: %v", pattern, err)
			}
			only := &Directory{}
			only.grants.Store(one)
			saw := only.MaySee("eu", name)
			alone = alone || saw
			if plainGlob.MatchString(pattern) && plainGlob.MatchString(name) && !strings.Contains(name, "*") {
				if want := matched(strings.Split(pattern, "/"), strings.Split(name, "/")); saw != want {
					t.Fatalf("%q sees %q: %t", pattern, name, saw)
				}
			}
			if only.View("eu") == d.View("eu") && saw != seen {
				t.Fatalf("%q and %q with %q are one view", pattern, first, second)
			}
		}
		if alone != seen {
			t.Fatalf("%q, %q: %q is seen %t together, %t alone", first, second, name, seen, alone)
		}
	})
}

// matched is what plain globs mean: "*" is one element, "**" any number of them, none included.
func matched(pattern, name []string) bool {
	switch {
	case len(pattern) == 0:
		return len(name) == 0
	case pattern[0] == "**":
		for skip := range len(name) + 1 {
			if matched(pattern[1:], name[skip:]) {
				return true
			}
		}
		return false
	case len(name) == 0:
		return false
	}
	return (pattern[0] == "*" || pattern[0] == name[0]) && matched(pattern[1:], name[1:])
}
