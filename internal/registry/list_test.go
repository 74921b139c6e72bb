package registry

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/antipode-registry/antipode/internal/registrytest"
)

// listings are all operations whose empty result would mean that something can be deleted.
var listings = map[string]func(ctx context.Context, r *Registry, subject string) error{
	"TagNames": func(ctx context.Context, r *Registry, _ string) error {
		_, _, err := r.TagNames(ctx, repo)
		return err
	},
	"List": func(ctx context.Context, r *Registry, _ string) error {
		_, err := r.List(ctx, repo)
		return err
	},
	"Resolve": func(ctx context.Context, r *Registry, _ string) error {
		_, _, err := r.Resolve(ctx, repo, []string{"v1", "v2"})
		return err
	},
	"Repositories": func(ctx context.Context, r *Registry, _ string) error {
		for _, err := range r.Repositories(ctx) {
			if err != nil {
				return err
			}
		}
		return nil
	},
	"Referrers": func(ctx context.Context, r *Registry, subject string) error {
		_, _, err := r.Referrers(ctx, repo, subject)
		return err
	},
}

func TestFaultIsNeverAnEmptyListing(t *testing.T) {
	t.Parallel()
	html := http.Header{"Content-Type": {"text/html; charset=utf-8"}}
	page := "<!doctype html><html><body>Log in</body></html>"
	faults := map[string]struct {
		fault registrytest.Fault
		want  error
	}{
		"500":              {registrytest.Fault{Status: 500}, ErrUnavailable},
		"502 HTML":         {registrytest.Fault{Status: 502, Header: html, Body: page}, ErrUnavailable},
		"503":              {registrytest.Fault{Status: 503}, ErrUnavailable},
		"429":              {registrytest.Fault{Status: 429}, ErrUnavailable},
		"401":              {registrytest.Fault{Status: 401}, ErrUnauthorized},
		"403 HTML":         {registrytest.Fault{Status: 403, Header: html, Body: page}, ErrUnauthorized},
		"empty body":       {registrytest.Fault{Status: 200}, ErrMalformed},
		"HTML":             {registrytest.Fault{Status: 200, Header: html, Body: page}, ErrMalformed},
		"empty object":     {registrytest.Fault{Status: 200, Body: "{}"}, ErrMalformed},
		"null":             {registrytest.Fault{Status: 200, Body: "null"}, ErrMalformed},
		"array":            {registrytest.Fault{Status: 200, Body: "[]"}, ErrMalformed},
		"errors with 200":  {registrytest.Fault{Status: 200, Body: `{"errors":[{"code":"NAME_UNKNOWN"}]}`}, ErrMalformed},
		"no content":       {registrytest.Fault{Status: 204}, ErrMalformed},
		"reset":            {registrytest.Fault{Cut: -1}, ErrUnavailable},
		"truncated":        {registrytest.Fault{Cut: 10}, ErrUnavailable},
		"404 bare":         {registrytest.Fault{Status: 404}, ErrMalformed},
		"404 HTML":         {registrytest.Fault{Status: 404, Header: html, Body: page}, ErrMalformed},
		"404 empty errors": {registrytest.Fault{Status: 404, Body: `{"errors":[]}`}, ErrMalformed},
		"404 other code":   {registrytest.Fault{Status: 404, Body: `{"errors":[{"code":"DENIED"}]}`}, ErrMalformed},
		"404 no code":      {registrytest.Fault{Status: 404, Body: `{"errors":[{"message":"x"}]}`}, ErrMalformed},
		"404 cut errors":   {registrytest.Fault{Status: 404, Body: `{"errors":[{"code":"NAME_UNK`}, ErrMalformed},
	}
	url := registrytest.InMemory(t, true).URL()
	img := registrytest.NewImage(1, 1, 64)
	registrytest.Push(t, url, repo, "v1", img)
	registrytest.Push(t, url, repo, "v2", img)
	registrytest.Push(t, url, repo, "", registrytest.NewArtifact(1, "application/x", registrytest.WithSubject(img)))
	var group sync.WaitGroup
	for name, broken := range faults {
		for op, run := range listings {
			if op == "Resolve" && broken.fault.Cut > 0 {
				continue // it asks with HEAD, whose answer has no body to cut
			}
			proxy := registrytest.NewProxy(t, url)
			r := open(t, proxy.URL())
			group.Go(func() {
				if err := run(t.Context(), r, img.Digest); err != nil {
					t.Errorf("%s without a fault: %v", op, err)
				}
				proxy.Fault(func(*http.Request) registrytest.Fault { return broken.fault })
				err := run(t.Context(), r, img.Digest)
				var named *Error
				if !errors.Is(err, broken.want) || errors.Is(err, ErrNotFound) || !errors.As(err, &named) {
					t.Errorf("%s, %s: %v", op, name, err)
				}
			})
		}
	}
	group.Wait()
}

