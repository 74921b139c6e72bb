package main

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/antipode-registry/antipode/internal/config"
	"github.com/antipode-registry/antipode/internal/registry"
	"github.com/antipode-registry/antipode/secondaryd/internal/tracking"
)

// load reads a file of that text, in which FILE stands for one that can be read.
func load(t *testing.T, text string) (*settings, error) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "secondary.yaml")
	if err := os.WriteFile(path, []byte(strings.ReplaceAll(text, "FILE", strconv.Quote(path))), 0o600); err != nil {
		t.Fatal(err)
	}
	return loadSettings(path)
}

// mistakes returns the lines of the problems by their keys.
func mistakes(t *testing.T, err error) map[string]int {
	t.Helper()
	var all *config.Error
	if !errors.As(err, &all) {
		t.Fatalf("got %v, want the problems of a file", err)
	}
	lines := map[string]int{}
	for _, problem := range all.Problems {
		lines[problem.Key] = problem.Line
	}
	return lines
}

const least = `
node: eu-west
primary: {address: "primary:7443", cert_file: FILE, key_file: FILE, ca_file: FILE}
registry: {url: "http://127.0.0.1:5001"}
grpc: {cert_file: FILE, key_file: FILE, client_ca_file: FILE}
`

func TestSettingsHaveDefaults(t *testing.T) {
	t.Parallel()
	s, err := load(t, least)
	if err != nil {
		t.Fatal(err)
	}
	if s.Database != "sqlite:secondary.db" || s.HTTP.Listen != "127.0.0.1:8081" || s.GRPC.Listen != "127.0.0.1:7444" ||
		s.Replication.Workers != 8 || s.Replication.Blobs != 32 || time.Duration(s.Sweep.Interval) != time.Hour ||
		time.Duration(s.Sweep.VerifyAfter) != 7*24*time.Hour || s.Log.Level != "info" {
		t.Errorf("%+v", s)
	}
	policy := s.policy()
	if !policy.Deletions || policy.KeepStray || policy.BrakeShare != 0.5 || policy.BrakeCount != 10 || policy.Protected("v1") {
		t.Errorf("policy %+v", policy)
	}
	want := tracking.SiteBrake{Share: 0.2, Count: 100, Window: 24 * time.Hour}
	if brake := s.siteBrake(); brake != want {
		t.Errorf("site brake %+v, want %+v", brake, want)
	}
	for _, name := range []string{"a", "team/app", "deep/er/still"} {
		if !s.wants(name) || s.target(name) != name {
			t.Errorf("%s is wanted %t, as %s", name, s.wants(name), s.target(name))
		}
	}
}

func TestEveryMistakeIsNamedAtOnce(t *testing.T) {
	t.Parallel()
	_, err := load(t, `node: Not_A_Name
database: mysql://user:hidden@x
primary:
  address: primary
  cert_file: FILE
  key_file: /does/not/exist
  registry_url: ftp://x
  registry_ca_file: /does/not/exist
  registry_concurrency: 0
  passwort: x
registry:
  url: "127.0.0.1:5001"
  concurrency: 2000
replication:
  workers: 0
  blobs: 1000
  include: []
  exclude: ["[a"]
  rename: [{from: "prod", to: "x/"}]
deletions:
  enabled: maybe
  protected: ["{a"]
  brake: {share: 1.5, count: -1, site_share: .nan, site_count: -1}
http: {listen: "8081"}
grpc: {listen: ":99999", cert_file: FILE, key_file: FILE}
sweep: {interval: 1ms, verify_after: -1h}
operators: [ops, ""]
log: {level: loud, format: xml}
`)
	want := map[string]int{
		"node": 1, "database": 2, "primary.address": 4, "primary.key_file": 6, "primary.ca_file": 3,
		"primary.registry_url": 7, "primary.registry_ca_file": 8, "primary.registry_concurrency": 9, "primary.passwort": 10,
		"registry.url": 12, "registry.concurrency": 13, "replication.workers": 15, "replication.blobs": 16,
		"replication.include": 17, "replication.exclude[0]": 18, "replication.rename[0].from": 19,
		"replication.rename[0].to": 19, "deletions.enabled": 21, "deletions.protected[0]": 22,
		"deletions.brake.share": 23, "deletions.brake.count": 23, "deletions.brake.site_share": 23,
		"deletions.brake.site_count": 23, "http.listen": 24, "grpc.listen": 25, "grpc.client_ca_file": 25,
		"sweep.interval": 26, "sweep.verify_after": 26, "operators[1]": 27, "log.level": 28, "log.format": 28,
	}
	if diff := cmp.Diff(want, mistakes(t, err)); diff != "" {
		t.Errorf("mistakes (-want +got):\n%s\n%v", diff, err)
	}
	if text := err.Error(); strings.Contains(text, "hidden") || strings.Contains(text, "main.") ||
		!strings.Contains(text, "secondary.yaml:10: primary.passwort: ") {
		t.Error(text)
	}
}

