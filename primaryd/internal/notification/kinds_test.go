package notification

import (
	"encoding/json"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// sent is a notification by the shapes that the registry's source documents; names and numbers are made up.
type sent struct {
	Name   string          `json:"name"`
	Header http.Header     `json:"header"`
	Body   json.RawMessage `json:"body"`
}

func loadSent(t testing.TB, file string) (list []sent) {
	t.Helper()
	if err := json.Unmarshal(load(t, file), &list); err != nil {
		t.Fatal(err)
	}
	return list
}

// TestOtherRegistries reads what Harbor (both formats), zot and Quay send.
func TestOtherRegistries(t *testing.T) {
	const (
		v1       = "team/tools/app:v1 sha256:a1a1a1a1"
		byDigest = "team/tools/app:@sha256:a1a1a1a1"
	)
	for file, want := range map[string][]string{
		"harbor.json": {
			"own PUSH_ARTIFACT: change " + v1,
			"CloudEvents harbor.artifact.pushed: change " + v1,
			"own PUSH_ARTIFACT: untagged " + byDigest,
			"own DELETE_ARTIFACT: change team/tools/app unknown",
			"CloudEvents harbor.artifact.deleted: change team/tools/app unknown",
			"own PULL_ARTIFACT: ignored", "CloudEvents harbor.artifact.pulled: ignored",
			"own SCANNING_COMPLETED: ignored", "CloudEvents harbor.scan.completed: ignored",
			"own QUOTA_EXCEED: ignored", "CloudEvents harbor.quota.exceeded: ignored",
			"own TAG_RETENTION: change team/tools/app unknown, team/web unknown",
			"CloudEvents harbor.tag_retention.finished: change team/tools/app unknown, team/web unknown",
			"own REPLICATION: change team/tools/app unknown",
			"CloudEvents harbor.replication.status.changed: change team/tools/app unknown",
			"own REPLICATION: change team/tools/app unknown",
			"own REPLICATION: ignored",
		},
		"zot.json": {
			"repository.created: ignored",
			"image.updated: change team/app:v1 sha256:a1a1a1a1",
			"image.updated: untagged team/app:@sha256:a1a1a1a1",
			"image.updated: change team/app:v2 sha256:a1a1a1a1",
			"image.deleted: change team/app:v1 deleted",
			"image.deleted: change team/app unknown",
			"image.lint_failed: ignored", "image.scanned: ignored",
		},
		"quay.json": {
			"push: change team/app:latest, team/app:v1", "mirror: change team/app unknown",
			"build: ignored", "vulnerability: ignored", "expiry: ignored", "quota: ignored",
		},
	} {
		var got []string
		for _, sent := range loadSent(t, file) {
			p, err := parse(sent.Header, sent.Body)
			if err != nil {
				t.Fatalf("%s, %s: %v", file, sent.Name, err)
			}
			if len(p.results) != 1 {
				t.Fatalf("%s, %s: %v", file, sent.Name, p.results)
			}
			for _, change := range p.changes {
				told := file != "quay.json"
				if told && !change.At.Truncate(time.Second).Equal(time.Date(2026, 3, 4, 5, 6, 7, 0, time.UTC)) || !told && !change.At.IsZero() {
					t.Errorf("%s, %s: time %v", file, sent.Name, change.At)
				}
			}
			line := sent.Name + ": " + p.results[0] + " " + strings.Join(shortened(say(p.changes)), ", ")
			got = append(got, strings.TrimSpace(line))
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s: %s", file, diff)
		}
	}
}

// shortened cuts the digest out of what is said of a push without a tag.
func shortened(words []string) []string {
	for i, word := range words {
		if at := strings.Index(word, ":@sha256:"); at >= 0 {
			words[i] = word[:at+17]
		}
	}
	return words
}

// TestOddEvents takes what no registry should send, and refuses none of it.
func TestOddEvents(t *testing.T) {
	const sha = "sha256:a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1"
	binary := func(kind string) http.Header {
		return http.Header{"Content-Type": {"application/json"}, "Ce-Type": {kind}}
	}
	batch := typed("application/cloudevents-batch+json; charset=utf-8")
	for name, test := range map[string]struct {
		header  http.Header
		body    string
		want    []string
		results []string
	}{
		"a type that nobody knows":  {nil, `{"type":"NEW","event_data":{"repository":{"repo_full_name":"a"}}}`, nil, []string{resultIgnored}},
		"Harbor, no data":           {nil, `{"type":"PUSH_ARTIFACT","occur_at":1}`, nil, []string{resultInvalid}},
		"Harbor, a time of no year": {nil, `{"type":"DELETE_ARTIFACT","occur_at":9223372036854775807,"event_data":{"repository":{"repo_full_name":"a"}}}`, []string{"a unknown"}, []string{resultChange}},
		"Harbor, data of a shape":   {nil, `{"type":"PUSH_ARTIFACT","event_data":[1]}`, nil, []string{resultMalformed}},
		"Harbor, one of two":        {nil, `{"type":"PUSH_ARTIFACT","event_data":{"resources":[{"tag":"v"},{"tag":"-"}],"repository":{"repo_full_name":"a"}}}`, []string{"a:v"}, []string{resultChange}},
		"Harbor, out of the project": {
			nil, `{"type":"TAG_RETENTION","event_data":{"retention":{"project_name":"a","deleted_artifact":[{"name_tag":"../b:v"},{"name_tag":""}]}}}`,
			nil,
			[]string{resultInvalid},
		},
		"zot, no data":            {binary("zotregistry.image.updated"), ``, nil, []string{resultMalformed}},
		"zot, no reference":       {binary("zotregistry.image.deleted"), `{"name":"a"}`, []string{"a unknown"}, []string{resultChange}},
		"zot, bad reference":      {binary("zotregistry.image.deleted"), `{"name":"a","reference":"v w"}`, nil, []string{resultInvalid}},
		"another's data":          {binary("com.example.made"), "\x00\x01", nil, []string{resultIgnored}},
		"no version that we know": {nil, `{"specversion":"9","type":"zotregistry.image.deleted","data":{"name":"a","reference":"v"}}`, []string{"a:v deleted"}, []string{resultChange}},
		"data in base64": {
			typed("application/cloudevents+json"), `{"type":"zotregistry.image.deleted","specversion":"1.0","data_base64":"eyJuYW1lIjoiYSIsInJlZmVyZW5jZSI6InYifQ=="}`,
			[]string{"a:v deleted"},
			[]string{resultChange},
		},
		"data in no base64": {nil, `{"specversion":"1.0","type":"x","data_base64":"?"}`, nil, []string{resultMalformed}},
		"a batch": {
			batch, `[{"type":"zotregistry.image.updated","data":{"name":"a","reference":"` + sha + `","digest":"` + sha + `"}}, 5,
				{"type":"harbor.artifact.pushed","data":{"resources":[{"tag":"v"}],"repository":{"repo_full_name":"b"}}}]`,
			[]string{"a:@" + sha[:15], "b:v"},
			[]string{resultUntagged, resultMalformed, resultChange},
		},
		"an empty batch":           {batch, `[]`, nil, nil},
		"Quay, tags of a kind":     {nil, `{"repository":"a","updated_tags":{"latest":"x"}}`, []string{"a unknown"}, []string{resultChange}},
		"Quay, one tag of two":     {nil, `{"repository":"a","updated_tags":["v","-"]}`, []string{"a:v"}, []string{resultChange}},
		"Quay, no repository":      {nil, `{"updated_tags":["v"]}`, nil, []string{resultInvalid}},
		"Quay, mirror of nothing":  {nil, `{"homepage":"x","namespace":"y","message":"z"}`, nil, []string{resultInvalid}},
		"Quay, a number of a name": {nil, `{"repository":5,"updated_tags":["v"]}`, nil, []string{resultMalformed}},
	} {
		p, err := parse(test.header, []byte(test.body))
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if diff := cmp.Diff(test.want, shortened(say(p.changes))) + cmp.Diff(test.results, p.results); diff != "" {
			t.Errorf("%s: %s", name, diff)
		}
		for _, change := range p.changes {
			if !change.At.IsZero() {
				t.Errorf("%s: time %v", name, change.At)
			}
		}
	}
	for _, body := range []string{"", "{}", "5", `[{`} {
		if _, err := parse(batch, []byte(body)); err == nil {
			t.Errorf("a batch of %q was read", body)
		}
	}
}
