package replicate_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/antipode-registry/antipode/internal/registrytest"
)

func artifact(seed int64, kind string, subject registrytest.Image) registrytest.Image {
	return registrytest.NewArtifact(seed, kind, registrytest.WithSubject(subject))
}

func attachedFirst(p *pair, repository string) {
	img := registrytest.NewImage(1, 2, 100)
	sig, bom, att := artifact(2, signature, img), artifact(3, sbom, img), artifact(4, attestation, img)
	p.push(repository, "v1", img)
	p.attach(repository, img, sig, bom, att)
	p.changed(repository)
	p.wantReferrers(repository, img, sig, bom, att)
	p.wantEqual(repository)
}

func attachedLater(p *pair, repository string) {
	img := registrytest.NewImage(10, 2, 100)
	p.push(repository, "v1", img)
	p.touched(repository, "v1")
	p.wantReferrers(repository, img)
	sig := artifact(11, signature, img)
	p.touched(repository, p.attach(repository, img, sig)...)
	p.wantReferrers(repository, img, sig)
	bom := artifact(12, sbom, img)
	p.touched(repository, p.attach(repository, img, bom)...)
	p.wantReferrers(repository, img, sig, bom)
	p.wantEqual(repository)
}

func attachedUnnoticed(p *pair, repository string) {
	img := registrytest.NewImage(20, 2, 100)
	p.push(repository, "v1", img)
	p.touched(repository, "v1")
	sig := artifact(21, signature, img)
	p.attach(repository, img, sig)
	p.changed(repository)
	p.wantReferrers(repository, img, sig)
	p.wantEqual(repository)
}

func attachedDeep(p *pair, repository string) {
	img := registrytest.NewImage(30, 1, 100)
	bom := artifact(31, sbom, img)
	sig := artifact(32, signature, bom)
	att := artifact(33, attestation, sig)
	p.push(repository, "v1", img)
	p.attach(repository, img, bom)
	p.attach(repository, bom, sig)
	p.changed(repository)
	p.wantReferrers(repository, img, bom)
	p.wantReferrers(repository, bom, sig)
	p.touched(repository, p.attach(repository, sig, att)...)
	p.wantReferrers(repository, sig, att)
	p.wantEqual(repository)
	// The deepest goes, and the others stay.
	p.detach(repository, sig, att)
	p.changed(repository)
	p.wantReferrers(repository, img, bom)
	p.wantReferrers(repository, bom, sig)
	p.wantReferrers(repository, sig)
	p.wantEqual(repository)
}

func attachedToChildren(p *pair, repository string) {
	one, two := registrytest.NewImage(40, 1, 100), registrytest.NewImage(41, 1, 100)
	inner := registrytest.NewIndex(two)
	index := registrytest.NewIndex(one, inner)
	ofIndex, ofOne, ofTwo := artifact(42, signature, index), artifact(43, sbom, one), artifact(44, attestation, two)
	p.push(repository, "v1", index)
	p.attach(repository, one, ofOne)
	p.changed(repository)
	p.wantReferrers(repository, one, ofOne)
	names := p.attach(repository, index, ofIndex)
	names = append(names, p.attach(repository, two, ofTwo)...)
	p.touched(repository, names...)
	p.wantReferrers(repository, index, ofIndex)
	p.wantReferrers(repository, one, ofOne)
	p.wantReferrers(repository, two, ofTwo)
	p.wantEqual(repository)
	registrytest.AssertEqual(p.t, p.source, p.site, sharedTags(p, repository)...)
}

// sharedTags names the repository for a comparison of tags, which it is not where the site has tags of its own making.
func sharedTags(p *pair, repository string) []string {
	if p.src.api && !p.dst.api {
		return []string{"team/none-at-all"}
	}
	return []string{repository}
}

