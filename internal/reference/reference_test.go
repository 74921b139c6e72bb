package reference

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/spf13/cobra"
)

const sample = `# Title

| Key | Default |
|---|---|
| outside | of any section |

## One

Words.

| Key | Default |
|---|:--|
| ` + "`a`" + ` | ` + "`1h`" + ` |
| ` + "`b|c`" + ` | required |

### Below

| Key |
|---|
| ` + "`d`" + ` |

## Two

| Key |
|---|
| ` + "`e`" + ` |
`

func document(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "doc.md")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestRowsAreThoseOfTheSection(t *testing.T) {
	t.Parallel()
	rows, err := Rows(document(t, strings.ReplaceAll(sample, "b|c", `b\|c`)), "One")
	if err != nil {
		t.Fatal(err)
	}
	want := []Row{
		{Line: 13, Cells: map[string]string{"Key": "`a`", "Default": "`1h`"}},
		{Line: 14, Cells: map[string]string{"Key": "`b|c`", "Default": "required"}},
		{Line: 20, Cells: map[string]string{"Key": "`d`"}},
	}
	if diff := cmp.Diff(want, rows); diff != "" {
		t.Error(diff)
	}
	if _, err := Rows(document(t, sample), "Three"); err == nil {
		t.Error("a section that is not there has rows")
	}
}

const settingsSource = `package main

type settings struct {
	// What it says. It is
	// wrapped | barred.
	Text string
	// How many.
	Count int
	// Which.
	// Type: list of items.
	// Limits: at least one.
	Items []item
	// What it is written to.
	File string
	// What else it is written to.
	Copy string
	Deep deep
}

type item struct {
	// Who.
	// Required.
	Name string
}

type deep struct {
	// How often.
	Wait int
}

func (s *settings) check(p *problems) {
	p.CheckNumber("count", s.Count, 1, 1<<10)
	p.CheckFile("file", s.File)
	if s.Copy != "" {
		p.CheckFile("copy", s.Copy)
	}
	p.CheckBetween("deep.wait", s.Deep.Wait, 0, 7*24*time.Hour)
	p.CheckOneOf(names[0], "a", "b")
}
`

type item struct {
	Name string `yaml:"name"`
}

type deep struct {
	Wait int `yaml:"wait"`
}

type settings struct {
	Text  string `yaml:"text"`
	Count int    `yaml:"count"`
	Items []item `yaml:"items"`
	File  string `yaml:"file"`
	Copy  string `yaml:"copy"`
	Deep  deep   `yaml:"deep"`
}

// sources writes a package of one file.
func sources(t *testing.T, text string) (dir string) {
	t.Helper()
	dir = t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "config.go"), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return dir
}

func TestKeysAreWhatFieldsAndChecksSay(t *testing.T) {
	t.Parallel()
	keys, err := Keys(&settings{Text: "x"}, sources(t, settingsSource))
	if err != nil {
		t.Fatal(err)
	}
	want := strings.ReplaceAll(`| Key | Type | Default | Limits | Meaning |
|---|---|---|---|---|
| 'text' | text | 'x' | | What it says. It is wrapped \| barred. |
| 'count' | number | '0' | 1 to 1024 | How many. |
| 'items' | list of items | '[]' | at least one | Which. |
| 'items[].name' | text | required | | Who. |
| 'file' | path | required | a readable file | What it is written to. |
| 'copy' | path | none | a readable file | What else it is written to. |
| 'deep.wait' | time | '0' | 0s to 168h | How often. |
`, "'", "`")
	if diff := cmp.Diff(want, KeyTable(keys)); diff != "" {
		t.Error(diff)
	}
}

func TestAFieldWithoutTagOrCommentIsRefused(t *testing.T) {
	t.Parallel()
	if _, err := Keys(struct{ Untagged string }{}, sources(t, settingsSource)); err == nil {
		t.Error("a field without a tag was taken")
	}
	silent := strings.ReplaceAll(settingsSource, "// How many.", "")
	if _, err := Keys(&settings{}, sources(t, silent)); err == nil || !strings.Contains(err.Error(), "count") {
		t.Errorf("a field without a comment: %v", err)
	}
}

