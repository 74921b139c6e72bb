// Package listing answers what the tags of a repository are now, for the sites and for the sweep.
//
// The Registry API is the only truth here: the feed's hint decides which tags are worth asking for, never what they
// are. Callers that ask for the same repository at the same revision share one walk, so that a change costs the
// registry the same however many sites follow it. A listing is whole or it is an error; nothing is returned half.
package listing

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/antipode-registry/antipode/internal/registry"
	"github.com/antipode-registry/antipode/internal/telemetry"
	"github.com/antipode-registry/antipode/primaryd/internal/feed"
)

// A registry announces a push before its tag is written, and an object store may take its time. A touched tag that
// does not yet read as announced is asked for again at these intervals before the caller hears of it.
var settleDelays = []time.Duration{50 * time.Millisecond, 100 * time.Millisecond, 250 * time.Millisecond, 600 * time.Millisecond}

// settleWindow bounds how long an announcement is believed over what the registry answers. After it the answer stands:
// the tag has moved on, and its own notification was lost or is under way.
const settleWindow = time.Minute

// Registry is what a walk asks of the primary's registry; *registry.Registry implements it.
type Registry interface {
	List(ctx context.Context, repository string) (registry.Listing, error)
	Resolve(ctx context.Context, repository string, tags []string) ([]registry.Tag, []string, error)
	Glance(ctx context.Context, repository string, tags []string) ([]registry.Tag, error)
	Manifest(ctx context.Context, repository, reference string) (registry.Manifest, error)
	Referrers(ctx context.Context, repository, digest string) ([]registry.Descriptor, bool, error)
}

// Feed is what a walk asks of the change feed; *feed.Feed implements it.
type Feed interface {
	ID() string
	Base(ctx context.Context, repository string, since feed.Cursor) (row feed.Row, found, fits bool, err error)
	RecordListing(ctx context.Context, repository string, revision int64, fingerprint string) error
}

// Listing is the answer.
type Listing struct {
	// Complete tells all tags from only the touched ones.
	Complete bool
	// Present is whether the registry knows the repository.
	Present bool
	// Tags exist, sorted by name.
	Tags []registry.Tag
	// Absent are touched tags that the registry says are no more; empty on a complete listing.
	Absent []string
	// Unsettled are touched tags that do not yet read as their notification announced.
	Unsettled []string
	// ReferrersAPI is whether the registry has it. Without it, referrers are listed by tags like any other.
	ReferrersAPI bool
	// Subjects are the manifests that were looked at for referrers, by digest. A complete listing names only those that
	// have some.
	Subjects []Subject
	// Revision is the feed's, read before the registry was; 0 without a row.
	Revision int64
}

// Fingerprint stands for the tags with their digests and for the referrers with their subjects.
func (l Listing) Fingerprint() string {
	pairs := slices.Clone(l.Tags)
	for _, subject := range l.Subjects {
		for _, referrer := range subject.Referrers {
			// No tag begins with "@".
			pairs = append(pairs, registry.Tag{Name: "@" + subject.Digest + "@" + referrer.Digest, Digest: referrer.Digest})
		}
	}
	return registry.Fingerprint(pairs)
}

// Lister walks the registry on behalf of many callers. It is safe for concurrent use.
type Lister struct {
	registry  Registry
	feed      Feed
	shared    group
	referrers referrersAPI
}

// Option of a Lister.
type Option func(*Lister)

// WithTracer makes a span of each walk that is for a caller whose RPC is traced.
func WithTracer(t *telemetry.Tracer) Option { return func(l *Lister) { l.shared.tracer = t } }

// New returns a Lister over the primary's registry and feed.
func New(r Registry, f Feed, opts ...Option) *Lister {
	l := &Lister{registry: r, feed: f, shared: group{walks: map[key]*walk{}}, referrers: newReferrersAPI()}
	for _, opt := range opts {
		opt(l)
	}
	return l
}

// List answers for a caller that holds the repository as of since in feed feedID: the touched tags where the feed still
// knows them all, every tag otherwise, as when since is of a history that was lost. With registry.WithManifests the tags'
// manifests come along in a delta, and in a listing for who holds nothing. Errors are those of the registry and of the
// feed.
func (l *Lister) List(ctx context.Context, repository, feedID string, cursor feed.Cursor) (Listing, error) {
	row, found, fits, err := l.feed.Base(ctx, repository, cursor)
	if err != nil {
		return Listing{}, fmt.Errorf("read the feed's row of %s: %w", repository, err)
	}
	since := cursor.Revision
	known := found && fits && feedID == l.feed.ID()
	if delta := known && since > 0 && since <= row.Revision && row.Hint.Covers(since); delta {
		k := key{repository: repository, revision: row.Revision, since: since, carries: registry.CarriesManifests(ctx)}
		return l.shared.do(ctx, k, func(ctx context.Context) (Listing, error) { return l.delta(ctx, row, since) })
	}
	if since > 0 {
		ctx = registry.WithManifests(ctx, 0) // the caller has most of them
	}
	k := key{repository: repository, revision: row.Revision, carries: registry.CarriesManifests(ctx)}
	return l.shared.do(ctx, k, func(ctx context.Context) (Listing, error) { return l.complete(ctx, repository, row) })
}

