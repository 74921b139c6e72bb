package dashboard_test

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/antipode-registry/antipode/internal/database"
	"github.com/antipode-registry/antipode/internal/database/databasetest"
	"github.com/antipode-registry/antipode/internal/httpaccess"
	"github.com/antipode-registry/antipode/internal/registry"
	"github.com/antipode-registry/antipode/primaryd/internal/dashboard"
	"github.com/antipode-registry/antipode/primaryd/internal/feed"
	"github.com/antipode-registry/antipode/primaryd/internal/node"
	"github.com/antipode-registry/antipode/primaryd/internal/request"
)

func TestMain(m *testing.M) {
	code := m.Run()
	tabs.Stop()
	if code == 0 {
		if err := goleak.Find(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			code = 1
		}
	}
	os.Exit(code)
}

const controlToken = "control-0123456789abcdef"

// digest is what prod/api:1.2 names at the primary.
const digest = "sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"

// primary is the page over real parts, on a server of its own.
type primary struct {
	*httptest.Server
	nodes *node.Directory
	desk  *request.Desk
}

// resolver is a registry that has prod/api:1.2.
type resolver struct{}

func (resolver) Resolve(_ context.Context, repository string, tags []string) (found []registry.Tag, absent []string, err error) {
	if repository == "prod/api" && tags[0] == "1.2" {
		return []registry.Tag{{Name: "1.2", Digest: digest}}, nil, nil
	}
	return nil, tags, nil
}

