package replicate

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/antipode-registry/antipode/internal/registry"
	"github.com/antipode-registry/antipode/secondaryd/internal/tracking"
)

// Sides of a failure, as they are stored and shown.
const (
	sidePrimary = "primary" // primaryd, or the link to it
	sideLocal   = "local"   // this process or its database
)

// journal collects what one sync did. It is guarded by whoever appends concurrently.
type journal struct{ entries []tracking.Entry }

func (j *journal) add(action, reference, digest, previous, detail string) {
	j.entries = append(j.entries, tracking.Entry{
		At: time.Now(), Action: action, Reference: reference, Digest: digest, Previous: previous, Detail: detail,
	})
}

// failed is the outcome of a sync that ended with err.
func (j *journal) failed(repository string, err error) tracking.Outcome {
	failure := tracking.Failure{
		Repository: repository, Reference: referenceOf(err), Side: sideOf(err), Message: err.Error(), At: time.Now(),
	}
	j.add("failed", failure.Reference, "", "", failure.Side+": "+failure.Message)
	return tracking.Outcome{Failure: &failure, TagCount: unknown, Journal: j.entries}
}

// interrupted is the outcome of a sync that failed because the process is being stopped: nothing counts as failed, and
// the next process goes on at once.
func interrupted(o tracking.Outcome) tracking.Outcome {
	story := journal{entries: slices.DeleteFunc(o.Journal, func(e tracking.Entry) bool { return e.Action == "failed" })}
	story.add("interrupted", "", "", "", "secondaryd was stopped; the next one goes on from here")
	return tracking.Outcome{Retry: time.Millisecond, TagCount: o.TagCount, Sum: o.Sum, Journal: story.entries}
}

// referenceError says which tag an error is about.
type referenceError struct {
	reference string
	err       error
}

func (e *referenceError) Error() string { return e.reference + ": " + e.err.Error() }
func (e *referenceError) Unwrap() error { return e.err }

func referenceOf(err error) string {
	if about, ok := errors.AsType[*referenceError](err); ok {
		return about.reference
	}
	if failed, ok := errors.AsType[*registry.Error](err); ok {
		return failed.Reference
	}
	return ""
}

// sideOf says which side an error came from.
func sideOf(err error) string {
	if failed, ok := errors.AsType[*registry.Error](err); ok {
		return string(failed.Side)
	}
	if _, ok := errors.AsType[*primaryError](err); ok {
		return sidePrimary
	}
	return sideLocal
}

// primaryError is what primaryd, or the link to it, answered.
type primaryError struct {
	repository string
	err        error
}

func (e *primaryError) Error() string {
	return fmt.Sprintf("the primary did not list %s: %v", e.repository, e.err)
}
func (e *primaryError) Unwrap() error { return e.err }
