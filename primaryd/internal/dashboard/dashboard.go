// Package dashboard is the status page: whether the sites are good, what is not, why, and what to do about it.
//
// It guarantees that what a site reported is shown as text, whatever it says; that a command is proposed only for a name
// that no shell takes for more; that everything is readable without JavaScript and nothing comes from elsewhere; and that
// what changes a site is asked of it only for those who may, by a form of this page. It decides nothing about the sites:
// the verdicts are package node's, and whether a site does as it is asked is the site's own to say.
package dashboard

import (
	"bytes"
	"context"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"fmt"
	"html/template"
	"log/slog"
	"net/http"
	"net/url"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/antipode-registry/antipode/internal/httpaccess"
	"github.com/antipode-registry/antipode/internal/registry"
	"github.com/antipode-registry/antipode/primaryd/internal/node"
	"github.com/antipode-registry/antipode/primaryd/internal/request"
)

//go:embed templates assets
var files embed.FS

// Head returns the newest revision of the feed; *feed.Feed implements it.
type Head interface {
	Head(ctx context.Context) (int64, error)
}

// Nodes returns the sites; *node.Directory implements it.
type Nodes interface {
	List(ctx context.Context, head int64) ([]node.Node, error)
	History(ctx context.Context, name string, since time.Duration) ([]node.Sample, bool, error)
	MaySee(name, repository string) bool
}

// Desk asks something of a site; *request.Desk implements it.
type Desk interface {
	Ask(ctx context.Context, node, askedBy string, ask request.Ask) (request.Answer, error)
}

// Locator answers where an image is; *request.Locator implements it.
type Locator interface {
	Locate(ctx context.Context, askedBy, repository, reference string, nodes []string) (request.Located, error)
}

// Parts are what the page is made of; all are required.
type Parts struct {
	Feed    Head
	Nodes   Nodes
	Desk    Desk
	Locator Locator
	Room    *httpaccess.Room
	Logger  *slog.Logger
}

// page is the handler. It is safe for concurrent use.
type page struct {
	Parts
	template *template.Template
	assets   map[string]asset
}

// asset is a file that the page loads, under a name that changes with its content.
type asset struct {
	name, kind string
	content    []byte
}

// New returns the page's handler, for every path that nothing else answers.
func New(parts Parts) (http.Handler, error) {
	p := &page{Parts: parts, assets: map[string]asset{}}
	if err := p.load(); err != nil {
		return nil, fmt.Errorf("dashboard: %w", err)
	}
	mux := http.NewServeMux()
	inside := func(pattern string, handler http.HandlerFunc) { mux.Handle(pattern, p.Room.Admit(handler, p.refuse)) }
	inside("GET /{$}", p.overview)
	inside("GET /nodes/{node}", p.site)
	inside("POST /nodes/{node}/{action}", p.control)
	inside("GET /repositories", p.search)
	inside("GET /repositories/{repository...}", p.repository)
	mux.HandleFunc("GET /sign-in", p.signInForm)
	mux.HandleFunc("POST /sign-in", p.signIn)
	mux.HandleFunc("POST /sign-out", p.signOut)
	mux.HandleFunc("GET /assets/{name}", p.asset)
	return mux, nil
}

func (p *page) load() error {
	for file, kind := range map[string]string{
		"page.css": "text/css; charset=utf-8", "page.js": "text/javascript; charset=utf-8", "icon.svg": "image/svg+xml",
	} {
		content, err := files.ReadFile("assets/" + file)
		if err != nil {
			return err
		}
		sum := sha256.Sum256(content)
		extension := path.Ext(file)
		p.assets[file] = asset{
			name: strings.TrimSuffix(file, extension) + "-" + hex.EncodeToString(sum[:6]) + extension, kind: kind, content: content,
		}
	}
	functions := functions()
	functions["asset"] = func(file string) string { return "/assets/" + p.assets[file].name }
	var err error
	p.template, err = template.New("").Funcs(functions).ParseFS(files, "templates/*.html")
	return err
}

// asset answers a file; it holds nothing that anybody may not see. Its name changes with it, so browsers may keep it.
func (p *page) asset(w http.ResponseWriter, r *http.Request) {
	httpaccess.Lock(w.Header())
	for _, a := range p.assets {
		if a.name == r.PathValue("name") {
			w.Header().Set("Content-Type", a.kind)
			w.Header().Set("Cache-Control", "public, max-age=31536000, immutable")
			_, _ = w.Write(a.content)
			return
		}
	}
	http.NotFound(w, r)
}

// frame is what every page has.
type frame struct {
	Title     string
	Live      string // where the page's newer self is; empty for one that stays as it is
	Made      time.Time
	Caller    httpaccess.Caller
	CanSignIn bool
	FormToken string
	Search    string
}

