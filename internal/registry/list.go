package registry

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"

	"golang.org/x/sync/errgroup"
	"oras.land/oras-go/v2/registry/remote/auth"
)

const (
	pageSize = 1000 // entries; distribution 3.1.0 refuses more
	// maxIdlePages is how many pages in a row may bring nothing while the registry still links to a next one.
	maxIdlePages = 100
	// mostEntries is what one listing may come to before it is taken for one without an end; what it takes of memory grows
	// with it.
	mostEntries = 2_000_000
)

// Repositories walks the registry's catalog (GET /v2/_catalog), page by page as it is consumed. After an error, which
// is the last element, what came before is incomplete and must not be taken for the whole. Names come once each, in the
// registry's order.
func (r *Registry) Repositories(ctx context.Context) iter.Seq2[string, error] {
	c := call{
		op: "list repositories", kind: kindCatalog, path: "/v2/_catalog", limit: maxPage,
		scopes: []string{auth.ScopeRegistryCatalog},
	}
	return func(yield func(string, error) bool) {
		p := r.pages(c, "repositories", ValidRepository)
		for !p.complete {
			fresh, err := p.next(ctx)
			if err != nil {
				yield("", err)
				return
			}
			for _, name := range fresh {
				if !yield(name, nil) {
					return
				}
			}
		}
	}
}

// TagNames returns all tags of a repository (GET /v2/<name>/tags/list), sorted, each once; never a part of them.
// Present is false when the registry says that it does not know the repository (404 with a well-formed NAME_UNKNOWN or
// NOT_FOUND); any other way of not answering is an error. A repository that vanishes between two pages is not present.
func (r *Registry) TagNames(ctx context.Context, repository string) (names []string, present bool, err error) {
	c := call{op: "list tags of", kind: kindTags, limit: maxPage}.on(repository, "", auth.ActionPull)
	if err := ValidRepository(repository); err != nil {
		return nil, false, r.invalid(c, err)
	}
	c.path = "/v2/" + repository + "/tags/list"
	p := r.pages(c, "tags", ValidTag)
	for !p.complete {
		fresh, err := p.next(ctx)
		if errors.Is(err, errRepositoryUnknown) {
			return nil, false, nil
		}
		if err != nil {
			return nil, false, err
		}
		names = append(names, fresh...)
	}
	slices.Sort(names)
	return names, true, nil
}

// List returns all tags of a repository with their digests: TagNames, and a HEAD for each tag, as many at a time as
// Config.Concurrency allows. A tag that is gone when it is looked at is left out; anything else that goes wrong with
// one tag is an error for the whole.
func (r *Registry) List(ctx context.Context, repository string) (Listing, error) {
	names, present, err := r.TagNames(ctx, repository)
	if err != nil || !present {
		return Listing{}, err
	}
	tags, _, err := r.Resolve(ctx, repository, names)
	if err != nil {
		return Listing{}, err
	}
	return Listing{Present: true, Tags: tags}, nil
}

// Resolve looks at some tags of a repository, each with one HEAD. Absent are those of which the registry says so; any
// other failure is an error for all. Both results are sorted, and hold each tag once.
func (r *Registry) Resolve(ctx context.Context, repository string, tags []string) (found []Tag, absent []string, err error) {
	return r.resolveAll(ctx, repository, tags, r.resolve, func(_ string, err error) error { return err })
}

// Glance is Resolve without certainty about what is not there: it costs one request for each tag, and from a tag that it
// leaves out nothing follows. It is for tags that are about to be written.
func (r *Registry) Glance(ctx context.Context, repository string, tags []string) ([]Tag, error) {
	found, _, err := r.resolveAll(ctx, repository, tags, r.glance, func(_ string, err error) error { return err })
	return found, err
}

