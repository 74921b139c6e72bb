package replicate_test

import (
	"encoding/json"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/antipode-registry/antipode/internal/registrytest"
)

// step is one kind of thing that happens.
type step struct {
	weight int
	do     func(w *world)
}

// sourceSteps are what people do at the source.
func sourceSteps() []step {
	return []step{
		{24, (*world).pushes},
		{10, (*world).retags},
		{10, (*world).untags},
		{4, (*world).deletesDigest},
		{1, (*world).wipes},
		{14, (*world).attaches},
		{7, (*world).detaches},
		{3, (*world).tagsReferrer},
	}
}

// siteSteps are what happens to the site's registry behind our back.
func siteSteps() []step {
	return []step{
		{4, (*world).strays},
		{3, (*world).losesTag},
		{3, (*world).losesManifest},
		{3, (*world).losesBlob},
		{1, (*world).losesRepository},
	}
}

func (w *world) any(steps []step) {
	total := 0
	for _, s := range steps {
		total += s.weight
	}
	n := w.rng.IntN(total)
	for _, s := range steps {
		if n -= s.weight; n < 0 {
			w.mu.Lock()
			defer w.mu.Unlock()
			s.do(w)
			return
		}
	}
}

// pushes a new image, or one that another repository has, under a tag. Now and then the registry announces it before it
// has written the tag.
func (w *world) pushes() {
	r, tag, img := w.anyRepo(), pick(w, tagNames()), w.newImage()
	if other := w.anyRepo(); w.chance(15) && len(other.wholes()) > 0 {
		img = other.manifests[pick(w, other.wholes())]
	}
	w.note("push %s:%s %s (%s)", r.name, tag, short(img.Digest), img.MediaType)
	announced := touch{digest: img.Digest, at: time.Now()}
	if w.chance(10) {
		w.note("  announced before it is written")
		w.ledger.announce(r.name, map[string]touch{tag: announced})
		w.mail = append(w.mail, func() { w.write(r, tag, img) })
		return
	}
	w.write(r, tag, img)
	w.tell(r, map[string]touch{tag: announced})
}

// write pushes and notes it.
func (w *world) write(r *repo, tag string, img registrytest.Image) {
	w.must(w.source.push(r.name, tag, img))
	r.keep(img)
	if tag != "" {
		r.set(tag, img.Digest)
	}
}

func (w *world) retags() {
	r, tag := w.anyRepo(), pick(w, tagNames())
	if len(r.wholes()) == 0 {
		return
	}
	img := r.manifests[pick(w, r.wholes())]
	w.note("retag %s:%s %s", r.name, tag, short(img.Digest))
	w.must(w.source.put(r.name, tag, img))
	r.set(tag, img.Digest)
	w.tell(r, map[string]touch{tag: {digest: img.Digest, at: time.Now()}})
}

func (w *world) untags() {
	r := w.anyRepo()
	names := slices.DeleteFunc(r.living(), func(name string) bool { return strings.HasPrefix(name, "sha256-") })
	if len(names) == 0 {
		return
	}
	tag := pick(w, names)
	w.note("untag %s:%s", r.name, tag)
	w.must(w.source.remove(r.name, tag))
	r.set(tag, "")
	w.tell(r, map[string]touch{tag: {deleted: true, at: time.Now()}})
}

// deletesDigest takes all its tags along, as registries do.
func (w *world) deletesDigest() {
	r := w.anyRepo()
	free := slices.DeleteFunc(slices.Sorted(maps.Keys(r.manifests)), r.inUse)
	if len(free) == 0 {
		return
	}
	digest := pick(w, free)
	w.note("delete %s@%s", r.name, short(digest))
	w.drop(r, digest)
	w.tellUnknown(r)
}

func (w *world) drop(r *repo, digest string) {
	for _, name := range r.living() {
		if r.tags[name].digest == digest {
			w.must(w.source.remove(r.name, name))
			r.set(name, "")
		}
	}
	w.must(w.source.remove(r.name, digest))
	delete(r.manifests, digest)
	r.changes++
	r.untold["@"+digest] = true
}

