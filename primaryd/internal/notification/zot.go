package notification

import (
	"time"

	"github.com/antipode-registry/antipode/primaryd/internal/feed"
)

// How the types of zot's events end that say that a tag changed. The others tell of scans, of lint, and of a repository
// that was created, which has no tags yet: those come with an update each.
const (
	zotUpdated = ".image.updated"
	zotDeleted = ".image.deleted"
)

// zotImage is what is read of such an event's data (pkg/extensions/events of zot). The reference is a tag or a digest,
// as it stood in the request.
type zotImage struct {
	Name      string `json:"name"`
	Reference string `json:"reference"`
	Digest    string `json:"digest"`
}

func (z zotImage) changes(deleted bool, at time.Time) (changes []feed.Change, result string) {
	switch {
	case !deleted:
		return pushed(z.Name, z.Reference, z.Digest, at)
	case z.Reference == "" || isDigest(z.Reference):
		return unknown(at, z.Name) // with a manifest go all tags on it
	}
	return touched(z.Name, feed.Touch{Tag: z.Reference, Deleted: true, At: at})
}
