package node

import (
	"errors"
	"fmt"
	"time"
)

const (
	textBytes  = 4096 // of any one text in a status
	listLength = 64   // of any one list in a status
	// statusBytes is of all texts of a status together. What a site of ours says of itself stays below 200 KiB when
	// everything is wrong with it; usually it is one or two.
	statusBytes = 256 << 10
)

// ErrInvalidStatus matches (errors.Is) the refusal of a status that is too large.
var ErrInvalidStatus = errors.New("invalid status")

// Status is what a site says of itself. It mirrors antipode.v1.NodeStatus, field by field, and is stored as JSON.
type Status struct {
	Version           string           `json:"version,omitempty"`
	StartedAt         time.Time        `json:"started_at,omitzero"`
	Uptime            time.Duration    `json:"uptime_ns,omitempty"`
	Paused            bool             `json:"paused,omitempty"`
	Connected         bool             `json:"connected,omitempty"`
	FeedID            string           `json:"feed_id,omitempty"`
	CursorRevision    int64            `json:"cursor_revision,omitempty"`
	CursorMovedAt     time.Time        `json:"cursor_moved_at,omitzero"`
	HeadRevision      int64            `json:"head_revision,omitempty"`
	PrimaryHeardAt    time.Time        `json:"primary_heard_at,omitzero"`
	PromotedAt        time.Time        `json:"promoted_at,omitzero"`
	LagRevisions      int64            `json:"lag_revisions,omitempty"`
	Lag               time.Duration    `json:"lag_ns,omitempty"`
	Repositories      RepositoryCounts `json:"repositories,omitzero"`
	RegistryReachable bool             `json:"registry_reachable,omitempty"`
	DatabaseReachable bool             `json:"database_reachable,omitempty"`
	LastError         *SyncError       `json:"last_error,omitempty"`
	LastSyncedAt      time.Time        `json:"last_synced_at,omitzero"`
	BytesCopied       int64            `json:"bytes_copied,omitempty"`
	Problems          []string         `json:"problems,omitempty"`
	Active            []ActiveSync     `json:"active,omitempty"`
	Replicas          []Replica        `json:"replicas,omitempty"`
	CursorChangedAt   time.Time        `json:"cursor_changed_at,omitzero"`
	HeadChangedAt     time.Time        `json:"head_changed_at,omitzero"`
	Incarnation       string           `json:"incarnation,omitempty"`
	Troubled          []Troubled       `json:"troubled,omitempty"`
}

// Replica is one of the processes that share a site's work.
type Replica struct {
	Name      string    `json:"name,omitempty"`
	Version   string    `json:"version,omitempty"`
	StartedAt time.Time `json:"started_at,omitzero"`
	SeenAt    time.Time `json:"seen_at,omitzero"`
	Leads     bool      `json:"leads,omitempty"`
}

// RepositoryCounts counts a site's tracked repositories by state.
type RepositoryCounts struct {
	Total   int64 `json:"total,omitempty"`
	Synced  int64 `json:"synced,omitempty"`
	Pending int64 `json:"pending,omitempty"`
	Syncing int64 `json:"syncing,omitempty"`
	Failed  int64 `json:"failed,omitempty"`
	Held    int64 `json:"held,omitempty"`
	// Verified were found, or made, whole by a check of all content; VerificationFailed were found damaged and are not
	// mended yet.
	Verified           int64 `json:"verified,omitempty"`
	VerificationFailed int64 `json:"verification_failed,omitempty"`
	// SyncedPercentage and VerifiedPercentage are of Total.
	SyncedPercentage   float64 `json:"synced_percentage,omitempty"`
	VerifiedPercentage float64 `json:"verified_percentage,omitempty"`
}

// Side says which part failed.
type Side string

// The sides, as in antipode.v1.Side.
const (
	SideUnspecified Side = ""
	SidePrimary     Side = "primary"     // primaryd, or the link to it
	SideSource      Side = "source"      // the primary's registry
	SideDestination Side = "destination" // the site's registry
	SideLocal       Side = "local"       // the site's own database or process
)

// SyncError says what failed, where.
type SyncError struct {
	Repository string    `json:"repository,omitempty"`
	Reference  string    `json:"reference,omitempty"` // tag or digest; "" = the repository as a whole
	Side       Side      `json:"side,omitempty"`
	Message    string    `json:"message,omitempty"`
	OccurredAt time.Time `json:"occurred_at,omitzero"`
	Attempts   int32     `json:"attempts,omitempty"` // in a row
}

// ActiveSync is a repository being synced.
type ActiveSync struct {
	Repository string    `json:"repository,omitempty"`
	StartedAt  time.Time `json:"started_at,omitzero"`
	BytesDone  int64     `json:"bytes_done,omitempty"`
	BytesTotal int64     `json:"bytes_total,omitempty"`
	// BytesPerSecond is the mean of the last seconds.
	BytesPerSecond int64 `json:"bytes_per_second,omitempty"`
	// Replica names the process that does it.
	Replica string `json:"replica,omitempty"`
}

// Troubled is a repository that is held, or whose last attempt failed.
type Troubled struct {
	Name          string    `json:"name,omitempty"`
	Held          bool      `json:"held,omitempty"` // else it failed
	Reason        string    `json:"reason,omitempty"`
	UnsyncedSince time.Time `json:"unsynced_since,omitzero"`
	FailedAt      time.Time `json:"failed_at,omitzero"`
	Failures      int32     `json:"failures,omitempty"` // in a row
	NextAttemptAt time.Time `json:"next_attempt_at,omitzero"`
}

// validate bounds what one node can make the primary store and show.
func (s Status) validate() error {
	if max(len(s.Problems), len(s.Active), len(s.Replicas), len(s.Troubled)) > listLength {
		return fmt.Errorf("%w: more than %d problems, active syncs, processes or troubled repositories",
			ErrInvalidStatus, listLength)
	}
	texts := append([]string{s.Version, s.FeedID, s.Incarnation}, s.Problems...)
	for _, active := range s.Active {
		texts = append(texts, active.Repository, active.Replica)
	}
	for _, replica := range s.Replicas {
		texts = append(texts, replica.Name, replica.Version)
	}
	for _, troubled := range s.Troubled {
		texts = append(texts, troubled.Name, troubled.Reason)
	}
	if failure := s.LastError; failure != nil {
		texts = append(texts, failure.Repository, failure.Reference, string(failure.Side), failure.Message)
	}
	total := 0
	for _, text := range texts {
		if len(text) > textBytes {
			return fmt.Errorf("%w: a text of more than %d bytes", ErrInvalidStatus, textBytes)
		}
		total += len(text)
	}
	if total > statusBytes {
		return fmt.Errorf("%w: texts of %d bytes, and %d are taken", ErrInvalidStatus, total, statusBytes)
	}
	return nil
}

// syncedRevision is the newest revision up to which the site says it lacks nothing.
func (s Status) syncedRevision() int64 { return max(0, s.HeadRevision-s.LagRevisions) }
