package replicate_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/antipode-registry/antipode/secondaryd/internal/tracking"
)

// check holds the site to its promises, at any moment. A listing of the site takes several requests, and the engine may
// be at work between them; none of what is checked here minds.
func (w *world) check(store *tracking.Store) {
	w.t.Helper()
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, name := range slices.Sorted(maps.Keys(w.repos)) {
		r := w.repos[name]
		before, err := w.row(store, name)
		w.must(err)
		tags, err := w.site.tags(name)
		w.must(err)
		w.checkNothingMissing(r, tags)
		w.checkNothingMadeUp(r, tags)
		after, err := w.row(store, name)
		w.must(err)
		if before.State == tracking.Synced && after.State == tracking.Synced && before.LastSyncedAt.Equal(after.LastSyncedAt) {
			w.checkSynced(r, tags)
			verified := r.listing != nil && r.listing.at.After(r.broken) && after.VerifiedAt.Equal(after.LastSyncedAt)
			if verified {
				r.broken = time.Time{}
			}
		}
		if r.broken.IsZero() && w.chance(15) {
			w.checkWhole(r, tags)
		}
	}
}

// row reads a row; one that is not there is pending.
func (w *world) row(store *tracking.Store, name string) (tracking.Repository, error) {
	row, found, err := store.Get(context.Background(), name)
	if !found {
		row.State = tracking.Pending
	}
	return row, err
}

// checkNothingMissing: what the source has all the time, and the site had, the site has.
func (w *world) checkNothingMissing(r *repo, tags map[string]string) {
	w.t.Helper()
	for name, tag := range r.tags {
		_, onSite := tags[name]
		switch {
		case tag.digest == "":
		case onSite && tag.armed:
			tag.onSite = true
		case !onSite && tag.onSite:
			w.fatalf("%s:%s is no longer on the site, and the source had it all the time", r.name, name)
		}
	}
}

// checkNothingMadeUp: a tag serves nothing that it never was.
func (w *world) checkNothingMadeUp(r *repo, tags map[string]string) {
	w.t.Helper()
	for name, digest := range tags {
		if r.tag(name).had[digest] || w.made(r, name) {
			continue
		}
		m, _, err := w.site.manifest(r.name, name)
		w.must(err)
		if w.site.one && strings.Contains(string(m.body), "antipode.throw-away") {
			continue // the way to delete a tag alone there
		}
		w.fatalf("%s:%s is %s on the site, which it never was: %s", r.name, name, short(digest), m.body)
	}
}

// made says whether a tag may be one that the site makes in place of the API.
func (w *world) made(r *repo, name string) bool {
	return w.source.api && !w.site.api && strings.HasPrefix(name, "sha256-") && r.tag(name).digest == ""
}

// checkSynced: synced means equal to the source as it was listed, but for what the feed was not told of by then, and for
// what somebody did to the site since.
func (w *world) checkSynced(r *repo, tags map[string]string) {
	w.t.Helper()
	listing := r.listing
	if listing == nil || !listing.valid {
		return
	}
	for name, step := range r.touched {
		if listing.complete && listing.step > step {
			delete(r.touched, name)
		}
	}
	names := map[string]bool{}
	for name := range listing.tags {
		names[name] = true
	}
	for name := range tags {
		names[name] = true
	}
	for name := range names {
		_, touched := r.touched[name]
		if touched || !listing.complete && listing.untold[name] || w.made(r, name) {
			continue
		}
		if tags[name] != listing.tags[name] {
			w.fatalf("%s is called synced, and %s is %q there and was %q at the source when it was listed (complete %t, step %d)",
				r.name, name, short(tags[name]), short(listing.tags[name]), listing.complete, listing.step)
		}
	}
}

// checkWhole: a tag never names anything incomplete.
func (w *world) checkWhole(r *repo, tags map[string]string) {
	w.t.Helper()
	for _, name := range slices.Sorted(maps.Keys(tags)) {
		if err := w.wholeOnSite(r, tags[name], map[string]bool{}); err != nil {
			w.fatalf("%s:%s (%s) is not whole on the site: %v", r.name, name, short(tags[name]), err)
		}
	}
}

