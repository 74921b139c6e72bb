package service

import (
	"cmp"
	"slices"

	"google.golang.org/protobuf/types/known/timestamppb"

	antipodev1 "github.com/antipode-registry/antipode/gen/antipode/v1"
	"github.com/antipode-registry/antipode/primaryd/internal/feed"
)

// mostTouches bounds what a change says of its tags: a batch of changes has to fit into a message.
const mostTouches = 16

// hintProto is what a change says of its tags, the newest where there are many; nil where nothing is known.
func hintProto(h feed.Hint) *antipodev1.TagHint {
	if len(h.Touches) == 0 {
		return nil
	}
	touches := slices.Clone(h.Touches)
	hint := &antipodev1.TagHint{BaseRevision: h.Base}
	if len(touches) > mostTouches {
		slices.SortStableFunc(touches, func(a, b feed.Touch) int { return cmp.Compare(b.Revision, a.Revision) })
		// Of what was touched at this revision or before, not everything is named.
		hint.BaseRevision = max(h.Base, touches[mostTouches].Revision)
		touches = touches[:mostTouches]
		slices.SortFunc(touches, func(a, b feed.Touch) int { return cmp.Compare(a.Tag, b.Tag) })
	}
	for _, t := range touches {
		hint.Tags = append(hint.Tags, &antipodev1.TouchedTag{
			Tag: t.Tag, Digest: t.Digest, Deleted: t.Deleted, TouchedAt: timestamppb.New(t.At), Revision: t.Revision,
		})
	}
	return hint
}