func (p *page) frame(w http.ResponseWriter, r *http.Request, title string) frame {
	f := frame{Title: title, Made: time.Now().UTC(), Caller: httpaccess.CallerFrom(r.Context()), CanSignIn: p.Room.CanSignIn()}
	if f.CanSignIn || f.Caller.Control {
		f.FormToken = p.Room.FormToken(w, r)
	}
	return f
}

// write makes the whole page before any of it is sent.
func (p *page) write(w http.ResponseWriter, status int, name string, view any) {
	var content bytes.Buffer
	if err := p.template.ExecuteTemplate(&content, name, view); err != nil {
		p.Logger.Error("could not make a page", "side", "local", "page", name, "error", err)
		http.Error(w, "The page could not be made; see primaryd's log.", http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.WriteHeader(status)
	_, _ = w.Write(content.Bytes())
}

// message is a page of a few words.
type message struct {
	frame
	Text, Back string
}

func (p *page) say(w http.ResponseWriter, r *http.Request, status int, title, text, back string) {
	p.write(w, status, "message.html", message{frame: p.frame(w, r, title), Text: text, Back: back})
}

// unavailable answers while the database does not.
func (p *page) unavailable(w http.ResponseWriter, r *http.Request, err error) {
	p.Logger.Error("could not make the status page", "side", "local", "error", err)
	p.say(w, r, http.StatusServiceUnavailable, "No answer",
		"The primary's database cannot be reached; see primaryd's log. The sites go on with what they know.", r.URL.Path)
}

// sites reads all sites with their last day.
func (p *page) sites(ctx context.Context) (sites []*site, head int64, err error) {
	if head, err = p.Feed.Head(ctx); err != nil {
		return nil, 0, err
	}
	nodes, err := p.Nodes.List(ctx, head)
	if err != nil {
		return nil, 0, err
	}
	for _, n := range nodes {
		samples, _, err := p.Nodes.History(ctx, n.Name, 0)
		if err != nil {
			return nil, 0, err
		}
		sites = append(sites, newSite(n, samples, time.Now()))
	}
	// What needs somebody comes first.
	slices.SortStableFunc(sites, func(a, b *site) int { return a.rank() - b.rank() })
	return sites, head, nil
}

// overviewView is all sites.
type overviewView struct {
	frame
	Head           int64
	Sites, Trouble []*site
	Verdict        string
	Good           bool
}

func (p *page) overview(w http.ResponseWriter, r *http.Request) {
	sites, head, err := p.sites(r.Context())
	if err != nil {
		p.unavailable(w, r, err)
		return
	}
	view := overviewView{frame: p.frame(w, r, "Sites"), Head: head, Sites: sites, Good: true}
	view.Live = "/"
	for _, s := range sites {
		if s.Bad() {
			view.Trouble, view.Good = append(view.Trouble, s), false
		}
	}
	view.Verdict = verdict(sites, view.Trouble)
	view.Title = view.Verdict
	p.write(w, http.StatusOK, "overview.html", view)
}

func verdict(all, trouble []*site) string {
	switch {
	case len(all) == 0:
		return "No sites are configured"
	case len(trouble) == 0 && len(all) == 1:
		return "The site is good"
	case len(trouble) == 0:
		return fmt.Sprintf("All %d sites are good", len(all))
	case len(trouble) == 1:
		return fmt.Sprintf("%s is %s", trouble[0].Name, trouble[0].State)
	}
	return fmt.Sprintf("%d of %d sites are not good", len(trouble), len(all))
}

// siteView is one site.
type siteView struct {
	frame
	Site *site
	Head int64
	Done string
}

// done are the sentences about what a site did as it was asked.
var done = map[string]string{
	"pause": "As you asked, the site was paused.", "resume": "As you asked, the site goes on.",
	"resync":  "As you asked, it became due at once.",
	"release": "As you asked, the repository was released: its next sync removes what was withheld.",
}

func (p *page) site(w http.ResponseWriter, r *http.Request) {
	sites, head, err := p.sites(r.Context())
	if err != nil {
		p.unavailable(w, r, err)
		return
	}
	name := r.PathValue("node")
	for _, s := range sites {
		if s.Name == name {
			view := siteView{frame: p.frame(w, r, s.Name+" is "+string(s.State)), Site: s, Head: head, Done: done[r.URL.Query().Get("done")]}
			view.Live = "/nodes/" + url.PathEscape(name)
			if view.Done != "" { // what was done stays to be read
				view.Live += "?done=" + r.URL.Query().Get("done")
			}
			p.write(w, http.StatusOK, "site.html", view)
			return
		}
	}
	p.say(w, r, http.StatusNotFound, "No such site", "No site of that name is configured.", "/")
}

// isRepository says whether a name that a site reported can stand in a command: such names hold nothing that a shell
// would take for more.
func isRepository(name string) bool { return registry.ValidRepository(name) == nil }
