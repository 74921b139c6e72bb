package notification

import (
	"encoding/json"
	"time"

	"github.com/antipode-registry/antipode/primaryd/internal/feed"
)

// quayEvent is what is read of a webhook of Quay (notifications/ of Quay). It has no field for the kind of event: a push
// has the tags, and how a mirror's round goes has a message alone. Quay tells no time, and nothing of deletes.
type quayEvent struct {
	Repository string          `json:"repository"`
	Updated    json.RawMessage `json:"updated_tags"`
	Message    json.RawMessage `json:"message"`
}

func (p *parsed) quay(body []byte) {
	var e quayEvent
	if p.read(body, &e) {
		p.take(e.changes())
	}
}

func (e quayEvent) changes() (changes []feed.Change, result string) {
	switch {
	case e.Updated != nil:
		return e.pushed()
	case e.Message != nil:
		return unknown(time.Time{}, e.Repository) // a mirror's round also deletes tags, which nothing else tells
	}
	return nil, resultIgnored // a build, a scan, a quota, an expiry to come
}

func (e quayEvent) pushed() (changes []feed.Change, result string) {
	var tags []string
	if json.Unmarshal(e.Updated, &tags) != nil || len(tags) == 0 {
		return unknown(time.Time{}, e.Repository)
	}
	result = resultInvalid
	for _, tag := range tags {
		if more, became := touched(e.Repository, feed.Touch{Tag: tag}); became == resultChange {
			changes, result = append(changes, more...), became
		}
	}
	return changes, result
}
