package tracking

import (
	"encoding/json"
	"fmt"
	"slices"
	"time"
)

// Hint names the tags that the primary announced to be touched. It says where to look, never what is there: a sync goes by
// listings alone.
type Hint struct {
	// Base: every tag that was touched after this revision is in Touches; of what was touched before nothing is known.
	Base    int64   `json:"b"`
	Touches []Touch `json:"t"`
}

// Touch is a tag that was announced to be written or deleted.
type Touch struct {
	Tag      string    `json:"n"` // or "@" and the digest of a manifest without a tag
	Digest   string    `json:"d,omitempty"`
	Deleted  bool      `json:"x,omitempty"`
	At       time.Time `json:"a"`
	Revision int64     `json:"r"` // the newest that touched it
}

// After returns the touches of changes above the revision.
func (h Hint) After(revision int64) []Touch {
	return slices.DeleteFunc(slices.Clone(h.Touches), func(t Touch) bool { return t.Revision <= revision })
}

// encode is the hint as the row stores it; empty where it says nothing.
func (h Hint) encode() (string, error) {
	if len(h.Touches) == 0 {
		return "", nil
	}
	h.Touches = slices.Clone(h.Touches)
	for i, t := range h.Touches {
		h.Touches[i].Tag, h.Touches[i].Digest, h.Touches[i].At = text(t.Tag), text(t.Digest), t.At.UTC()
	}
	stored, err := json.Marshal(h)
	if err != nil {
		return "", fmt.Errorf("encode which tags were touched: %w", err)
	}
	return string(stored), nil
}

// decodeHint reads what encode wrote. The zero Hint of nothing stored has a base of 0 and no touches: who asks must not
// take it for "nothing was touched", and looks at the revisions.
func decodeHint(stored string) (h Hint, err error) {
	if stored == "" {
		return Hint{}, nil
	}
	if err := json.Unmarshal([]byte(stored), &h); err != nil {
		return Hint{}, fmt.Errorf("decode which tags were touched: %w", err)
	}
	return h, nil
}