// TestFaultAtAnyRequest breaks a listing at each of its requests in turn, pages and HEADs alike.
func TestFaultAtAnyRequest(t *testing.T) {
	t.Parallel()
	var names []string
	for i := range 7 {
		names = append(names, fmt.Sprintf("v%d", i))
	}
	for broken := 1; ; broken++ {
		requests := 0
		var mu sync.Mutex
		registry := pagedBy(3, names)
		r := serve(t, func(w http.ResponseWriter, req *http.Request) {
			mu.Lock()
			requests++
			fails := requests == broken
			mu.Unlock()
			if fails {
				w.WriteHeader(http.StatusForbidden)
				return
			}
			registry(w, req)
		})
		listing, err := r.List(t.Context(), repo)
		mu.Lock()
		reached := requests >= broken
		mu.Unlock()
		if !reached {
			if err != nil || len(listing.Tags) != len(names) || broken != 3+7+1 {
				t.Errorf("without a fault, after %d: %d tags, %v", broken, len(listing.Tags), err)
			}
			return
		}
		if err == nil || listing.Tags != nil || listing.Present {
			t.Errorf("request %d of %d broken: %+v, %v", broken, requests, listing, err)
		}
	}
}

// pagedBy is a registry whose tag lists have pages of size, with an opaque cursor in the Link, and whose tags all exist.
func pagedBy(size int, names []string) http.HandlerFunc {
	return func(w http.ResponseWriter, req *http.Request) {
		if req.Method == http.MethodHead {
			w.Header().Set("Content-Type", mediaTypeOCIManifest)
			w.Header().Set("Content-Length", "7")
			w.Header().Set(headerDigest, registrytest.Digest([]byte(req.URL.Path)))
			return
		}
		from := 0
		if cursor := req.URL.Query().Get("cursor"); cursor != "" {
			from, _ = strconv.Atoi(strings.TrimPrefix(cursor, "opaque=/+"))
		}
		to := min(from+size, len(names))
		if to < len(names) {
			w.Header().Set("Link", fmt.Sprintf(`<list?cursor=opaque%%3D%%2F%%2B%d>; rel="next"`, to))
		}
		writeTags(w, names[from:to])
	}
}

func writeTags(w http.ResponseWriter, names []string) {
	_ = json.NewEncoder(w).Encode(map[string]any{"name": repo, "tags": names})
}

// numbered makes n names that sort as they are numbered.
func numbered(n int) []string {
	names := make([]string, n)
	for i := range names {
		names[i] = fmt.Sprintf("v%05d", i)
	}
	return names
}

// after returns at most n of names after last.
func after(names []string, last string, n int) []string {
	at := 0
	if last != "" {
		at, _ = slices.BinarySearch(names, last+"\x00")
	}
	return names[at:min(at+n, len(names))]
}

