package notification

import (
	_ "crypto/sha256" // the algorithms that a digest may name
	_ "crypto/sha512"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/antipode-registry/antipode/internal/registry"
	"github.com/antipode-registry/antipode/primaryd/internal/feed"
)

// event is what is read of one: the fields that say what changed, and who says so. CNCF distribution's
// docs/content/about/notifications.md has them all; version 1 and 2 do not differ in these, and GitLab's registry adds
// target.rename.
type event struct {
	Timestamp string `json:"timestamp"`
	Action    string `json:"action"`
	Target    target `json:"target"`
	Source    struct {
		InstanceID string `json:"instanceID"`
	} `json:"source"`
}

type target struct {
	MediaType  string `json:"mediaType"`
	Digest     string `json:"digest"`
	Repository string `json:"repository"`
	Tag        string `json:"tag"`
	Rename     *struct {
		From string `json:"from"`
		To   string `json:"to"`
	} `json:"rename"`
}

// What became of an event, the values of the metric's label.
const (
	resultChange    = "change"    // recorded
	resultIgnored   = "ignored"   // changes no tag: a pull, a mount, a blob, or an action we do not know
	resultUntagged  = "untagged"  // a manifest pushed by digest: recorded where the registry has the referrers API
	resultInvalid   = "invalid"   // names no repository or tag by the distribution specification
	resultMalformed = "malformed" // JSON, but no event
)

// parsed is what an envelope says.
type parsed struct {
	changes   []feed.Change
	instances []string // each once, in order
	results   []string // one per event
}

// Parse reads an envelope of events as CNCF distribution sends it, and returns what changed, and which instances of the
// registry say so. An error means that the body is no such envelope. Anything within one that is not understood is
// passed over, since a registry would send a refused event again for ever, and none after it.
//
// Version 1 and 2 of the format and plain JSON are read alike, so contentType serves to tell what arrived instead.
func Parse(contentType string, body []byte) (changes []feed.Change, instances []string, err error) {
	p, err := parse(contentType, body)
	return p.changes, p.instances, err
}

func parse(contentType string, body []byte) (parsed, error) {
	var envelope map[string]json.RawMessage
	if err := json.Unmarshal(body, &envelope); err != nil {
		return parsed{}, fmt.Errorf("body of type %q is not a JSON object: %w", contentType, err)
	}
	list, found := envelope["events"]
	if !found {
		return parsed{}, fmt.Errorf("body of type %q has no events: not a registry's notification", contentType)
	}
	var events []json.RawMessage
	if err := json.Unmarshal(list, &events); err != nil {
		return parsed{}, fmt.Errorf("events of a body of type %q are not a list: %w", contentType, err)
	}
	var p parsed
	for _, text := range events {
		p.add(text)
	}
	return p, nil
}

// add reads one event. It is decoded apart from the others, so that one of an odd shape spoils no other.
func (p *parsed) add(text json.RawMessage) {
	var e event
	if err := json.Unmarshal(text, &e); err != nil {
		p.results = append(p.results, resultMalformed)
		return
	}
	p.saw(e.Source.InstanceID)
	changes, result := e.changes()
	p.changes = append(p.changes, changes...)
	p.results = append(p.results, result)
}

func (p *parsed) saw(instance string) {
	if instance != "" && !slices.Contains(p.instances, instance) {
		p.instances = append(p.instances, instance)
	}
}

// changes is what the event means for the feed.
func (e event) changes() (changes []feed.Change, result string) {
	switch e.Action {
	case "push":
		if e.Target.Tag == "" {
			return e.untagged()
		}
		return e.touch(false)
	case "delete":
		if e.Target.Tag == "" {
			// Of a manifest by digest every tag on it goes, of a repository all; the event does not list them.
			return e.unknown(e.Target.Repository)
		}
		return e.touch(true)
	case "rename":
		if rename := e.Target.Rename; rename != nil {
			return e.unknown(e.Target.Repository, rename.From, rename.To)
		}
	}
	return nil, resultIgnored
}

// untagged decides about a push without a tag. A blob means nothing yet. A manifest by digest moves no tag: where it is
// a child, the push of its index by tag follows and covers it; but where it refers to a subject nothing follows, and
// which of the two it is, the event does not say.
func (e event) untagged() ([]feed.Change, string) {
	if e.Target.MediaType == "application/octet-stream" {
		return nil, resultIgnored
	}
	if _, err := digest.Parse(e.Target.Digest); err != nil || registry.ValidRepository(e.Target.Repository) != nil {
		return nil, resultInvalid
	}
	at := e.at()
	touch := feed.Touch{Tag: feed.UntaggedReference(e.Target.Digest), Digest: e.Target.Digest, At: at}
	return []feed.Change{{Repository: e.Target.Repository, Tags: []feed.Touch{touch}, At: at}}, resultUntagged
}

func (e event) touch(deleted bool) ([]feed.Change, string) {
	if err := errors.Join(registry.ValidRepository(e.Target.Repository), registry.ValidTag(e.Target.Tag)); err != nil {
		return nil, resultInvalid
	}
	at := e.at()
	touch := feed.Touch{Tag: e.Target.Tag, Deleted: deleted, At: at}
	if _, err := digest.Parse(e.Target.Digest); err == nil && !deleted {
		touch.Digest = e.Target.Digest
	}
	return []feed.Change{{Repository: e.Target.Repository, Tags: []feed.Touch{touch}, At: at}}, resultChange
}

// unknown makes a change of each different name that is a repository's.
func (e event) unknown(names ...string) (changes []feed.Change, result string) {
	seen := make(map[string]bool, len(names))
	for _, name := range names {
		if seen[name] || registry.ValidRepository(name) != nil {
			continue
		}
		seen[name] = true
		changes = append(changes, feed.Change{Repository: name, Unknown: true, At: e.at()})
	}
	if len(changes) == 0 {
		return nil, resultInvalid
	}
	return changes, resultChange
}

// at is the event's own time; zero, which means now, where it tells none that can be read.
func (e event) at() time.Time {
	at, err := time.Parse(time.RFC3339, e.Timestamp)
	if err != nil {
		return time.Time{}
	}
	return at.UTC()
}