// resolveAll is Resolve by one, except that forgive may let a tag pass that could not be resolved; it is then left out.
func (r *Registry) resolveAll(
	ctx context.Context, repository string, tags []string,
	one func(ctx context.Context, repository, tag string) (*Tag, error), forgive func(tag string, err error) error,
) (found []Tag, absent []string, err error) {
	c := call{op: "resolve tags of"}.on(repository, "")
	if err := ValidRepository(repository); err != nil {
		return nil, nil, r.invalid(c, err)
	}
	tags = slices.Compact(slices.Sorted(slices.Values(tags)))
	seen := make([]*Tag, len(tags))
	forgiven := make([]bool, len(tags))
	group, groupCtx := errgroup.WithContext(ctx)
	var next atomic.Int64
	// A few goroutines for all tags: the stack of each has to grow first.
	for range min(r.concurrency, len(tags)) {
		group.Go(func() error {
			for groupCtx.Err() == nil {
				i := int(next.Add(1)) - 1
				if i >= len(tags) {
					break
				}
				var err error
				if seen[i], err = one(groupCtx, repository, tags[i]); err != nil {
					forgiven[i] = true
					if err := forgive(tags[i], err); err != nil {
						return err
					}
				}
			}
			return nil
		})
	}
	if err := group.Wait(); err != nil {
		return nil, nil, err
	}
	if ctx.Err() != nil {
		return nil, nil, r.unanswered(ctx, c, ctx.Err())
	}
	for i, tag := range seen {
		if forgiven[i] {
			continue
		}
		if tag == nil {
			absent = append(absent, tags[i])
			continue
		}
		found = append(found, *tag)
	}
	return found, absent, nil
}

// errRepositoryUnknown is the registry's own word that a repository does not exist.
var errRepositoryUnknown = errors.New("repository unknown")

// pages walks a listing that the specification pages by n, last and Link ("Listing Tags").
type pages struct {
	registry *Registry
	call     call
	key      string             // of the list in the JSON object
	valid    func(string) error // of one entry
	complete bool

	target    *url.URL
	asked     int // entries; the n of the request to come, 0 when a link has set it
	entries   map[string]struct{}
	addresses map[string]struct{}
	idle      int // pages in a row without a new entry
}

func (r *Registry) pages(c call, key string, valid func(string) error) *pages {
	return &pages{
		registry: r, call: c, key: key, valid: valid, asked: pageSize,
		target:  r.url(c.path, url.Values{"n": {strconv.Itoa(pageSize)}}),
		entries: map[string]struct{}{}, addresses: map[string]struct{}{},
	}
}

// next reads one page and returns the entries that no earlier page had.
func (p *pages) next(ctx context.Context) ([]string, error) {
	a, err := p.registry.exchange(ctx, p.call, http.MethodGet, p.target, http.Header{"Accept": {"application/json"}}, nil)
	if err != nil {
		return nil, err
	}
	if a.status != http.StatusOK {
		if p.call.kind == kindTags && a.saysRepositoryUnknown() {
			return nil, errRepositoryUnknown
		}
		return nil, p.registry.unexpected(p.call, a)
	}
	list, err := p.parse(a)
	if err != nil {
		return nil, p.registry.malformed(p.call, a.status, "%w", err)
	}
	fresh := p.add(list)
	if len(p.entries) > p.registry.most {
		return nil, p.registry.malformed(p.call, a.status, "listing has more than %d entries", p.registry.most)
	}
	if err := p.advance(a, list, fresh); err != nil {
		return nil, p.registry.malformed(p.call, a.status, "%w", err)
	}
	return fresh, nil
}

// parse takes nothing but a JSON object that has the list under its key: null and an empty list are empty, all else
// that a listing could be mistaken for is an error.
func (p *pages) parse(a *answer) ([]string, error) {
	if err := whole(a, p.call.limit); err != nil {
		return nil, err
	}
	var page map[string]json.RawMessage
	if err := json.Unmarshal(a.body, &page); err != nil {
		return nil, fmt.Errorf("page is not a JSON object: %w", err)
	}
	raw, ok := page[p.key]
	if !ok {
		return nil, fmt.Errorf("page has no %q", p.key)
	}
	var list []string
	decoder := json.NewDecoder(bytes.NewReader(raw))
	if err := decoder.Decode(&list); err != nil {
		return nil, fmt.Errorf("page with a %q that is not a list of names: %w", p.key, err)
	}
	for _, name := range list {
		if err := p.valid(name); err != nil {
			return nil, err
		}
	}
	return list, nil
}

// add returns what is new in list.
func (p *pages) add(list []string) []string {
	fresh := make([]string, 0, len(list))
	for _, name := range list {
		if _, known := p.entries[name]; !known {
			p.entries[name] = struct{}{}
			fresh = append(fresh, name)
		}
	}
	return fresh
}