func TestPagesOfOddRegistries(t *testing.T) {
	t.Parallel()
	asked := func(req *http.Request) (n int, last string) {
		n, _ = strconv.Atoi(req.URL.Query().Get("n"))
		return n, req.URL.Query().Get("last")
	}
	kinds := map[string]struct {
		answer func(w http.ResponseWriter, req *http.Request, names []string)
		broken func(size int) bool // it must be an error
	}{
		"link": {answer: func(w http.ResponseWriter, req *http.Request, names []string) {
			n, last := asked(req)
			page := after(names, last, n)
			if len(page) == n && page[n-1] != names[len(names)-1] {
				w.Header().Set("Link", fmt.Sprintf(`</v2/%s/tags/list?n=%d&last=%s>; rel="next"`, repo, n, page[n-1]))
			}
			writeTags(w, page)
		}},
		"link on each full page": {answer: func(w http.ResponseWriter, req *http.Request, names []string) {
			n, last := asked(req)
			page := after(names, last, n)
			if len(page) == n {
				w.Header().Set("Link", fmt.Sprintf(`</v2/%s/tags/list?n=%d&last=%s>; rel="next"`, repo, n, page[n-1]))
			}
			writeTags(w, page)
		}},
		"own page size": {answer: func(w http.ResponseWriter, req *http.Request, names []string) {
			_, last := asked(req)
			page := after(names, last, 100)
			if len(page) == 100 {
				w.Header().Add("Link", `<https://example.com/terms>; rel="license"; title="a, b"`)
				w.Header().Add("Link", fmt.Sprintf(`<?last=%s>;REL=next`, page[99]))
			}
			writeTags(w, page)
		}},
		"cut without a link": {answer: func(w http.ResponseWriter, req *http.Request, names []string) {
			n, last := asked(req)
			writeTags(w, after(names, last, n))
		}},
		"all at once": {answer: func(w http.ResponseWriter, _ *http.Request, names []string) {
			writeTags(w, names)
		}},
		"cut, and last is ignored": {answer: func(w http.ResponseWriter, req *http.Request, names []string) {
			n, _ := asked(req)
			writeTags(w, after(names, "", n))
		}, broken: func(size int) bool { return size >= pageSize }},
		"cut, and starts over": {answer: func(w http.ResponseWriter, req *http.Request, names []string) {
			n, last := asked(req)
			page := after(names, last, n)
			if len(page) == 0 {
				page = after(names, "", n)
			}
			writeTags(w, page)
		}, broken: func(size int) bool { return size == pageSize || size == 2*pageSize-1 }},
	}
	for name, kind := range kinds {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for _, size := range []int{0, 1, 99, 100, 999, 1000, 1001, 1999, 2000, 2500} {
				want := numbered(size)
				r := serve(t, func(w http.ResponseWriter, req *http.Request) { kind.answer(w, req, want) })
				got, present, err := r.TagNames(t.Context(), repo)
				if kind.broken != nil && kind.broken(size) {
					if !errors.Is(err, ErrMalformed) || got != nil || present {
						t.Errorf("%d tags: got %d and %v instead of an error", size, len(got), err)
					}
					continue
				}
				if err != nil || !present || !slices.Equal(got, want) {
					t.Errorf("%d tags: got %d, %t, %v", size, len(got), present, err)
				}
			}
		})
	}
}

func TestMalformedPages(t *testing.T) {
	t.Parallel()
	elsewhere := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		t.Errorf("a link was followed to another origin: %s", req.URL)
		writeTags(w, nil)
	}))
	t.Cleanup(elsewhere.Close)
	link := func(to string) func(http.ResponseWriter) {
		return func(w http.ResponseWriter) {
			w.Header().Set("Link", "<"+to+`>; rel="next"`)
			writeTags(w, []string{"v1"})
		}
	}
	body := func(text string) func(http.ResponseWriter) {
		return func(w http.ResponseWriter) { _, _ = w.Write([]byte(text)) }
	}
	cases := map[string]func(http.ResponseWriter){
		"other origin":     link(elsewhere.URL + "/v2/team/app/tags/list"),
		"other scheme":     link("https://127.0.0.1/v2/team/app/tags/list"),
		"other repository": link("/v2/team/other/tags/list?last=v1"),
		"itself":           link("/v2/team/app/tags/list?n=1000"),
		"odd link":         link("http://[::1"),
		"no link": func(w http.ResponseWriter) {
			w.Header().Set("Link", "v1")
			writeTags(w, nil)
		},
		"invalid tag":     body(`{"tags":["v1","a b"]}`),
		"empty tag":       body(`{"tags":[""]}`),
		"number":          body(`{"tags":[1]}`),
		"object":          body(`{"tags":{"v1":{}}}`),
		"string":          body(`{"tags":"v1"}`),
		"two documents":   body(`{"tags":[]}{"tags":["v1"]}`),
		"trailing text":   body(`{"tags":[]} and more`),
		"catalog instead": body(`{"repositories":["v1"]}`),
		"too large":       body(`{"tags":["` + strings.Repeat(`v1","`, maxPage/5) + `v2"]}`),
	}
	for name, answer := range cases {
		r := serve(t, func(w http.ResponseWriter, _ *http.Request) { answer(w) })
		names, present, err := r.TagNames(t.Context(), repo)
		if !errors.Is(err, ErrMalformed) || names != nil || present {
			t.Errorf("%s: %v, %t, %v", name, names, present, err)
		}
	}
}

