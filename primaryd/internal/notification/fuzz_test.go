package notification

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"

	"github.com/antipode-registry/antipode/internal/registry"
	"github.com/antipode-registry/antipode/primaryd/internal/feed"
)

// sound holds what is said about any notification against what was sent: a change is of one valid repository that the
// body names, and of valid tags and digests of the body; what could not be read changes nothing.
func sound(t *testing.T, header http.Header, body []byte) parsed {
	t.Helper()
	p, err := parse(header, body)
	if err != nil && len(p.changes)+len(p.instances)+len(p.results) > 0 {
		t.Fatalf("an error with something else: %+v", p)
	}
	told := 0
	for _, result := range p.results {
		if result == resultChange || result == resultUntagged {
			told++
		}
	}
	if (len(p.changes) > 0) != (told > 0) {
		t.Errorf("%d changes of %v", len(p.changes), p.results)
	}
	sent := texts(t, body)
	for _, change := range p.changes {
		if err := registry.ValidRepository(change.Repository); err != nil {
			t.Error(err)
		}
		if !named(sent, change.Repository) {
			t.Errorf("nobody sent %q: %q", change.Repository, sent)
		}
		if change.Unknown == (len(change.Tags) > 0) || !change.At.IsZero() && (change.At.Year() < 0 || change.At.Year() > 9999) {
			t.Errorf("%+v", change)
		}
		for _, touch := range change.Tags {
			soundTouch(t, sent, touch)
		}
	}
	return p
}

func soundTouch(t *testing.T, sent []string, touch feed.Touch) {
	t.Helper()
	if touch.Digest != "" {
		if _, err := digest.Parse(touch.Digest); err != nil || touch.Deleted || !slices.Contains(sent, touch.Digest) {
			t.Errorf("%+v: %v", touch, err)
		}
	}
	if of, untagged := touch.Untagged(); untagged {
		if of != touch.Digest {
			t.Errorf("%+v", touch)
		}
		return
	}
	if err := registry.ValidTag(touch.Tag); err != nil || !slices.Contains(sent, touch.Tag) {
		t.Errorf("%+v: %v", touch, err)
	}
}

// texts are all strings of a body, those in base64 decoded too, however often a member is repeated.
func texts(t *testing.T, body []byte) (list []string) {
	t.Helper()
	decoder := json.NewDecoder(bytes.NewReader(body))
	decoder.UseNumber() // one that no float64 holds is no error
	for {
		token, err := decoder.Token()
		if errors.Is(err, io.EOF) || err != nil {
			return list
		}
		text, ok := token.(string)
		if !ok {
			continue
		}
		list = append(list, text)
		var inner struct {
			Data []byte `json:"data"`
		}
		quoted, err := json.Marshal(text)
		if err != nil {
			t.Fatal(err)
		}
		if json.Unmarshal([]byte(`{"data":`+string(quoted)+`}`), &inner) == nil && json.Valid(inner.Data) && len(inner.Data) < len(body) {
			list = append(list, texts(t, inner.Data)...)
		}
	}
}

// named says whether the name was sent, or, as Harbor does, in two parts with something after the second.
func named(sent []string, name string) bool {
	if slices.Contains(sent, name) {
		return true
	}
	for i := range name {
		project, rest := name[:i], strings.TrimPrefix(name[i:], "/")
		part := func(text string) bool { return strings.HasPrefix(text, rest) }
		if name[i] == '/' && slices.Contains(sent, project) && slices.ContainsFunc(sent, part) {
			return true
		}
	}
	return false
}

// FuzzEnvelope: what CNCF distribution and GitLab's registry send. Each event has its result, and none another's.
func FuzzEnvelope(f *testing.F) {
	for _, file := range []string{"distribution-3.1.json", "docker-registry-2.8.json"} {
		for _, sent := range loadCaptured(f, file) {
			f.Add([]byte(sent.Body))
		}
	}
	f.Add(load(f, "gitlab-rename.json"))
	f.Add([]byte(`{"events":[null,5,{},{"action":"delete","target":{"repository":"a"}}]}`))
	f.Fuzz(func(t *testing.T, body []byte) {
		sound(t, nil, body)
		var envelope map[string]json.RawMessage
		var events []json.RawMessage
		if json.Unmarshal(body, &envelope) != nil || envelope["events"] == nil || json.Unmarshal(envelope["events"], &events) != nil {
			return
		}
		whole := sound(t, nil, body)
		var alone parsed
		for _, event := range events {
			one, err := parse(nil, []byte(`{"events":[`+string(event)+`]}`))
			if err != nil {
				t.Fatalf("%q: %v", event, err)
			}
			alone.results, alone.changes = append(alone.results, one.results...), append(alone.changes, one.changes...)
		}
		if !slices.Equal(whole.results, alone.results) || !slices.Equal(say(whole.changes), say(alone.changes)) {
			t.Errorf("together %v, %v; alone %v, %v", whole.results, say(whole.changes), alone.results, say(alone.changes))
		}
	})
}

// FuzzWebhooks: what Harbor sends in its own format, and what Quay does. One body is one event.
func FuzzWebhooks(f *testing.F) {
	for _, file := range []string{"harbor.json", "quay.json"} {
		for _, sent := range loadSent(f, file) {
			if sent.Header.Get("Content-Type") == "application/json" {
				f.Add([]byte(sent.Body))
			}
		}
	}
	f.Add([]byte(`{"type":"TAG_RETENTION","event_data":{"retention":{"project_name":"a/..","deleted_artifact":[{"name_tag":"/b:v"}]}}}`))
	f.Fuzz(func(t *testing.T, body []byte) {
		p := sound(t, nil, body)
		var fields map[string]json.RawMessage
		if json.Unmarshal(body, &fields) == nil && fields["events"] == nil && len(p.results) > 1 {
			t.Errorf("one body, %v", p.results)
		}
	})
}

// FuzzCloudEvents: what zot and Harbor send, with the attributes in headers, as one object, or as a batch. A batch says
// what its events say alone.
func FuzzCloudEvents(f *testing.F) {
	for _, file := range []string{"harbor.json", "zot.json"} {
		for _, sent := range loadSent(f, file) {
			if kind := sent.Header.Get("Ce-Type"); kind != "" || sent.Header.Get("Content-Type") == cloudEvents {
				f.Add(sent.Header.Get("Content-Type"), kind, []byte(sent.Body))
				f.Add(cloudEventsBatch, "", slices.Concat([]byte("["), []byte(sent.Body), []byte(",5]")))
			}
		}
	}
	f.Add(cloudEvents, "", []byte(`{"type":"zotregistry.image.deleted","specversion":"1.0","data_base64":"eyJuYW1lIjoiYSIsInJlZmVyZW5jZSI6InYifQ=="}`))
	f.Fuzz(func(t *testing.T, contentType, kind string, body []byte) {
		header := http.Header{"Content-Type": {contentType}, "Ce-Type": {kind}}
		p := sound(t, header, body)
		var list []json.RawMessage
		if contentType != cloudEventsBatch || json.Unmarshal(body, &list) != nil {
			return
		}
		if len(p.results) != len(list) {
			t.Errorf("%d events, %v", len(list), p.results)
		}
		var alone []feed.Change
		for _, event := range list {
			alone = append(alone, sound(t, typed(cloudEventsBatch), slices.Concat([]byte("["), []byte(event), []byte("]"))).changes...)
		}
		if !slices.Equal(say(p.changes), say(alone)) {
			t.Errorf("together %v, alone %v", say(p.changes), say(alone))
		}
	})
}
