// Package tracking is the site's memory: which repositories the primary announced, up to which revision each is on the
// site, who works on which, what failed and why, and how far the subscription has come.
//
// It guarantees that
//   - no change is lost: the cursor moves in the transaction that stores the changes, and a change that arrives during
//     a sync leaves its row due when the sync ends;
//   - no repository is worked on twice at once: a worker holds a lease by the database's clock, and every write of a
//     worker is refused with ErrLeaseLost once its lease ran out or its fencing token is not the newest;
//   - a failure is counted until a sync succeeds; retries, new changes, restarts and expired leases do not reset it;
//   - impossible rows do not exist: the state is derived by the schema and the columns are bound by constraints (see
//     docs/state-machine.md).
//
// It refuses changes of another feed than the one it follows, and a cursor that goes back.
//
// It works on SQLite and on Postgres. On Postgres any number of processes may share it. All methods may be called from
// many goroutines. Errors that time may cure match database.ErrUnavailable.
package tracking

import (
	"errors"
	"time"
)

// State is what a tracked repository is at the moment.
type State string

// The states. docs/state-machine.md draws the ways between them.
const (
	Pending State = "pending" // changed, not yet begun
	Syncing State = "syncing" // a worker holds a lease on it
	Synced  State = "synced"  // equal to the primary at the wanted revision
	Failed  State = "failed"  // the last attempt failed; tried again with back-off
	Held    State = "held"    // all is copied, but removals wait for a change or for Release
)

// Class says how urgent a change is.
type Class int

// The classes.
const (
	Live     Class = 0 // happened now; goes before Backfill
	Backfill Class = 1 // happened before the site connected
)

// Change is a repository that the primary announced.
type Change struct {
	Repository string
	Revision   int64     // above zero
	ChangedAt  time.Time // zero = now
	Class      Class
	Hint       Hint // which tags are known to be touched; the zero Hint where none are

	TraceParent string // names its trace, see package telemetry; "" where it is not traced
}

// Cursor says how far the subscription has come. Its zero value is a store that has not heard of any feed.
type Cursor struct {
	FeedID   string // empty before the first batch and after StartOver
	Revision int64  // every change up to it is in the store
	Head     int64  // the newest revision heard of

	Incarnation   string    // of the feed, that Revision belongs to; empty where the primary told none
	ChangedAt     time.Time // when the change at Revision happened; zero before the first
	HeadChangedAt time.Time // when the newest change of the feed that was heard of happened; zero before the first

	MovedAt time.Time // when Revision last moved; zero = never
	HeardAt time.Time // when the primary was last heard from; zero = never
}

// Batch is what one message of the feed says.
type Batch struct {
	FeedID        string
	Incarnation   string    // of the feed, that Cursor belongs to
	Changes       []Change  // may be empty
	Cursor        int64     // every change up to it has been said
	ChangedAt     time.Time // when the change at Cursor happened; zero where that is not told
	Head          int64
	HeadChangedAt time.Time // zero where the primary does not tell
}

// Repository is a row of the tracking table.
type Repository struct {
	Name             string
	State            State
	Wanted           int64     // the newest revision announced; 0 after StartOver until the new feed announces it
	Synced           int64     // the revision that the site holds; -1 when a complete listing is asked for
	OldestUnsyncedAt time.Time // the oldest change that is not on the site; zero when there is none
	LastSyncedAt     time.Time // zero before the first success
	NextAttemptAt    time.Time // zero when none is due: synced, syncing and held
	Failures         int       // in a row
	LastError        *Failure  // nil when the last attempt that decided anything did not fail
	HeldReason       string    // why removals are withheld, until a sync decides anew; also on rows that are due again
	Released         bool      // the next sync goes without the brake
	VerifiedAt       time.Time // when Verify last found, or made, all of it whole; zero before the first time
	TagCount         int64     // tags on the site after the last sync
	Sum              string    // of the site's tags after the last sync, see plan.Sum; empty when it is not known
	Hint             Hint      // of the newest change, until it is synced; without touches where nothing is known
}

