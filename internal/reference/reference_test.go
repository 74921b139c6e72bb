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

func TestCheckKeysSeesEachDifference(t *testing.T) {
	t.Parallel()
	keys := []Key{{Path: "same", Default: "1h0m0s"}, {Path: "must"}, {Path: "new"}, {Path: "other", Default: "8"}}
	row := func(key, value string) Row {
		return Row{Cells: map[string]string{"Key": "`" + key + "`", "Default": value}}
	}
	rows := []Row{row("same", "`1h`"), row("must", "required"), row("gone", "none"), row("other", "`9`")}
	want := []string{
		"D lacks new",
		"D names gone, which the code does not have",
		"D says the default of other is `9`, the code has \"8\"",
	}
	if diff := cmp.Diff(want, CheckKeys("D", rows, keys)); diff != "" {
		t.Error(diff)
	}
}

func TestKeysWalkStructsAndLists(t *testing.T) {
	t.Parallel()
	type item struct {
		Name string `yaml:"name"`
	}
	type settings struct {
		Text  string   `yaml:"text"`
		Items []item   `yaml:"items"`
		Names []string `yaml:"names"`
		Deep  struct {
			Share float64 `yaml:"share"`
		} `yaml:"deep"`
	}
	got, err := Keys(&settings{Text: "x", Names: []string{"**"}})
	if err != nil {
		t.Fatal(err)
	}
	want := []Key{{"text", "x"}, {"items", "[]"}, {"items[].name", ""}, {"names", `["**"]`}, {"deep.share", "0"}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	if _, err := Keys(struct{ Untagged string }{}); err == nil {
		t.Error("a field without a tag was taken")
	}
}

func TestMetricsAreFoundBeforeTheyHaveAValue(t *testing.T) {
	t.Parallel()
	registry := prometheus.NewRegistry()
	registry.MustRegister(
		prometheus.NewCounterVec(prometheus.CounterOpts{Name: "antipode_things_total", Help: `of "b", {x}`}, []string{"y", "code"}),
		prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "antipode_a", Help: "a", ConstLabels: prometheus.Labels{"version": `1, "2"`},
		}),
		prometheus.NewGauge(prometheus.GaugeOpts{Name: "other", Help: "not ours"}),
	)
	got, err := Metrics(registry)
	if err != nil {
		t.Fatal(err)
	}
	want := []Metric{{"antipode_a", []string{"version"}}, {"antipode_things_total", []string{"code", "y"}}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	rows := []Row{{Cells: map[string]string{"Metric": "`antipode_things_total`", "Labels": "`y`"}}}
	problems := CheckMetrics("D", rows, got)
	if len(problems) != 2 {
		t.Errorf("a missing metric and a wrong label make %q", problems)
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
