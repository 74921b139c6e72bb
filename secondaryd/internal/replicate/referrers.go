package replicate

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/antipode-registry/antipode/internal/registry"
	"github.com/antipode-registry/antipode/secondaryd/internal/plan"
	"github.com/antipode-registry/antipode/secondaryd/internal/tracking"
)

// Referrers come in two ways (distribution specification v1.1, "Listing Referrers" and "Referrers Tag Schema"). A
// registry without the referrers API lists them in an index under a tag made of the subject's digest, the fallback tag:
// at the source that is a tag like any other, and is copied as one. One with the API lists every manifest that has the
// subject, however it came there. What the primary tells of that is brought to the site as its registry needs it:
//
//   - with the API too: each referrer is copied by its digest, and its registry lists it by itself. In the plan it has
//     the name of its reference, which no tag can have.
//   - without it: the index is made here, always with the same bytes, and is wanted like a tag of the source. A tag
//     of that name that the source has itself goes first.
//
// A site with the API goes on listing what it has until that is deleted, also what came as the entry of a fallback tag
// or under a tag of its own. So every manifest with a subject is remembered before it is written, and deleted when
// nothing at the source lists it any more and no tag of the site uses it; see unlisted.go.

// reference is what a manifest without a tag is called in plans and journals.
func reference(digest string) string { return "@" + digest }

// isTag tells tags from references.
func isTag(name string) bool { return !strings.HasPrefix(name, "@") }

// askAgain is how long a registry that was seen without the referrers API is believed not to have it.
const askAgain = 10 * time.Minute

// siteAPI remembers whether the site's registry has the referrers API.
type siteAPI struct {
	mu       sync.Mutex
	supports bool
	absent   time.Time // when it was last seen not to; zero = never
}

// has asks the registry, unless it knows. A registry that does not know the repository cannot be asked: known is false
// then. Some may ask at the same time; nobody waits for another's request.
func (s *siteAPI) has(
	ctx context.Context, site *registry.Registry, repository, digest string,
) (supports, known bool, err error) {
	if supports, known = s.remembered(); known {
		return supports, known, nil
	}
	_, supports, err = site.Referrers(ctx, repository, digest)
	if err != nil {
		return false, false, err
	}
	if !supports {
		// An unknown repository and an unknown API may get the same answer, and so may a proxy's bad moment look.
		if _, known, err := site.TagNames(ctx, repository); err != nil || !known {
			return false, false, err
		}
		if _, supports, err = site.Referrers(ctx, repository, digest); err != nil {
			return false, false, err
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.supports = s.supports || supports; !s.supports {
		s.absent = time.Now()
	}
	return s.supports, true, nil
}

func (s *siteAPI) remembered() (supports, known bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.supports, s.supports || !s.absent.IsZero() && time.Since(s.absent) < askAgain
}

// noteSubject remembers a manifest with a subject that is about to be written.
func (a *attempt) noteSubject(ctx context.Context, manifest, subject string) error {
	if !isDigest(subject) { // nobody can ask for its referrers
		return nil
	}
	return a.Tracking.AddReferrer(ctx, a.target, tracking.Referrer{Digest: manifest, Subject: subject})
}

func isDigest(s string) bool { return digest.Digest(s).Validate() == nil }

// addReferrers adds what is known of referrers to both sides of the plan.
func (a *attempt) addReferrers(ctx context.Context, c *comparison, want *plan.Source) error {
	stored, err := a.Tracking.Referrers(ctx, a.target)
	if err != nil {
		return fmt.Errorf("read the referrers: %w", err)
	}
	var probe string
	switch {
	case len(c.listing.Subjects) > 0:
		probe = c.listing.Subjects[0].Digest
	case len(stored) > 0:
		probe = stored[0].Subject
	default:
		return nil
	}
	supports, known, err := a.siteAPI.has(ctx, a.Site, a.target, probe)
	switch {
	case err != nil:
		return err
	case !known:
		c.again = len(c.listing.Subjects) > 0
		return nil
	case supports:
		a.wantByDigest(c, want, stored)
		return a.addUnlisted(ctx, c, want, stored)
	case c.listing.ReferrersAPI:
		return a.wantFallbackTags(ctx, c, want)
	}
	return nil
}

// wantByDigest adds each referrer under its reference.
func (a *attempt) wantByDigest(c *comparison, want *plan.Source, stored []tracking.Referrer) {
	for _, subject := range c.listing.Subjects {
		for _, r := range subject.Referrers {
			name := reference(r.Digest)
			if _, twice := c.manifests[name]; twice {
				continue
			}
			c.manifests[name] = registry.Tag{Digest: r.Digest, MediaType: r.MediaType, Size: r.Size}
			c.subjects[name] = subject.Digest
			want.Tags = append(want.Tags, plan.Tag{Name: name, Digest: r.Digest})
			have := func(r tracking.Referrer) bool { return r.Present && reference(r.Digest) == name }
			if !c.lost && slices.ContainsFunc(stored, have) {
				c.site.Tags = append(c.site.Tags, plan.Tag{Name: name, Digest: r.Digest})
			}
		}
	}
}