func TestMistakesComeInTheFilesOrder(t *testing.T) {
	t.Parallel()
	first := ""
	for range 10 {
		_, err := load(t, "replication:\n  include: ['[a', '[b']\n  exclude: ['[c']\ndeletions:\n  protected: ['[d']\n")
		text := lastColumns(err.Error())
		if first == "" {
			first = text
		}
		if text != first {
			t.Fatalf("two orders of the same mistakes:\n%s\n%s", first, text)
		}
	}
}

// lastColumns is a text without the folder of the file in each line.
func lastColumns(text string) string {
	var lines []string
	for line := range strings.SplitSeq(text, "\n") {
		_, rest, _ := strings.Cut(line, "secondary.yaml")
		lines = append(lines, rest)
	}
	return strings.Join(lines, "\n")
}

func TestSelection(t *testing.T) {
	t.Parallel()
	s, err := load(t, least+`
replication: {include: ["team/**", "lib/*"], exclude: ["team/secret/**", "**/tmp"]}
deletions: {protected: ["v*", "latest"]}
`)
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]bool{
		"team/app": true, "team/a/b": true, "lib/x": true, "lib/x/y": false, "other": false,
		"team/secret/x": false, "team/tmp": false, "team/tmp/x": true, "lib/tmp": false,
	} {
		if got := s.wants(name); got != want {
			t.Errorf("%s is wanted: %t", name, got)
		}
		if scope := s.scope(); scope.Wants(name) != want {
			t.Errorf("%s is in the scope: %t", name, !want)
		}
	}
	for tag, want := range map[string]bool{"v1": true, "latest": true, "main": false} {
		if got := s.policy().Protected(tag); got != want {
			t.Errorf("%s is protected: %t", tag, got)
		}
	}
}

// The scope differs just when another selection or other names are configured.
func TestScopeTellsConfigurationsApart(t *testing.T) {
	t.Parallel()
	texts := map[string]string{
		"all": "", "include": `replication: {include: ["a/**", "b"]}`, "include as one": `replication: {include: ["a/** b"]}`,
		"exclude": `replication: {exclude: ["a/**"]}`, "rename": `replication: {rename: [{from: "", to: "m/"}]}`,
	}
	seen := map[string]string{}
	for name, text := range texts {
		s, err := load(t, least+text)
		if err != nil {
			t.Fatal(err)
		}
		scope := s.scope()
		key := scope.Selection + "|" + scope.Names
		if other, twice := seen[key]; twice {
			t.Errorf("%s and %s have the same scope %s", name, other, key)
		}
		seen[key] = name
	}
	same, err := load(t, least+"log: {level: debug}\ndeletions: {enabled: false}")
	if err != nil {
		t.Fatal(err)
	}
	if key := same.scope().Selection + "|" + same.scope().Names; seen[key] != "all" {
		t.Errorf("what does not select repositories changes the scope: %s", key)
	}
}

