package notification

import (
	_ "crypto/sha256" // the algorithms that a digest may name
	_ "crypto/sha512"
	"encoding/json"
	"errors"
	"fmt"
	"mime"
	"net/http"
	"slices"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/antipode-registry/antipode/internal/registry"
	"github.com/antipode-registry/antipode/primaryd/internal/feed"
)

// What became of an event, the values of the metric's label.
const (
	resultChange    = "change"    // recorded
	resultIgnored   = "ignored"   // changes no tag: a pull, a mount, a blob, or an action we do not know
	resultUntagged  = "untagged"  // a manifest pushed by digest: recorded where the registry has the referrers API
	resultInvalid   = "invalid"   // names no repository or tag by the distribution specification
	resultMalformed = "malformed" // JSON, but no event
)

// parsed is what a notification says.
type parsed struct {
	changes   []feed.Change
	instances []string // each once, in order
	results   []string // one per event
}

// parse reads a notification: an envelope of CNCF distribution's or GitLab's registry, a webhook of Harbor or of Quay, or
// CloudEvents as zot and Harbor send them. An error means that it is none of these. Anything within one that is not
// understood is passed over, since a registry would send a refused event again for ever, and none after it.
//
// What it is shows in the body, and for CloudEvents whose attributes are headers in these. The content type tells
// batches, and else serves to tell what arrived instead: not every sender sets it right.
func parse(header http.Header, body []byte) (p parsed, err error) {
	contentType := header.Get("Content-Type")
	mediaType, _, _ := mime.ParseMediaType(contentType)
	switch {
	case mediaType == cloudEventsBatch:
		return p, p.cloudEvents(contentType, body)
	case header.Get("Ce-Type") != "" && mediaType != cloudEvents:
		p.take(cloudEvent{Type: header.Get("Ce-Type"), Time: header.Get("Ce-Time"), Data: body}.changes())
		return p, nil
	}
	var fields map[string]json.RawMessage
	if err := json.Unmarshal(body, &fields); err != nil {
		return p, fmt.Errorf("body of type %q is not a JSON object: %w", contentType, err)
	}
	has := func(name string) bool { return fields[name] != nil }
	switch {
	case has("events"):
		return p, p.envelope(contentType, fields["events"])
	case has("specversion"):
		p.cloudEvent(body)
	case has("type") && (has("event_data") || has("occur_at")):
		p.harbor(body)
	case has("homepage") && (has("repository") || has("namespace")), has("updated_tags"):
		p.quay(body)
	default:
		return p, fmt.Errorf("body of type %q is the notification of no registry that is known here", contentType)
	}
	return p, nil
}

// take adds what one event means.
func (p *parsed) take(changes []feed.Change, result string) {
	p.changes = append(p.changes, changes...)
	p.results = append(p.results, result)
}

// read decodes one event into a pointer and says whether it is one.
func (p *parsed) read(text []byte, event any) bool {
	if err := json.Unmarshal(text, event); err != nil {
		p.take(nil, resultMalformed)
		return false
	}
	return true
}

func (p *parsed) saw(instance string) {
	if instance != "" && !slices.Contains(p.instances, instance) {
		p.instances = append(p.instances, instance)
	}
}

// pushed is what the push of a manifest means, by a tag, or by its digest if the reference is none or a digest.
func pushed(repository, reference, announced string, at time.Time) (changes []feed.Change, result string) {
	if reference == "" || isDigest(reference) {
		return untagged(repository, announced, at)
	}
	if !isDigest(announced) {
		announced = ""
	}
	return touched(repository, feed.Touch{Tag: reference, Digest: announced, At: at})
}

// untagged is for a push without a tag, which moves none: where it is a child, the push of its index by tag follows and
// covers it; but where it refers to a subject nothing follows, and which of the two it is, no event says.
func untagged(repository, announced string, at time.Time) (changes []feed.Change, result string) {
	if !isDigest(announced) || registry.ValidRepository(repository) != nil {
		return nil, resultInvalid
	}
	touch := feed.Touch{Tag: feed.UntaggedReference(announced), Digest: announced, At: at}
	return []feed.Change{{Repository: repository, Tags: []feed.Touch{touch}, At: at}}, resultUntagged
}

// touched is what is known to have happened to one tag.
func touched(repository string, touch feed.Touch) (changes []feed.Change, result string) {
	if err := errors.Join(registry.ValidRepository(repository), registry.ValidTag(touch.Tag)); err != nil {
		return nil, resultInvalid
	}
	return []feed.Change{{Repository: repository, Tags: []feed.Touch{touch}, At: touch.At}}, resultChange
}

// unknown makes a change of each different name that is a repository's: which of its tags it is about, nobody said.
func unknown(at time.Time, names ...string) (changes []feed.Change, result string) {
	seen := make(map[string]bool, len(names))
	for _, name := range names {
		if seen[name] || registry.ValidRepository(name) != nil {
			continue
		}
		seen[name] = true
		changes = append(changes, feed.Change{Repository: name, Unknown: true, At: at})
	}
	if len(changes) == 0 {
		return nil, resultInvalid
	}
	return changes, resultChange
}

func isDigest(text string) bool {
	_, err := digest.Parse(text)
	return err == nil
}

// at is an event's own time; zero, which means now, where it tells none that can be read.
func at(timestamp string) time.Time {
	at, err := time.Parse(time.RFC3339, timestamp)
	if err != nil {
		return time.Time{}
	}
	return at.UTC()
}