// Walk makes a complete listing for the sweep: one of its own, of which the feed takes no note.
func (l *Lister) Walk(ctx context.Context, row feed.Row) (Listing, error) {
	all, err := l.registry.List(ctx, row.Repository)
	if err != nil {
		return Listing{}, err
	}
	tags := byName(all.Tags)
	unsettled, err := l.settle(ctx, row.Repository, row.Hint.Touches, tags, nil)
	if err != nil {
		return Listing{}, err
	}
	answer := Listing{
		Complete: true, Present: all.Present || len(tags) > 0, Tags: inOrder(tags), Unsettled: unsettled,
		Revision: row.Revision,
	}
	err = l.addSubjects(ctx, row.Repository, &answer, extras{})
	return answer, err
}

// complete walks everything, and takes note of it in the feed for the sweep to compare with.
func (l *Lister) complete(ctx context.Context, repository string, row feed.Row) (Listing, error) {
	row.Repository = repository // there may be no row
	answer, err := l.Walk(ctx, row)
	if err != nil || row.Revision == 0 {
		return answer, err
	}
	if err := l.feed.RecordListing(ctx, repository, row.Revision, answer.Fingerprint()); err != nil {
		return Listing{}, fmt.Errorf("record the fingerprint of %s: %w", repository, err)
	}
	return answer, nil
}

// delta asks for what was touched after since and for nothing else: its cost does not depend on the repository's size.
func (l *Lister) delta(ctx context.Context, row feed.Row, since int64) (Listing, error) {
	var names []string
	var also extras
	touches := row.Hint.After(since)
	for _, touch := range touches {
		if digest, untagged := touch.Untagged(); untagged {
			also.pushed = append(also.pushed, digest)
			continue
		}
		names = append(names, touch.Tag)
		if digest, ok := fallbackSubject(touch.Tag); ok {
			also.subjects = append(also.subjects, digest)
		}
	}
	tags, missing, err := l.look(ctx, row.Repository, touches)
	if err != nil {
		return Listing{}, err
	}
	unsettled, err := l.settle(ctx, row.Repository, touches, tags, missing)
	if err != nil {
		return Listing{}, err
	}
	answer := Listing{Present: true, Tags: inOrder(tags), Unsettled: unsettled, Revision: row.Revision}
	for _, name := range names {
		if _, exists := tags[name]; !exists {
			answer.Absent = append(answer.Absent, name)
		}
	}
	slices.Sort(answer.Absent)
	for _, tag := range answer.Tags {
		also.pushed = append(also.pushed, tag.Digest)
	}
	err = l.addSubjects(ctx, row.Repository, &answer, also)
	return answer, err
}

// look asks for the touched tags. Of one that was announced just now it is not worth a request to make sure that it is not
// there yet: what is missing of those is in doubt.
func (l *Lister) look(
	ctx context.Context, repository string, touches []feed.Touch,
) (tags map[string]registry.Tag, missing []string, err error) {
	var announced, others []string
	for _, touch := range touches {
		if _, untagged := touch.Untagged(); untagged {
			continue
		}
		if touch.Digest != "" && !touch.Deleted && time.Since(touch.At) < settleWindow {
			announced = append(announced, touch.Tag)
		} else {
			others = append(others, touch.Tag)
		}
	}
	seen, err := l.registry.Glance(ctx, repository, announced)
	if err != nil {
		return nil, nil, err
	}
	found, _, err := l.registry.Resolve(ctx, repository, others)
	if err != nil {
		return nil, nil, err
	}
	tags = byName(append(found, seen...))
	missing = slices.DeleteFunc(announced, func(name string) bool { _, ok := tags[name]; return ok })
	return tags, missing, nil
}

// settle waits, within bounds, for touched tags to read as announced, and returns those that still do not. It asks in any
// case for those that are in doubt. It updates tags with what it reads.
func (l *Lister) settle(
	ctx context.Context, repository string, touches []feed.Touch, tags map[string]registry.Tag, doubted []string,
) ([]string, error) {
	early := append(mismatched(touches, tags), doubted...)
	for _, delay := range settleDelays {
		if len(early) == 0 {
			break
		}
		if err := wait(ctx, delay); err != nil {
			return nil, err
		}
		found, absent, err := l.registry.Resolve(ctx, repository, early)
		if err != nil {
			return nil, err
		}
		for _, name := range absent {
			delete(tags, name)
		}
		for _, tag := range found {
			tags[tag.Name] = tag
		}
		early = mismatched(touches, tags)
	}
	return early, nil
}

// mismatched returns the touched tags that do not read as a recent notification announced.
func mismatched(touches []feed.Touch, tags map[string]registry.Tag) []string {
	var names []string
	for _, touch := range touches {
		if _, untagged := touch.Untagged(); untagged {
			continue
		}
		tag, exists := tags[touch.Tag]
		asAnnounced := exists != touch.Deleted && (touch.Digest == "" || touch.Deleted || tag.Digest == touch.Digest)
		if !asAnnounced && time.Since(touch.At) < settleWindow {
			names = append(names, touch.Tag)
		}
	}
	slices.Sort(names)
	return names
}

func byName(tags []registry.Tag) map[string]registry.Tag {
	m := make(map[string]registry.Tag, len(tags))
	for _, tag := range tags {
		m[tag.Name] = tag
	}
	return m
}

func inOrder(tags map[string]registry.Tag) []registry.Tag {
	return slices.SortedFunc(maps.Values(tags), func(a, b registry.Tag) int { return strings.Compare(a.Name, b.Name) })
}

func wait(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
