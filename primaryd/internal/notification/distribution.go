package notification

import (
	"encoding/json"
	"fmt"

	"github.com/antipode-registry/antipode/primaryd/internal/feed"
)

// event is what is read of one of CNCF distribution's: the fields that say what changed, and who says so. Its
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

// envelope reads a list of events. Each is decoded apart from the others, so that one of an odd shape spoils no other.
func (p *parsed) envelope(contentType string, list json.RawMessage) error {
	var events []json.RawMessage
	if err := json.Unmarshal(list, &events); err != nil {
		return fmt.Errorf("events of a body of type %q are not a list: %w", contentType, err)
	}
	for _, text := range events {
		var e event
		if p.read(text, &e) {
			p.saw(e.Source.InstanceID)
			p.take(e.changes())
		}
	}
	return nil
}

// changes is what the event means for the feed.
func (e event) changes() (changes []feed.Change, result string) {
	at := at(e.Timestamp)
	switch e.Action {
	case "push":
		if e.Target.Tag == "" && e.Target.MediaType == "application/octet-stream" {
			return nil, resultIgnored // a blob, which means nothing yet
		}
		return pushed(e.Target.Repository, e.Target.Tag, e.Target.Digest, at)
	case "delete":
		if e.Target.Tag == "" {
			// Of a manifest by digest every tag on it goes, of a repository all; the event does not list them.
			return unknown(at, e.Target.Repository)
		}
		return touched(e.Target.Repository, feed.Touch{Tag: e.Target.Tag, Deleted: true, At: at})
	case "rename":
		if rename := e.Target.Rename; rename != nil {
			return unknown(at, e.Target.Repository, rename.From, rename.To)
		}
	}
	return nil, resultIgnored
}
