package config_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/antipode-registry/antipode/internal/config"
)

// refusal runs one check and returns its message, or "" when it found nothing.
func refusal(t *testing.T, check func(*config.Problems)) string {
	t.Helper()
	found := problems(t, "database: x\n", check)
	return strings.TrimPrefix(strings.Join(found, "\n"), "primary.yaml:1: key: ")
}

func TestChecks(t *testing.T) {
	t.Parallel()
	file := write(t, "x")
	type check = func(p *config.Problems, key, value string)
	tests := map[string]struct {
		check    check
		good     []string
		bad      []string
		contains string
	}{
		"listen": {
			check: (*config.Problems).CheckListen,
			good:  []string{"127.0.0.1:0", ":8080", "[::1]:80", "localhost:65535"},
			bad:   []string{"127.0.0.1", "8080", "a:http", "a:65536", "::1:80", "a:-1"}, contains: "host:port",
		},
		"address": {
			check: (*config.Problems).CheckAddress,
			good:  []string{"127.0.0.1:7443", "primary.example.com:7443"},
			bad:   []string{":7443", "primary", "http://primary:7443"}, contains: "host:port",
		},
		"url": {
			check: (*config.Problems).CheckURL,
			good:  []string{"http://127.0.0.1:5000", "https://registry.example.com", "http://[::1]:5000"},
			bad: []string{
				"registry:5000", "ftp://a", "http://", "http://a/", "http://a/v2", "http://a?", "http://a#b", "http://a:0",
				"https://a:99999",
			},
		},
		"glob": {
			check: (*config.Problems).CheckGlob,
			good:  []string{"**", "team/*", "{a,b}/**", "a"},
			bad:   []string{"[", "{a", "a\\"}, contains: "pattern",
		},
		"name": {
			check: (*config.Problems).CheckName,
			good:  []string{"eu-west", "a", "node1.example", strings.Repeat("a", 63)},
			bad:   []string{"Eu", "-a", "a-", "a_b", "a/b", "ü", strings.Repeat("a", 64)}, contains: "name",
		},
		"file": {
			check: (*config.Problems).CheckFile,
			good:  []string{file, os.DevNull},
			bad:   []string{filepath.Dir(file), filepath.Join(file, "below"), filepath.Join(filepath.Dir(file), "none")},
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for _, value := range test.good {
				if got := refusal(t, func(p *config.Problems) { test.check(p, "key", value) }); got != "" {
					t.Errorf("%q refused: %s", value, got)
				}
			}
			for _, value := range test.bad {
				got := refusal(t, func(p *config.Problems) { test.check(p, "key", value) })
				if got == "" || !strings.Contains(got, test.contains) {
					t.Errorf("%q: %q", value, got)
				}
			}
			if got := refusal(t, func(p *config.Problems) { test.check(p, "key", "") }); got != "is required" {
				t.Errorf("empty: %q", got)
			}
		})
	}
}

func TestCheckURLKeepsThePassword(t *testing.T) {
	t.Parallel()
	for _, value := range []string{"http://user:hunter2@host", "postgres://user:hunter2@host", "http://u:hunter2@h\x7f"} {
		got := refusal(t, func(p *config.Problems) { p.CheckURL("key", value) })
		if got == "" || strings.Contains(got, "hunter2") {
			t.Errorf("%q", got)
		}
	}
}

func TestCheckFileSaysWhy(t *testing.T) {
	t.Parallel()
	missing := filepath.Join(t.TempDir(), "none.crt")
	got := refusal(t, func(p *config.Problems) { p.CheckFile("key", missing) })
	if want := `cannot read "` + missing + `": no such file or directory`; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestBounds(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		check func(*config.Problems)
		want  string
	}{
		"duration within": {func(p *config.Problems) {
			p.CheckBetween("key", config.Duration(time.Second), time.Second, time.Minute)
		}, ""},
		"duration beyond": {func(p *config.Problems) {
			p.CheckBetween("key", config.Duration(time.Hour), time.Second, time.Minute)
		}, "must be 1s to 1m0s, not 1h0m0s"},
		"number within": {func(p *config.Problems) { p.CheckNumber("key", 8, 1, 8) }, ""},
		"number below":  {func(p *config.Problems) { p.CheckNumber("key", 0, 1, 8) }, "must be 1 to 8, not 0"},
		"one of":        {func(p *config.Problems) { p.CheckOneOf("key", "json", "text", "json") }, ""},
		"none of": {func(p *config.Problems) {
			p.CheckOneOf("key", "xml", "text", "json")
		}, `must be one of text, json, not "xml"`},
		"SQLite": {func(p *config.Problems) { p.CheckDatabase("key", "sqlite:a.db") }, ""},
		"SQLite, no file": {func(p *config.Problems) {
			p.CheckDatabase("key", "sqlite:")
		}, "names no file: expected sqlite:PATH"},
		"Postgres": {func(p *config.Problems) { p.CheckDatabase("key", "postgresql://u@h/d") }, ""},
		"another database": {func(p *config.Problems) {
			p.CheckDatabase("key", "mysql://u:hunter2@h/d")
		}, "expected sqlite:PATH or postgres://USER@HOST/DATABASE"},
	}
	for name, test := range tests {
		if got := refusal(t, test.check); got != test.want {
			t.Errorf("%s: got %q, want %q", name, got, test.want)
		}
	}
}
