package service

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	antipodev1 "github.com/antipode-registry/antipode/gen/antipode/v1"
	"github.com/antipode-registry/antipode/secondaryd/internal/plan"
	"github.com/antipode-registry/antipode/secondaryd/internal/replicate"
	"github.com/antipode-registry/antipode/secondaryd/internal/tracking"
)

const (
	answerWithin  = 5 * time.Second  // whoever at the primary is asked whether it answers
	compareWithin = 15 * time.Second // one repository
	failuresMost  = 3                // comparisons that failed in a row: nobody is asked any more
	tagsLookedAt  = 2000             // at the site's registry, for one report
	inquiryMost   = 2 * time.Minute
	tagsPerPage   = 500
)

// inquiry finds out in which tags repositories differ from the primary: by a comparison where the primary answers, and
// else by what the site has heard and tried. It is safe for concurrent use.
type inquiry struct {
	engine   Engine
	tracking *tracking.Store
	active   map[string]map[string]string // what syncs had not finished before they were stopped
	until    time.Time                    // nobody is asked afterwards

	looks atomic.Int64 // tags that were looked at

	mu       sync.Mutex
	with     antipodev1.ComparedWith
	problem  string
	failures int
}

// unfinished is what the syncs of this process have not done yet, by repository.
func unfinished(active []*replicate.Active) map[string]map[string]string {
	left := make(map[string]map[string]string, len(active))
	for _, work := range active {
		left[work.Repository] = work.Unfinished()
	}
	return left
}

// inquire asks who at the primary answers. A part of the caller's time is kept for the report.
func (s *ReplicationService) inquire(ctx context.Context, active map[string]map[string]string) *inquiry {
	q := &inquiry{engine: s.engine, tracking: s.tracking, active: active, until: time.Now().Add(inquiryMost)}
	if deadline, ok := ctx.Deadline(); ok {
		q.until = slices.MinFunc([]time.Time{q.until, time.Now().Add(time.Until(deadline) / 2)}, time.Time.Compare)
	}
	ask := func(do func(context.Context) error) error {
		ctx, cancel := context.WithTimeout(ctx, answerWithin)
		defer cancel()
		return do(ctx)
	}
	err := ask(func(ctx context.Context) error { _, err := s.primary.Nodes(ctx); return err })
	if err == nil {
		q.with = antipodev1.ComparedWith_COMPARED_WITH_PRIMARYD
		return q
	}
	q.with, q.problem = antipodev1.ComparedWith_COMPARED_WITH_REGISTRY, clip(err.Error())
	if err := ask(s.engine.SourceAnswers); err != nil {
		q.with = antipodev1.ComparedWith_COMPARED_WITH_NOBODY
		q.problem = clip(q.problem + "; its registry: " + err.Error())
	}
	return q
}

// outcome says whom the repositories were compared with, and why not with primaryd.
func (q *inquiry) outcome() (antipodev1.ComparedWith, string) {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.with, q.problem
}

// tags are the tags in which a repository differs, cut into messages.
func (q *inquiry) tags(ctx context.Context, row tracking.Repository) ([]*antipodev1.UnsyncedTags, error) {
	p, err := q.compare(ctx, row.Name)
	if err == nil {
		return pages(row.Name, comparedTags(p), true, ""), nil
	}
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	tags, err := q.heardTags(ctx, row)
	return pages(row.Name, tags, false, others(row)), err
}

var errNobody = errors.New("nobody at the primary answers")

// compare asks whoever answers at the primary.
func (q *inquiry) compare(ctx context.Context, repository string) (plan.Plan, error) {
	ctx, cancel := context.WithTimeout(ctx, compareWithin)
	defer cancel()
	with, _ := q.outcome()
	if time.Now().After(q.until) {
		return plan.Plan{}, errNobody
	}
	var p plan.Plan
	var err error
	switch with {
	case antipodev1.ComparedWith_COMPARED_WITH_PRIMARYD:
		p, err = q.engine.Diff(ctx, repository)
	case antipodev1.ComparedWith_COMPARED_WITH_REGISTRY:
		p, err = q.engine.DiffDirect(ctx, repository)
	default:
		return plan.Plan{}, errNobody
	}
	q.note(err)
	return p, err
}

// note gives the primary up after some failures in a row.
func (q *inquiry) note(err error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if err == nil {
		q.failures = 0
		return
	}
	q.problem = clip(err.Error())
	if q.failures++; q.failures >= failuresMost {
		q.with = antipodev1.ComparedWith_COMPARED_WITH_NOBODY
	}
}

// comparedTags is a plan as differences. What policy keeps is meant to differ.
func comparedTags(p plan.Plan) (tags []*antipodev1.UnsyncedTag) {
	for _, c := range p.Copies {
		for _, tag := range c.Tags {
			tags = append(tags, difference(tag.Name, c.Digest, tag.Previous, ""))
		}
	}
	for _, r := range p.Removals {
		tags = append(tags, difference(r.Tag, "", r.Digest, ""))
	}
	for _, k := range p.Kept {
		if p.Held != "" && k.Reason == p.Held {
			tags = append(tags, difference(k.Tag, "", k.Digest, k.Reason))
		}
	}
	return tags
}