func (w *world) wipes() {
	r := w.anyRepo()
	w.note("wipe %s", r.name)
	for _, digest := range slices.Sorted(maps.Keys(r.manifests)) {
		w.drop(r, digest)
	}
	w.tellUnknown(r)
}

// attaches a signature, an SBOM or an attestation to anything there is.
func (w *world) attaches() {
	r := w.anyRepo()
	if len(r.wholes()) == 0 {
		return
	}
	subject := r.manifests[pick(w, r.wholes())]
	w.images++
	img := registrytest.NewArtifact(w.images, pick(w, []string{signature, sbom, attestation}), registrytest.WithSubject(subject))
	w.note("attach %s@%s to %s", r.name, short(img.Digest), short(subject.Digest))
	w.write(r, "", img)
	r.changes++
	r.untold["@"+img.Digest] = true
	r.subjects[subject.Digest] = append(r.subjects[subject.Digest], img.Digest)
	touches := map[string]touch{"@" + img.Digest: {at: time.Now()}}
	if !w.source.api {
		tag, digest := w.putList(r, subject.Digest)
		touches[tag] = touch{digest: digest, deleted: digest == "", at: time.Now()}
	}
	w.tell(r, touches)
}

// putList writes the tag that lists a subject's referrers where the registry does not, or removes it.
func (w *world) putList(r *repo, subject string) (tag, digest string) {
	tag = strings.Replace(subject, ":", "-", 1)
	var list []listedManifest
	var children []registrytest.Image
	for _, referrer := range r.subjects[subject] {
		if img, found := r.manifests[referrer]; found {
			list, children = append(list, describe(img)), append(children, img)
		}
	}
	if len(list) == 0 {
		w.must(w.source.remove(r.name, tag))
		r.set(tag, "")
		return tag, ""
	}
	body, err := json.Marshal(map[string]any{
		"schemaVersion": 2, "mediaType": registrytest.OCIIndex, "manifests": list,
	})
	w.must(err)
	index := registrytest.NewManifest(registrytest.OCIIndex, body)
	index.Children = children
	w.write(r, tag, index)
	return tag, index.Digest
}

// detaches a referrer: it leaves the list, where there is one, and most often is deleted too.
func (w *world) detaches() {
	r := w.anyRepo()
	var subjects []string
	for _, subject := range slices.Sorted(maps.Keys(r.subjects)) {
		if len(r.subjects[subject]) > 0 {
			subjects = append(subjects, subject)
		}
	}
	if len(subjects) == 0 {
		return
	}
	subject := pick(w, subjects)
	digest := pick(w, r.subjects[subject])
	w.note("detach %s@%s from %s", r.name, short(digest), short(subject))
	r.subjects[subject] = slices.DeleteFunc(r.subjects[subject], func(d string) bool { return d == digest })
	if !w.source.api {
		tag, list := w.putList(r, subject)
		w.tell(r, map[string]touch{tag: {digest: list, deleted: list == "", at: time.Now()}})
	}
	if r.inUse(digest) || !w.source.api && w.chance(30) {
		if w.source.api {
			r.subjects[subject] = append(r.subjects[subject], digest) // there is no other way to detach it
		}
		return
	}
	w.drop(r, digest)
	w.tellUnknown(r)
}

// tagsReferrer gives a tag to a referrer, so that it is both.
func (w *world) tagsReferrer() {
	r := w.anyRepo()
	var digests []string
	for _, subject := range slices.Sorted(maps.Keys(r.subjects)) {
		digests = append(digests, r.subjects[subject]...)
	}
	digests = slices.DeleteFunc(digests, func(digest string) bool { return !r.whole(digest) })
	if len(digests) == 0 {
		return
	}
	img := r.manifests[pick(w, digests)]
	w.note("tag %s:signature %s", r.name, short(img.Digest))
	w.must(w.source.put(r.name, "signature", img))
	r.set("signature", img.Digest)
	w.tell(r, map[string]touch{"signature": {digest: img.Digest, at: time.Now()}})
}

