package feed

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
)

// hintTouches bounds a hint. 32 of them are about 4 KiB of JSON.
const hintTouches = 32

// Touch says that a tag was written or deleted, or that a manifest was pushed without a tag.
type Touch struct {
	Tag     string    // or what UntaggedReference made of a digest
	Digest  string    // what the event announced; "" = nothing was announced
	Deleted bool      // the event announced that the tag is gone
	At      time.Time // the event's own time; zero in a Change means that change's

	// Revision is the feed's newest that touched the tag; set by the feed.
	Revision int64
}

// UntaggedReference is what stands in Touch.Tag for a manifest that was pushed by its digest. No tag begins with "@"
// (distribution specification v1.1, "Pulling manifests").
func UntaggedReference(digest string) string { return "@" + digest }

// Untagged returns the digest of a manifest that was pushed without a tag; false where the touch is of a tag.
func (t Touch) Untagged() (digest string, untagged bool) { return strings.CutPrefix(t.Tag, "@") }

// Hint names the tags touched lately. Every tag touched by a change after Base is in Touches, each once, with the
// newest of its events. A hint whose Base is its row's revision says nothing about older changes.
type Hint struct {
	Base    int64
	Touches []Touch // by tag
}

// Covers says whether the touches are all that changed since the revision. Never for 0: who has nothing needs all, also
// what was there before the feed was.
func (h Hint) Covers(since int64) bool { return since > 0 && since >= h.Base }

// After returns the touches of changes after the revision: what a site that is at it has to look at, provided that the
// hint covers it.
func (h Hint) After(since int64) []Touch {
	touches := make([]Touch, 0, len(h.Touches))
	for _, touch := range h.Touches {
		if touch.Revision > since {
			touches = append(touches, touch)
		}
	}
	return touches
}

// next is the hint after a change of one commit. previous is the revision of the row before it, 0 if there was none,
// and h is that row's hint.
func (h Hint) next(previous, revision int64, change merged) Hint {
	if change.unknown {
		return Hint{Base: revision}
	}
	for tag, touch := range change.touches {
		touch.Revision = revision
		change.touches[tag] = touch
	}
	if previous == 0 {
		// What the repository held before its first row is not known, only what this change touched.
		return bounded(revision-1, revision, change.touches)
	}
	all := maps.Clone(change.touches)
	for _, touch := range h.Touches {
		keepNewest(all, touch)
	}
	if len(all) <= hintTouches {
		return Hint{Base: h.Base, Touches: sorted(all)}
	}
	return bounded(previous, revision, change.touches)
}

// bounded makes a hint from the touches of one commit. Where they are too many, the newest stay, although the base says
// that nothing is known: a listing still looks at them to see whether the registry has written them yet.
func bounded(base, revision int64, touches map[string]Touch) Hint {
	list := sorted(touches)
	if len(list) <= hintTouches {
		return Hint{Base: base, Touches: list}
	}
	slices.SortStableFunc(list, func(a, b Touch) int { return b.At.Compare(a.At) })
	list = list[:hintTouches]
	slices.SortFunc(list, byTag)
	return Hint{Base: revision, Touches: list}
}

// keepNewest adds a touch that came earlier than those in the map: of two with the same time the later arrival stays. A
// registry may deliver an old event again, so the order of arrival alone would not do.
func keepNewest(touches map[string]Touch, earlier Touch) {
	have, found := touches[earlier.Tag]
	if !found || have.At.Before(earlier.At) {
		earlier.Revision = max(earlier.Revision, have.Revision)
		touches[earlier.Tag] = earlier
	}
}

func sorted(touches map[string]Touch) []Touch {
	return slices.SortedFunc(maps.Values(touches), byTag)
}

func byTag(a, b Touch) int { return strings.Compare(a.Tag, b.Tag) }

// storedHint is the hint's form in the database: short names, for there is one in every row.
type storedHint struct {
	Base    int64         `json:"b"`
	Touches []storedTouch `json:"t,omitempty"`
}

type storedTouch struct {
	Tag     string `json:"n"`
	Digest  string `json:"d,omitempty"`
	Deleted bool   `json:"x,omitempty"`
	At      int64  `json:"a"`

	Revision int64 `json:"r"`
}

func (h Hint) encode() (string, error) {
	stored := storedHint{Base: h.Base}
	for _, touch := range h.Touches {
		stored.Touches = append(stored.Touches, storedTouch{
			Tag: touch.Tag, Digest: touch.Digest, Deleted: touch.Deleted, At: touch.At.UnixMilli(),
			Revision: touch.Revision,
		})
	}
	text, err := json.Marshal(stored)
	if err != nil {
		return "", fmt.Errorf("encode hint: %w", err)
	}
	return string(text), nil
}

func decodeHint(text string) (Hint, error) {
	var stored storedHint
	if err := json.Unmarshal([]byte(text), &stored); err != nil {
		return Hint{}, fmt.Errorf("decode hint: %w", err)
	}
	h := Hint{Base: stored.Base}
	for _, touch := range stored.Touches {
		h.Touches = append(h.Touches, Touch{
			Tag: touch.Tag, Digest: touch.Digest, Deleted: touch.Deleted, At: time.UnixMilli(touch.At).UTC(),
			Revision: touch.Revision,
		})
	}
	return h, nil
}
