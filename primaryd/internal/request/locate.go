package request

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/antipode-registry/antipode/internal/registry"
	"github.com/antipode-registry/antipode/primaryd/internal/node"
)

const (
	// siteAnswers bounds how long Locate waits for one site; they are asked at once.
	siteAnswers = 5 * time.Second
	// askedAtOnce bounds how many sites a Locate waits for at a time, and so what it costs the database.
	askedAtOnce = 32
)

// ErrNoReference says that the primary's registry has no such reference.
var ErrNoReference = errors.New("the primary's registry has no such reference")

// Resolver looks references up at the primary's registry; *registry.Registry implements it.
type Resolver interface {
	Resolve(ctx context.Context, repository string, tags []string) (found []registry.Tag, absent []string, err error)
}

// Located says where an image is.
type Located struct {
	Digest string // what the reference names at the primary's registry
	Sites  []Site // those that are granted the repository, by name
}

// Site is what one site has of a reference.
type Site struct {
	Node    string
	Equal   bool   // its registry answers the reference with the primary's digest
	Found   *Found // what it said; nil when it did not answer
	Problem string // why it did not; empty when it did
}

// Locator answers where images are. It is safe for concurrent use.
type Locator struct {
	desk     *Desk
	nodes    *node.Directory
	registry Resolver
}

// NewLocator returns a Locator that asks the sites through the desk.
func NewLocator(desk *Desk, nodes *node.Directory, r Resolver) *Locator {
	return &Locator{desk: desk, nodes: nodes, registry: r}
}

// Locate resolves a tag or a digest at the primary's registry and asks each site that is granted the repository whether
// it has the same; only the named sites if there are any. It takes as long as the slowest site, 5 s at most for each 32 of
// them. Errors: ErrInvalid, ErrNoReference, ErrUnknownNode, and those of the registry. That a site does not answer is no
// error.
func (l *Locator) Locate(ctx context.Context, askedBy, repository, reference string, nodes []string) (Located, error) {
	if err := errors.Join(registry.ValidRepository(repository), registry.ValidReference(reference)); err != nil {
		return Located{}, fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	for _, name := range nodes {
		if !l.nodes.Known(name) {
			return Located{}, fmt.Errorf("%q: %w", name, ErrUnknownNode)
		}
	}
	found, _, err := l.registry.Resolve(registry.WithUrgency(ctx), repository, []string{reference})
	if err != nil {
		return Located{}, err
	}
	if len(found) == 0 {
		return Located{}, fmt.Errorf("%s at %s: %w", repository, reference, ErrNoReference)
	}
	located := Located{Digest: found[0].Digest}
	for _, name := range l.nodes.Names() {
		if (len(nodes) == 0 || slices.Contains(nodes, name)) && l.nodes.MaySee(name, repository) {
			located.Sites = append(located.Sites, Site{Node: name})
		}
	}
	l.askAll(ctx, askedBy, Ask{Kind: Inspect, Repository: repository, Reference: reference}, &located)
	return located, ctx.Err()
}

func (l *Locator) askAll(ctx context.Context, askedBy string, ask Ask, located *Located) {
	var asking sync.WaitGroup
	slots := make(chan struct{}, askedAtOnce)
	for i := range located.Sites {
		slots <- struct{}{}
		asking.Go(func() {
			defer func() { <-slots }()
			l.askOne(ctx, askedBy, ask, located.Digest, &located.Sites[i])
		})
	}
	asking.Wait()
}

func (l *Locator) askOne(ctx context.Context, askedBy string, ask Ask, digest string, site *Site) {
	ctx, cancel := context.WithTimeout(ctx, siteAnswers)
	defer cancel()
	answer, err := l.desk.Ask(ctx, site.Node, askedBy, ask)
	var refused *Refusal
	switch {
	case errors.As(err, &refused):
		site.Problem = refused.Message
	case errors.Is(err, ErrUnanswered):
		site.Problem = "the site did not answer in time"
	case err != nil:
		site.Problem = "the site could not be asked: " + err.Error()
	case answer.Found == nil:
		site.Problem = "the site answered something else"
	default:
		site.Found, site.Equal = answer.Found, answer.Found.Digest == digest
	}
}
