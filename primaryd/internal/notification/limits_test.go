package notification_test

import (
	"bufio"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/antipode-registry/antipode/primaryd/internal/feed"
	"github.com/antipode-registry/antipode/primaryd/internal/notification"
)

// never is a rate at which nothing is given back while a test runs.
const never = 1e-9

// TestFlood sends more than is allowed, all at once, to a real feed. As many are taken as the burst allows; what was
// answered 200 is in the feed, and what was answered 429 is not.
func TestFlood(t *testing.T) {
	t.Parallel()
	const burst, sent = 40, 200
	f, url := serve(t, func(o *notification.Options) { o.Rate, o.Burst = never, burst })
	client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: sent}}
	defer client.CloseIdleConnections()
	var mu sync.Mutex
	want := map[string]bool{}
	var sending sync.WaitGroup
	for i := range sent {
		sending.Go(func() {
			name := fmt.Sprintf("team/service-%d", i)
			status, retryAfter := send(t, client, url, fmt.Sprintf(`{"events":[{"action":"push","target":{"repository":%q,"tag":"v"}}]}`, name))
			mu.Lock()
			defer mu.Unlock()
			switch status {
			case http.StatusOK:
				want[name] = true
			case http.StatusTooManyRequests:
				if retryAfter == "" {
					t.Error("no Retry-After")
				}
			default:
				t.Errorf("%s: %d", name, status)
			}
		})
	}
	sending.Wait()
	if len(want) != burst {
		t.Errorf("%d were taken, not %d", len(want), burst)
	}
	if diff := cmp.Diff(want, repositories(t, f)); diff != "" {
		t.Error(diff)
	}
}

func send(t *testing.T, client *http.Client, url, body string) (status int, retryAfter string) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Authorization", "Bearer "+secret)
	response, err := client.Do(r)
	if err != nil {
		t.Error(err)
		return 0, ""
	}
	if err := response.Body.Close(); err != nil {
		t.Error(err)
	}
	return response.StatusCode, response.Header.Get("Retry-After")
}

func repositories(t *testing.T, f *feed.Feed) map[string]bool {
	t.Helper()
	rows, err := f.List(t.Context(), "", 1000)
	if err != nil {
		t.Fatal(err)
	}
	found := map[string]bool{}
	for _, row := range rows {
		found[row.Repository] = true
	}
	return found
}

// TestEventsAreCharged takes a body of many events whole, and makes those after it wait for that.
func TestEventsAreCharged(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var stored recorder
		opts := options(&stored)
		opts.Rate, opts.Burst = 1, 4
		h := notification.NewHandler(opts)
		many := `{"events":[` + strings.Repeat(`{"action":"push","target":{"repository":"a","tag":"v"}},`, 9) + `{}]}`
		if w := post(t, h, nil, many); w.Code != http.StatusOK || len(stored.changes) != 9 {
			t.Errorf("%d with %d stored", w.Code, len(stored.changes))
		}
		if w := post(t, h, nil, pushOfATag); w.Code != http.StatusTooManyRequests || w.Header().Get("Retry-After") == "" {
			t.Errorf("%d right after", w.Code)
		}
		time.Sleep(2 * time.Second) //nolint:forbidigo // the bubble's time
		if w := post(t, h, nil, pushOfATag); w.Code != http.StatusOK || len(stored.changes) != 10 {
			t.Errorf("%d later, with %d stored", w.Code, len(stored.changes))
		}
	})
}

// TestGuessing presents wrong secrets without end: they are answered in ever fewer words, and the right one as ever.
func TestGuessing(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var stored recorder
		var log strings.Builder
		opts := options(&stored)
		opts.Logger = slog.New(slog.NewTextHandler(&log, nil))
		h := notification.NewHandler(opts)
		wrong := func(r *http.Request) { r.Header.Set("Authorization", "Bearer wrong") }
		answered := map[int]int{}
		for range 1000 {
			w := post(t, h, wrong, pushOfATag)
			answered[w.Code]++
			if w.Header().Get("Connection") != "close" {
				t.Fatal("the connection is kept for one who may not ask")
			}
			if w := post(t, h, nil, pushOfATag); w.Code != http.StatusOK {
				t.Fatalf("the right secret is answered %d", w.Code)
			}
		}
		if diff := cmp.Diff(map[int]int{401: 100, 429: 900}, answered); diff != "" {
			t.Error(diff)
		}
		if lines := strings.Count(log.String(), "\n"); lines != 101 {
			t.Errorf("%d lines in the log", lines)
		}
		time.Sleep(time.Second) //nolint:forbidigo // the bubble's time
		if w := post(t, h, wrong, pushOfATag); w.Code != http.StatusUnauthorized {
			t.Errorf("%d a second later", w.Code)
		}
	})
}

// TestAtOnce holds one notification in its commit and sees that the next is put off, and one after that not.
func TestAtOnce(t *testing.T) {
	t.Parallel()
	held := &holding{appended: make(chan struct{}), release: make(chan struct{})}
	opts := options(nil)
	opts.Appender, opts.InWork = held, 16<<10
	h := notification.NewHandler(opts)
	first := make(chan int)
	go func() { first <- post(t, h, nil, pushOfATag).Code }()
	<-held.appended
	if w := post(t, h, nil, pushOfATag); w.Code != http.StatusTooManyRequests || w.Header().Get("Retry-After") == "" {
		t.Errorf("%d while one is in work", w.Code)
	}
	close(held.release)
	if code := <-first; code != http.StatusOK {
		t.Errorf("the one in work: %d", code)
	}
	if w := post(t, h, nil, `{"events":[]}`); w.Code != http.StatusOK {
		t.Errorf("%d after it", w.Code)
	}
}

// TestSlowBody sends a part of a body and waits: it is given up, and its place is free again.
func TestSlowBody(t *testing.T) {
	t.Parallel()
	var stored recorder
	opts := options(&stored)
	opts.InWork, opts.BodyTimeout = 16<<10, 50*time.Millisecond
	h := notification.NewHandler(opts)
	server := httptest.NewServer(h)
	defer server.Close()
	conn, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", server.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_, err = fmt.Fprintf(conn, "POST /notifications HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %s\r\nContent-Length: %d\r\n\r\n%s",
		secret, len(pushOfATag), pushOfATag[:20])
	if err != nil {
		t.Fatal(err)
	}
	response, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := response.Body.Close(); err != nil || response.StatusCode != http.StatusRequestTimeout {
		t.Errorf("%s, %v", response.Status, err)
	}
	if w := post(t, h, nil, pushOfATag); w.Code != http.StatusOK || len(stored.changes) != 1 {
		t.Errorf("%d with %d stored", w.Code, len(stored.changes))
	}
}

// TestDeclaredTooLarge refuses by what the header says, and reads none of it.
func TestDeclaredTooLarge(t *testing.T) {
	t.Parallel()
	opts := options(nil)
	w := post(t, notification.NewHandler(opts), func(r *http.Request) {
		r.Body, r.ContentLength = unread{t}, 1<<40
	}, "")
	if w.Code != http.StatusRequestEntityTooLarge {
		t.Errorf("%d", w.Code)
	}
}

// unread is a body that must not be read.
type unread struct{ t *testing.T }

func (u unread) Read([]byte) (int, error) {
	u.t.Error("the body is read")
	return 0, http.ErrBodyReadAfterClose
}

func (u unread) Close() error { return nil }