func detached(p *pair, repository string) {
	img := registrytest.NewImage(50, 1, 100)
	sig := artifact(51, signature, img)
	p.push(repository, "v1", img)
	p.touched(repository, "v1")
	p.touched(repository, p.attach(repository, img, sig)...)
	p.wantReferrers(repository, img, sig)
	p.detach(repository, img, sig)
	p.changed(repository) // a delete by digest does not say of what
	p.wantReferrers(repository, img)
	p.wantEqual(repository)
	// And comes back.
	p.touched(repository, p.attach(repository, img, sig)...)
	p.wantReferrers(repository, img, sig)
	p.wantEqual(repository)
}

func detachedOneByOne(p *pair, repository string) {
	img := registrytest.NewImage(60, 1, 100)
	all := []registrytest.Image{
		artifact(61, signature, img), artifact(62, sbom, img), artifact(63, attestation, img),
	}
	p.push(repository, "v1", img)
	p.attach(repository, img, all...)
	p.changed(repository)
	for len(all) > 0 {
		p.detach(repository, img, all[0])
		all = all[1:]
		p.changed(repository)
		p.wantReferrers(repository, img, all...)
		p.wantWhole(repository, img)
	}
	p.wantEqual(repository)
}

func subjectDeleted(p *pair, repository string) {
	img, other := registrytest.NewImage(70, 1, 100), registrytest.NewImage(71, 1, 100)
	sig, kept := artifact(72, signature, img), artifact(73, signature, other)
	p.push(repository, "v1", img)
	p.push(repository, "v2", other)
	p.attach(repository, img, sig)
	p.attach(repository, other, kept)
	p.changed(repository)
	p.wantReferrers(repository, img, sig)
	if !p.src.api { // who deletes an image there deletes its list of referrers too
		p.detach(repository, img, sig)
	}
	p.untag(repository, "v1")
	if !p.src.digestsOf {
		registrytest.DeleteDigest(p.t, p.source, repository, img.Digest)
	}
	p.changed(repository)
	p.wantReferrers(repository, img)
	p.wantReferrers(repository, other, kept)
	p.wantEqual(repository)
}

// taggedReferrer is a referrer that has a tag besides: the tag may come and go, the referrer stays.
func taggedReferrer(p *pair, repository string) {
	img := registrytest.NewImage(80, 1, 100)
	sig := artifact(81, signature, img)
	p.push(repository, "v1", img)
	p.touched(repository, "v1")
	names := p.attach(repository, img, sig)
	p.push(repository, "signature", sig)
	p.touched(repository, append(names, "signature")...)
	p.wantReferrers(repository, img, sig)
	p.wantEqual(repository)
	if p.src.digestsOf {
		return // there the tag cannot go without the referrer
	}
	p.untag(repository, "signature")
	p.touched(repository, "signature")
	p.wantReferrers(repository, img, sig)
	p.wantEqual(repository)
	p.push(repository, "again", sig)
	p.touched(repository, "again")
	p.wantReferrers(repository, img, sig)
	p.wantEqual(repository)
	if p.src.api {
		return
	}
	// The list may forget a referrer that has a tag; the tag keeps the manifest.
	p.putFallback(repository, img.Digest, nil)
	p.changed(repository)
	p.wantWhole(repository, sig)
	p.wantEqual(repository)
}

// taggedReferrerDeleted is a referrer that the site only ever heard of by its tag.
func taggedReferrerDeleted(p *pair, repository string) {
	img := registrytest.NewImage(85, 1, 100)
	sig := artifact(86, signature, img)
	p.push(repository, "v1", img)
	p.touched(repository, "v1")
	p.push(repository, "signature", sig)
	p.touched(repository, "signature")
	if p.src.api || p.dst.api { // else nobody lists it
		p.wantReferrers(repository, img, sig)
	}
	p.wantEqual(repository)
	p.untag(repository, "signature")
	if !p.src.digestsOf {
		registrytest.DeleteDigest(p.t, p.source, repository, sig.Digest)
	}
	p.changed(repository)
	p.wantReferrers(repository, img)
	p.wantEqual(repository)
}

