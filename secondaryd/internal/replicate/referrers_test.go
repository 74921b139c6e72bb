package replicate_test

import (
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/antipode-registry/antipode/internal/registrytest"
)

// Types of referrers, as signers and scanners name them.
const (
	signature   = "application/vnd.cncf.notary.signature"
	sbom        = "application/spdx+json"
	attestation = "application/vnd.in-toto+json"
)

// shelf is a registry of some kind.
type shelf struct {
	kind      string
	api       bool // it has the referrers API
	digestsOf bool // it deletes by digest alone
	start     func(t testing.TB) string
}

func shelves() map[string]shelf {
	return map[string]shelf{
		"api": {kind: "api", api: true, start: func(t testing.TB) string {
			t.Helper()
			return registrytest.InMemory(t, true).URL()
		}},
		"none": {kind: "none", start: func(t testing.TB) string {
			t.Helper()
			return registrytest.InMemory(t, false).URL()
		}},
		"distribution": {kind: "distribution", start: func(t testing.TB) string {
			t.Helper()
			return registrytest.Distribution(t).URL()
		}},
		"debian": {kind: "debian", digestsOf: true, start: func(t testing.TB) string {
			t.Helper()
			return registrytest.Debian(t).URL()
		}},
	}
}

// pairings are all four of having and not having the API, with each registry that does not on either side.
func pairings() [][2]string {
	return [][2]string{
		{"api", "api"},
		{"api", "none"},
		{"api", "distribution"},
		{"api", "debian"},
		{"none", "api"},
		{"distribution", "api"},
		{"debian", "api"},
		{"none", "none"},
		{"distribution", "debian"},
		{"debian", "distribution"},
	}
}

// pair is a bench that knows what its registries can do.
type pair struct {
	*bench
	src, dst shelf
	client   *registrytest.Client // of the source
}

// TestReferrers runs every story below on every pairing of registries.
func TestReferrers(t *testing.T) {
	t.Parallel()
	stories := map[string]func(p *pair, repository string){
		"before the first sync":        attachedFirst,
		"pushed later":                 attachedLater,
		"pushed later, found by sweep": attachedUnnoticed,
		"of a referrer, three deep":    attachedDeep,
		"of an index and its children": attachedToChildren,
		"deleted":                      detached,
		"deleted one by one":           detachedOneByOne,
		"subject deleted":              subjectDeleted,
		"tagged as well":               taggedReferrer,
		"tagged, then deleted":         taggedReferrerDeleted,
		"listed by an index as well":   listedByIndex,
		"cosign's tags":                cosignTags,
		"before what it signs":         signatureFirst,
		"subject retagged":             subjectRetagged,
	}
	for _, names := range pairings() {
		t.Run(names[0]+" to "+names[1], func(t *testing.T) {
			t.Parallel()
			src, dst := shelves()[names[0]], shelves()[names[1]]
			p := &pair{bench: newBench(t, src.start(t), dst.start(t)), src: src, dst: dst}
			p.client = registrytest.NewClient(p.source)
			t.Cleanup(p.client.Close)
			for name, story := range stories {
				t.Run(name, func(t *testing.T) {
					p.t = t
					story(p, "team/"+strings.NewReplacer(" ", "-", ",", "", "'", "").Replace(name))
				})
			}
		})
	}
}

func (p *pair) push(repository, tag string, img registrytest.Image) {
	p.t.Helper()
	registrytest.Push(p.t, p.source, repository, tag, img)
}

// attach pushes a referrer without a tag, as signers do: where the registry does not list it, the client does. It
// returns what a notification would name.
func (p *pair) attach(repository string, subject registrytest.Image, referrers ...registrytest.Image) []string {
	p.t.Helper()
	var names []string
	for _, r := range referrers {
		p.push(repository, "", r)
		names = append(names, "@"+r.Digest)
	}
	if p.src.api {
		return names
	}
	list := listed(p.t, p.source, repository, subject.Digest)
	for _, r := range referrers {
		list = append(list, describe(r))
	}
	return append(names, p.putFallback(repository, subject.Digest, list))
}

// detach deletes a referrer.
func (p *pair) detach(repository string, subject, referrer registrytest.Image) {
	p.t.Helper()
	if !p.src.api {
		list := slices.DeleteFunc(listed(p.t, p.source, repository, subject.Digest), func(d listedManifest) bool {
			return d.Digest == referrer.Digest
		})
		p.putFallback(repository, subject.Digest, list)
	}
	registrytest.DeleteDigest(p.t, p.source, repository, referrer.Digest)
}

// putFallback writes the tag that stands in for the API, or removes it where nothing is left to list.
func (p *pair) putFallback(repository, subject string, list []listedManifest) (tag string) {
	p.t.Helper()
	tag = strings.Replace(subject, ":", "-", 1)
	if len(list) == 0 {
		p.untag(repository, tag)
		return tag
	}
	body, err := json.Marshal(map[string]any{
		"schemaVersion": 2, "mediaType": registrytest.OCIIndex, "manifests": list,
		"annotations": map[string]string{"made.by": "a client"},
	})
	if err != nil {
		p.t.Fatal(err)
	}
	p.push(repository, tag, registrytest.NewManifest(registrytest.OCIIndex, body))
	return tag
}

