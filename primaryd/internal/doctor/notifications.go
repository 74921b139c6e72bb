package doctor

import (
	"bytes"
	"context"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/antipode-registry/antipode/client"
	"github.com/antipode-registry/antipode/internal/checkup"
)

const mendHook = "compare the registry's own configuration with ours: primaryd notifications --check FILE; " +
	"then restart the registry"

// checkHook sends a notification without events, as the registry would.
func (e *examination) checkHook(ctx context.Context) bool {
	ctx, cancel := checkup.Within(ctx)
	defer cancel()
	secret, err := e.Secret()
	if err != nil {
		return false // found already
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, e.HTTP+"/notifications", strings.NewReader(`{"events":[]}`))
	if err != nil {
		e.report.Fail("notifications", "correct `http.listen`", "%v", err)
		return false
	}
	req.Header.Set("Authorization", "Bearer "+string(bytes.TrimSpace(secret)))
	req.Header.Set("Content-Type", "application/vnd.docker.distribution.events.v2+json")
	switch status, _, err := checkup.Ask(req); {
	case err != nil:
		e.report.Fail("notifications", "see that the daemon runs with this configuration", "the daemon's HTTP does not answer: %v", err)
	case status == http.StatusUnauthorized:
		e.report.Fail("notifications", "restart the daemon with this configuration", "the daemon takes another secret than the one in %s", e.SecretFile)
	case status != http.StatusOK:
		e.report.Fail("notifications", "look into the daemon's log", "the daemon answers a notification with HTTP %d", status)
	default:
		e.report.OK("notifications", "the daemon takes them at %s/notifications, with the secret", e.HTTP)
		return true
	}
	return false
}

// checkNotifications looks whether the registry's arrive: by a probe, or by what came before.
func (e *examination) checkNotifications(ctx context.Context, head client.Position, registryAnswers bool) {
	before, err := e.scrape(ctx)
	if err != nil {
		e.report.Warn("notifications", "let this machine read the daemon's /metrics", "what arrived cannot be seen: %v", err)
		return
	}
	refused := e.refused(before)
	if !e.Probe || !registryAnswers {
		if !refused {
			e.lastArrived(before)
		}
		return
	}
	e.doing("notifications: pushing a probe")
	digest, pushed := e.report.PushProbe(ctx, e.source, e.Repository, checkup.ProbeTag(e.Registry.URL()))
	if !pushed {
		return
	}
	e.doing(fmt.Sprintf("notifications: waiting %s at most for the probe's", e.Arrival))
	arrived, took := e.await(ctx, head)
	e.judge(ctx, before, arrived, took)
	e.report.RemoveProbe(ctx, e.source, e.Repository, checkup.ProbeTag(e.Registry.URL()), digest)
}

func (e *examination) scrape(ctx context.Context) (checkup.Series, error) {
	ctx, cancel := checkup.Within(ctx)
	defer cancel()
	return checkup.Scrape(ctx, e.HTTP)
}

// Names of the daemon's metrics that are read here.
func total(result string) string { return `antipode_notifications_total{result="` + result + `"}` }

func last(series checkup.Series, result string) time.Time {
	seconds := series[`antipode_notification_last_timestamp_seconds{result="`+result+`"}`]
	if seconds == 0 {
		return time.Time{}
	}
	return time.UnixMilli(int64(seconds * 1000))
}

// refused looks for notifications that the daemon would not take, and that no accepted one has followed.
func (e *examination) refused(series checkup.Series) bool {
	mends := map[string]string{
		"unauthorized": "something presents another secret, most likely the registry: " + mendHook,
		"unparseable":  "something that is no registry's notification is sent to /notifications: " + mendHook,
		"too_large":    "something sends more than a registry would: " + mendHook,
		"slow":         "see why the registry, or a proxy between, does not send what it began to",
		"limited":      "find out who sends so much, and raise notifications.rate and burst where that is as it should be",
		"busy":         "find out who sends so much at once, and see that the database answers in time",
		"unavailable":  "see that the database answers, and that the secret can be read",
	}
	found := false
	for _, result := range []string{"unauthorized", "unparseable", "too_large", "slow", "limited", "busy", "unavailable"} {
		at := last(series, result)
		if !at.IsZero() && at.After(last(series, "accepted")) {
			found = true
			e.report.Fail("notifications", mends[result], "%.0f were refused as %s since the daemon started, the last at %s, "+
				"and none has been accepted since", series[total(result)], result, at.UTC().Format(time.RFC3339))
		}
	}
	return found
}

// lastArrived tells of the newest notification.
func (e *examination) lastArrived(series checkup.Series) {
	at := last(series, "accepted")
	if at.IsZero() {
		e.report.Warn("notifications", "push something, or ask with --probe, which does",
			"none has arrived since the daemon started: whether they would cannot be seen")
		return
	}
	e.report.OK("notifications", "the newest arrived at %s", at.UTC().Format(time.RFC3339))
}

// await follows the feed from before the push until the probe's repository is in it.
func (e *examination) await(ctx context.Context, from client.Position) (arrived bool, took time.Duration) {
	ctx, cancel := context.WithTimeout(ctx, e.Arrival)
	defer cancel()
	began := time.Now()
	for event, err := range e.client.Subscribe(ctx, "", from) {
		if err != nil {
			return false, time.Since(began)
		}
		for _, change := range event.Changes {
			if change.Repository == e.Repository {
				return true, time.Since(began)
			}
		}
	}
	return false, time.Since(began)
}

// judge says what became of the probe's notification.
func (e *examination) judge(ctx context.Context, before checkup.Series, arrived bool, took time.Duration) {
	after, err := e.scrape(ctx)
	if err != nil {
		after = before
	}
	grew := func(name string) bool { return after[name] > before[name] }
	const events = "antipode_notification_events_total"
	notified := grew(events+`{result="change"}`) || grew(events+`{result="untagged"}`)
	swept := grew("antipode_sweep_changed_total") || grew("antipode_sweep_discovered_total")
	switch {
	case arrived && (notified || !swept):
		e.report.OK("notifications", "a probe's arrived within %v", took.Round(time.Millisecond))
	case arrived:
		e.report.Fail("notifications", mendHook, "a sweep found the probe, and no notification told of it")
	case grew(total("unauthorized")):
		e.report.Fail("notifications", "the registry presents another secret than the one in "+e.SecretFile+": "+mendHook,
			"a probe's was refused as unauthorized")
	default:
		e.report.Fail("notifications", "put the block that primaryd notifications prints into the registry's configuration, "+
			"see that it reaches this machine, and restart it; one that was refused before may hold back all others",
			"a probe was pushed, and no notification of it arrived within %v", e.Arrival)
	}
}
