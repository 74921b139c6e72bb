package service_test

import (
	"context"
	"fmt"
	"runtime"
	"testing"
	"time"

	antipodev1 "github.com/antipode-registry/antipode/gen/antipode/v1"
	"github.com/antipode-registry/antipode/internal/authority"
	"github.com/antipode-registry/antipode/internal/link"
	"github.com/antipode-registry/antipode/primaryd/internal/feed"
)

// heap is what is in use once everything that is not was collected.
func heap() int64 {
	runtime.GC()
	runtime.GC() // what finalizers set free
	var stats runtime.MemStats
	runtime.ReadMemStats(&stats)
	return int64(stats.HeapAlloc + stats.StackInuse)
}

// A subscriber that never reads costs the same however much happens, and the others hear of everything.
func TestASubscriberThatNeverReads(t *testing.T) { // not parallel: it measures the heap
	p := sqlite(t)
	server := startTLS(t, p)
	site := func(name string) antipodev1.FeedServiceClient {
		return antipodev1.NewFeedServiceClient(server.connect(t, identity{authority.Leaf{Role: link.RoleNode, Name: name}, siteTeam}))
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute) // of a machine that is busy with others
	defer cancel()
	for range 20 {
		if _, err := site("team").Subscribe(ctx, &antipodev1.SubscribeRequest{}); err != nil {
			t.Fatal(err)
		}
	}
	reader, err := site("eu").Subscribe(ctx, &antipodev1.SubscribeRequest{})
	if err != nil {
		t.Fatal(err)
	}
	heard := make(chan int64, 1000) // cursors
	go func() {
		defer close(heard)
		for {
			message, err := reader.Recv()
			if err != nil {
				return
			}
			if changes := message.GetChanges(); changes != nil {
				heard <- changes.GetCursorRevision()
			}
		}
	}()
	record := func(commits int) {
		var head int64
		for range commits {
			changes := make([]feed.Change, 500)
			for i := range changes {
				changes[i] = feed.Change{Repository: fmt.Sprintf("team/%04d", i), Tags: []feed.Touch{{Tag: "v1"}}}
			}
			var err error
			if head, err = p.feed.Append(ctx, changes...); err != nil {
				t.Fatal(err)
			}
		}
		for cursor := range heard {
			if cursor >= head {
				return
			}
		}
		t.Fatal("the stream of the one who reads has ended")
	}
	record(10) // more than the slow ones take
	before := heap()
	record(40)
	if grown := heap() - before; grown > 16<<20 {
		t.Errorf("after 20,000 further changes it holds %d MiB more", grown>>20)
	}
}
