package registry

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/antipode-registry/antipode/internal/registrytest"
)

// answerAfter is a registry that knows every tag and takes d for each answer.
func answerAfter(t testing.TB, d time.Duration, edits ...func(*Config)) *Registry {
	t.Helper()
	return carried(t, func(req *http.Request) (*http.Response, error) {
		if err := pause(req.Context(), d); err != nil {
			return nil, err
		}
		resp := respond(http.StatusOK, "{}", headerDigest, registrytest.Digest(nil), "Content-Type", registrytest.OCIIndex)
		return resp, nil
	}, edits...)
}

func concurrency(n int) func(*Config) { return func(cfg *Config) { cfg.Concurrency = n } }

// TestLiveRequestPassesAFloodOfListings: eight workers list repositories of a thousand tags each, and a live change
// looks at one tag.
func TestLiveRequestPassesAFloodOfListings(t *testing.T) {
	t.Parallel()
	for _, urgent := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			const each = 100 * time.Millisecond
			r := answerAfter(t, each)
			ctx, stop := context.WithCancel(t.Context())
			var group sync.WaitGroup
			for range 8 {
				group.Go(func() { _, _, _ = r.Resolve(ctx, repo, manyTags(1000)) }) // ends with ctx
			}
			<-time.After(each*5 + each/2) // the flood is on
			live := t.Context()
			if urgent {
				live = WithUrgency(live)
			}
			began := time.Now()
			for range 3 {
				if _, _, err := r.Resolve(live, repo, []string{"live"}); err != nil {
					t.Error(err)
				}
			}
			took := time.Since(began)
			if urgent && took > 6*each {
				t.Errorf("three urgent requests took %s where an answer takes %s", took, each)
			}
			if !urgent && took < 12*each {
				t.Errorf("three requests took %s: there is no flood to pass", took)
			}
			stop()
			group.Wait()
		})
	}
}

func manyTags(n int) []string {
	tags := make([]string, n)
	for i := range tags {
		tags[i] = fmt.Sprint("v", i)
	}
	return tags
}

// TestUrgentRequestsStarveNobody: with an endless stream of urgent ones, one request in eight is another.
func TestUrgentRequestsStarveNobody(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := answerAfter(t, time.Second, concurrency(1))
		ctx, stop := context.WithCancel(t.Context())
		var group sync.WaitGroup
		for range 20 {
			group.Go(func() {
				for r.Ping(WithUrgency(ctx)) == nil {
				}
			})
		}
		synctest.Wait()
		for range 3 {
			began := time.Now()
			ping(t, r)
			if took := time.Since(began); took > (maxFavoured+2)*time.Second {
				t.Errorf("took %s", took)
			}
		}
		stop()
		group.Wait()
		if b := r.transport().budget; b.inFlight != 0 || b.waiting.Len() != 0 {
			t.Errorf("%d in flight and %d waiting are left", b.inFlight, b.waiting.Len())
		}
	})
}

// TestUrgentRequestsKeepThePause: what the registry asked for holds for all.
func TestUrgentRequestsKeepThePause(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		asked := false
		r := carried(t, func(*http.Request) (*http.Response, error) {
			if !asked {
				asked = true
				return respond(http.StatusTooManyRequests, "", "Retry-After", "30"), nil
			}
			return respond(http.StatusOK, "{}"), nil
		})
		began := time.Now()
		if err := r.Ping(WithUrgency(t.Context())); err != nil || time.Since(began) < 30*time.Second {
			t.Errorf("after %s: %v", time.Since(began), err)
		}
	})
}

// TestUploadsThatWaitForTheirSourceHoldNobodyUp: all of the handle's requests may be such uploads.
func TestUploadsThatWaitForTheirSourceHoldNobodyUp(t *testing.T) {
	t.Parallel()
	for size, want := range map[int]time.Duration{smallBlob: 0, smallBlob + 1: heldFor} {
		uploadsWait(t, size, want)
	}
}

// uploadsWait has uploads of blobs of that size wait, and another request wait for them.
func uploadsWait(t *testing.T, size int, want time.Duration) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		r := carried(t, func(req *http.Request) (*http.Response, error) {
			switch req.Method {
			case http.MethodPost:
				return respond(http.StatusAccepted, "", "Location", "/v2/"+repo+"/blobs/uploads/1"), nil
			case http.MethodPut:
				_, err := io.Copy(io.Discard, req.Body)
				return respond(http.StatusCreated, ""), err
			case http.MethodDelete:
				return respond(http.StatusNoContent, ""), nil
			}
			return respond(http.StatusOK, "{}"), nil
		}, concurrency(2))
		ctx, stop := context.WithCancel(t.Context())
		stalled := func() (io.ReadCloser, error) { return io.NopCloser(waiting{ctx}), ctx.Err() }
		var group sync.WaitGroup
		for range 2 {
			group.Go(func() {
				_, err := r.PutBlob(ctx, repo, blobOf(make([]byte, size)), "", stalled)
				if !errors.Is(err, context.Canceled) {
					t.Error(err)
				}
			})
		}
		synctest.Wait()
		began := time.Now()
		ping(t, r)
		if took := time.Since(began); took != want {
			t.Errorf("a request waited %s for uploads of %d bytes that wait for their source", took, size)
		}
		stop()
		group.Wait()
		if b := r.transport().budget; b.inFlight != 0 {
			t.Errorf("%d in flight are left", b.inFlight)
		}
	})
}

// waiting is a source that gives nothing until its context ends.
type waiting struct{ ctx context.Context }

func (w waiting) Read([]byte) (int, error) {
	<-w.ctx.Done()
	return 0, w.ctx.Err()
}

// TestQueueOrder is the order itself.
func TestQueueOrder(t *testing.T) {
	t.Parallel()
	var q queue
	names := map[*place]string{}
	for i := range 3 {
		names[q.enter(false)] = fmt.Sprint("other", i)
	}
	for i := range 9 {
		names[q.enter(true)] = fmt.Sprint("urgent", i)
	}
	for p, name := range names {
		if name == "urgent1" || name == "other1" {
			q.leave(p)
			delete(names, p)
		}
	}
	var order []string
	for q.Len() > 0 {
		q.admit()
		for p, name := range names {
			select {
			case <-p.ready:
				order = append(order, name)
				delete(names, p)
			default:
			}
		}
	}
	const want = "urgent0 urgent2 urgent3 urgent4 urgent5 urgent6 urgent7 other0 urgent8 other2"
	if got := strings.Join(order, " "); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}
