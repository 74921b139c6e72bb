// Package notification takes a registry's webhook: what its events say changed goes into the feed. It reads what CNCF
// distribution, GitLab's registry, Harbor, zot and Quay send.
//
// It guarantees that a notification is answered 200 only after its changes are committed, so that a registry keeps what
// it could not deliver. It refuses what is unauthenticated, oversized or no registry's notification at all, and nothing
// else: a registry sends a refused event again for ever and holds back all behind it, so an event that is not understood
// is counted and passed over.
package notification

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/antipode-registry/antipode/primaryd/internal/feed"
)

const (
	// defaultMaxBody holds some thousands of events. Registries send one per request, proxies that batch send more.
	defaultMaxBody = 4 << 20
	// retryAfter asks for patience, in seconds, while the feed cannot commit.
	retryAfter = "5"
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
	MaxBody  int64        // bytes of a body at most; 0 = 4 MiB
	// OnInstance is told of each instanceID that this process has not seen before, except the first: a registry that
	// restarted has a new one, and lost the events that it had not yet delivered. What instances there were is not kept
	// over a restart of this process, so a sweep should follow that too. It must not block. May be nil.
	OnInstance func(instanceID string)
	// Untagged says whether a manifest that is pushed by its digest is recorded, nil means always: where the registry
	// has no referrers API, such a push changes nothing that a listing could show.
	Untagged func() bool
}

// NewHandler serves the webhook. It answers 200 once all changes are committed; 405 to any method but POST; 401 to a
// wrong secret; 413 to a body over the limit; 400 to one that is no notification; and 503 with Retry-After when
// the changes cannot be committed or the secret cannot be read.
func NewHandler(opts Options) http.Handler {
	h := &handler{Options: opts}
	if h.Logger == nil {
		h.Logger = slog.New(slog.DiscardHandler)
	}
	if h.Metrics == nil {
		h.Metrics = NewMetrics(nil)
	}
	if h.MaxBody <= 0 {
		h.MaxBody = defaultMaxBody
	}
	return h
}

type handler struct {
	Options

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
)

func (h *handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	began := time.Now()
	given, events, err := h.take(w, r)
	h.Metrics.notifications.WithLabelValues(given.result).Inc()
	if given != accepted || events > 0 {
		h.Metrics.last.WithLabelValues(given.result).SetToCurrentTime()
	}
	h.Metrics.seconds.Observe(time.Since(began).Seconds())
	if given == accepted {
		w.WriteHeader(given.status)
		return
	}
	h.Logger.WarnContext(r.Context(), "notification not accepted",
		"status", given.status, "remote", r.RemoteAddr, "user_agent", r.UserAgent(), "error", err)
	switch given {
	case wrongMethod:
		w.Header().Set("Allow", http.MethodPost)
	case unauthorized:
		w.Header()["Www-Authenticate"] = []string{"Bearer", `Basic realm="notifications"`}
	case unavailable:
		w.Header().Set("Retry-After", retryAfter)
	}
	// The status alone: who may not ask learns nothing, and what happened is in our log.
	http.Error(w, http.StatusText(given.status), given.status)
}

// take does all but the answering, and says how many events there were.
func (h *handler) take(w http.ResponseWriter, r *http.Request) (given answer, events int, err error) {
	if r.Method != http.MethodPost {
		return wrongMethod, 0, fmt.Errorf("method %q", r.Method)
	}
	if given, err := h.authenticate(r); err != nil {
		return given, 0, err
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, h.MaxBody))
	if err != nil {
		if _, over := errors.AsType[*http.MaxBytesError](err); over {
			return tooLarge, 0, err
		}
		return unparseable, 0, fmt.Errorf("read the body: %w", err)
	}
	said, err := parse(r.Header, body)
	if err != nil {
		return unparseable, 0, err
	}
	if h.Untagged != nil && !h.Untagged() {
		said.changes = slices.DeleteFunc(said.changes, isUntagged)
	}
	if len(said.changes) > 0 {
		if _, err := h.Appender.Append(r.Context(), said.changes...); err != nil {
			return unavailable, 0, err
		}
	}
	h.noted(r.Context(), said)
	return accepted, len(said.results), nil
}

func isUntagged(change feed.Change) bool {
	return len(change.Tags) > 0 && !slices.ContainsFunc(change.Tags, func(touch feed.Touch) bool {
		_, untagged := touch.Untagged()
		return !untagged
	})
}

// authenticate compares digests of the secrets: neither where they differ nor how long ours is can be timed.
func (h *handler) authenticate(r *http.Request) (answer, error) {
	secret, err := h.Secret()
	if err != nil {
		return unavailable, fmt.Errorf("read the notification secret: %w", err)
	}
	if secret = bytes.TrimSpace(secret); len(secret) == 0 {
		return unavailable, errors.New("the notification secret is empty")
	}
	want, got := sha256.Sum256(secret), sha256.Sum256([]byte(presented(r)))
	if subtle.ConstantTimeCompare(want[:], got[:]) != 1 {
		return unauthorized, errors.New("the secret is wrong or missing: see the registry's notification configuration")
	}
	return accepted, nil
}

// presented is the secret that the request brings, "" for none. The password is for senders that can set no header but
// what the user information of their URL makes one of; who the user is does not matter. The query is not looked at: it
// would stand in the access logs of all proxies on the way.
func presented(r *http.Request) string {
	if _, password, ok := r.BasicAuth(); ok {
		return strings.TrimSpace(password)
	}
	scheme, token, _ := strings.Cut(r.Header.Get("Authorization"), " ")
	if !strings.EqualFold(scheme, "Bearer") {
		return ""
	}
	return strings.TrimSpace(token)
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
