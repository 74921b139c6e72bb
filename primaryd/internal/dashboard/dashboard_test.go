package dashboard_test

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/antipode-registry/antipode/internal/database"
	"github.com/antipode-registry/antipode/internal/database/databasetest"
	"github.com/antipode-registry/antipode/primaryd/internal/dashboard"
	"github.com/antipode-registry/antipode/primaryd/internal/feed"
	"github.com/antipode-registry/antipode/primaryd/internal/node"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// page is the handler over a real feed and directory, both on db.
func page(t *testing.T, db *database.DB, nodes ...node.Config) (http.Handler, *node.Directory) {
	t.Helper()
	f, err := feed.Open(t.Context(), db, feed.Options{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.AddMissing(t.Context(), []string{"a", "b", "c"}); err != nil {
		t.Fatal(err)
	}
	directory, err := node.Open(t.Context(), db, nodes, node.Options{})
	if err != nil {
		t.Fatal(err)
	}
	return dashboard.New(f, directory, slog.New(slog.DiscardHandler)), directory
}

func get(t *testing.T, handler http.Handler) *httptest.ResponseRecorder {
	t.Helper()
	answer := httptest.NewRecorder()
	handler.ServeHTTP(answer, httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/", nil))
	return answer
}

func TestPageShowsEverySite(t *testing.T) {
	t.Parallel()
	handler, directory := page(t, databasetest.OpenSQLite(t), node.Config{Name: "eu-west"}, node.Config{Name: "asia"})
	status := node.Status{
		Version: "v1.2.3", Connected: true, RegistryReachable: true, DatabaseReachable: true, CursorRevision: 2,
		HeadRevision: 3, LagRevisions: 1, Lag: 90 * time.Second, Problems: []string{"the disk is full"},
		Repositories: node.RepositoryCounts{Total: 8, Synced: 4, Pending: 1, Syncing: 1, Failed: 1, Held: 1},
		LastError:    &node.SyncError{Repository: "team/app", Reference: "v7", Side: node.SideSource, Message: "HTTP 500"},
	}
	if err := directory.Report(t.Context(), "eu-west", status); err != nil {
		t.Fatal(err)
	}
	answer := get(t, handler)
	if answer.Code != http.StatusOK || answer.Header().Get("Content-Type") != "text/html; charset=utf-8" {
		t.Error(answer.Code, answer.Header())
	}
	text := answer.Body.String()
	for _, want := range []string{
		"feed at revision 3", "eu-west", "degraded", "4 of 8", `value="50"`, "the disk is full", "team/app:v7", "HTTP 500",
		"secondaryd explain team/app", "2 of 3", "v1.2.3", "1m30", "1 revisions", "asia", "unknown", "never",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("the page lacks %q:\n%s", want, text)
		}
	}
	if strings.Index(text, ">asia<") > strings.Index(text, ">eu-west<") {
		t.Error("the sites are not in order")
	}
}

func TestPageOfNoSites(t *testing.T) {
	t.Parallel()
	handler, _ := page(t, databasetest.OpenSQLite(t))
	if answer := get(t, handler); answer.Code != http.StatusOK || !strings.Contains(answer.Body.String(), "No sites are configured") {
		t.Error(answer.Code, answer.Body)
	}
}

// What a site says of itself is text, whatever it says: the page is read by those who operate the primary.
func TestTextsStayText(t *testing.T) {
	t.Parallel()
	const hostile = `</code><script>alert(1)</script><img src=x onerror="alert(2)">{{.}}'"` + "\u2028"
	handler, directory := page(t, databasetest.OpenSQLite(t), node.Config{Name: "eu"})
	status := node.Status{
		Version: hostile, FeedID: hostile, Problems: []string{hostile},
		LastError: &node.SyncError{Repository: hostile, Reference: hostile, Side: hostile, Message: hostile},
		Active:    []node.ActiveSync{{Repository: hostile}},
	}
	if err := directory.Report(t.Context(), "eu", status); err != nil {
		t.Fatal(err)
	}
	text := get(t, handler).Body.String()
	if strings.Contains(text, "<script") || strings.Contains(text, "<img") {
		t.Errorf("markup got through:\n%s", text)
	}
	// Nor is it a command that somebody may paste into a shell.
	if strings.Contains(text, "secondaryd explain") {
		t.Errorf("the page proposes a command with it:\n%s", text)
	}
	if strings.Count(text, "&lt;script&gt;") < 4 {
		t.Errorf("the texts are not shown:\n%s", text)
	}
}

// Nothing is fetched from anywhere, nothing runs, nobody frames it, and nobody keeps it.
func TestPageIsLockedDown(t *testing.T) {
	t.Parallel()
	handler, _ := page(t, databasetest.OpenSQLite(t), node.Config{Name: "eu"})
	answer := get(t, handler)
	for header, wants := range map[string][]string{
		"Content-Security-Policy": {"default-src 'none'", "frame-ancestors 'none'", "base-uri 'none'", "form-action 'none'"},
		"X-Content-Type-Options":  {"nosniff"},
		"Referrer-Policy":         {"no-referrer"},
		"Cache-Control":           {"no-store"},
	} {
		for _, want := range wants {
			if got := answer.Header().Get(header); !strings.Contains(got, want) {
				t.Errorf("%s: %q lacks %q", header, got, want)
			}
		}
	}
	for _, forbidden := range []string{"<script", "src=", "href=", "url(", "@import"} {
		if strings.Contains(answer.Body.String(), forbidden) {
			t.Errorf("the page has %q", forbidden)
		}
	}
}

func TestPageSaysThatTheDatabaseIsGone(t *testing.T) {
	t.Parallel()
	databasetest.SkipWithoutPostgres(t)
	cluster := databasetest.NewCluster(t)
	handler, _ := page(t, databasetest.Open(t, cluster.URL("postgres")), node.Config{Name: "eu"})
	cluster.Stop(t)
	answer := get(t, handler)
	if answer.Code != http.StatusServiceUnavailable || !strings.Contains(answer.Body.String(), "database cannot be reached") ||
		strings.Contains(answer.Body.String(), cluster.URL("postgres")) {
		t.Error(answer.Code, answer.Body)
	}
	cluster.Start(t)
	if answer := get(t, handler); answer.Code != http.StatusOK {
		t.Error(answer.Code, answer.Body)
	}
}

// broken fails in one of the two reads.
type broken struct{ head, list error }

func (b broken) Head(context.Context) (int64, error)              { return 0, b.head }
func (b broken) List(context.Context, int64) ([]node.Node, error) { return nil, b.list }

func TestPageIsWholeOrAnError(t *testing.T) {
	t.Parallel()
	failure := fmt.Errorf("secret: %w", database.ErrUnavailable)
	for _, b := range []broken{{head: failure}, {list: failure}} {
		answer := get(t, dashboard.New(b, b, slog.New(slog.DiscardHandler)))
		if answer.Code != http.StatusServiceUnavailable || strings.Contains(answer.Body.String(), "secret") ||
			answer.Header().Get("Content-Security-Policy") == "" {
			t.Error(answer.Code, answer.Body, answer.Header())
		}
	}
}
