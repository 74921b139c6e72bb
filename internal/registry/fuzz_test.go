package registry

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/antipode-registry/antipode/internal/registrytest"
)

// hostile answers every request alike, whatever the method, without a network. A walk that goes on for ever fails the test
// by its length.
type hostile struct {
	status int
	header http.Header
	body   []byte
	asked  int
	t      *testing.T
}

func (h *hostile) RoundTrip(req *http.Request) (*http.Response, error) {
	if sent := req.Header.Get("Authorization"); req.URL.Host != "registry.test" && sent != "" && sent != ownUser(req.URL) {
		h.t.Errorf("%s was sent credentials: %q", req.URL, sent)
	}
	if h.asked++; h.asked > 1000 {
		h.t.Fatalf("%d requests", h.asked)
	}
	return &http.Response{
		StatusCode: h.status, Header: h.header.Clone(), ContentLength: -1,
		Body: io.NopCloser(bytes.NewReader(h.body)), Request: req,
	}, nil
}

// ownUser is the header that the HTTP client makes of a user in the URL itself, which the registry made up.
func ownUser(u *url.URL) string {
	password, _ := u.User.Password()
	r := http.Request{Header: http.Header{}}
	r.SetBasicAuth(u.User.Username(), password)
	return r.Header.Get("Authorization")
}

// FuzzListings: a listing from any answer is whole and of names by the grammar, each once, or an error.
func FuzzListings(f *testing.F) {
	login(f, "http://registry.test")
	for _, seed := range []struct{ body, link string }{
		{`{"name":"team/app","tags":["v1","v2"]}`, ""},
		{`{"name":"team/app","tags":null}`, ""},
		{`{"repositories":["a","b/c"]}`, `</v2/_catalog?last=b&n=2>; rel="next"`},
		{`{"tags":["v1"]}`, `</v2/team/app/tags/list?last=v1&n=1>; rel="next"`},
		{`{"tags":["v1"]}`, `<http://elsewhere.test/v2/>; rel="next"`},
		{`{"tags":["../x","\u0000",""]}`, `<>; rel=next`},
		{`{"manifests":[{"mediaType":"x","digest":"sha256:0","size":-1}]}`, ""},
		{`<html>`, ""},
		{`[]`, ""},
		{``, `<%zz>; rel="next"`},
	} {
		f.Add([]byte(seed.body), seed.link, "", 200)
	}
	f.Add([]byte(`{"errors":[{"code":"NAME_UNKNOWN"}]}`), "", "", 404)
	f.Add([]byte(`{"errors":[{"code":"TOOMANYREQUESTS"}]}`), "", "0", 429)
	f.Fuzz(func(t *testing.T, body []byte, link, contentType string, status int) {
		if status < 200 || status > 599 || status/100 == 3 || overloaded(status) || retryableStatus(status) {
			t.Skip("answered elsewhere, or tried again after a wait")
		}
		answers := &hostile{status: status, header: http.Header{"Content-Type": {contentType}}, body: body, t: t}
		if link != "" {
			answers.header.Set("Link", link)
		}
		r := open(t, "http://registry.test", func(cfg *Config) { cfg.Transport = answers })
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		names, present, err := r.TagNames(ctx, repo)
		if err != nil && (len(names) != 0 || present) || err == nil && !present && len(names) != 0 {
			t.Fatalf("names %q, present %v, %v", names, present, err)
		}
		if slices.ContainsFunc(names, func(name string) bool { return ValidTag(name) != nil }) {
			t.Fatalf("tags %q", names)
		}
		sent := texts(body)
		if i := slices.IndexFunc(names, func(name string) bool { return !slices.Contains(sent, name) }); i >= 0 {
			t.Fatalf("nobody sent %q", names[i])
		}
		if status == http.StatusOK && present && !bytes.Contains(body, []byte("{")) {
			t.Fatalf("%q was taken for a listing", body)
		}
		seen := 0
		for name, err := range r.Repositories(ctx) {
			if seen++; err == nil && (ValidRepository(name) != nil || !slices.Contains(sent, name)) {
				t.Fatalf("repository %q", name)
			}
		}
		list, _, err := r.Referrers(ctx, repo, registrytest.Digest([]byte("x")))
		for _, d := range list {
			if err == nil && (validDigest(d.Digest) != nil || d.Size < 0 || !slices.Contains(sent, d.Digest)) {
				t.Fatalf("referrer %+v", d)
			}
		}
	})
}

// texts are all strings of a body that is JSON up to where it is not.
func texts(body []byte) (list []string) {
	decoder := json.NewDecoder(bytes.NewReader(body))
	decoder.UseNumber() // one that no float64 holds is no error
	for {
		token, err := decoder.Token()
		if err != nil {
			return list
		}
		if text, ok := token.(string); ok {
			list = append(list, text)
		}
	}
}