// untag deletes a tag at the source as its registry can.
func (p *pair) untag(repository, tag string) {
	p.t.Helper()
	if p.src.digestsOf {
		registrytest.DeleteDigest(p.t, p.source, repository, registrytest.Tags(p.t, p.source, repository)[tag])
		return
	}
	registrytest.DeleteTag(p.t, p.source, repository, tag)
}

// listedManifest is an entry of an index of referrers.
type listedManifest struct {
	MediaType    string            `json:"mediaType"`
	Digest       string            `json:"digest"`
	Size         int64             `json:"size"`
	ArtifactType string            `json:"artifactType,omitempty"`
	Annotations  map[string]string `json:"annotations,omitempty"`
}

func describe(img registrytest.Image) listedManifest {
	var body struct {
		ArtifactType string `json:"artifactType"`
	}
	_ = json.Unmarshal(img.Manifest, &body) // our own
	return listedManifest{
		MediaType: img.MediaType, Digest: img.Digest, Size: int64(len(img.Manifest)), ArtifactType: body.ArtifactType,
	}
}

// listed is what a tag in place of the API lists.
func listed(t testing.TB, url, repository, subject string) []listedManifest {
	t.Helper()
	m, found := registrytest.GetManifest(t, url, repository, strings.Replace(subject, ":", "-", 1))
	if !found {
		return nil
	}
	return entries(t, m.Bytes)
}

func entries(t testing.TB, index []byte) []listedManifest {
	t.Helper()
	var body struct {
		Manifests []listedManifest `json:"manifests"`
	}
	if err := json.Unmarshal(index, &body); err != nil {
		t.Fatalf("an index of referrers does not parse: %v", err)
	}
	return body.Manifests
}

// referrersAt asks a registry for the referrers of a manifest, in the way that it has.
func referrersAt(t testing.TB, url string, api bool, repository, subject string) []listedManifest {
	t.Helper()
	var list []listedManifest
	if api {
		list = entries(t, get(t, url+"/v2/"+repository+"/referrers/"+subject))
	} else {
		list = listed(t, url, repository, subject)
	}
	slices.SortFunc(list, func(a, b listedManifest) int { return cmp.Compare(a.Digest, b.Digest) })
	return list
}

func get(t testing.TB, url string) []byte {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK {
		t.Fatalf("GET %s: %s %v: %s", url, resp.Status, err, body)
	}
	return body
}

// wantReferrers fails the test unless the site lists just these referrers of the subject, each complete.
func (p *pair) wantReferrers(repository string, subject registrytest.Image, want ...registrytest.Image) {
	p.t.Helper()
	got := referrersAt(p.t, p.site, p.dst.api, repository, subject.Digest)
	var expected []listedManifest
	for _, r := range want {
		expected = append(expected, describe(r))
	}
	slices.SortFunc(expected, func(a, b listedManifest) int { return cmp.Compare(a.Digest, b.Digest) })
	if text := fmt.Sprint(got); text != fmt.Sprint(expected) {
		p.t.Errorf("referrers of %s are\n  %s, want\n  %v\n%s", subject.Digest, text, expected, p.story(repository))
	}
	for _, r := range want {
		p.wantWhole(repository, r)
	}
}

// wantWhole fails the test unless the site has a manifest with all that it needs.
func (p *pair) wantWhole(repository string, img registrytest.Image) {
	p.t.Helper()
	m, found := registrytest.GetManifest(p.t, p.site, repository, img.Digest)
	if !found || string(m.Bytes) != string(img.Manifest) || m.MediaType != img.MediaType {
		p.t.Errorf("%s@%s is not on the site as it was: found %t, %q %s", repository, img.Digest, found, m.MediaType, m.Bytes)
	}
	client := registrytest.NewClient(p.site)
	defer client.Close()
	for digest, body := range img.Blobs {
		if got, err := client.Blob(p.t.Context(), repository, digest); err != nil || string(got) != string(body) {
			p.t.Errorf("blob %s of %s: %d bytes, %v", digest, repository, len(got), err)
		}
	}
}

// wantEqual fails the test unless the repository is synced, has the source's tags, and would not be touched again.
func (p *pair) wantEqual(repository string) {
	p.t.Helper()
	p.wantSynced(repository)
	want, got := registrytest.Tags(p.t, p.source, repository), registrytest.Tags(p.t, p.site, repository)
	if p.src.api && !p.dst.api {
		// The tags that were made are looked at by wantReferrers.
		for tag := range got {
			if _, ofSource := want[tag]; !ofSource && strings.HasPrefix(tag, "sha256-") && len(tag) == 71 {
				delete(got, tag)
			}
		}
	}
	if fmt.Sprint(got) != fmt.Sprint(want) {
		p.t.Errorf("%s has the tags %v, want %v\n%s", repository, got, want, p.story(repository))
	}
	p.wantIdle(repository)
}
