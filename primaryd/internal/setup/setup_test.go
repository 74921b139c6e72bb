package setup_test

import (
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"

	"github.com/antipode-registry/antipode/internal/checkup"
	"github.com/antipode-registry/antipode/primaryd/internal/setup"
)

var want = setup.Endpoint{URL: "http://10.0.0.1:8080/notifications", Secret: `s"e\c: {r}e#t'`}

// TestWhatIsPrintedIsRight checks the block by the checks that others' files get.
func TestWhatIsPrintedIsRight(t *testing.T) {
	t.Parallel()
	for _, kind := range []string{"distribution", "docker-registry"} {
		text, ok := setup.Block(kind, want)
		report := setup.Check([]byte(text), want)
		if !ok || report.Err() != nil || len(report.Findings) == 0 {
			t.Errorf("%s: %+v\n%s", kind, report.Findings, text)
		}
		for _, f := range report.Findings {
			if f.Level != checkup.OK {
				t.Errorf("%s: %+v", kind, f)
			}
		}
	}
}

func TestEveryKindHasItsBlock(t *testing.T) {
	t.Parallel()
	for _, kind := range setup.Kinds() {
		text, ok := setup.Block(kind, setup.Endpoint{URL: want.URL, Secret: want.Secret, Remark: "look here\n"})
		if !ok || strings.Contains(text, "%!") {
			t.Errorf("%s: %s", kind, text)
		}
		var any map[string]any
		if err := yaml.Unmarshal([]byte(text), &any); kind != "gitlab" && err != nil {
			t.Errorf("%s is no YAML: %v\n%s", kind, err, text)
		}
		if kind == "gitlab" && !strings.Contains(text, `'Bearer s"e\\c: {r}e#t\''`) {
			t.Errorf("Ruby would not read the secret in:\n%s", text)
		}
	}
	if _, ok := setup.Block("other", want); ok {
		t.Error("a kind that is not known has a block")
	}
}

func TestCheckFindsEachMistake(t *testing.T) {
	t.Parallel()
	block, _ := setup.Block("distribution", want)
	header := block[strings.Index(block, "Authorization: "):strings.Index(block, "\n      timeout")]
	for name, test := range map[string]struct {
		from, to string
		level    checkup.Level
		says     string
	}{
		"no YAML":              {block, "a: [", checkup.Fail, "cannot be read"},
		"nothing":              {block, "version: 0.1", checkup.Fail, "notifies nobody"},
		"somebody else":        {block, "notifications: {endpoints: [{name: x, url: 'http://x/hook'}]}", checkup.Fail, "none of the 1"},
		"twice":                {"endpoints:\n", "endpoints:\n    - {name: b, url: 'http://b/notifications'}\n", checkup.Fail, "no Authorization"},
		"disabled":             {"name: antipode", "name: antipode\n      disabled: true", checkup.Fail, "disabled"},
		"no address":           {want.URL, "10.0.0.1:8080", checkup.Fail, "none that a registry could notify"},
		"another path":         {"8080/notifications", "8080/", checkup.Fail, `path "/"`},
		"another host":         {"10.0.0.1:8080", "lb.example.com", checkup.Warn, "lb.example.com"},
		"no header":            {header, "X-Other: [a]", checkup.Fail, "no Authorization"},
		"header as text":       {header, "Authorization: Bearer x", checkup.Fail, "must be a list"},
		"another secret":       {header, "Authorization: [Bearer hunter2]", checkup.Fail, "not our secret"},
		"without Bearer":       {header, "Authorization: [hunter2]", checkup.Fail, "not our secret"},
		"impatient":            {"timeout: 5s", "timeout: 500ms", checkup.Warn, "500ms"},
		"the default time-out": {"      timeout: 5s\n", "", checkup.Warn, "1s"},
		"no duration":          {"timeout: 5s", "timeout: soon", checkup.Fail, "no duration"},
		"too patient":          {"backoff: 1s", "backoff: 1h", checkup.Warn, "1h"},
		"pushes left out":      {"actions: [pull]", "actions: [pull, push]", checkup.Fail, "action push"},
		"manifests left out":   {"[application/octet-stream]", "[application/octet-stream, application/vnd.oci.image.manifest.v1+json]", checkup.Fail, "image.manifest"},
		"pulls sent":           {"actions: [pull]", "actions: []", checkup.Warn, "every pull"},
		"layers sent":          {"[application/octet-stream]", "[]", checkup.Warn, "every layer"},
		"references":           {"  endpoints:", "  events: {includereferences: true}\n  endpoints:", checkup.Warn, "refers to"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			text := strings.Replace(block, test.from, test.to, 1)
			report := setup.Check([]byte(text), want)
			found := false
			for _, f := range report.Findings {
				found = found || f.Level == test.level && strings.Contains(f.Found, test.says) && f.Mend != ""
				if strings.Contains(f.Found+f.Mend, "hunter2") || strings.Contains(f.Found+f.Mend, want.Secret) {
					t.Errorf("a secret is told: %+v", f)
				}
			}
			if wrong := report.Err() != nil; !found || wrong != (test.level == checkup.Fail) {
				t.Errorf("wrong: %t, findings %+v\n%s", wrong, report.Findings, text)
			}
		})
	}
}
