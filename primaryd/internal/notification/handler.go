// Package notification takes a registry's webhook: what its events say changed goes into the feed. It reads what CNCF
// distribution, GitLab's registry, Harbor, zot and Quay send.
//
// It guarantees that a notification is answered 200 only after its changes are committed, so that a registry keeps what
// it could not deliver. It refuses what is unauthenticated, oversized or no registry's notification at all, and nothing
// else: a registry sends a refused event again for ever and holds back all behind it, so an event that is not understood
// is counted and passed over.
package notification

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/antipode-registry/antipode/internal/telemetry"
	"github.com/antipode-registry/antipode/primaryd/internal/feed"
)

const (
	// retryAfter asks for patience, in seconds, while the feed cannot commit; retrySoon does so of who sends too much.
	retryAfter = "5"
	retrySoon  = "1"
	// rememberedInstances bounds what is remembered of who sends.
	rememberedInstances = 1024
)

// Appender records changes; *feed.Feed is one. Append returns once they are durable.
type Appender interface {
	Append(ctx context.Context, changes ...feed.Change) (head int64, err error)
}

// Options are what the handler needs. Secret and Appender are required.
type Options struct {
	// Secret is what senders must present as `Authorization: Bearer SECRET`, or as the password of HTTP Basic. It is asked
	// for every request, so that the secret can be replaced while the daemon runs; space around it does not count. While
	// it fails or is empty, notifications are answered 503.
	Secret   func() ([]byte, error)
	Appender Appender
	Logger   *slog.Logger // nil discards
	Metrics  *Metrics     // nil counts nothing
	Tracer   *telemetry.Tracer
	MaxBody  int64 // bytes of a body at most; 0 = 4 MiB
	// Rate and Burst are how many events are taken, per second in the long run and at once; 0 = DefaultRate and
	// DefaultBurst.
	Rate  float64
	Burst int
	// InWork is how many bytes of bodies are in work at once, a small one counted as 16 KiB; 0 = 64 MiB.
	InWork int64
	// BodyTimeout is how long a body may take to arrive; 0 = 10 s.
	BodyTimeout time.Duration
	// OnInstance is told of each instanceID that this process has not seen before, except the first: a registry that
	// restarted has a new one, and lost the events that it had not yet delivered. What instances there were is not kept
	// over a restart of this process, so a sweep should follow that too. It must not block. May be nil.
	OnInstance func(instanceID string)
	// Untagged says whether a manifest that is pushed by its digest is recorded, nil means always: where the registry
	// has no referrers API, such a push changes nothing that a listing could show.
	Untagged func() bool
}

// NewHandler serves the webhook. It answers 200 once all changes are committed; 405 to any method but POST; 401 to a
// wrong secret; 413 to a body over the limit; 408 to one that does not arrive; 400 to one that is no notification; 503
// with Retry-After when the changes cannot be committed or the secret cannot be read; and 429 with Retry-After to what is
// over the limits. Whatever is not answered 200 for its limits is not recorded in any part.
func NewHandler(opts Options) http.Handler {
	h := &handler{Options: opts}
	if h.Logger == nil {
		h.Logger = slog.New(slog.DiscardHandler)
	}
	if h.Metrics == nil {
		h.Metrics = NewMetrics(nil)
	}
	h.MaxBody = positive(h.MaxBody, defaultMaxBody)
	h.Rate = positive(h.Rate, DefaultRate)
	h.Burst = positive(h.Burst, DefaultBurst)
	h.InWork = positive(h.InWork, defaultInWork)
	h.BodyTimeout = positive(h.BodyTimeout, defaultBodyTimeout)
	h.limits = newLimits(h.Options)
	return h
}

func positive[N int | int64 | float64 | time.Duration](given, preset N) N {
	if given > 0 {
		return given
	}
	return preset
}

type handler struct {
	Options
	limits

	mu        sync.Mutex
	instances []string // the last ones seen, the oldest first
}

// answer is what a notification is answered.
type answer struct {
	status int
	result string // the metric's label
}

var (
	accepted     = answer{http.StatusOK, "accepted"}
	wrongMethod  = answer{http.StatusMethodNotAllowed, "method"}
	unauthorized = answer{http.StatusUnauthorized, "unauthorized"}
	tooLarge     = answer{http.StatusRequestEntityTooLarge, "too_large"}
	unparseable  = answer{http.StatusBadRequest, "unparseable"}
	unavailable  = answer{http.StatusServiceUnavailable, "unavailable"}
	slow         = answer{http.StatusRequestTimeout, "slow"}
	limited      = answer{http.StatusTooManyRequests, "limited"}
	busy         = answer{http.StatusTooManyRequests, "busy"}
	throttled    = answer{http.StatusTooManyRequests, "throttled"}
)

// answers are all of them.
var answers = []answer{
	accepted, wrongMethod, unauthorized, tooLarge, unparseable, unavailable, slow, limited, busy, throttled,
}

