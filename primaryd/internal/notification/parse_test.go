package notification

import (
	"encoding/json"
	"net/http"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/antipode-registry/antipode/primaryd/internal/feed"
)

// captured is a notification as a real registry sent it; host names are replaced.
type captured struct {
	ContentType string          `json:"content_type"`
	Body        json.RawMessage `json:"body"`
}

func load(t testing.TB, file string) []byte {
	t.Helper()
	text, err := os.ReadFile("testdata/" + file)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

func loadCaptured(t testing.TB, file string) (list []captured) {
	t.Helper()
	if err := json.Unmarshal(load(t, file), &list); err != nil {
		t.Fatal(err)
	}
	return list
}

func typed(contentType string) http.Header { return http.Header{"Content-Type": {contentType}} }

// say is a change in a few words.
func say(changes []feed.Change) (words []string) {
	for _, change := range changes {
		if change.Unknown {
			words = append(words, change.Repository+" unknown")
		}
		for _, touch := range change.Tags {
			word := change.Repository + ":" + touch.Tag
			switch {
			case touch.Deleted:
				word += " deleted"
			case touch.Digest != "":
				word += " " + touch.Digest[:15]
			}
			words = append(words, word)
		}
	}
	return words
}

// TestParseRealRegistries reads what a registry sent of: a push by tag, a push by digest, a retag, listings, a delete of
// a tag (3.1 only), a delete of a digest with two tags, or one, on it.
func TestParseRealRegistries(t *testing.T) {
	const digest = " sha256:5d192ac5"
	const pushedByDigest = "team/app:@sha256:99965c7e9b0745710cbf9839ba6f2fb090cf21b42fe1f6a84a5f134723b12e0f sha256:99965c7e"
	for file, want := range map[string][]string{
		"distribution-3.1.json": {
			"team/app:v1" + digest, pushedByDigest, "team/app:v2" + digest,
			"team/app:v2 deleted", "team/app unknown", "team/app:v1 deleted",
		},
		"docker-registry-2.8.json": {
			"team/app:v1" + digest, pushedByDigest, "team/app:v2" + digest,
			"team/app unknown", "team/app:v1 deleted", "team/app:v2 deleted",
		},
	} {
		var got, instances []string
		results := map[string]int{}
		for _, sent := range loadCaptured(t, file) {
			p, err := parse(typed(sent.ContentType), sent.Body)
			if err != nil {
				t.Fatal(err)
			}
			for _, result := range p.results {
				results[result]++
			}
			for _, change := range p.changes {
				if change.At.Year() != 2026 {
					t.Errorf("%s: time %v", file, change.At)
				}
			}
			got, instances = append(got, say(p.changes)...), append(instances, p.instances...)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s: %s", file, diff)
		}
		if results[resultChange] != 5 || results[resultUntagged] != 1 || results[resultIgnored] != 7 || len(results) != 3 {
			t.Errorf("%s: %v", file, results)
		}
		if len(instances) == 0 || instances[0] == "" || instances[0] != instances[len(instances)-1] {
			t.Errorf("%s: instances %q", file, instances)
		}
	}
}

func TestParseGitLabRename(t *testing.T) {
	p, err := parse(typed("application/vnd.docker.distribution.events.v1+json"), load(t, "gitlab-rename.json"))
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"group/old unknown", "group/new unknown"}, say(p.changes)); diff != "" {
		t.Error(diff)
	}
}

