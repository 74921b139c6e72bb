// Package request carries what operators ask of a site to the site's own subscription, and its answer back, so that
// nothing needs to reach the site from outside.
//
// It guarantees that a request is durable before it is waited for, that whichever replica of primaryd holds the site's
// subscription finds it, and that an answer counts only if it comes from the site that was asked. It does not guarantee
// that a site does as it is asked once only, or at all: who asked and got no answer knows nothing. The table is bounded:
// so many open requests of a site, each of bounded size, and none outlives its end by more than a minute.
package request

import (
	"encoding/json"
	"errors"
	"fmt"
	"time"
)

// Bounds of what is stored.
const (
	mostOpen    = 100      // requests of one site that wait for an answer
	mostAnswer  = 64 << 10 // bytes
	mostAskedBy = 255      // bytes
	keep        = time.Minute
	defaultWait = 10 * time.Second
)

// Kind is what is asked.
type Kind string

// The kinds, as in antipode.v1.SiteRequest.
const (
	Pause   Kind = "pause"
	Resume  Kind = "resume"
	Resync  Kind = "resync"
	Release Kind = "release"
	Inspect Kind = "inspect"
)

// Ask is what is asked of a site. The site judges it; nothing here does, but for its kind.
type Ask struct {
	Kind       Kind   `json:"kind"`
	Repository string `json:"repository,omitempty"` // resync, release, inspect
	Reference  string `json:"reference,omitempty"`  // inspect: a tag or a digest; may be empty
	All        bool   `json:"all,omitempty"`        // resync: every repository
}

// Answer is what came of it. Without a refusal the site did as it was asked.
type Answer struct {
	Kind         Kind     `json:"kind,omitempty"` // as that of the Ask; empty in a refusal
	Refusal      *Refusal `json:"refusal,omitempty"`
	Repositories int64    `json:"repositories,omitempty"` // resync: how many became due
	Found        *Found   `json:"found,omitempty"`        // inspect
}

// Refusal is a site's no. It is the error of Desk.Ask.
type Refusal struct {
	Node    string `json:"-"`
	Code    uint32 `json:"code"` // of gRPC, as the site's own service would have answered
	Message string `json:"message"`
}

func (r *Refusal) Error() string { return fmt.Sprintf("%s: %s", r.Node, r.Message) }

// Found is what a site has.
type Found struct {
	Repository Repository `json:"repository"`
	Digest     string     `json:"digest,omitempty"` // what its registry answers for the reference; empty when it has none
	Since      time.Time  `json:"since,omitzero"`   // when it wrote that, by its journal; zero when not known
}

// Repository is how a site is with a repository, as in antipode.v1.TrackedRepository.
type Repository struct {
	Name             string    `json:"name"`
	State            string    `json:"state"` // pending, syncing, synced, failed or held
	Wanted           int64     `json:"wanted,omitempty"`
	Synced           int64     `json:"synced,omitempty"`
	OldestUnsyncedAt time.Time `json:"oldest_unsynced_at,omitzero"`
	LastSyncedAt     time.Time `json:"last_synced_at,omitzero"`
	NextAttemptAt    time.Time `json:"next_attempt_at,omitzero"`
	Failures         int32     `json:"failures,omitempty"`
	LastError        *Failure  `json:"last_error,omitempty"`
	HeldReason       string    `json:"held_reason,omitempty"`
	TagCount         int64     `json:"tag_count,omitempty"`
	VerifiedAt       time.Time `json:"verified_at,omitzero"`
}

// Failure says what failed at a site, where.
type Failure struct {
	Reference string    `json:"reference,omitempty"`
	Side      string    `json:"side,omitempty"` // primary, source, destination or local
	Message   string    `json:"message"`
	At        time.Time `json:"at,omitzero"`
	Attempts  int32     `json:"attempts,omitempty"`
}

// Request is an Ask on its way.
type Request struct {
	ID        string
	AskedBy   string
	ExpiresAt time.Time
	Ask       Ask
}

var (
	// ErrUnknownNode says that no such site is configured.
	ErrUnknownNode = errors.New("no such node is configured")
	// ErrInvalid says that what was asked or answered makes no sense or is too large.
	ErrInvalid = errors.New("invalid request")
	// ErrTooMany says that the site has too many open requests already.
	ErrTooMany = errors.New("too many open requests")
	// ErrUnanswered says that the site did not answer in time. It may do as it was asked all the same.
	ErrUnanswered = errors.New("the site did not answer in time; it may do as it was asked all the same")
	// ErrOthers says that an answer is to a request that was not of this site.
	ErrOthers = errors.New("the request was not of this node")
)

// encode bounds what is stored.
func encode(what any, most int) (string, error) {
	text, err := json.Marshal(what)
	if err != nil {
		return "", fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	if len(text) > most {
		return "", fmt.Errorf("%w: %d bytes, more than %d", ErrInvalid, len(text), most)
	}
	return string(text), nil
}
