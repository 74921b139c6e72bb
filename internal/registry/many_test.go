package registry

import (
	"errors"
	"fmt"
	"net/http"
	"runtime"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
)

// heap is what is in use once everything that is not was collected.
func heap() int64 {
	runtime.GC()
	var stats runtime.MemStats
	runtime.ReadMemStats(&stats)
	return int64(stats.HeapAlloc)
}

// tagged is a registry whose repository has so many tags, all with digests of their own, and calls last before it answers
// the last page.
func tagged(tags int, last func()) roundTripper {
	return func(req *http.Request) (*http.Response, error) {
		if _, tag, ok := strings.Cut(req.URL.Path, "/manifests/"); ok {
			n, err := strconv.Atoi(strings.TrimPrefix(tag, "build-"))
			head := respond(http.StatusOK, "", "Docker-Content-Digest", fmt.Sprintf("sha256:%064d", n), "Content-Type", mediaTypeOCIManifest)
			head.ContentLength = 100
			return head, err
		}
		first, _ := strconv.Atoi(strings.TrimPrefix(req.URL.Query().Get("last"), "build-"))
		var page strings.Builder
		next := first
		for ; next < min(first+pageSize, tags); next++ {
			fmt.Fprintf(&page, ",\"build-%08d\"", next+1)
		}
		header := []string{"Content-Type", "application/json"}
		if next < tags {
			header = append(header, "Link", fmt.Sprintf("</v2/%s/tags/list?n=1000&last=build-%08d>; rel=next", repo, next))
		} else {
			last()
		}
		return respond(http.StatusOK, `{"name":"x","tags":[`+strings.TrimPrefix(page.String(), ",")+"]}", header...), nil
	}
}

// TestManyTags: what a listing holds grows with the number of its tags and with nothing else.
func TestManyTags(t *testing.T) { // not parallel: it measures the heap
	const many, names, whole = 1_000_000, 250, 500
	before, walking := heap(), int64(0)
	r := carried(t, tagged(many, func() { walking = heap() }))
	found, present, err := r.TagNames(t.Context(), repo)
	if err != nil || !present || len(found) != many {
		t.Fatalf("%d tags, %v", len(found), err)
	}
	t.Logf("%d bytes a tag while the names are read", (walking-before)/many)
	if grown := walking - before; grown > many*names {
		t.Errorf("%d tags hold %d KiB while they are read", many, grown>>10)
	}
	found = found[:many/100]
	before = heap()
	tags, _, err := r.Resolve(t.Context(), repo, found)
	if err != nil || len(tags) != len(found) {
		t.Fatalf("%d tags, %v", len(tags), err)
	}
	t.Logf("%d bytes a tag once it is resolved", (heap()-before)/int64(len(tags)))
	if grown := heap() - before; grown > int64(len(tags)*whole) {
		t.Errorf("%d resolved tags hold %d KiB", len(tags), grown>>10)
	}
	runtime.KeepAlive(found)
	runtime.KeepAlive(tags)
}

// A registry that always has one more page is found out; it does not fill the memory, and is not taken for whole.
func TestAListingWithoutEnd(t *testing.T) {
	t.Parallel()
	var pages atomic.Int64
	answer := tagged(1<<30, func() {})
	r := carried(t, func(req *http.Request) (*http.Response, error) {
		pages.Add(1)
		return answer(req)
	})
	r.most = 5 * pageSize
	_, _, err := r.TagNames(t.Context(), repo)
	if !errors.Is(err, ErrMalformed) || !strings.Contains(err.Error(), "more than 5000 entries") ||
		!strings.Contains(err.Error(), repo) {
		t.Errorf("it ended with %v", err)
	}
	if pages.Load() != 6 {
		t.Errorf("%d pages were asked for", pages.Load())
	}
}
