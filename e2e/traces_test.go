package e2e

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"github.com/antipode-registry/antipode/internal/telemetry/telemetrytest"
)

// withTraces has both daemons send their spans to an endpoint.
func withTraces(endpoint string) option {
	return func(o *options) {
		withPrimaryConfig("traces.endpoint", endpoint)(o)
		withSecondaryConfig("traces.endpoint", endpoint)(o)
	}
}

// trace is the spans of one trace.
type trace []telemetrytest.Span

// one returns the only span of a name and a program, or says why there is none.
func (tr trace) one(program, name string, below *telemetrytest.Span) (telemetrytest.Span, error) {
	var found []telemetrytest.Span
	for _, span := range tr {
		if span.Name == name && span.Resource["service.name"] == program && (below == nil || span.Parent == below.ID) {
			found = append(found, span)
		}
	}
	if len(found) != 1 {
		return telemetrytest.Span{}, fmt.Errorf("%d spans %q of %s below %+v", len(found), name, program, below)
	}
	return found[0], nil
}

// story is what must be in the trace of a push.
type story struct {
	notification, appended, committed, sent, received  telemetrytest.Span
	copied, sync, asked, answered, walk, tagged, write telemetrytest.Span
}

// read puts the story together. A sync that came too early for the registry is followed by another, so that there may be
// several: the one that counts is that which copied.
func read(tr trace) (s story, err error) {
	steps := []struct {
		span, below   *telemetrytest.Span
		program, name string
	}{
		{&s.notification, nil, "primaryd", "take notification"},
		{&s.appended, &s.notification, "primaryd", "append changes"},
		{&s.committed, &s.appended, "primaryd", "commit changes"},
		{&s.sent, &s.notification, "primaryd", "send change"},
		{&s.received, &s.notification, "secondaryd", "receive change"},
		{&s.copied, nil, "secondaryd", "copy graph"},
		{&s.tagged, &s.copied, "secondaryd", "write tag"},
		{&s.write, &s.tagged, "secondaryd", "request"},
	}
	for _, step := range steps {
		if *step.span, err = tr.one(step.program, step.name, step.below); err != nil {
			return s, err
		}
	}
	const list = "antipode.v1.FeedService/ListTags"
	for _, span := range tr {
		if span.ID == s.copied.Parent {
			s.sync = span
		}
	}
	if s.asked, err = tr.one("secondaryd", list, &s.sync); err != nil {
		return s, err
	}
	if s.answered, err = tr.one("primaryd", list, &s.asked); err != nil {
		return s, err
	}
	s.walk, err = tr.one("primaryd", "walk registry", &s.answered)
	return s, err
}

// TestAPushIsOneTrace follows a push through both daemons, as a collector sees it.
func TestAPushIsOneTrace(t *testing.T) {
	t.Parallel()
	collector := telemetrytest.New(t)
	p := newPair(t, withTraces("http://"+collector.Address()))
	eventually(t, func(ctx context.Context) error { // or the sweep might find the push before its notification comes
		if n, err := metric(ctx, p.Primary, sweepRounds); err != nil || n < 1 {
			return fmt.Errorf("%v rounds of the sweep, %w", n, err)
		}
		return nil
	})
	img := image(1)
	push(t, p, "team/app", "v1", img)
	p.Converges(t)
	var s story
	eventually(t, func(context.Context) (err error) {
		var tr trace
		for _, span := range collector.Spans() {
			if span.Attributes["reference"] == "v1" && span.Name == "take notification" {
				for _, other := range collector.Spans() {
					if other.Trace == span.Trace {
						tr = append(tr, other)
					}
				}
			}
		}
		s, err = read(tr)
		return err
	})

	if s.notification.Parent != "" || s.sync.Name != "sync repository" || s.sync.Parent != s.notification.ID {
		t.Errorf("the sync is no part of the notification's trace:\n%+v\n%+v", s.notification, s.sync)
	}
	s.notification.Has(t, "repository", "team/app", "reference", "v1", "digest", img.Digest)
	s.sent.Has(t, "node", siteName, "repository", "team/app", "revision", s.sync.Attributes["revision"])
	s.received.Has(t, "node", siteName, "repository", "team/app")
	s.sync.Has(t, "node", siteName, "repository", "team/app", "error", "")
	s.walk.Has(t, "repository", "team/app", "revision", s.sync.Attributes["revision"], "tags", "1")
	s.copied.Has(t, "node", siteName, "repository", "team/app", "digest", img.Digest)
	s.tagged.Has(t, "node", siteName, "repository", "team/app", "reference", "v1", "digest", img.Digest)
	s.write.Has(t, "side", "destination", "method", "PUT", "kind", "manifest", "status", "201", "reference", "v1")
	if kinds := []string{s.notification.Kind, s.asked.Kind, s.answered.Kind, s.write.Kind}; fmt.Sprint(kinds) != "[SERVER CLIENT SERVER CLIENT]" {
		t.Errorf("kinds: %v", kinds)
	}
	if line := "trace_id=" + s.sync.Trace + " span_id=" + s.sync.ID; !strings.Contains(p.Secondary.Log(), line) {
		t.Errorf("the site's log does not name the trace of the sync: %s", line)
	}
	if !strings.Contains(p.Primary.Log(), "trace_id="+s.sync.Trace) {
		t.Error("primaryd's log does not name the trace of the notification")
	}
	for _, d := range []*daemon{p.Primary, p.Secondary} {
		if n, err := metric(t.Context(), d, "antipode_trace_spans_exported_total"); err != nil || n == 0 {
			t.Errorf("%s: %v spans were exported, %v", d.name, n, err)
		}
		d.Stop()
	}
}

// TestReplicationDoesNotNeedTheCollector has one that nobody reaches.
func TestReplicationDoesNotNeedTheCollector(t *testing.T) {
	t.Parallel()
	p := newPair(t, withTraces("http://"+reserve(t)))
	push(t, p, "team/app", "v1", image(1))
	p.Converges(t)
	for _, d := range []*daemon{p.Primary, p.Secondary} {
		d.Stop()
		if !strings.Contains(d.Log(), "the collector does not take spans") {
			t.Errorf("%s does not say that spans were lost", d.name)
		}
	}
}

// TestNothingIsTracedWithoutAnEndpoint has the environment offer a collector, which only the configuration may do. Not in
// parallel: the environment is everybody's.
func TestNothingIsTracedWithoutAnEndpoint(t *testing.T) {
	collector := telemetrytest.New(t)
	for _, name := range []string{"OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"} {
		t.Setenv(name, "http://"+collector.Address())
	}
	p := newPair(t)
	push(t, p, "team/app", "v1", image(1))
	p.Converges(t)
	for _, d := range []*daemon{p.Primary, p.Secondary} {
		d.Stop()
		if strings.Contains(d.Log(), "trace_id") {
			t.Errorf("%s has traces", d.name)
		}
	}
	if n := collector.Connections(); n != 0 {
		t.Errorf("%d connections were made to the collector", n)
	}
}