func start(t *testing.T, db *database.DB, access httpaccess.Config, names ...string) *primary {
	t.Helper()
	p := &primary{}
	f, err := feed.Open(t.Context(), db, feed.Options{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.AddMissing(t.Context(), []string{"a", "b", "prod/api"}); err != nil {
		t.Fatal(err)
	}
	var configs []node.Config
	for _, name := range names {
		configs = append(configs, node.Config{Name: name, Repositories: []string{"**"}})
	}
	if p.nodes, err = node.Open(t.Context(), db, configs, node.Options{}); err != nil {
		t.Fatal(err)
	}
	if p.desk, err = request.Open(t.Context(), db, p.nodes); err != nil {
		t.Fatal(err)
	}
	access.Logger = slog.New(slog.DiscardHandler)
	room, err := httpaccess.Open(access)
	if err != nil {
		t.Fatal(err)
	}
	handler, err := dashboard.New(dashboard.Parts{
		Feed: f, Nodes: p.nodes, Desk: p.desk, Locator: request.NewLocator(p.desk, p.nodes, resolver{}), Room: room,
		Logger: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		t.Fatal(err)
	}
	p.Server = httptest.NewServer(handler)
	t.Cleanup(p.Close)
	return p
}

func tokenFile(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "control.token")
	if err := os.WriteFile(path, []byte(controlToken), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// fine is a status that gives no cause for complaint.
func fine() node.Status {
	now := time.Now()
	return node.Status{
		Version: "v1.2.3", StartedAt: now.Add(-3 * time.Hour), Uptime: 3 * time.Hour, Connected: true,
		RegistryReachable: true, DatabaseReachable: true, CursorRevision: 3, HeadRevision: 3, LastSyncedAt: now,
		BytesCopied: 7 << 30, Repositories: node.RepositoryCounts{Total: 118, Synced: 118},
	}
}

func (p *primary) report(t *testing.T, name string, change func(*node.Status)) {
	t.Helper()
	status := fine()
	if change != nil {
		change(&status)
	}
	if err := p.nodes.Report(t.Context(), name, status); err != nil {
		t.Fatal(err)
	}
}

// answers makes the site answer everything that it is asked, and returns what that was.
func (p *primary) answers(t *testing.T, name string, answer func(request.Ask) request.Answer) <-chan request.Request {
	t.Helper()
	asked := make(chan request.Request, 100)
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	wake, stop := p.desk.Watch(name)
	var running sync.WaitGroup
	running.Go(func() {
		for ctx.Err() == nil {
			select {
			case <-wake:
			case <-ctx.Done():
			}
			pending, _ := p.desk.Pending(ctx, name)
			for _, r := range pending {
				_ = p.desk.Answer(ctx, name, r.ID, answer(r.Ask))
				asked <- r
			}
		}
	})
	t.Cleanup(func() {
		cancel()
		running.Wait()
		stop()
	})
	return asked
}

func (p *primary) get(t *testing.T, path string) (int, string) {
	t.Helper()
	answer := httptest.NewRecorder()
	req := httptest.NewRequestWithContext(t.Context(), http.MethodGet, path, nil)
	req.RemoteAddr, req.Host = "127.0.0.1:1", "localhost"
	p.Config.Handler.ServeHTTP(answer, req)
	if !strings.Contains(answer.Header().Get("Content-Security-Policy"), "default-src 'none'") {
		t.Errorf("%s has no policy", path)
	}
	return answer.Code, answer.Body.String()
}

func held(s *node.Status) {
	s.Repositories = node.RepositoryCounts{Total: 118, Synced: 117, Held: 1}
	s.LagRevisions, s.Lag = 1, 2*time.Hour
	s.Problems = []string{"1 repository held: removals wait for an operator"}
	s.Troubled = []node.Troubled{{
		Name: "prod/web", Held: true, UnsyncedSince: time.Now().Add(-2 * time.Hour),
		Reason: "40 of 52 tags would be removed, more than half",
	}}
}

func failed(s *node.Status) {
	s.Repositories = node.RepositoryCounts{Total: 118, Synced: 112, Pending: 3, Failed: 3}
	s.LagRevisions, s.Lag = 41, 26*time.Minute
	s.LastError = &node.SyncError{
		Repository: "team/app", Reference: "v7", Side: node.SideDestination, OccurredAt: time.Now(), Attempts: 6,
		Message: "PUT /v2/team/app/manifests/v7: 507 Insufficient Storage",
	}
}

// storage is failed, and names what failed.
func storage(s *node.Status) {
	failed(s)
	s.Repositories.Failed, s.Repositories.Pending = 9, 0
	s.Repositories.Synced = s.Repositories.Total - 9
	s.Problems = []string{"9 repositories failed"}
	now := time.Now()
	for i, name := range []string{"team/app", "team/base", "team/build", "team/cache"} {
		s.Troubled = append(s.Troubled, node.Troubled{
			Name: name, UnsyncedSince: now.Add(-26 * time.Minute), FailedAt: now.Add(-time.Duration(i+1) * time.Minute),
			Failures: 6, NextAttemptAt: now.Add(4 * time.Minute),
			Reason: "v7, destination side: PUT /v2/" + name + "/manifests/v7: 507 Insufficient Storage",
		})
	}
}

func lagging(s *node.Status) {
	s.Repositories = node.RepositoryCounts{Total: 118, Synced: 96, Pending: 20, Syncing: 2}
	s.LagRevisions, s.Lag = 22, 3*time.Minute+20*time.Second
	for _, name := range []string{"prod/api", "prod/web/frontend"} {
		s.Active = append(s.Active, node.ActiveSync{
			Repository: name, StartedAt: time.Now().Add(-20 * time.Second), BytesDone: 410 << 20, BytesTotal: 960 << 20,
			BytesPerSecond: 21 << 20,
		})
	}
}

func TestOverviewSaysWhatToDo(t *testing.T) {
	t.Parallel()
	p := start(t, databasetest.OpenSQLite(t), httpaccess.Config{}, "eu-west", "asia", "us-east", "africa")
	p.report(t, "eu-west", failed)
	p.report(t, "asia", lagging)
	p.report(t, "us-east", held)
	code, text := p.get(t, "/")
	for _, want := range []string{
		"3 of 4 sites are not good", "eu-west", "degraded", "syncing", "<b>112</b> synced", "<b>3</b> failed", "507 Insufficient Storage",
		"secondaryd explain team/app", "secondaryd repositories --state failed", "secondaryd release prod/web",
		"secondaryd doctor", "410 MiB of 960 MiB", "MiB/s", "3 min 20 s", "3 revisions", "It never reported.",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("%d: the page lacks %q", code, want)
		}
	}
	if strings.Index(text, `id="site-eu-west"`) > strings.Index(text, `id="site-asia"`) {
		t.Error("what needs somebody does not come first")
	}
	if code, text := p.get(t, "/nodes/eu-west"); code != 200 || !strings.Contains(text, "6 in a row") || strings.Contains(text, "Pause") {
		t.Error(code, text)
	}
	if code, _ := p.get(t, "/nodes/none"); code != 404 {
		t.Error(code)
	}
}

// Each repository that failed or is held has its reason and what helps, in place of sentences that say less.
func TestWhatFailedOrIsHeld(t *testing.T) {
	t.Parallel()
	p := start(t, databasetest.OpenSQLite(t), httpaccess.Config{}, "eu-west", "us-east")
	p.report(t, "eu-west", storage)
	p.report(t, "us-east", held)
	has := func(text string, wants ...string) {
		t.Helper()
		for _, want := range wants {
			if !strings.Contains(text, want) {
				t.Errorf("the page lacks %q:\n%s", want, text)
			}
		}
	}
	_, overview := p.get(t, "/")
	has(overview, `<a href="/repositories/team/app">team/app</a>`, "destination side: PUT /v2/team/app/manifests/v7: 507",
		"secondaryd explain team/app", "secondaryd resync team/build", "and 6 more failed:", "secondaryd repositories --state failed",
		"40 of 52 tags would be removed", "secondaryd explain prod/web", "secondaryd diff prod/web", "secondaryd release prod/web")
	for _, less := range []string{"team/cache", "The newest failure", "See what happened", "more held", "secondaryd resync prod/web", "secondaryd release team"} {
		if strings.Contains(overview, less) {
			t.Errorf("the page has %q", less)
		}
	}
	_, page := p.get(t, "/nodes/eu-west")
	has(page, "secondaryd resync team/cache", "and 5 more failed:", "6 in a row")
	if strings.Contains(page, "Newest failure") {
		t.Errorf("a failure is told twice:\n%s", page)
	}
}

// However many are held, what failed is seen too, and the other way round.
func TestWhatIsHeldHidesNoFailure(t *testing.T) {
	t.Parallel()
	p := start(t, databasetest.OpenSQLite(t), httpaccess.Config{}, "eu-west")
	p.report(t, "eu-west", func(s *node.Status) {
		held(s)
		for i := range 10 {
			s.Troubled = append(s.Troubled, node.Troubled{Name: fmt.Sprint("held/", i), Held: true, Reason: "too many"})
		}
		s.Troubled = append(s.Troubled, node.Troubled{Name: "failed/1", Reason: "500"}, node.Troubled{Name: "failed/2", Reason: "500"},
			node.Troubled{Name: "failed/3", Reason: "500"})
		s.Repositories.Held, s.Repositories.Failed = 11, 3
	})
	_, overview := p.get(t, "/")
	for text, want := range map[string]bool{
		"secondaryd resync failed/1": true, "secondaryd resync failed/2": true, "secondaryd resync failed/3": false,
		"secondaryd release prod/web": true, "secondaryd release held/0": false, "and 10 more held:": true, "and 1 more failed:": true,
	} {
		if strings.Contains(overview, text) != want {
			t.Errorf("%q is there: %t\n%s", text, !want, overview)
		}
	}
}

func TestOverviewOfGoodSites(t *testing.T) {
	t.Parallel()
	p := start(t, databasetest.OpenSQLite(t), httpaccess.Config{}, "eu-west", "asia")
	for _, name := range []string{"eu-west", "asia"} {
		p.report(t, name, nil)
	}
	if _, text := p.get(t, "/"); !strings.Contains(text, "All 2 sites are good") {
		t.Error(text)
	}
	none := start(t, databasetest.OpenSQLite(t), httpaccess.Config{})
	if _, text := none.get(t, "/"); !strings.Contains(text, "No sites are configured") {
		t.Error(text)
	}
}

const hostile = `</code><script>alert(1)</script><img src=x onerror="alert(2)">{{.}}'"` + "\u2028"

func hostileStatus(s *node.Status) {
	s.Version, s.FeedID, s.Problems = hostile, hostile, []string{hostile}
	s.LastError = &node.SyncError{Repository: hostile, Reference: hostile, Side: hostile, Message: hostile}
	s.Active = []node.ActiveSync{{Repository: hostile}}
	s.Troubled = []node.Troubled{{Name: hostile, Reason: hostile}, {Name: "$(reboot)", Held: true, Reason: hostile}}
}

// What a site says of itself is text, whatever it says, and nothing that somebody may paste into a shell.
func TestTextsStayText(t *testing.T) {
	t.Parallel()
	p := start(t, databasetest.OpenSQLite(t), httpaccess.Config{}, "eu")
	p.report(t, "eu", hostileStatus)
	for _, path := range []string{"/", "/nodes/eu"} {
		_, text := p.get(t, path)
		if strings.Contains(text, "<script>") || strings.Contains(text, "<img src=x") || strings.Contains(text, "secondaryd explain") ||
			strings.Contains(text, "secondaryd release") {
			t.Errorf("markup or a command got through:\n%s", text)
		}
		if !strings.Contains(text, "&lt;script&gt;") {
			t.Errorf("the texts are not shown:\n%s", text)
		}
	}
}

func TestWhereARepositoryIs(t *testing.T) {
	t.Parallel()
	p := start(t, databasetest.OpenSQLite(t), httpaccess.Config{}, "asia", "eu-west")
	found := func(digest, state string) func(request.Ask) request.Answer {
		return func(ask request.Ask) request.Answer {
			return request.Answer{Kind: ask.Kind, Found: &request.Found{
				Repository: request.Repository{Name: ask.Repository, State: state}, Digest: digest,
				Since: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC),
			}}
		}
	}
	p.answers(t, "asia", found(digest, "synced"))
	p.answers(t, "eu-west", found("sha256:bbb", "pending"))
	_, text := p.get(t, "/repositories/prod/api?at=1.2")
	for _, want := range []string{"prod/api:1.2 is on 1 of 2 sites", "2026-01-02 03:04:05 UTC", "another", "secondaryd explain prod/api"} {
		if !strings.Contains(text, want) {
			t.Errorf("the page lacks %q:\n%s", want, text)
		}
	}
	if _, text := p.get(t, "/repositories/prod/api"); !strings.Contains(text, "prod/api is on 1 of 2 sites") {
		t.Error(text)
	}
	if _, text := p.get(t, "/repositories/prod/api?at=none"); !strings.Contains(text, "no such tag or digest") {
		t.Error(text)
	}
	for typed, want := range map[string]string{
		"prod/api:1.2": "/repositories/prod/api?at=1.2", " prod/api ": "/repositories/prod/api",
		"prod/api@" + digest: "/repositories/prod/api?at=" + url.QueryEscape(digest),
	} {
		req := httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/repositories?q="+url.QueryEscape(typed), nil)
		req.RemoteAddr, req.Host = "127.0.0.1:1", "localhost"
		answer := httptest.NewRecorder()
		p.Config.Handler.ServeHTTP(answer, req)
		if got := answer.Header().Get("Location"); answer.Code != http.StatusSeeOther || got != want {
			t.Errorf("%q leads to %d %s", typed, answer.Code, got)
		}
	}
	for _, wrong := range []string{"/repositories?q=%3Cscript%3E", "/repositories/Prod", "/repositories/prod/api?at=%3Cx"} {
		if code, _ := p.get(t, wrong); code < 400 {
			t.Errorf("%s: %d", wrong, code)
		}
	}
}

func TestPageSaysThatTheDatabaseIsGone(t *testing.T) {
	t.Parallel()
	databasetest.SkipWithoutPostgres(t)
	cluster := databasetest.NewCluster(t)
	p := start(t, databasetest.Open(t, cluster.URL("postgres")), httpaccess.Config{}, "eu")
	cluster.Stop(t)
	if code, text := p.get(t, "/"); code != http.StatusServiceUnavailable || !strings.Contains(text, "database cannot be reached") ||
		strings.Contains(text, cluster.URL("postgres")) {
		t.Error(code, text)
	}
	cluster.Start(t)
	if code, text := p.get(t, "/"); code != http.StatusOK {
		t.Error(code, text)
	}
}
