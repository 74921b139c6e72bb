package notification_test

import (
	"errors"
	"net/http"
	"strings"
	"testing"

	"github.com/antipode-registry/antipode/internal/telemetry"
	"github.com/antipode-registry/antipode/internal/telemetry/telemetrytest"
	"github.com/antipode-registry/antipode/primaryd/internal/notification"
)

// A notification of a change is the beginning of a trace, or part of its sender's; any other is of none.
func TestNotificationsAreTraced(t *testing.T) {
	t.Parallel()
	with := func(key, value string) func(*http.Request) {
		return func(r *http.Request) {
			r.Header.Set("Traceparent", telemetrytest.TraceParent)
			r.Header.Set(key, value)
		}
	}
	const digest = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
	pushed := strings.Replace(pushOfATag, `"tag"`, `"digest":"`+digest+`","tag"`, 1)
	for name, test := range map[string]struct {
		edit    func(*http.Request)
		body    string
		err     error
		spans   int
		trace   string
		attempt bool
	}{
		"of its own":        {body: pushed, spans: 1, attempt: true},
		"the sender's":      {edit: with("X", ""), body: pushed, spans: 1, trace: telemetrytest.Trace, attempt: true},
		"junk":              {edit: with("Traceparent", "00-junk"), body: pushed, spans: 1, attempt: true},
		"the feed fails":    {body: pushed, err: errors.New("down"), spans: 1, attempt: true},
		"nothing changed":   {edit: with("X", ""), body: `{"events":[{"action":"pull"}]}`},
		"not authenticated": {edit: with("Authorization", "Bearer guess"), body: pushed},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			into, spans := &recorder{err: test.err}, telemetrytest.NewRecorder()
			options := options(into)
			options.Tracer = telemetry.NewTracer(spans, "")
			post(t, notification.NewHandler(options), test.edit, test.body)
			if got := spans.Spans(); len(got) != test.spans || (into.ctx != nil) != test.attempt {
				t.Fatalf("spans %+v, appended in %v", got, into.ctx)
			}
			if test.spans == 0 {
				return
			}
			span := spans.One(t, "take notification")
			span.Has(t, "repository", "a", "reference", "v", "digest", digest, "changes", "1")
			if test.trace != "" && (span.Trace != test.trace || span.Parent != telemetrytest.Parent) ||
				test.trace == "" && span.Parent != "" {
				t.Errorf("span %+v", span)
			}
			if want := "00-" + span.Trace + "-" + span.ID + "-01"; telemetry.TraceParent(into.ctx) != want {
				t.Errorf("the feed is told %q, want %q", telemetry.TraceParent(into.ctx), want)
			}
			if test.err != nil {
				span.Has(t, "side", "local", "error", "down")
			}
		})
	}
}