// Failure says what failed, where.
type Failure struct {
	Repository string // set by the store
	Reference  string // the tag or digest; empty when it is the repository as a whole
	Side       string
	Message    string
	At         time.Time // zero given to Finish = now
	Attempts   int       // how often in a row; set by the store
}

// Lease is the right to work on one repository, until it runs out or is renewed. It is not modified after Claim.
type Lease struct {
	Repository string
	Wanted     int64 // what a success brings the repository to, whatever is announced meanwhile
	Synced     int64 // what the site holds; -1 asks for a complete listing
	Fence      int64 // grows with every lease on this repository
	Owner      string
	Class      Class
	TagCount   int64
	Sum        string // as in Repository
	Verify     Depth  // how the sync is to check what the site holds
	Held       string // why removals were withheld so far; empty when they were not
	Released   bool   // an operator lifted the brake for this sync
	Failures   int
	ChangedAt  time.Time // when the oldest change happened that a success brings; zero where none is known

	TraceParent string // of the newest change that a success brings, see package telemetry; "" where that is not traced
}

// Depth says how thoroughly a sync checks what the site holds, beyond its tags.
type Depth int

// The depths.
const (
	TagsOnly Depth = 0 // the digests of tags
	Graphs   Depth = 1 // also that every manifest and every blob is there
	Deep     Depth = 2 // also that every blob has its digest
)

// Outcome is how a sync ended: just one of Synced, Retry, Failure and Held is set, except that a failure may also be
// Held, when siblings of what failed were withheld from removal.
type Outcome struct {
	// Synced: the site is equal at the lease's wanted revision.
	Synced bool
	// Retry above zero: nothing failed, but look again after this.
	Retry time.Duration
	// Failure: tried again with back-off.
	Failure *Failure
	// Held: all copies are done, removals are withheld, for this reason. The synced revision stays, so that the next
	// sync asks for the withheld removals again.
	Held string
	// Damaged: a check found content of the site damaged, and it was not mended. It stays noted until a check succeeds.
	Damaged bool
	// TagCount of the site after what was done; -1 = unknown, which keeps the one before.
	TagCount int64
	// Sum of the site's tags after what was done, see plan.Sum; empty = unknown.
	Sum string
	// Journal is appended, oldest first.
	Journal []Entry
}

// Entry is one thing that the site did.
type Entry struct {
	At        time.Time // zero given to Finish = now
	Action    string    // copied, tagged, removed, kept, synced, failed, held, resync, release
	Reference string    // the tag or digest; empty when it concerns the repository as a whole
	Digest    string    // now
	Previous  string    // the digest before
	Detail    string
}

// Pick says which due repository to claim.
type Pick int

// The picks. Within each, what has been due longest comes first.
const (
	LiveFirst   Pick = iota // live ones, and backfill when there is none
	LiveOnly                // live ones; keeps a worker free for them
	OldestFirst             // regardless of class; keeps backfill from starving
)

// Summary is the site's state in numbers.
type Summary struct {
	Counts           map[State]int64 // every state is there
	Total            int64
	LowestUnsynced   int64     // the lowest wanted revision among what is not synced, at least 1; 0 when all is synced
	OldestUnsyncedAt time.Time // the oldest change that is not on the site; zero when there is none
	LastSyncedAt     time.Time // the newest success; zero before the first
	Verified         int64     // found, or made, whole by a check at least once
	Damaged          int64     // found damaged by a check, and not mended yet
	LastError        *Failure  // the newest failure that still stands; nil when there is none
}

var (
	// ErrLeaseLost says that the lease ran out, was taken over, or was cut off by StartOver: stop, and write nothing.
	ErrLeaseLost = errors.New("lease lost")
	// ErrOtherFeed says that a batch is of another feed than the one followed: StartOver first.
	ErrOtherFeed = errors.New("batch of another feed")
	// ErrCursorBack says that a batch ends below the cursor: another follower is ahead. Read Cursor and subscribe anew.
	ErrCursorBack = errors.New("cursor would go back")
	// ErrOtherScope says that the site replicates by another configuration than this process: Adopt first.
	ErrOtherScope = errors.New("the site replicates by another configuration")
)
