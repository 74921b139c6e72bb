package service

import (
	"regexp"
	"strings"
	"time"
	"unicode/utf8"

	"google.golang.org/protobuf/types/known/timestamppb"

	antipodev1 "github.com/antipode-registry/antipode/gen/antipode/v1"
	"github.com/antipode-registry/antipode/secondaryd/internal/plan"
	"github.com/antipode-registry/antipode/secondaryd/internal/tracking"
)

var stateToProto = map[tracking.State]antipodev1.RepositoryState{
	tracking.Pending: antipodev1.RepositoryState_REPOSITORY_STATE_PENDING,
	tracking.Syncing: antipodev1.RepositoryState_REPOSITORY_STATE_SYNCING,
	tracking.Synced:  antipodev1.RepositoryState_REPOSITORY_STATE_SYNCED,
	tracking.Failed:  antipodev1.RepositoryState_REPOSITORY_STATE_FAILED,
	tracking.Held:    antipodev1.RepositoryState_REPOSITORY_STATE_HELD,
}

// stateFromProto has an entry for "unspecified" too, which stands for every state.
var stateFromProto = func() map[antipodev1.RepositoryState]tracking.State {
	m := map[antipodev1.RepositoryState]tracking.State{antipodev1.RepositoryState_REPOSITORY_STATE_UNSPECIFIED: ""}
	for state, code := range stateToProto {
		m[code] = state
	}
	return m
}()

var sideToProto = map[string]antipodev1.Side{
	"primary":     antipodev1.Side_SIDE_PRIMARY,
	"source":      antipodev1.Side_SIDE_SOURCE,
	"destination": antipodev1.Side_SIDE_DESTINATION,
	"local":       antipodev1.Side_SIDE_LOCAL,
}

func repositoryProto(row tracking.Repository) *antipodev1.TrackedRepository {
	return &antipodev1.TrackedRepository{
		Name: row.Name, State: stateToProto[row.State], WantedRevision: row.Wanted,
		// Below zero it says that nothing is known to be synced, which is nobody else's concern.
		SyncedRevision:   max(0, row.Synced),
		OldestUnsyncedAt: timeProto(row.OldestUnsyncedAt), LastSyncedAt: timeProto(row.LastSyncedAt),
		NextAttemptAt: timeProto(row.NextAttemptAt), Failures: bounded(row.Failures),
		LastError: failureProto(row.LastError), HeldReason: row.HeldReason, TagCount: max(0, row.TagCount),
		VerifiedAt: timeProto(row.VerifiedAt),
	}
}

// longDigest is a digest that leaves no room for what matters; the journal has the whole of it.
var longDigest = regexp.MustCompile(`(sha(?:256|512):[0-9a-f]{12})[0-9a-f]{52,}`)

// mostReason is how many bytes a status tells of why a repository failed or is held.
const mostReason = 512

// bounded is a count that cannot overflow the wire's.
func bounded(n int) int32 { return int32(min(n, 1<<30)) } //nolint:gosec // G115: it fits

func failureProto(f *tracking.Failure) *antipodev1.SyncError {
	if f == nil {
		return nil
	}
	return &antipodev1.SyncError{
		Repository: f.Repository, Reference: f.Reference, Side: sideToProto[f.Side], Message: clip(f.Message),
		OccurredAt: timeProto(f.At), Attempts: bounded(f.Attempts),
	}
}

func troubledProto(row tracking.Repository) *antipodev1.TroubledRepository {
	t := &antipodev1.TroubledRepository{
		Name: row.Name, Held: row.State == tracking.Held, Reason: row.HeldReason, UnsyncedSince: timeProto(row.OldestUnsyncedAt),
		Failures: bounded(row.Failures), NextAttemptAt: timeProto(row.NextAttemptAt),
	}
	if f := row.LastError; f != nil {
		t.Reason, t.FailedAt = f.Side+" side: "+f.Message, timeProto(f.At)
		if f.Reference != "" {
			t.Reason = f.Reference + ", " + t.Reason
		}
	}
	t.Reason = clipTo(longDigest.ReplaceAllString(t.Reason, "$1…"), mostReason)
	return t
}

func entryProto(e tracking.Entry) *antipodev1.JournalEntry {
	return &antipodev1.JournalEntry{
		At: timeProto(e.At), Action: e.Action, Reference: e.Reference, Digest: e.Digest, PreviousDigest: e.Previous,
		Detail: e.Detail,
	}
}

func planProto(p plan.Plan) *antipodev1.DiffRepositoryResponse {
	resp := &antipodev1.DiffRepositoryResponse{HeldReason: p.Held, EqualTags: p.Equal}
	for _, c := range p.Copies {
		for _, tag := range c.Tags {
			resp.Steps = append(resp.Steps, &antipodev1.PlannedStep{
				Kind: antipodev1.StepKind_STEP_KIND_COPY, Tag: tag.Name, Digest: c.Digest, PreviousDigest: tag.Previous,
			})
		}
	}
	for _, r := range p.Removals {
		resp.Steps = append(resp.Steps, &antipodev1.PlannedStep{
			Kind: antipodev1.StepKind_STEP_KIND_REMOVE, Tag: r.Tag, PreviousDigest: r.Digest,
		})
	}
	for _, k := range p.Kept {
		resp.Steps = append(resp.Steps, &antipodev1.PlannedStep{
			Kind: antipodev1.StepKind_STEP_KIND_KEEP, Tag: k.Tag, PreviousDigest: k.Digest, Reason: k.Reason,
		})
	}
	return resp
}

func timeProto(t time.Time) *timestamppb.Timestamp {
	if t.IsZero() {
		return nil
	}
	return timestamppb.New(t)
}

// clip keeps a text within what the primary takes in a status report, and within what protobuf takes: UTF-8.
func clip(text string) string { return clipTo(text, 2<<10) }

// clipTo keeps a text within most bytes, three dots included, and within UTF-8.
func clipTo(text string, most int) string {
	const dots = "..."
	text = strings.ToValidUTF8(text, "\uFFFD")
	if len(text) <= most {
		return text
	}
	end := most - len(dots)
	for !utf8.RuneStart(text[end]) {
		end--
	}
	return text[:end] + dots
}