func difference(tag, digest, here, reason string) *antipodev1.UnsyncedTag {
	t := &antipodev1.UnsyncedTag{Tag: tag, Digest: digest, SiteDigest: here, Reason: clipTo(reason, mostReason)}
	switch {
	case digest == "":
		t.Difference = antipodev1.TagDifference_TAG_DIFFERENCE_NOT_REMOVED
	case here == "":
		t.Difference = antipodev1.TagDifference_TAG_DIFFERENCE_MISSING
	default:
		t.Difference = antipodev1.TagDifference_TAG_DIFFERENCE_OUTDATED
	}
	return t
}

// heard is what the site knows of a tag without the primary.
type heard struct {
	digest string // that it should have; empty when it should be gone, or nobody said
	gone   bool
	reason string
	at     time.Time
}

// heardTags are the tags that were announced, failed, withheld or not finished, and are not here as they should be.
func (q *inquiry) heardTags(ctx context.Context, row tracking.Repository) ([]*antipodev1.UnsyncedTag, error) {
	entries, err := q.tracking.Journal(ctx, row.Name, 500)
	if err != nil {
		return nil, err
	}
	known := journalled(entries, row.HeldReason)
	for tag, digest := range q.active[row.Name] {
		known[tag] = heard{digest: digest, gone: digest == "", reason: "a sync of it was not finished", at: time.Now()}
	}
	for _, touch := range row.Hint.After(row.Synced) {
		if before, found := known[touch.Tag]; found && before.at.After(touch.At) {
			continue
		}
		what := map[bool]string{true: "deleted", false: "pushed"}[touch.Deleted]
		known[touch.Tag] = heard{
			digest: touch.Digest, gone: touch.Deleted, at: touch.At,
			reason: what + " at " + touch.At.UTC().Format(time.RFC3339) + ", as the primary announced",
		}
	}
	var tags []*antipodev1.UnsyncedTag
	for name, h := range known {
		if t := q.look(ctx, row.Name, name, h); t != nil {
			tags = append(tags, t)
		}
	}
	return tags, nil
}

// journalled is what the journal, newest first, says of tags since the last success.
func journalled(entries []tracking.Entry, held string) map[string]heard {
	known, settled := map[string]heard{}, map[string]bool{}
	for _, e := range entries {
		if e.Action == "synced" {
			break
		}
		if e.Reference == "" || settled[e.Reference] {
			continue
		}
		switch {
		case e.Action == "failed":
			known[e.Reference] = heard{digest: e.Digest, reason: "failed: " + e.Detail, at: e.At}
		case e.Action == "unsettled":
			known[e.Reference] = heard{reason: "announced, and not yet readable at the primary", at: e.At}
		case e.Action == "kept" && e.Detail == held && held != "":
			known[e.Reference] = heard{gone: true, reason: e.Detail, at: e.At}
		}
		settled[e.Reference] = true
	}
	return known
}

// look asks the site's registry for a tag; nil when it is as it should be.
func (q *inquiry) look(ctx context.Context, repository, tag string, h heard) *antipodev1.UnsyncedTag {
	t := &antipodev1.UnsyncedTag{
		Tag: tag, Digest: h.digest, Reason: clipTo(h.reason, mostReason),
		Difference: antipodev1.TagDifference_TAG_DIFFERENCE_UNKNOWN,
	}
	if q.looks.Add(1) > tagsLookedAt {
		return t
	}
	here, err := q.engine.LookHere(ctx, repository, bare(tag))
	switch {
	case err != nil:
		t.Reason = clipTo(h.reason+"; what the site has is not known: "+err.Error(), mostReason)
		return t
	case h.gone && here == "", h.digest != "" && h.digest == here:
		return nil
	case !h.gone && h.digest == "": // a reference, or a tag without an announced digest
		t.SiteDigest = here
		return t
	}
	return difference(tag, h.digest, here, h.reason)
}

// bare is a reference as a registry takes it: "@" stands before the digest of a manifest without a tag.
func bare(tag string) string {
	if tag[0] == '@' {
		return tag[1:]
	}
	return tag
}

// others says why tags that are not named may differ too; empty when all are named.
func others(row tracking.Repository) string {
	switch {
	case row.Synced == 0:
		return "it was never synced here, so any of its tags may be missing"
	case row.Synced < 0:
		return "a complete comparison was due, so any of its tags may differ"
	case row.State == tracking.Held && len(row.Hint.Touches) == 0:
		return ""
	case row.Hint.Base > row.Synced:
		return "not every change was announced with its tags, so others may differ"
	case len(row.Hint.Touches) == 0:
		return "the change was announced without tags, so any of its tags may differ"
	}
	return ""
}

// pages sorts and cuts the tags into messages, of which there is at least one.
func pages(repository string, tags []*antipodev1.UnsyncedTag, compared bool, others string) (list []*antipodev1.UnsyncedTags) {
	slices.SortFunc(tags, func(a, b *antipodev1.UnsyncedTag) int { return cmp.Compare(a.GetTag(), b.GetTag()) })
	for first := true; first || len(tags) > 0; first = false {
		n := min(len(tags), tagsPerPage)
		list = append(list, &antipodev1.UnsyncedTags{
			Repository: repository, Tags: tags[:n], Compared: compared, Others: others,
		})
		tags = tags[n:]
	}
	return list
}
