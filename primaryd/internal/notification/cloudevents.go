package notification

import (
	"encoding/json"
	"fmt"
	"strings"

	"github.com/antipode-registry/antipode/primaryd/internal/feed"
)

// The content types of CloudEvents (HTTP protocol binding 1.0.2, sections 3.2 and 3.3). Any other content type is that
// of the data alone, and the attributes are headers (section 3.1).
const (
	cloudEvents      = "application/cloudevents+json"
	cloudEventsBatch = "application/cloudevents-batch+json"
)

// cloudEvent is what is read of one. The library for them refuses events for attributes that nobody needs here, such as
// a version of the specification that it does not know, and a whole batch for one event in it.
type cloudEvent struct {
	Type   string          `json:"type"`
	Time   string          `json:"time"`
	Data   json.RawMessage `json:"data"`
	Base64 []byte          `json:"data_base64"`
}

// cloudEvents reads a batch of events.
func (p *parsed) cloudEvents(contentType string, body []byte) error {
	var list []json.RawMessage
	if err := json.Unmarshal(body, &list); err != nil {
		return fmt.Errorf("body of type %q is not a list of CloudEvents: %w", contentType, err)
	}
	for _, text := range list {
		p.cloudEvent(text)
	}
	return nil
}

// cloudEvent reads one that has its attributes and its data in one JSON object.
func (p *parsed) cloudEvent(text []byte) {
	var e cloudEvent
	if !p.read(text, &e) {
		return
	}
	if e.Data == nil {
		e.Data = e.Base64
	}
	p.take(e.changes())
}

// changes is what the event means for the feed, by its type. zot lets its operators choose what the types begin with.
func (e cloudEvent) changes() (changes []feed.Change, result string) {
	if kind, known := harborTypes[e.Type]; known {
		var data harborData
		if json.Unmarshal(e.Data, &data) != nil {
			return nil, resultMalformed
		}
		return data.changes(kind, at(e.Time))
	}
	updated, deleted := strings.HasSuffix(e.Type, zotUpdated), strings.HasSuffix(e.Type, zotDeleted)
	if !updated && !deleted {
		return nil, resultIgnored
	}
	var image zotImage
	if json.Unmarshal(e.Data, &image) != nil {
		return nil, resultMalformed
	}
	return image.changes(deleted, at(e.Time))
}
