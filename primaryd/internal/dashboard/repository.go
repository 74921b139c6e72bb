package dashboard

import (
	"context"
	"errors"
	"net/http"
	"net/url"
	"strings"
	"sync"

	"github.com/antipode-registry/antipode/internal/httpaccess"
	"github.com/antipode-registry/antipode/internal/registry"
	"github.com/antipode-registry/antipode/primaryd/internal/request"
)

// search leads from what was typed, NAME[:TAG] or NAME@DIGEST, to the repository's page.
func (p *page) search(w http.ResponseWriter, r *http.Request) {
	typed := strings.TrimSpace(r.URL.Query().Get("q"))
	name, reference := split(typed)
	if !isRepository(name) || reference != "" && registry.ValidReference(reference) != nil {
		p.say(w, r, http.StatusBadRequest, "Not a repository", "Type a repository, such as prod/api, prod/api:1.2 or prod/api@sha256:...", "/")
		return
	}
	target := url.URL{Path: "/repositories/" + name}
	if reference != "" {
		target.RawQuery = url.Values{"at": {reference}}.Encode()
	}
	http.Redirect(w, r, target.String(), http.StatusSeeOther)
}

func split(typed string) (name, reference string) {
	if name, digest, ok := strings.Cut(typed, "@"); ok {
		return name, digest
	}
	if colon := strings.LastIndex(typed, ":"); colon > strings.LastIndex(typed, "/") {
		return typed[:colon], typed[colon+1:]
	}
	return typed, ""
}

// repositoryView is a repository across the sites.
type repositoryView struct {
	frame
	Repository, Reference, Digest string
	Problem                       string // why the primary's registry could not say
	Sites                         []request.Site
	Equal                         int
}

func (p *page) repository(w http.ResponseWriter, r *http.Request) {
	name, reference := r.PathValue("repository"), r.URL.Query().Get("at")
	if !isRepository(name) || reference != "" && registry.ValidReference(reference) != nil {
		p.say(w, r, http.StatusNotFound, "Not a repository", "That is not the name of a repository, or of a tag in one.", "/")
		return
	}
	view := repositoryView{frame: p.frame(w, r, name), Repository: name, Reference: reference}
	view.Search = name
	var err error
	if reference == "" {
		err = p.inspect(r.Context(), &view)
	} else {
		err = p.locate(r.Context(), &view)
	}
	if err != nil {
		p.unavailable(w, r, err)
		return
	}
	for _, s := range view.Sites {
		if s.Equal {
			view.Equal++
		}
	}
	p.write(w, http.StatusOK, "repository.html", view)
}

// locate asks where the reference is. What the primary's registry says about it is no error of ours.
func (p *page) locate(ctx context.Context, view *repositoryView) error {
	view.Search += ":" + view.Reference
	if strings.Contains(view.Reference, ":") {
		view.Search = view.Repository + "@" + view.Reference
	}
	view.Title = view.Search
	located, err := p.Locator.Locate(ctx, askedBy(httpaccess.CallerFrom(ctx)), view.Repository, view.Reference, nil)
	switch {
	case errors.Is(err, request.ErrNoReference):
		view.Problem = "The primary's registry has no such tag or digest."
		return nil
	case errors.Is(err, registry.ErrUnavailable), errors.Is(err, registry.ErrUnauthorized):
		view.Problem = "The primary's registry does not answer, so nothing can be compared."
		return nil
	case err != nil:
		return err
	}
	view.Digest, view.Sites = located.Digest, located.Sites
	return nil
}

// inspect asks each site how it is with the repository as a whole.
func (p *page) inspect(ctx context.Context, view *repositoryView) error {
	nodes, err := p.Nodes.List(ctx, 0)
	if err != nil {
		return err
	}
	for _, n := range nodes {
		if p.Nodes.MaySee(n.Name, view.Repository) {
			view.Sites = append(view.Sites, request.Site{Node: n.Name})
		}
	}
	var asking sync.WaitGroup
	slots := make(chan struct{}, 16)
	for i := range view.Sites {
		slots <- struct{}{}
		asking.Go(func() {
			defer func() { <-slots }()
			p.inspectOne(ctx, view.Repository, &view.Sites[i])
		})
	}
	asking.Wait()
	return nil
}

func (p *page) inspectOne(ctx context.Context, repository string, s *request.Site) {
	ask := request.Ask{Kind: request.Inspect, Repository: repository}
	answer, err := p.Desk.Ask(ctx, s.Node, askedBy(httpaccess.CallerFrom(ctx)), ask)
	switch {
	case err != nil:
		_, s.Problem = unasked(err)
	case answer.Found == nil:
		s.Problem = "The site answered something else."
	default:
		s.Found, s.Equal = answer.Found, answer.Found.Repository.State == "synced"
	}
}