// listedByIndex is a referrer that an index lists as one of its children: it is not deleted while the index is there.
func listedByIndex(p *pair, repository string) {
	img := registrytest.NewImage(90, 1, 100)
	sig, bom := artifact(91, signature, img), artifact(92, sbom, img)
	bundle := registrytest.NewIndex(sig)
	p.push(repository, "v1", img)
	p.attach(repository, img, sig, bom)
	p.push(repository, "bundle", bundle)
	p.changed(repository)
	p.wantReferrers(repository, img, sig, bom)
	if p.src.api {
		registrytest.DeleteDigest(p.t, p.source, repository, sig.Digest) // the bundle is broken there now
	} else {
		p.putFallback(repository, img.Digest, []listedManifest{describe(bom)})
	}
	p.changed(repository)
	p.wantSynced(repository)
	p.wantWhole(repository, sig)
	p.wantIdle(repository)
	p.wantWhole(repository, sig)
	// With the bundle it goes.
	p.untag(repository, "bundle")
	p.changed(repository)
	p.wantReferrers(repository, img, bom)
	p.wantIdle(repository)
}

// cosignTags are signatures of the older kind: tags that only look like the ones in place of the API.
func cosignTags(p *pair, repository string) {
	img := registrytest.NewImage(100, 1, 100)
	sig := registrytest.NewImage(101, 1, 100)
	tag := strings.Replace(img.Digest, ":", "-", 1) + ".sig"
	p.push(repository, "v1", img)
	p.touched(repository, "v1")
	p.push(repository, tag, sig)
	p.touched(repository, tag)
	p.wantReferrers(repository, img)
	p.wantEqual(repository)
	if got := registrytest.Tags(p.t, p.site, repository)[tag]; got != sig.Digest {
		p.t.Errorf("%s is %q, want %s", tag, got, sig.Digest)
	}
	p.untag(repository, tag)
	p.touched(repository, tag)
	p.wantEqual(repository)
}

// signatureFirst: who pulls a new image finds its signature there.
func signatureFirst(p *pair, repository string) {
	p.push(repository, "v0", registrytest.NewImage(110, 1, 100))
	p.touched(repository, "v0")
	img := registrytest.NewImage(111, 1, 100)
	sig := artifact(112, signature, img)
	p.push(repository, "v1", img)
	names := p.attach(repository, img, sig)
	p.reset()
	p.touched(repository, append(names, "v1")...)
	p.wantReferrers(repository, img, sig)
	written := func(reference string) int {
		return slices.IndexFunc(p.to.Requests(), func(r registrytest.Request) bool {
			return r.Method == "PUT" && r.Kind == "manifest" && r.Reference == reference
		})
	}
	if first, second := written(sig.Digest), written("v1"); first < 0 || second < first {
		p.t.Errorf("the signature was write %d, the image %d:%s", first, second, requests(p.to))
	}
}

// subjectRetagged: a tag leaves an image behind and another comes back to it; the referrers are those of what is tagged.
func subjectRetagged(p *pair, repository string) {
	one, two := registrytest.NewImage(120, 1, 100), registrytest.NewImage(121, 1, 100)
	ofOne, ofTwo := artifact(122, signature, one), artifact(123, signature, two)
	p.push(repository, "latest", one)
	p.attach(repository, one, ofOne)
	p.changed(repository)
	p.push(repository, "latest", two)
	p.touched(repository, append(p.attach(repository, two, ofTwo), "latest")...)
	p.wantReferrers(repository, two, ofTwo)
	p.changed(repository)
	p.wantEqual(repository)
	p.push(repository, "v1", one)
	p.touched(repository, "v1")
	p.wantReferrers(repository, one, ofOne)
	p.wantReferrers(repository, two, ofTwo)
	p.wantEqual(repository)
}

