package replicate_test

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"sync"

	"github.com/antipode-registry/antipode/client"
	"github.com/antipode-registry/antipode/internal/registry"
	"github.com/antipode-registry/antipode/secondaryd/internal/tracking"
)

// announcer stands in for the primary: it numbers changes, and lists the source's registry as it is, whole or, where it
// knows what was touched since, in part.
type announcer struct {
	source *registry.Registry
	url    string // of the registry, as the site is told
	// before and after are called around each listing; after may change it, or fail it. They may be nil.
	before func(repository string)
	after  func(listing *client.Listing) error

	mu      sync.Mutex
	head    int64
	changes map[string]*announced
}

// announced is what is known of one repository.
type announced struct {
	revision int64
	base     int64             // all that was touched after it is in touched
	touched  map[string]int64  // by tag, with the revision
	promised map[string]string // tags with the digests that the source is still to show
}

const feedID = "feed-1"

func newAnnouncer(source *registry.Registry, url string) *announcer {
	return &announcer{source: source, url: url, changes: map[string]*announced{}}
}

// announce makes a change of these tags; without any, of everything in the repository.
func (n *announcer) announce(repository string, class tracking.Class, tags ...string) tracking.Change {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.head++
	known := n.changes[repository]
	if known == nil {
		known = &announced{base: n.head, promised: map[string]string{}}
		n.changes[repository] = known
	}
	if len(tags) == 0 {
		known.base, known.touched = n.head, nil
	}
	known.revision = n.head
	for _, tag := range tags {
		if known.touched == nil {
			known.touched = map[string]int64{}
		}
		known.touched[tag] = n.head
	}
	return tracking.Change{Repository: repository, Revision: n.head, Class: class}
}

// promise makes listings unsettled until the source shows the tag with the digest.
func (n *announcer) promise(repository, tag, digest string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.changes[repository].promised[tag] = digest
}

// Tags implements replicate.Primary.
func (n *announcer) Tags(ctx context.Context, repository string, since client.Position) (client.Listing, error) {
	if n.before != nil {
		n.before(repository)
	}
	listing, err := n.list(ctx, repository, since)
	if err != nil {
		return client.Listing{}, fmt.Errorf("list %s: %w", repository, err)
	}
	if n.after != nil {
		err = n.after(&listing)
	}
	return listing, err
}

func (n *announcer) list(ctx context.Context, repository string, since client.Position) (client.Listing, error) {
	n.mu.Lock()
	var known announced
	if row := n.changes[repository]; row != nil {
		known = announced{
			revision: row.revision, base: row.base, touched: maps.Clone(row.touched), promised: maps.Clone(row.promised),
		}
	}
	n.mu.Unlock()
	listing := client.Listing{Revision: known.revision, RegistryURL: n.url}
	if since.FeedID == feedID && since.Revision >= known.base && since.Revision > 0 {
		maps.DeleteFunc(known.touched, func(_ string, revision int64) bool { return revision <= since.Revision })
		found, absent, err := n.source.Resolve(ctx, repository, slices.Sorted(maps.Keys(known.touched)))
		if err != nil {
			return listing, err
		}
		listing.Present, listing.Absent = true, absent
		listing.Tags, listing.Unsettled = known.judge(found)
		return listing, nil
	}
	all, err := n.source.List(ctx, repository)
	if err != nil {
		return listing, err
	}
	listing.Complete, listing.Present = true, all.Present
	listing.Tags, listing.Unsettled = known.judge(all.Tags)
	return listing, nil
}

// judge returns the tags, and those that are not what was promised.
func (a announced) judge(found []registry.Tag) (tags []client.Tag, unsettled []string) {
	have := map[string]string{}
	for _, tag := range found {
		tags = append(tags, client.Tag(tag))
		have[tag.Name] = tag.Digest
	}
	for tag, digest := range a.promised {
		if have[tag] != digest {
			unsettled = append(unsettled, tag)
		}
	}
	slices.Sort(unsettled)
	return tags, unsettled
}
