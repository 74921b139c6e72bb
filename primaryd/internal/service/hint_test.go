package service_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/testing/protocmp"
	"google.golang.org/protobuf/types/known/timestamppb"

	antipodev1 "github.com/antipode-registry/antipode/gen/antipode/v1"
	"github.com/antipode-registry/antipode/primaryd/internal/feed"
)

// What was touched is told, where the subscriber can make use of it and as far as there is room.
func TestChangesNameWhatWasTouched(t *testing.T) {
	t.Parallel()
	p := sqlite(t)
	at := time.UnixMilli(5000).UTC()
	touch := func(touches ...feed.Touch) {
		t.Helper()
		if _, err := p.feed.Append(t.Context(), feed.Change{Repository: "a", At: at, Tags: touches}); err != nil {
			t.Fatal(err)
		}
	}
	touch(feed.Touch{Tag: "v1", Digest: "sha256:1"})
	c := p.run(t)
	hint := func(s subscriber) *antipodev1.TagHint {
		t.Helper()
		for {
			message, err := s.Recv()
			if err != nil {
				t.Fatal(err)
			}
			if changes := message.GetChanges().GetChanges(); len(changes) > 0 {
				return changes[len(changes)-1].GetHint()
			}
		}
	}
	fresh := subscribe(deadline(t), t, c, "node/eu", &antipodev1.SubscribeRequest{})
	if got := hint(fresh); got != nil {
		t.Errorf("who has nothing is told of %v", got)
	}
	touch(feed.Touch{Tag: "v0", Deleted: true})
	want := &antipodev1.TagHint{Tags: []*antipodev1.TouchedTag{
		{Tag: "v0", Deleted: true, TouchedAt: timestamppb.New(at), Revision: 2},
		{Tag: "v1", Digest: "sha256:1", TouchedAt: timestamppb.New(at), Revision: 1},
	}}
	again := subscribe(deadline(t), t, c, "node/eu", &antipodev1.SubscribeRequest{FeedId: p.feed.ID(), AfterRevision: 1})
	for _, s := range []subscriber{fresh, again} {
		if diff := cmp.Diff(want, hint(s), protocmp.Transform()); diff != "" {
			t.Error(diff)
		}
	}
	many := make([]feed.Touch, 0, 20)
	for i := range 20 {
		many = append(many, feed.Touch{Tag: fmt.Sprintf("m%02d", i)})
	}
	touch(many...)
	if got := hint(fresh); len(got.GetTags()) != 16 || got.GetBaseRevision() != 3 || got.GetTags()[0].GetTag() != "m00" {
		t.Errorf("of 22 touches: %v", got)
	}
}