func TestEndlessPages(t *testing.T) {
	t.Parallel()
	cases := map[string][]string{"that stay empty": nil, "that repeat": {"v1"}}
	for name, tags := range cases {
		number := 0
		r := serve(t, func(w http.ResponseWriter, _ *http.Request) {
			number++
			w.Header().Set("Link", fmt.Sprintf(`<list?cursor=%d>; rel="next"`, number))
			writeTags(w, tags)
		})
		if _, _, err := r.TagNames(t.Context(), repo); !errors.Is(err, ErrMalformed) {
			t.Errorf("pages %s: %v after %d", name, err, number)
		}
	}
}

func TestAbsenceIsTheRegistrysWord(t *testing.T) {
	t.Parallel()
	cases := map[string]bool{
		`{"errors":[{"code":"NAME_UNKNOWN","message":"x","detail":{"name":"team/app"}}]}`: true,
		`{"errors":[{"code":"NOT_FOUND"}]}`:                                               true,
		`{"errors":[{"code":"MANIFEST_UNKNOWN"}]}`:                                        false,
		`{"errors":[{"code":"NAME_UNKNOWN"},{"code":"UNAUTHORIZED"}]}`:                    false,
		`{"errors":[{"code":"UNKNOWN"}]}`:                                                 false,
		`{"errors":[]}`:                                                                   false,
		`{"errors":{"code":"NAME_UNKNOWN"}}`:                                              false,
		`404 page not found`:                                                              false,
	}
	for body, absent := range cases {
		r := serve(t, func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(http.StatusNotFound)
			_, _ = w.Write([]byte(body))
		})
		names, present, err := r.TagNames(t.Context(), repo)
		if present || names != nil || (err == nil) != absent {
			t.Errorf("%s: %v, %t, %v", body, names, present, err)
		}
	}
}

func TestListLeavesOutWhatIsGone(t *testing.T) {
	t.Parallel()
	url := registrytest.InMemory(t, false).URL()
	img := registrytest.NewImage(1, 1, 64)
	registrytest.Push(t, url, repo, "v1", img)
	proxy := registrytest.NewProxy(t, url)
	proxy.Fault(func(req *http.Request) registrytest.Fault {
		if strings.HasSuffix(req.URL.Path, "/tags/list") {
			return registrytest.Fault{Status: http.StatusOK, Body: `{"name":"team/app","tags":["v0","v1","v2"]}`}
		}
		return registrytest.Fault{}
	})
	got, err := open(t, proxy.URL()).List(t.Context(), repo)
	want := Listing{Present: true, Tags: []Tag{{Name: "v1", Digest: img.Digest, MediaType: img.MediaType, Size: int64(len(img.Manifest))}}}
	if diff := cmp.Diff(want, got); diff != "" || err != nil {
		t.Error(diff, err)
	}
}

func TestResolveByBodyWhereHeadSaysTooLittle(t *testing.T) {
	t.Parallel()
	img := registrytest.NewImage(1, 1, 64)
	for _, missing := range []string{headerDigest, "Content-Type", "Content-Length"} {
		r := serve(t, func(w http.ResponseWriter, req *http.Request) {
			header := w.Header()
			header.Set(headerDigest, img.Digest)
			header.Set("Content-Type", img.MediaType)
			header.Set("Content-Length", strconv.Itoa(len(img.Manifest)))
			header.Del(missing)
			if missing == "Content-Type" {
				header.Set(missing, "application/octet-stream")
			}
			if missing == "Content-Length" && req.Method == http.MethodHead {
				header.Set("Transfer-Encoding", "chunked")
			}
			if req.Method == http.MethodGet {
				_, _ = w.Write(img.Manifest)
			}
		})
		found, absent, err := r.Resolve(t.Context(), repo, []string{"v1"})
		want := []Tag{{Name: "v1", Digest: img.Digest, MediaType: img.MediaType, Size: int64(len(img.Manifest))}}
		if diff := cmp.Diff(want, found); diff != "" || err != nil || absent != nil {
			t.Errorf("without %s: %s %v %v", missing, diff, absent, err)
		}
	}
}