func TestParseEvents(t *testing.T) {
	const sha = "sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
	for name, test := range map[string]struct {
		event  string
		want   []string
		result string
	}{
		"push":                     {`{"action":"push","target":{"repository":"a","tag":"v","digest":"` + sha + `"}}`, []string{"a:v sha256:aaaaaaaa"}, resultChange},
		"push, odd digest":         {`{"action":"push","target":{"repository":"a","tag":"v","digest":"md5:x"}}`, []string{"a:v"}, resultChange},
		"push, no digest":          {`{"action":"push","target":{"repository":"a","tag":"v"}}`, []string{"a:v"}, resultChange},
		"push, odd time":           {`{"timestamp":"yesterday","action":"push","target":{"repository":"a","tag":"v"}}`, []string{"a:v"}, resultChange},
		"push, more fields":        {`{"more":{"a":[1]},"action":"push","target":{"repository":"a","tag":"v","size":"big"}}`, []string{"a:v"}, resultChange},
		"push, bad name":           {`{"action":"push","target":{"repository":"A/../b","tag":"v"}}`, nil, resultInvalid},
		"push, no name":            {`{"action":"push","target":{"tag":"v"}}`, nil, resultInvalid},
		"push, bad tag":            {`{"action":"push","target":{"repository":"a","tag":"v w"}}`, nil, resultInvalid},
		"push, NUL":                {`{"action":"push","target":{"repository":"a\u0000","tag":"v"}}`, nil, resultInvalid},
		"push, blob":               {`{"action":"push","target":{"repository":"a","mediaType":"application/octet-stream"}}`, nil, resultIgnored},
		"push, no tag":             {`{"action":"push","target":{"repository":"a","mediaType":"x/y","digest":"` + sha + `"}}`, []string{"a:@" + sha + " " + sha[:15]}, resultUntagged},
		"push, odd digest, no tag": {`{"action":"push","target":{"repository":"a","digest":"md5:x"}}`, nil, resultInvalid},
		"delete of a tag":          {`{"action":"delete","target":{"repository":"a","tag":"v","digest":"` + sha + `"}}`, []string{"a:v deleted"}, resultChange},
		"delete by digest":         {`{"action":"delete","target":{"repository":"a","digest":"` + sha + `"}}`, []string{"a unknown"}, resultChange},
		"delete of all":            {`{"action":"delete","target":{"repository":"a"}}`, []string{"a unknown"}, resultChange},
		"delete, no name":          {`{"action":"delete","target":{}}`, nil, resultInvalid},
		"rename, one valid":        {`{"action":"rename","target":{"rename":{"from":"A","to":"b"}}}`, []string{"b unknown"}, resultChange},
		"rename, none valid":       {`{"action":"rename","target":{"rename":{"type":"project"}}}`, nil, resultInvalid},
		"rename of what":           {`{"action":"rename","target":{"repository":"a"}}`, nil, resultIgnored},
		"pull":                     {`{"action":"pull","target":{"repository":"a","tag":"v"}}`, nil, resultIgnored},
		"mount":                    {`{"action":"mount","target":{"repository":"a","fromRepository":"b"}}`, nil, resultIgnored},
		"unknown action":           {`{"action":"scan","target":{"repository":"a","tag":"v"}}`, nil, resultIgnored},
		"empty":                    {`{}`, nil, resultIgnored},
		"null":                     {`null`, nil, resultIgnored},
		"no object":                {`"push"`, nil, resultMalformed},
		"tag is a number":          {`{"action":"push","target":{"repository":"a","tag":5}}`, nil, resultMalformed},
	} {
		// An event that is right follows each: nothing in the one before it may cost it.
		body := `{"more":1,"events":[` + test.event + `,{"action":"push","target":{"repository":"next","tag":"v"}}]}`
		p, err := parse(typed("application/json"), []byte(body))
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if diff := cmp.Diff(append(test.want, "next:v"), say(p.changes)); diff != "" || p.results[0] != test.result {
			t.Errorf("%s: %s, %s", name, p.results[0], diff)
		}
	}
}

func TestParseRefuses(t *testing.T) {
	for _, body := range []string{
		"", "{", "[]", "5", `"x"`, "null", "{}", `{"events":5}`, `{"events":{}}`, `{"events":[]} x`, "a=b",
		`{"type":"PUSH_ARTIFACT"}`, `{"repository":"a/b"}`, `{"repository":{"name":"a/b"},"ref":"refs/heads/main"}`, `{"data":{}}`,
	} {
		if _, err := parse(typed("text/x"), []byte(body)); err == nil {
			t.Errorf("%q was read", body)
		} else if !strings.Contains(err.Error(), "text/x") {
			t.Errorf("%q: %v does not tell the type", body, err)
		}
	}
	for _, body := range []string{`{"events":[]}`, `{"events":null}`} {
		if _, err := parse(nil, []byte(body)); err != nil {
			t.Errorf("%q: %v", body, err)
		}
	}
}
