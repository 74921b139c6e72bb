// Package prometheus holds the tests of what is given to Prometheus and Grafana, and nothing else: that promtool takes
// the rules and their own tests, and that both name only metrics and labels that the daemons export.
package prometheus

import (
	"encoding/json"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"

	"github.com/antipode-registry/antipode/internal/reference"
)

const (
	rules     = "alerts.yaml"
	dashboard = "../grafana/antipode.json"
)

func TestPromtoolTakesTheRules(t *testing.T) {
	t.Parallel()
	tool, err := exec.LookPath("promtool")
	if err != nil {
		t.Fatalf("promtool is not installed: %v; run `make tools` or `apt-get install prometheus`", err)
	}
	for _, args := range [][]string{{"check", "rules", rules}, {"test", "rules", "alerts_test.yaml"}} {
		if out, err := exec.CommandContext(t.Context(), tool, args...).CombinedOutput(); err != nil {
			t.Errorf("promtool %v: %v\n%s", args, err, out)
		}
	}
}

// TestEveryMetricExists compares what is named with the reference, which is itself compared with the code.
func TestEveryMetricExists(t *testing.T) {
	t.Parallel()
	known := map[string][]string{} // labels by metric
	for _, section := range []string{"Both daemons", "primaryd", "secondaryd"} {
		rows, err := reference.Rows("../../docs/metrics.md", section)
		if err != nil {
			t.Fatal(err)
		}
		for _, row := range rows {
			name, labels := reference.Code(row.Cells["Metric"]), row.Cells["Labels"]
			known[name] = regexp.MustCompile("[a-z_]+").FindAllString(labels, -1)
			if row.Cells["Type"] == "histogram" {
				for _, suffix := range []string{"_bucket", "_sum", "_count"} {
					known[name+suffix] = known[name]
				}
			}
		}
	}
	for file, expressions := range map[string][]string{rules: ruled(t), dashboard: shown(t)} {
		if len(expressions) < 10 {
			t.Errorf("%s has %d expressions", file, len(expressions))
		}
		for _, expression := range expressions {
			for _, problem := range unknown(known, expression) {
				t.Errorf("%s: %s in %s", file, problem, expression)
			}
		}
	}
	if problems := unknown(known, `antipode_no_such{a="b"} + antipode_lag_seconds{stat="x"}`); len(problems) != 2 {
		t.Errorf("a test that cannot fail: %q", problems)
	}
}

// unknown names what an expression has and no daemon exports.
func unknown(known map[string][]string, expression string) (problems []string) {
	for _, found := range regexp.MustCompile(`(antipode_[a-z_]+)(?:\{([^}]*)\})?`).FindAllStringSubmatch(expression, -1) {
		labels, ok := known[found[1]]
		if !ok {
			problems = append(problems, "no metric "+found[1])
			continue
		}
		for _, label := range regexp.MustCompile(`([a-z_]+)[=!]`).FindAllStringSubmatch(found[2], -1) {
			if label[1] != "instance" && !slices.Contains(labels, label[1]) {
				problems = append(problems, "no label "+label[1]+" of "+found[1])
			}
		}
	}
	return problems
}

// ruled are the expressions of the alerts; each alert must say how to mend it.
func ruled(t *testing.T) (expressions []string) {
	t.Helper()
	var file struct {
		Groups []struct {
			Rules []struct {
				Alert, Expr string
				Annotations map[string]string
			}
		}
	}
	content, err := os.ReadFile(rules)
	if err != nil {
		t.Fatal(err)
	}
	if err := yaml.Unmarshal(content, &file); err != nil {
		t.Fatal(err)
	}
	for _, group := range file.Groups {
		for _, rule := range group.Rules {
			expressions = append(expressions, rule.Expr)
			if rule.Annotations["summary"] == "" || rule.Annotations["mend"] == "" {
				t.Errorf("%s does not say what is wrong and how to mend it", rule.Alert)
			}
		}
	}
	return expressions
}

// shown are the expressions of the dashboard; its panels have numbers of their own.
func shown(t *testing.T) (expressions []string) {
	t.Helper()
	var board struct {
		Panels []struct {
			ID      int
			Title   string
			Targets []struct{ Expr string }
		}
	}
	content, err := os.ReadFile(dashboard)
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(content, &board); err != nil {
		t.Fatal(err)
	}
	seen := map[int]bool{}
	for _, panel := range board.Panels {
		if panel.Title == "" || seen[panel.ID] {
			t.Errorf("panel %d %q has no title, or another's number", panel.ID, panel.Title)
		}
		seen[panel.ID] = true
		for _, target := range panel.Targets {
			if strings.TrimSpace(target.Expr) == "" {
				t.Errorf("panel %q has an empty expression", panel.Title)
			}
			expressions = append(expressions, target.Expr)
		}
	}
	return expressions
}
