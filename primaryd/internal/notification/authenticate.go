package notification

import (
	"bytes"
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"fmt"
	"net/http"
	"strings"
)

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
	if subtle.ConstantTimeCompare(want[:], got[:]) == 1 {
		return accepted, nil
	}
	err = errors.New("the secret is wrong or missing: see the registry's notification configuration")
	if !h.guesses.Allow() {
		return throttled, err
	}
	return unauthorized, err
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