// strays are pushed to the site by somebody who should not. What somebody signs there is not among them: a site with the
// API does not know which referrers it is to look after but by having written them, and leaves others alone.
func (w *world) strays() {
	r, img := w.anyRepo(), w.plainImage()
	tag := pick(w, append(tagNames(), "stray", "stray-2"))
	if len(r.wholes()) > 0 && w.chance(30) {
		img = r.manifests[pick(w, r.wholes())]
	}
	if signs(img) {
		return
	}
	if !w.tracked(r) {
		return
	}
	w.note("site: stray push %s:%s %s", r.name, tag, short(img.Digest))
	w.must(w.site.push(r.name, tag, img))
	t := r.tag(tag)
	t.had[img.Digest] = true
	r.touched[tag] = int(w.step.Load())
}

// signs says whether an image, or anything below it, has a subject.
func signs(img registrytest.Image) bool {
	return slices.ContainsFunc(img.Children, signs) || strings.Contains(string(img.Manifest), `"subject"`)
}

// tracked says whether the feed has told of the repository: nobody looks after others on the site.
func (w *world) tracked(r *repo) bool {
	_, _, found := w.ledger.get(r.name)
	return found
}

func (w *world) losesTag() {
	r := w.anyRepo()
	tags, err := w.site.tags(r.name)
	w.must(err)
	if len(tags) == 0 || w.site.one {
		return
	}
	w.lose(r, pick(w, slices.Sorted(maps.Keys(tags))))
}

func (w *world) lose(r *repo, tag string) {
	w.note("site: lose %s:%s", r.name, tag)
	w.must(w.site.remove(r.name, tag))
	r.touched[tag] = int(w.step.Load())
	r.tag(tag).onSite = false
}

// losesManifest takes a manifest from the site, with its tags.
func (w *world) losesManifest() {
	r := w.anyRepo()
	if len(r.manifests) == 0 {
		return
	}
	digest := pick(w, slices.Sorted(maps.Keys(r.manifests)))
	w.note("site: lose %s@%s", r.name, short(digest))
	w.loseManifest(r, digest)
}

func (w *world) loseManifest(r *repo, digest string) {
	tags, err := w.site.tags(r.name)
	w.must(err)
	for _, tag := range slices.Sorted(maps.Keys(tags)) {
		if tags[tag] != digest {
			continue
		}
		if !w.site.one {
			w.must(w.site.remove(r.name, tag))
		}
		r.touched[tag] = int(w.step.Load())
		r.tag(tag).onSite = false
	}
	w.must(w.site.remove(r.name, digest))
	r.broken = time.Now()
}

func (w *world) losesBlob() {
	r := w.anyRepo()
	if len(r.manifests) == 0 {
		return
	}
	img := r.manifests[pick(w, slices.Sorted(maps.Keys(r.manifests)))]
	if len(img.Blobs) == 0 {
		return
	}
	digest := pick(w, slices.Sorted(maps.Keys(img.Blobs)))
	w.note("site: lose blob %s of %s", short(digest), r.name)
	w.must(w.site.removeBlob(r.name, digest))
	r.broken = time.Now()
}

// losesRepository takes everything.
func (w *world) losesRepository() {
	r := w.anyRepo()
	w.note("site: lose all of %s", r.name)
	tags, err := w.site.tags(r.name)
	w.must(err)
	digests := slices.Collect(maps.Values(tags))
	digests = append(digests, slices.Collect(maps.Keys(r.manifests))...)
	slices.Sort(digests)
	for _, digest := range slices.Compact(digests) {
		w.loseManifest(r, digest)
		for _, blob := range slices.Sorted(maps.Keys(r.manifests[digest].Blobs)) {
			w.must(w.site.removeBlob(r.name, blob))
		}
	}
	r.broken = time.Now()
}