// FuzzManifest: what is returned as a manifest has the digest that was asked for, or the one of its bytes.
func FuzzManifest(f *testing.F) {
	img := registrytest.NewImage(1, 1, 64)
	f.Add(manifestOf(img).Bytes, manifestOf(img).MediaType, img.Digest)
	f.Add([]byte(`{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[]}`), "application/vnd.oci.image.index.v1+json", "")
	f.Add([]byte(`{"schemaVersion":1,"fsLayers":[],"history":[]}`), "application/vnd.docker.distribution.manifest.v1+prettyjws", "sha256:00")
	f.Add([]byte(strings.Repeat("[", 10000)), "text/html", "sha512:")
	f.Fuzz(func(t *testing.T, body []byte, mediaType, digest string) {
		header := http.Header{"Content-Type": {mediaType}, "Docker-Content-Digest": {digest}}
		answers := &hostile{status: 200, header: header, body: body, t: t}
		r := open(t, "http://registry.test", func(cfg *Config) { cfg.Transport = answers })
		m, err := r.Manifest(t.Context(), repo, "v1")
		if err == nil && m.Digest != registrytest.Digest(m.Bytes) && !strings.HasPrefix(m.Digest, "sha512:") {
			t.Fatalf("manifest %s of %q", m.Digest, m.Bytes)
		}
		asked := registrytest.Digest([]byte("another"))
		if m, err := r.Manifest(t.Context(), repo, asked); err == nil && registrytest.Digest(m.Bytes) != asked {
			t.Fatalf("asked for %s, got %s", asked, m.Digest)
		}
	})
}

// FuzzHeaders: Retry-After, WWW-Authenticate and Location of any form neither panic nor make up credentials, and no pause
// is a negative one. There is no account: a token service may be on another host, as the protocol has it, and what it is
// shown has tests of its own.
func FuzzHeaders(f *testing.F) {
	for _, seed := range [][3]string{
		{"120", `Bearer realm="http://registry.test/token",service="x",scope="repository:a:pull"`, "/v2/x?y=z"},
		{"Fri, 31 Dec 9999 23:59:59 GMT", `Basic realm=""`, "http://elsewhere.test/upload"},
		{"-1", `Bearer realm="http://elsewhere.test/token"`, "//elsewhere.test"},
		{"99999999999999999999", `Bearer realm=,,,="`, "%zz"},
		{"", "", ""},
		{"1e9", "Negotiate", "http://[::1"},
	} {
		f.Add(seed[0], seed[1], seed[2])
	}
	f.Fuzz(func(t *testing.T, retry, challenge, location string) {
		header := http.Header{"Retry-After": {retry}}
		if wait := retryAfter(header, time.Now()); wait < 0 {
			t.Fatalf("Retry-After %q is %v", retry, wait)
		}
		answers := &hostile{status: 401, header: http.Header{"Www-Authenticate": {challenge}}, body: []byte("{}"), t: t}
		r := open(t, "http://registry.test", func(cfg *Config) { cfg.Transport = answers })
		if err := r.Ping(t.Context()); err == nil {
			t.Fatal("401 is no success")
		}
		answers.status, answers.header = 202, http.Header{"Location": {location}}
		_, err := r.PutBlob(t.Context(), repo, blobOf([]byte("x")), "", func() (io.ReadCloser, error) {
			return io.NopCloser(strings.NewReader("x")), nil
		})
		if err == nil {
			t.Fatal("an upload that was never finished is no success")
		}
	})
}

// FuzzReferences: names that pass the grammar survive a URL's path, and nothing else does.
func FuzzReferences(f *testing.F) {
	for _, seed := range []string{"team/app", "a__b/c-d.e", "v1.0_x", "..", "a//b", "A", "", strings.Repeat("a", 256), "a/..", "sha256:" + strings.Repeat("0", 64)} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, name string) {
		safe := func(name string) bool {
			return name != "" && !strings.ContainsAny(name, " %?#\\\x00\n\"<>") && !slices.Contains(strings.Split(name, "/"), "..")
		}
		if ValidRepository(name) == nil && (!safe(name) || len(name) > 255) {
			t.Fatalf("repository %q", name)
		}
		if ValidTag(name) == nil && (!safe(name) || strings.Contains(name, "/") || len(name) > 128) {
			t.Fatalf("tag %q", name)
		}
		if ValidReference(name) == nil && (!safe(name) || strings.Contains(name, "/")) {
			t.Fatalf("reference %q", name)
		}
	})
}