func TestCurrentComparesAndWrites(t *testing.T) {
	path := document(t, "a\n<!-- generated: x -->\nold\n<!-- end of x -->\nb\n")
	t.Setenv(writes, "")
	if err := Current(path, "x", "old\n"); err != nil {
		t.Error(err)
	}
	if err := Current(path, "x", "new\n"); err == nil || !strings.Contains(err.Error(), "make docs") {
		t.Errorf("an old table: %v", err)
	}
	t.Setenv(writes, "write")
	if err := Current(path, "y", "new\n"); err == nil {
		t.Error("a document without markers was taken")
	}
	if err := Current(path, "x", "new\n"); err != nil {
		t.Error(err)
	}
	got, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if want := "a\n<!-- generated: x -->\nnew\n<!-- end of x -->\nb\n"; string(got) != want {
		t.Errorf("written: %q", got)
	}
}

func TestMetricsAreFoundBeforeTheyHaveAValue(t *testing.T) {
	t.Parallel()
	registry := prometheus.NewRegistry()
	registry.MustRegister(
		prometheus.NewCounterVec(prometheus.CounterOpts{Name: "antipode_things_total", Help: `of "b", {x}`}, []string{"y", "code"}),
		prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "antipode_link_level", Help: "l"}, []string{"y"}),
		prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: "antipode_seconds", Help: "s"}, []string{"y"}),
		prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "antipode_a", Help: "a", ConstLabels: prometheus.Labels{"version": `1, "2"`},
		}),
		prometheus.NewGauge(prometheus.GaugeOpts{Name: "other", Help: "not ours"}),
	)
	got, err := Metrics(registry)
	if err != nil {
		t.Fatal(err)
	}
	want := []Metric{
		{"antipode_a", "gauge", []string{"version"}, "a"},
		{"antipode_link_level", "gauge", []string{"y"}, "l"},
		{"antipode_seconds", "histogram", []string{"y"}, "s"},
		{"antipode_things_total", "counter", []string{"y", "code"}, `of "b", {x}`},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	shared := "| Metric | Type | Labels | Meaning |\n|---|---|---|---|\n| `antipode_link_level` | gauge | `y` | l |\n"
	if diff := cmp.Diff(shared, MetricTable(got, true)); diff != "" {
		t.Error(diff)
	}
}

func TestCheckUsesKnowsCommandsAndFlags(t *testing.T) {
	t.Parallel()
	root := &cobra.Command{Use: "tool"}
	status := &cobra.Command{Use: "status", Run: func(*cobra.Command, []string) {}}
	status.Flags().Bool("all", false, "")
	root.AddCommand(status)
	path := document(t, "tool is good.\n`tool stat`, `(cd x && ../bin/tool status --al)`\n```\n$ tool status --all\n"+
		"sudo tool state\n```\n`tool status --all`.\n")
	got, err := CheckUses(path, root)
	if err != nil {
		t.Fatal(err)
	}
	want := []string{
		path + ":2: tool status has no flag --al",
		path + `:2: tool has no command "stat"`,
		path + `:5: tool has no command "state"`,
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	rows := []Row{{Cells: map[string]string{"Command": "`tool status NAME`", "Flags": "`--all`"}}}
	if problems := CheckCommands("D", rows, root); len(problems) != 0 {
		t.Errorf("a true reference has problems: %q", problems)
	}
}

func TestLinksAndAnchors(t *testing.T) {
	t.Parallel()
	path := document(t, "# A `b` heading, twice\n\n# A `b` heading, twice\n\n[x](#a-b-heading-twice-1) [y](no.md) [z](#no)\n"+
		"\n```\n[w](gone.md)\n```\n")
	problems := brokenLinks(t, path)
	if len(problems) != 2 || !strings.Contains(problems[0], "no.md") || !strings.Contains(problems[1], "#no") {
		t.Errorf("broken links: %q", problems)
	}
}