// advance decides whether there is another page, and where.
//
// The end is certain when the registry names no next page and the page is not full; or when the page holds more than
// was asked for, since then the registry does not page at all. A page that is exactly full is asked beyond, because
// some registries cut without a link. That question asks for one entry less: a registry that does not page answers with
// all of them again, and shows itself by that.
func (p *pages) advance(a *answer, list, fresh []string) error {
	link, err := nextLink(a.header)
	if err != nil {
		return err
	}
	switch {
	case link != "":
		return p.follow(a, link, list, fresh)
	case p.asked == 0 && len(list) < pageSize, p.asked > 0 && len(list) != p.asked:
		p.complete = true
		return nil
	case len(fresh) == 0:
		return fmt.Errorf("page does not move past %q", list[len(list)-1])
	}
	p.asked = pageSize - 1
	p.target = p.registry.url(p.call.path, url.Values{"n": {strconv.Itoa(p.asked)}, "last": {list[len(list)-1]}})
	return nil
}

// follow goes to the next page as the registry links to it, with whatever cursor it put there.
func (p *pages) follow(a *answer, link string, list, fresh []string) error {
	target, err := p.registry.sameOrigin(a.url, link)
	if err != nil {
		return fmt.Errorf("link to the next page: %w", err)
	}
	if target.Path != p.call.path {
		return fmt.Errorf("link to the next page leads to %q", shorten(target.Path, 100))
	}
	p.addresses[a.url.RequestURI()] = struct{}{}
	if _, again := p.addresses[target.RequestURI()]; again {
		return errors.New("link to the next page leads back")
	}
	if len(list) > 0 && len(fresh) == 0 {
		return fmt.Errorf("page does not move past %q", list[len(list)-1])
	}
	if len(fresh) > 0 {
		p.idle = 0
	} else if p.idle++; p.idle > maxIdlePages {
		return fmt.Errorf("%d pages in a row without an entry", p.idle)
	}
	p.target = target
	p.asked, _ = strconv.Atoi(target.Query().Get("n")) // absent or odd: 0, the registry's own size
	return nil
}

// nextLink returns the target of the Link header with rel="next" (RFC 8288), or "" without one.
func nextLink(header http.Header) (string, error) {
	for _, line := range header.Values("Link") {
		for rest := strings.TrimSpace(line); rest != ""; {
			target, params, err := cutLink(rest)
			if err != nil {
				return "", err
			}
			params, rest = cutParams(params)
			if hasRelNext(params) {
				return target, nil
			}
		}
	}
	return "", nil
}

// cutLink splits "<target>; params, further links".
func cutLink(s string) (target, rest string, err error) {
	target, rest, ok := strings.Cut(s, ">")
	if !ok || !strings.HasPrefix(target, "<") {
		return "", "", fmt.Errorf("header Link %q cannot be read", shorten(s, 100))
	}
	return target[1:], rest, nil
}

// cutParams splits a link's parameters from the link after it, at a comma outside quotes.
func cutParams(s string) (params, rest string) {
	quoted := false
	for i, char := range s {
		switch {
		case char == '"':
			quoted = !quoted
		case char == ',' && !quoted:
			return s[:i], strings.TrimSpace(s[i+1:])
		}
	}
	return s, ""
}

// hasRelNext reports whether one of the parameters is rel with next among its values.
func hasRelNext(params string) bool {
	for param := range strings.SplitSeq(params, ";") {
		name, value, _ := strings.Cut(param, "=")
		if !strings.EqualFold(strings.TrimSpace(name), "rel") {
			continue
		}
		for rel := range strings.FieldsSeq(strings.Trim(strings.TrimSpace(value), `"`)) {
			if strings.EqualFold(rel, "next") {
				return true
			}
		}
	}
	return false
}

// whole returns an error when the body was longer than what was read of it.
func whole(a *answer, limit int64) error {
	if int64(len(a.body)) > limit {
		return fmt.Errorf("answer is larger than %d bytes", limit)
	}
	if len(a.body) == 0 {
		return fmt.Errorf("answer is empty: %w", io.ErrUnexpectedEOF)
	}
	return nil
}
