// Package dashboard is the status page: every site at a glance, readable without JavaScript, with no asset from
// anywhere else. It only shows; it changes nothing.
package dashboard

import (
	"bytes"
	"context"
	"embed"
	"html/template"
	"log/slog"
	"net/http"
	"time"

	"github.com/antipode-registry/antipode/internal/registry"
	"github.com/antipode-registry/antipode/primaryd/internal/node"
)

//go:embed page.html
var files embed.FS

// timeout bounds the making of one page.
const timeout = 5 * time.Second

// policy lets the page use its own styles and nothing else, whatever might slip into it.
const policy = "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'"

// Head returns the newest revision of the feed; *feed.Feed implements it.
type Head interface {
	Head(ctx context.Context) (int64, error)
}

// Nodes returns the sites; *node.Directory implements it.
type Nodes interface {
	List(ctx context.Context, head int64) ([]node.Node, error)
}

// Page is the handler of the status page. It is safe for concurrent use.
type Page struct {
	head     Head
	nodes    Nodes
	logger   *slog.Logger
	template *template.Template
}

// New returns the page over the feed and the sites.
func New(h Head, n Nodes, logger *slog.Logger) *Page {
	functions := template.FuncMap{"age": age, "length": length, "share": share, "isRepository": isRepository}
	return &Page{
		head: h, nodes: n, logger: logger,
		template: template.Must(template.New("page.html").Funcs(functions).ParseFS(files, "page.html")),
	}
}

// view is what the template shows.
type view struct {
	Head  int64
	Made  time.Time
	Nodes []node.Node
}

// ServeHTTP writes the page as of now. While the database does not answer it says so, with status 503.
func (p *Page) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	ctx, cancel := context.WithTimeout(r.Context(), timeout)
	defer cancel()
	header := w.Header()
	header.Set("Content-Security-Policy", policy)
	header.Set("X-Content-Type-Options", "nosniff")
	header.Set("Referrer-Policy", "no-referrer")
	header.Set("Cache-Control", "no-store")
	page, err := p.make(ctx)
	if err != nil {
		p.logger.Error("could not make the status page", "side", "local", "error", err)
		http.Error(w, "The primary's database cannot be reached; see primaryd's log.", http.StatusServiceUnavailable)
		return
	}
	header.Set("Content-Type", "text/html; charset=utf-8")
	_, _ = w.Write(page)
}

func (p *Page) make(ctx context.Context) ([]byte, error) {
	head, err := p.head.Head(ctx)
	if err != nil {
		return nil, err
	}
	nodes, err := p.nodes.List(ctx, head)
	if err != nil {
		return nil, err
	}
	var page bytes.Buffer
	err = p.template.Execute(&page, view{Head: head, Made: time.Now(), Nodes: nodes})
	return page.Bytes(), err
}

func age(t time.Time) string {
	if t.IsZero() {
		return "never"
	}
	return length(time.Since(t)) + " ago"
}

func length(d time.Duration) string {
	if d < 10*time.Second {
		return d.Round(100 * time.Millisecond).String()
	}
	return d.Round(time.Second).String()
}

// share is part of whole in per cent, rounded down: 100 means all.
func share(part, whole int64) int64 {
	if whole == 0 {
		return 100
	}
	return part * 100 / whole
}

// isRepository says whether a name that a site reported can stand in a command: such names hold nothing that a shell
// would take for more.
func isRepository(name string) bool { return registry.ValidRepository(name) == nil }