// TestFallbackOfSourceWins has a source with the API whose clients also keep tags in its place, as some do for older
// readers: the site without the API gets those tags as they are.
func TestFallbackOfSourceWins(t *testing.T) {
	t.Parallel()
	for _, kind := range []string{"none", "distribution", "debian"} {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			src, dst := shelves()["api"], shelves()[kind]
			p := &pair{bench: newBench(t, src.start(t), dst.start(t)), src: src, dst: dst}
			const repository = "team/app"
			img := registrytest.NewImage(1, 1, 100)
			sig, bom, att := artifact(2, signature, img), artifact(3, sbom, img), artifact(4, attestation, img)
			p.push(repository, "v1", img)
			p.attach(repository, img, sig, bom)
			tag := p.putFallback(repository, img.Digest, []listedManifest{describe(sig)})
			p.changed(repository)
			p.wantReferrers(repository, img, sig)
			p.wantEqual(repository)

			// A delta that does not name the tag does not overrule it.
			p.touched(repository, p.attach(repository, img, att)...)
			p.wantReferrers(repository, img, sig)
			p.wantEqual(repository)
			p.touched(repository, "v1")
			p.wantReferrers(repository, img, sig)
			p.detach(repository, img, att)
			p.touched(repository, "v1")
			p.wantReferrers(repository, img, sig)
			p.wantEqual(repository)

			// Without it the site's own takes its place, and the other way round.
			p.untag(repository, tag)
			p.touched(repository, tag)
			p.wantReferrers(repository, img, sig, bom)
			p.wantEqual(repository)
			p.putFallback(repository, img.Digest, []listedManifest{describe(bom)})
			p.touched(repository, tag)
			p.wantReferrers(repository, img, bom)
			p.wantEqual(repository)
		})
	}
}

// TestFallbackBesideAPI has such a source before a site with the API: when the tag goes, the referrers stay.
func TestFallbackBesideAPI(t *testing.T) {
	t.Parallel()
	src := shelves()["api"]
	p := &pair{bench: newBench(t, src.start(t), src.start(t)), src: src, dst: src}
	const repository = "team/app"
	img := registrytest.NewImage(1, 1, 100)
	sig, bom := artifact(2, signature, img), artifact(3, sbom, img)
	p.push(repository, "v1", img)
	p.attach(repository, img, sig, bom)
	tag := p.putFallback(repository, img.Digest, []listedManifest{describe(sig), describe(bom)})
	p.changed(repository)
	p.wantReferrers(repository, img, sig, bom)
	p.putFallback(repository, img.Digest, []listedManifest{describe(sig)})
	p.touched(repository, tag)
	p.wantReferrers(repository, img, sig, bom)
	p.untag(repository, tag)
	p.touched(repository, tag)
	p.wantReferrers(repository, img, sig, bom)
	p.wantEqual(repository)
}

// TestMadeFallbackIsTheSameEverywhere: sites do not differ in what they make.
func TestMadeFallbackIsTheSameEverywhere(t *testing.T) {
	t.Parallel()
	src := shelves()["api"]
	source := src.start(t)
	const repository = "team/app"
	img := registrytest.NewImage(1, 1, 100)
	all := []registrytest.Image{artifact(2, signature, img), artifact(3, sbom, img), artifact(4, attestation, img)}
	var made []string
	for i, kind := range []string{"none", "distribution", "debian"} {
		dst := shelves()[kind]
		p := &pair{bench: newBench(t, source, dst.start(t)), src: src, dst: dst}
		if i == 0 {
			p.push(repository, "v1", img)
		}
		// Some sites see the referrers come one by one.
		p.changed(repository)
		for n, r := range all {
			if i == 0 {
				p.attach(repository, img, r)
			}
			if n%(i+1) == 0 {
				p.touched(repository, "@"+r.Digest)
			}
		}
		p.changed(repository)
		p.wantReferrers(repository, img, all...)
		made = append(made, registrytest.Tags(t, p.site, repository)[strings.Replace(img.Digest, ":", "-", 1)])
	}
	if slices.Sort(made); made[0] == "" || made[0] != made[len(made)-1] {
		t.Errorf("the sites made %v", made)
	}
}