func TestRename(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		replication string
		targets     map[string]string
		refused     []string // keys
	}{
		"below a prefix": {
			replication: `rename: [{from: "", to: "mirror/"}]`,
			targets:     map[string]string{"a": "mirror/a", "mirror/a": "mirror/mirror/a"},
		},
		"the first rule that fits": {
			replication: `rename: [{from: "prod/eu/", to: "eu/"}, {from: "prod/", to: "world/"}], exclude: ["eu/**", "world/**"]`,
			targets:     map[string]string{"prod/eu/a": "eu/a", "prod/a": "world/a", "dev/a": "dev/a", "prod": "prod"},
		},
		"into a prefix that is renamed itself": {
			replication: `rename: [{from: "new/", to: "old/"}, {from: "old/", to: "older/"}], exclude: ["older/**"]`,
			targets:     map[string]string{"new/a": "old/a", "old/a": "older/a"},
		},
		"a prefix away": {
			replication: `rename: [{from: "prod/", to: ""}], exclude: ["**"]`,
			targets:     map[string]string{"prod/a": "a"},
		},
		"onto repositories that keep their names": {
			replication: `rename: [{from: "prod/", to: "team/"}]`, refused: []string{"replication.rename[0].to"},
		},
		"a prefix away, onto others": {
			replication: `rename: [{from: "prod/", to: ""}]`, refused: []string{"replication.rename[0].to"},
		},
		"two onto one": {
			replication: `rename: [{from: "a/", to: "x/"}, {from: "b/", to: "x/"}], exclude: ["x/**"]`,
			refused:     []string{"replication.rename[1].to"},
		},
		"one below the other": {
			replication: `rename: [{from: "a/", to: "x/"}, {from: "b/", to: "x/y/"}], exclude: ["x/**", "x/y/**"]`,
			refused:     []string{"replication.rename[1].to"},
		},
		"never reached": {
			replication: `rename: [{from: "a/", to: "x/"}, {from: "a/b/", to: "y/"}], exclude: ["x/**", "y/**"]`,
			refused:     []string{"replication.rename[1].from"},
		},
		"nothing by nothing": {
			replication: `rename: [{from: "", to: ""}]`, refused: []string{"replication.rename[0]"},
		},
		"half a path element": {
			replication: `rename: [{from: "pro", to: "Mirror/"}]`,
			refused:     []string{"replication.rename[0].from", "replication.rename[0].to"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s, err := load(t, least+"replication: {"+tc.replication+"}\n")
			if len(tc.refused) > 0 {
				got := mistakes(t, err)
				for _, key := range tc.refused {
					if got[key] == 0 {
						t.Errorf("%s was not refused: %v", key, err)
					}
				}
				if len(got) != len(tc.refused) {
					t.Errorf("refused %v, want %v", got, tc.refused)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			for from, to := range tc.targets {
				if got := s.target(from); got != to {
					t.Errorf("%s becomes %s, want %s", from, got, to)
				}
			}
		})
	}
}

// Whatever rules are taken: no two wanted repositories land on one, and each lands on a name that a registry takes.
func TestAcceptedRenamesNeverCollide(t *testing.T) {
	t.Parallel()
	element := rapid.SampledFrom([]string{"a", "b", "c"})
	path := rapid.Custom(func(t *rapid.T) string {
		return strings.Join(rapid.SliceOfN(element, 1, 4).Draw(t, "elements"), "/")
	})
	prefix := rapid.Custom(func(t *rapid.T) string {
		if rapid.IntRange(0, 3).Draw(t, "empty") == 0 {
			return ""
		}
		return strings.Join(rapid.SliceOfN(element, 1, 2).Draw(t, "elements"), "/") + "/"
	})
	file := filepath.Join(t.TempDir(), "secondary.yaml")
	if err := os.WriteFile(file, []byte("node: x\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	taken := 0
	rapid.Check(t, func(t *rapid.T) {
		s := &settings{Replication: replicationSettings{Include: []string{"**"}}}
		for range rapid.IntRange(1, 3).Draw(t, "rules") {
			rule := renameSettings{From: prefix.Draw(t, "from"), To: prefix.Draw(t, "to")}
			s.Replication.Rename = append(s.Replication.Rename, rule)
			if rapid.Bool().Draw(t, "exclude") {
				s.Replication.Exclude = append(s.Replication.Exclude, rule.To+"**")
			}
		}
		if err := config.Load(file, &settings{}, s.checkRename); err != nil {
			return
		}
		taken++
		names := rapid.SliceOfNDistinct(path, 2, 30, rapid.ID).Draw(t, "names")
		landed := map[string]string{}
		for _, name := range names {
			if !s.wants(name) {
				continue
			}
			target := s.target(name)
			if other, twice := landed[target]; twice {
				t.Fatalf("rules %v, exclude %v: %s and %s both land on %s", s.Replication.Rename, s.Replication.Exclude, name, other, target)
			}
			landed[target] = name
			if err := registry.ValidRepository(target); err != nil {
				t.Fatalf("%s lands on no name: %v", name, err)
			}
		}
	})
	if taken == 0 {
		t.Error("no rules were ever taken")
	}
}

func TestKeysOfTheFileAreKnown(t *testing.T) {
	t.Parallel()
	s, err := load(t, least+`
database: "postgres://user@db/antipode"
operators: [ops, oncall]
deletions: {enabled: false, keep_stray: true, brake: {share: 0, count: 0, site_share: 1, site_count: 0}}
`)
	if err != nil {
		t.Fatal(err)
	}
	if p := s.policy(); p.Deletions || !p.KeepStray || p.BrakeShare != 0 || p.BrakeCount != 0 || s.siteBrake().Share != 1 {
		t.Errorf("policy %+v, brake %+v", p, s.siteBrake())
	}
	if !slices.Equal(s.Operators, []string{"ops", "oncall"}) || !strings.HasPrefix(s.Database, "postgres:") {
		t.Errorf("%+v", s)
	}
}