func (h *handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	began := time.Now()
	given, events, err := h.take(w, r) //nolint:contextcheck // the request has it
	h.Metrics.notifications.WithLabelValues(given.result).Inc()
	if given != accepted || events > 0 {
		h.Metrics.last.WithLabelValues(given.result).SetToCurrentTime()
	}
	h.Metrics.seconds.Observe(time.Since(began).Seconds())
	if given == accepted {
		w.WriteHeader(given.status)
		return
	}
	h.log(r, given, err)
	switch given {
	case wrongMethod:
		w.Header().Set("Allow", http.MethodPost)
	case unauthorized:
		w.Header()["Www-Authenticate"] = []string{"Bearer", `Basic realm="notifications"`}
	case unavailable:
		w.Header().Set("Retry-After", retryAfter)
	case limited, busy, throttled:
		w.Header().Set("Retry-After", retrySoon)
	}
	if given == unauthorized || given == throttled {
		w.Header().Set("Connection", "close") // what else they send is not read
	}
	// The status alone: who may not ask learns nothing, and what happened is in our log.
	http.Error(w, http.StatusText(given.status), given.status)
}

// log tells of a refusal, and of a flood of them once in a while.
func (h *handler) log(r *http.Request, given answer, err error) {
	if given.status == http.StatusTooManyRequests && !h.logged.Allow() {
		return
	}
	h.Logger.WarnContext(r.Context(), "notification not accepted", "status", given.status, "result", given.result,
		"remote", r.RemoteAddr, "user_agent", r.UserAgent(), "error", err)
}

// take does all but the answering, and says how many events there were.
func (h *handler) take(w http.ResponseWriter, r *http.Request) (given answer, events int, err error) {
	if r.Method != http.MethodPost {
		return wrongMethod, 0, fmt.Errorf("method %q", r.Method)
	}
	if given, err := h.authenticate(r); err != nil {
		return given, 0, err
	}
	leave, given, err := h.admit(r)
	if err != nil {
		return given, 0, err
	}
	defer leave()
	body, given, err := h.body(w, r)
	if err != nil {
		return given, 0, err
	}
	said, err := parse(r.Header, body)
	if err != nil {
		return unparseable, 0, err
	}
	h.charge(len(said.results))
	if h.Untagged != nil && !h.Untagged() {
		said.changes = slices.DeleteFunc(said.changes, isUntagged)
	}
	ctx, span := h.trace(r, said.changes)
	defer span.End()
	if len(said.changes) > 0 {
		if _, err := h.Appender.Append(ctx, said.changes...); err != nil {
			span.Fail("local", err)
			return unavailable, 0, err
		}
	}
	h.noted(ctx, said)
	return accepted, len(said.results), nil
}

// trace begins the trace of what changed, or goes on with the sender's. Who may not notify, and what changes nothing, never
// come here.
func (h *handler) trace(r *http.Request, changes []feed.Change) (context.Context, telemetry.Span) {
	if len(changes) == 0 || !h.Tracer.Enabled() {
		return r.Context(), telemetry.Span{}
	}
	about := telemetry.About{Role: telemetry.Serving, Repository: changes[0].Repository} // in most there is but one change
	if len(changes[0].Tags) > 0 {
		about.Reference, about.Digest = changes[0].Tags[0].Tag, changes[0].Tags[0].Digest
	}
	ctx := telemetry.WithTraceParent(r.Context(), r.Header.Get("Traceparent"))
	ctx, span := h.Tracer.Start(ctx, "take notification", about)
	span.Number("changes", int64(len(changes)))
	return ctx, span
}

func isUntagged(change feed.Change) bool {
	return len(change.Tags) > 0 && !slices.ContainsFunc(change.Tags, func(touch feed.Touch) bool {
		_, untagged := touch.Untagged()
		return !untagged
	})
}

// noted counts the events and tells of new instances, once all is committed.
func (h *handler) noted(ctx context.Context, said parsed) {
	for _, result := range said.results {
		h.Metrics.events.WithLabelValues(result).Inc()
	}
	for _, change := range said.changes {
		h.Logger.DebugContext(ctx, "notified", "repository", change.Repository, "unknown", change.Unknown)
	}
	for _, instance := range said.instances {
		if h.isNew(instance) {
			h.Metrics.restarts.Inc()
			h.Logger.InfoContext(ctx, "a registry instance not seen before notifies", "instance", instance)
			if h.OnInstance != nil {
				h.OnInstance(instance)
			}
		}
	}
}

// isNew remembers the instance and says whether it is another one than those before.
func (h *handler) isNew(instance string) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	if slices.Contains(h.instances, instance) {
		return false
	}
	first := len(h.instances) == 0
	if len(h.instances) == rememberedInstances {
		h.instances = h.instances[1:]
	}
	h.instances = append(h.instances, instance)
	return !first
}