func (w *world) wholeOnSite(r *repo, digest string, seen map[string]bool) error {
	if seen[digest] {
		return nil
	}
	seen[digest] = true
	m, found, err := w.site.manifest(r.name, digest)
	if err != nil || !found {
		return errors.Join(err, fmt.Errorf("manifest %s: found %t", short(digest), found))
	}
	children, blobs, err := contents(m.body)
	if err != nil {
		return err
	}
	for _, child := range children {
		if err := w.wholeOnSite(r, child.Digest, seen); err != nil {
			return fmt.Errorf("below %s: %w", short(digest), err)
		}
	}
	for _, blob := range blobs {
		if found, err := w.site.hasBlob(r.name, blob); err != nil || !found {
			return errors.Join(err, fmt.Errorf("blob %s of %s: found %t", short(blob), short(digest), found))
		}
	}
	return nil
}

// checkReferrers compares what both sides list as referrers of all that the source's tags reach. It takes the tags that
// the site made in place of the API away, so that the rest of the registries can be compared tag by tag. It returns what
// the tags reach, each as "repository@digest".
func (w *world) checkReferrers() map[string]bool {
	w.t.Helper()
	all := map[string]bool{}
	for _, name := range slices.Sorted(maps.Keys(w.repos)) {
		r := w.repos[name]
		reached := w.reached(w.source, r)
		onSite := w.reachedByTags(w.site, r)
		for _, digest := range slices.Sorted(maps.Keys(reached)) {
			w.addContent(all, r, digest)
			want, err := w.source.referrers(name, digest)
			w.must(err)
			got, err := w.site.referrers(name, digest)
			w.must(err)
			if !w.source.api && w.site.api {
				// There, what has a tag of its own is listed too, whether the source lists it or not.
				maps.DeleteFunc(got, func(digest string, _ bool) bool { return !want[digest] && onSite[digest] })
			}
			if !maps.Equal(got, want) {
				w.fatalf("%s@%s has the referrers %v on the site and %v at the source", name, short(digest), keys(got), keys(want))
			}
		}
		if !w.source.api || w.site.api {
			continue
		}
		tags, err := w.site.tags(name)
		w.must(err)
		for tag := range tags {
			if !w.made(r, tag) {
				continue
			}
			if subject := strings.Replace(tag, "-", ":", 1); !reached[subject] {
				w.fatalf("%s:%s is left over on the site", name, tag)
			}
			w.must(w.site.remove(name, tag))
		}
	}
	return all
}

// addContent adds a manifest of the source and its blobs.
func (w *world) addContent(all map[string]bool, r *repo, digest string) {
	w.t.Helper()
	all[r.name+"@"+digest] = true
	m, _, err := w.source.manifest(r.name, digest)
	w.must(err)
	_, blobs, err := contents(m.body)
	w.must(err)
	for _, blob := range blobs {
		all[r.name+"@"+blob] = true
	}
}

func keys(set map[string]bool) []string {
	var list []string
	for _, digest := range slices.Sorted(maps.Keys(set)) {
		list = append(list, short(digest))
	}
	return list
}

// reachedByTags returns the manifests that a registry's tags name, directly or through indexes.
func (w *world) reachedByTags(h *hand, r *repo) map[string]bool {
	w.t.Helper()
	tags, err := h.tags(r.name)
	w.must(err)
	return w.walk(h, r, slices.Collect(maps.Values(tags)), false)
}

// reached returns them with their referrers.
func (w *world) reached(h *hand, r *repo) map[string]bool {
	w.t.Helper()
	tags, err := h.tags(r.name)
	w.must(err)
	return w.walk(h, r, slices.Collect(maps.Values(tags)), true)
}

func (w *world) walk(h *hand, r *repo, next []string, referrers bool) map[string]bool {
	w.t.Helper()
	seen := map[string]bool{}
	for len(next) > 0 {
		digest := next[0]
		next = next[1:]
		if seen[digest] {
			continue
		}
		m, found, err := h.manifest(r.name, digest)
		w.must(err)
		if !found {
			continue
		}
		seen[digest] = true
		children, _, err := contents(m.body)
		w.must(err)
		for _, child := range children {
			next = append(next, child.Digest)
		}
		if referrers {
			list, err := h.referrers(r.name, digest)
			w.must(err)
			next = append(next, slices.Collect(maps.Keys(list))...)
		}
	}
	return seen
}
