package setup_test

import (
	"net/url"
	"slices"
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
	for _, kind := range setup.Checkable() {
		text, ok := setup.Block(kind, want)
		if kind == "gitlab" {
			text, _ = setup.Block("distribution", want) // what gitlab-ctl makes of the printed is as much
		}
		report := setup.Check(kind, []byte(text), want)
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

// TestWhatIsPrintedAuthenticates takes out of the blocks what the registries would send, and compares it with the secret.
func TestWhatIsPrintedAuthenticates(t *testing.T) {
	t.Parallel()
	var harbor struct {
		Targets []struct {
			Address    string `yaml:"address"`
			AuthHeader string `yaml:"auth_header"`
		} `yaml:"targets"`
	}
	read(t, "harbor", &harbor)
	if got := harbor.Targets[0]; got.Address != want.URL || got.AuthHeader != "Bearer "+want.Secret {
		t.Errorf("harbor: %+v", got)
	}
	var quay struct {
		Config struct {
			URL string `yaml:"url"`
		} `yaml:"config"`
	}
	read(t, "quay", &quay)
	u, err := url.Parse(quay.Config.URL)
	if err != nil {
		t.Fatal(err)
	}
	if password, _ := u.User.Password(); password != want.Secret || u.Host+u.Path != "10.0.0.1:8080/notifications" || u.RawQuery != "" {
		t.Errorf("quay: %s", u)
	}
}

func read(t *testing.T, kind string, into any) {
	t.Helper()
	text, _ := setup.Block(kind, want)
	if err := yaml.Unmarshal([]byte(text), into); err != nil {
		t.Fatalf("%s: %v\n%s", kind, err, text)
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
			report := setup.Check("distribution", []byte(text), want)
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

func TestCheckFindsEachMistakeOfZot(t *testing.T) {
	t.Parallel()
	const block = `{"distSpecVersion":"1.1.1","extensions":{"events":{"enable":true,"sinks":[
		{"type":"http","address":"http://10.0.0.1:8080/notifications","timeout":"10s","credentials":{"token":"t0ken"}},
		{"type":"nats","address":"nats://10.0.0.9:4222"}]}}}`
	const token = `"credentials":{"token":"t0ken"}`
	for name, test := range map[string]struct {
		from, to string
		level    checkup.Level
		says     string
	}{
		"as it should be":   {"", "", checkup.OK, "presents the secret"},
		"names in any case": {"extensions", "Extensions", checkup.OK, "presents the secret"},
		"YAML":              {block, "extensions: {events: {enable: true, sinks: [{type: http, address: 'http://10.0.0.1:8080/notifications', credentials: {token: t0ken}}]}}", checkup.OK, "presents the secret"},
		"a header":          {token, `"headers":{"authorization":"Bearer t0ken"}`, checkup.OK, "presents the secret"},
		"a password":        {token, `"credentials":{"username":"zot","password":"t0ken"}`, checkup.OK, "presents the secret"},
		"a password first":  {token, `"credentials":{"username":"zot","password":"hunter2","token":"t0ken"}`, checkup.Fail, "another secret"},
		"nothing readable":  {block, "{a: [", checkup.Fail, "cannot be read"},
		"no events":         {block, "{}", checkup.Fail, "notifies nobody"},
		"somebody else":     {"8080/notifications", "8080/hook", checkup.Fail, "none of the 2"},
		"twice":             {`{"type":"nats","address":"nats://10.0.0.9:4222"}`, `{"type":"http","address":"http://b/notifications",` + token + `}`, checkup.Warn, "2 sinks"},
		"not enabled":       {`"enable":true,`, "", checkup.Fail, "not enabled"},
		"another type":      {`"type":"http"`, `"type":"nats"`, checkup.Fail, `type "nats"`},
		"another host":      {"10.0.0.1:8080", "lb.example.com", checkup.Warn, "lb.example.com"},
		"no secret":         {token, `"headers":{"X-Token":"t0ken"}`, checkup.Fail, "no secret"},
		"another secret":    {"t0ken", "hunter2", checkup.Fail, "another secret"},
		"without Bearer":    {token, `"headers":{"Authorization":"hunter2"}`, checkup.Fail, "another secret"},
		"two headers":       {token, token + `,"headers":{"Authorization":"Bearer t0ken"}`, checkup.Warn, "2 Authorization"},
		"impatient":         {"10s", "500ms", checkup.Warn, "500ms"},
		"no duration":       {"10s", "soon", checkup.Fail, "no duration"},
		"the default":       {`"timeout":"10s",`, "", checkup.OK, "presents the secret"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			text := strings.Replace(block, test.from, test.to, 1)
			report := setup.Check("zot", []byte(text), setup.Endpoint{URL: want.URL, Secret: "t0ken"})
			found := false
			for _, f := range report.Findings {
				found = found || f.Level == test.level && strings.Contains(f.Found, test.says)
				if strings.Contains(f.Found+f.Mend, "hunter2") || strings.Contains(f.Found+f.Mend, "t0ken") {
					t.Errorf("a secret is told: %+v", f)
				}
				if good := test.level == checkup.OK; good && f.Level != checkup.OK || f.Level != checkup.OK && f.Mend == "" {
					t.Errorf("%+v", f)
				}
			}
			if wrong := report.Err() != nil; !found || wrong != (test.level == checkup.Fail) {
				t.Errorf("wrong: %t, findings %+v\n%s", wrong, report.Findings, text)
			}
		})
	}
}

func TestCheckKnowsGitLab(t *testing.T) {
	t.Parallel()
	block, _ := setup.Block("distribution", want)
	for text, says := range map[string]string{
		"registry['notifications'] = [\n  { 'name' => 'antipode' }\n]": "registry/config.yml",
		"version: 0.1": "registry/config.yml",
		strings.Replace(block, "threshold: 10", "maxretries: 3", 1): "maxretries: 10",
	} {
		report := setup.Check("gitlab", []byte(text), want)
		if len(report.Findings) == 0 || !slices.ContainsFunc(report.Findings, func(f checkup.Finding) bool { return strings.Contains(f.Mend, says) }) {
			t.Errorf("%+v\n%s", report.Findings, text)
		}
	}
	unfiltered := strings.NewReplacer("[pull]", "[]", "[application/octet-stream]", "[]").Replace(block)
	for _, f := range setup.Check("gitlab", []byte(unfiltered), want).Findings {
		if f.Level != checkup.OK {
			t.Errorf("what GitLab's packages cannot be told is held against them: %+v", f)
		}
	}
}
