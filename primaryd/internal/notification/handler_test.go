package notification_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/antipode-registry/antipode/internal/database/databasetest"
	"github.com/antipode-registry/antipode/internal/registrytest"
	"github.com/antipode-registry/antipode/primaryd/internal/feed"
	"github.com/antipode-registry/antipode/primaryd/internal/notification"
)

const secret = "s3cret"

const pushOfATag = `{"events":[{"action":"push","target":{"repository":"a","tag":"v"}}]}`

// recorder is an Appender that keeps what it gets.
type recorder struct {
	mu      sync.Mutex
	changes []feed.Change
	ctx     context.Context // of the last
	err     error
}

func (r *recorder) Append(ctx context.Context, changes ...feed.Change) (int64, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.ctx = ctx
	if r.err != nil {
		return 0, r.err
	}
	r.changes = append(r.changes, changes...)
	return int64(len(r.changes)), nil
}

func options(r *recorder) notification.Options {
	return notification.Options{
		Appender: r, MaxBody: 1000, Secret: func() ([]byte, error) { return []byte(secret + "\n"), nil },
	}
}

func post(t *testing.T, h http.Handler, edit func(*http.Request), body string) *httptest.ResponseRecorder {
	t.Helper()
	r := httptest.NewRequestWithContext(t.Context(), http.MethodPost, "/notifications", strings.NewReader(body))
	r.Header.Set("Authorization", "Bearer "+secret)
	if edit != nil {
		edit(r)
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w
}

func TestHandlerAnswers(t *testing.T) {
	authorization := func(value string) func(*http.Request) {
		return func(r *http.Request) { r.Header.Set("Authorization", value) }
	}
	contentType := func(value string) func(*http.Request) {
		return func(r *http.Request) { r.Header.Set("Content-Type", value) }
	}
	for name, test := range map[string]struct {
		edit   func(*http.Request)
		body   string
		change func(*notification.Options)
		status int
		header string
		stored int
	}{
		"taken":              {body: pushOfATag, status: 200, stored: 1},
		"version 1":          {edit: contentType("application/vnd.docker.distribution.events.v1+json"), body: pushOfATag, status: 200, stored: 1},
		"version 2":          {edit: contentType("application/vnd.docker.distribution.events.v2+json"), body: pushOfATag, status: 200, stored: 1},
		"JSON":               {edit: contentType("application/json; charset=utf-8"), body: pushOfATag, status: 200, stored: 1},
		"nothing to do":      {body: `{"events":[{"action":"pull"}]}`, status: 200},
		"bearer":             {edit: authorization("bearer " + secret), body: pushOfATag, status: 200, stored: 1},
		"no secret":          {edit: func(r *http.Request) { r.Header.Del("Authorization") }, body: pushOfATag, status: 401, header: "WWW-Authenticate"},
		"wrong secret":       {edit: authorization("Bearer wrong"), body: pushOfATag, status: 401},
		"longer secret":      {edit: authorization("Bearer " + secret + "x"), body: pushOfATag, status: 401},
		"empty secret":       {edit: authorization("Bearer "), body: pushOfATag, status: 401},
		"other scheme":       {edit: authorization("Digest " + secret), body: pushOfATag, status: 401},
		"wrong and too long": {edit: authorization("Bearer wrong"), body: strings.Repeat("x", 5000), status: 401},
		"GET":                {edit: func(r *http.Request) { r.Method = http.MethodGet }, status: 405, header: "Allow"},
		"HEAD":               {edit: func(r *http.Request) { r.Method = http.MethodHead }, status: 405},
		"too large":          {body: strings.Repeat(" ", 1001), status: 413},
		"as large as may be": {body: pushOfATag + strings.Repeat(" ", 1000-len(pushOfATag)), status: 200, stored: 1},
		"not JSON":           {body: "hello", status: 400},
		"no secret to compare": {
			change: func(o *notification.Options) { o.Secret = func() ([]byte, error) { return nil, errors.New("gone") } },
			body:   pushOfATag, status: 503, header: "Retry-After",
		},
		"empty secret to compare": {
			edit:   authorization("Bearer "),
			change: func(o *notification.Options) { o.Secret = func() ([]byte, error) { return []byte("\n"), nil } },
			body:   pushOfATag, status: 503,
		},
		"feed fails": {
			change: func(o *notification.Options) { o.Appender = &recorder{err: errors.New("down")} },
			body:   pushOfATag, status: 503, header: "Retry-After",
		},
		"feed fails, nothing to append": {
			change: func(o *notification.Options) { o.Appender = &recorder{err: errors.New("down")} },
			body:   `{"events":[]}`, status: 200,
		},
	} {
		t.Run(name, func(t *testing.T) {
			var stored recorder
			opts := options(&stored)
			if test.change != nil {
				test.change(&opts)
			}
			w := post(t, notification.NewHandler(opts), test.edit, test.body)
			if w.Code != test.status || len(stored.changes) != test.stored {
				t.Errorf("%d with %d stored, want %d with %d", w.Code, len(stored.changes), test.status, test.stored)
			}
			if test.header != "" && w.Header().Get(test.header) == "" {
				t.Errorf("no header %s", test.header)
			}
			if strings.Contains(w.Body.String(), secret) || strings.Contains(w.Body.String(), "down") {
				t.Errorf("the answer tells too much: %q", w.Body)
			}
		})
	}
}

// TestWhereTheSecretMayStand: in the header, as a bearer's or as a password, and nowhere else.
func TestWhereTheSecretMayStand(t *testing.T) {
	password := func(user, password string) func(*http.Request) {
		return func(r *http.Request) { r.SetBasicAuth(user, password) }
	}
	header := func(value string) func(*http.Request) {
		return func(r *http.Request) { r.Header.Set("Authorization", value) }
	}
	for name, test := range map[string]struct {
		edit   func(*http.Request)
		status int
	}{
		"password":       {password("quay", secret), 200},
		"password alone": {password("", secret), 200},
		"wrong password": {password(secret, "wrong"), 401},
		"no password":    {password(secret, ""), 401},
		"no base64":      {header("Basic " + secret), 401},
		"no scheme":      {header(secret), 401},
		"query": {func(r *http.Request) {
			r.Header.Del("Authorization")
			r.URL.RawQuery = "token=" + secret + "&access_token=" + secret + "&secret=" + secret
		}, 401},
	} {
		var stored recorder
		if w := post(t, notification.NewHandler(options(&stored)), test.edit, pushOfATag); w.Code != test.status {
			t.Errorf("%s: %d, want %d", name, w.Code, test.status)
		}
	}
}

func TestSecretIsReadAgain(t *testing.T) {
	var stored recorder
	current := "old"
	opts := options(&stored)
	opts.Secret = func() ([]byte, error) { return []byte(current), nil }
	h := notification.NewHandler(opts)
	if w := post(t, h, nil, pushOfATag); w.Code != 401 {
		t.Errorf("%d before the change", w.Code)
	}
	current = secret
	if w := post(t, h, nil, pushOfATag); w.Code != 200 {
		t.Errorf("%d after the change", w.Code)
	}
}

func TestNewInstances(t *testing.T) {
	var stored recorder
	var told []string
	opts := options(&stored)
	opts.OnInstance = func(instance string) { told = append(told, instance) }
	h := notification.NewHandler(opts)
	from := func(instances ...string) {
		var events []string
		for _, instance := range instances {
			events = append(events, fmt.Sprintf(`{"source":{"instanceID":%q}}`, instance))
		}
		if w := post(t, h, nil, `{"events":[`+strings.Join(events, ",")+`]}`); w.Code != 200 {
			t.Errorf("status %d", w.Code)
		}
	}
	from("first")
	from("first", "", "second", "second")
	from("first")
	from("second", "third")
	if diff := cmp.Diff([]string{"second", "third"}, told); diff != "" {
		t.Error(diff)
	}
}

func TestMetrics(t *testing.T) {
	registry := prometheus.NewPedanticRegistry()
	var stored recorder
	opts := options(&stored)
	opts.Metrics = notification.NewMetrics(registry)
	h := notification.NewHandler(opts)
	post(t, h, nil, pushOfATag)
	post(t, h, nil, `{"events":[5,{"action":"push","target":{"repository":"A","tag":"v"}},{"action":"pull"}]}`)
	post(t, h, nil, "x")
	post(t, h, nil, `{"events":[{"source":{"instanceID":"a"}},{"source":{"instanceID":"b"}},{"source":{"instanceID":"a"}}]}`)
	want := `
# HELP antipode_notification_events_total Events in accepted notifications: ` + "`change`" + ` (recorded), ` + "`ignored`" + ` (says nothing about tags), ` + "`untagged`" + ` (a manifest pushed by digest), ` + "`invalid`" + ` (no valid repository or tag), ` + "`malformed`" + ` (no event). All are there from the start, at 0.
# TYPE antipode_notification_events_total counter
antipode_notification_events_total{result="change"} 1
antipode_notification_events_total{result="ignored"} 4
antipode_notification_events_total{result="invalid"} 1
antipode_notification_events_total{result="malformed"} 1
antipode_notification_events_total{result="untagged"} 0
# HELP antipode_notification_instance_changes_total Instances of the registry that began to notify after another one: the registry restarted, may have lost what it had not delivered, and is swept. What a sweep then finds is in ` + "`antipode_sweep_changed_total`" + `.
# TYPE antipode_notification_instance_changes_total counter
antipode_notification_instance_changes_total 1
# HELP antipode_notifications_total Requests to ` + "`/notifications`" + ` by what they were answered: ` + "`accepted`" + ` (200), ` + "`method`" + ` (405), ` + "`unauthorized`" + ` (401), ` + "`too_large`" + ` (413), ` + "`unparseable`" + ` (400), ` + "`unavailable`" + ` (503), ` + "`slow`" + ` (408: the body did not arrive), ` + "`limited`" + ` (429: over ` + "`notifications.rate`" + `), ` + "`busy`" + ` (429: too many at once), ` + "`throttled`" + ` (429: too many wrong secrets). All are there from the start, at 0.
# TYPE antipode_notifications_total counter
antipode_notifications_total{result="accepted"} 3
antipode_notifications_total{result="busy"} 0
antipode_notifications_total{result="limited"} 0
antipode_notifications_total{result="method"} 0
antipode_notifications_total{result="slow"} 0
antipode_notifications_total{result="throttled"} 0
antipode_notifications_total{result="too_large"} 0
antipode_notifications_total{result="unauthorized"} 0
antipode_notifications_total{result="unavailable"} 0
antipode_notifications_total{result="unparseable"} 1
`
	err := testutil.GatherAndCompare(registry, strings.NewReader(want),
		"antipode_notification_events_total", "antipode_notifications_total", "antipode_notification_instance_changes_total")
	if err != nil {
		t.Error(err)
	}
	if problems, err := testutil.GatherAndLint(registry); err != nil || len(problems) > 0 {
		t.Errorf("%v %v", problems, err)
	}
}

// TestRealRegistries lets real registries notify a real feed.
func TestRealRegistries(t *testing.T) {
	for name, start := range map[string]func(testing.TB, ...registrytest.Option) *registrytest.Process{
		"distribution": registrytest.Distribution, "docker-registry": registrytest.Debian,
	} {
		t.Run(name, func(t *testing.T) {
			f, url := serve(t)
			r := start(t, registrytest.WithNotifications(url, secret))
			img := registrytest.NewImage(1, 1, 10)
			registrytest.Push(t, r.URL(), "team/app", "v1", img)
			awaitTouch(t, f, "v1", img.Digest, false)
			registrytest.Retag(t, r.URL(), "team/app", img.Digest, "v2")
			awaitTouch(t, f, "v2", img.Digest, false)
			registrytest.DeleteDigest(t, r.URL(), "team/app", img.Digest)
			awaitTouch(t, f, "v1", "", true)
			awaitTouch(t, f, "v2", "", true)
			row, _, err := f.Get(t.Context(), "team/app")
			if err != nil || row.Hint.Base == 0 {
				t.Errorf("a delete by digest left the hint's base: %+v, %v", row.Hint, err)
			}
		})
	}
}

// serve runs a feed and the webhook before it.
func serve(t *testing.T, edit ...func(*notification.Options)) (f *feed.Feed, url string) {
	t.Helper()
	f, err := feed.Open(t.Context(), databasetest.OpenSQLite(t), feed.Options{})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	var running sync.WaitGroup
	running.Go(func() {
		if err := f.Run(ctx); err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(func() {
		cancel()
		running.Wait()
	})
	opts := notification.Options{Appender: f, Secret: func() ([]byte, error) { return []byte(secret), nil }}
	for _, change := range edit {
		change(&opts)
	}
	server := httptest.NewServer(notification.NewHandler(opts))
	t.Cleanup(server.Close)
	return f, server.URL + "/notifications"
}

func awaitTouch(t *testing.T, f *feed.Feed, tag, digest string, deleted bool) {
	t.Helper()
	wake, stop := f.Watch()
	defer stop()
	for {
		row, _, err := f.Get(t.Context(), "team/app")
		if err != nil {
			t.Fatal(err)
		}
		for _, touch := range row.Hint.Touches {
			if touch.Tag == tag && touch.Digest == digest && touch.Deleted == deleted {
				return
			}
		}
		select {
		case <-wake:
		case <-time.After(20 * time.Second):
			t.Fatalf("no touch of %s: %+v", tag, row)
		}
	}
}

// TestAnswerComesAfterTheCommit holds the commit back and sees that no answer comes meanwhile.
func TestAnswerComesAfterTheCommit(t *testing.T) {
	held := &holding{appended: make(chan struct{}), release: make(chan struct{})}
	opts := options(nil)
	opts.Appender = held
	server := httptest.NewServer(notification.NewHandler(opts))
	defer server.Close()
	answered := make(chan int, 1)
	go func() {
		r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, server.URL, strings.NewReader(pushOfATag))
		if err != nil {
			t.Error(err)
			return
		}
		r.Header.Set("Authorization", "Bearer "+secret)
		response, err := server.Client().Do(r)
		if err != nil {
			t.Error(err)
			return
		}
		_, err = io.Copy(io.Discard, response.Body)
		if err := errors.Join(err, response.Body.Close()); err != nil {
			t.Error(err)
		}
		answered <- response.StatusCode
	}()
	<-held.appended
	select {
	case status := <-answered:
		t.Errorf("answered %d before the commit", status)
	default:
	}
	close(held.release)
	if status := <-answered; status != http.StatusOK {
		t.Errorf("status %d", status)
	}
}

// holding is an Appender that commits when it is told to.
type holding struct{ appended, release chan struct{} }

func (h *holding) Append(context.Context, ...feed.Change) (int64, error) {
	close(h.appended)
	<-h.release
	return 1, nil
}
