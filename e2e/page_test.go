package e2e

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"path"
	"path/filepath"
	"strings"
	"testing"

	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"

	"github.com/antipode-registry/antipode/client"
	antipodev1 "github.com/antipode-registry/antipode/gen/antipode/v1"
	"github.com/antipode-registry/antipode/internal/authority"
	"github.com/antipode-registry/antipode/internal/browsertest"
	"github.com/antipode-registry/antipode/internal/link"
	"github.com/antipode-registry/antipode/internal/registrytest"
)

// tabs is the one browser of these tests; TestMain stops it.
var tabs browsertest.Browser

const (
	controlSecret = "a token of the tests to control with"
	hostile       = `<script>document.title="in"</script>"><img src=x onerror="document.title='in'">`
)

// watched is a pair with two more sites, and its status page in a browser: us-east is killed once it has reported, and asia
// is none, but reports like a site that means ill.
type watched struct {
	*pair
	*browsertest.Tab
}

func newWatched(t *testing.T) *watched {
	t.Helper()
	dir := t.TempDir()
	token := filepath.Join(dir, "control.token")
	if err := os.WriteFile(token, []byte(controlSecret+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	var nodes []any
	for _, name := range []string{siteName, "us-east", "asia"} {
		nodes = append(nodes, map[string]any{"name": name, "repositories": []string{"**"}})
	}
	p := newPair(t, withPrimaryProxy(), withSiteProxy(), withSecondaryConfig("grpc.listen", reserve(t)), withPrimaryConfig("nodes", nodes), withPrimaryConfig("http.control_token_file", token),
		withSecondaryConfig("replication.bandwidth", map[string]any{"download": "512KiB"}),
		withSecondaryConfig("deletions.brake", map[string]any{"share": 0.5, "count": 2}))
	w := &watched{pair: p, Tab: tabs.NewTab(t)}
	for _, name := range []string{"us-east", "asia"} {
		if err := authority.Issue(p.pki, name, link.RoleNode, nil); err != nil {
			t.Fatal(err)
		}
	}
	w.killed(t, "us-east")
	w.illWilled(t, "asia")
	return w
}

// killed runs another site until the primary has heard of it, and kills it.
func (w *watched) killed(t *testing.T, name string) {
	t.Helper()
	config := w.secondaryConfig(&options{}, w.Primary.GRPC())
	config["node"] = name
	for _, key := range []string{"primary.cert_file", "grpc.cert_file"} {
		set(config, key, w.cert(name))
	}
	for _, key := range []string{"primary.key_file", "grpc.key_file"} {
		set(config, key, w.key(name))
	}
	other := newDaemon(t, "secondaryd", t.TempDir(), config)
	other.Start()
	eventually(t, func(ctx context.Context) error {
		n, err := w.Nodes().GetNode(ctx, &antipodev1.GetNodeRequest{Name: name})
		if err == nil && n.GetNode().GetStatus() == nil {
			err = fmt.Errorf("%s has not reported", name)
		}
		return err
	})
	other.Kill()
}

// illWilled reports as a site whose every word is an attack on who reads it.
func (w *watched) illWilled(t *testing.T, name string) {
	t.Helper()
	err := client.New(w.connect(w.Primary.GRPC(), name)).Report(t.Context(), name, &antipodev1.NodeStatus{
		Version: hostile, Connected: true, RegistryReachable: true, DatabaseReachable: true, Problems: []string{hostile},
		Repositories: &antipodev1.RepositoryCounts{Total: 1, Failed: 1},
		LastError:    &antipodev1.SyncError{Repository: hostile, Reference: hostile, Message: hostile},
		Troubled:     []*antipodev1.TroubledRepository{{Name: hostile, Reason: hostile, Failures: 1}},
		Active:       []*antipodev1.ActiveSync{{Repository: hostile, BytesDone: 1, BytesTotal: 2}},
	})
	if err != nil {
		t.Fatal(err)
	}
}

// shootAll leaves pictures in both themes, wide and narrow, and looks for what somebody could not use.
func (w *watched) shootAll(t *testing.T, name string) {
	t.Helper()
	for _, theme := range []string{"light", "dark"} {
		for width, suffix := range map[int64]string{1100: "", 375: "-narrow"} {
			w.Look(width, 800, theme)
			w.Shoot(name + "-" + theme + suffix)
			if bad := w.Audit(); len(bad) > 0 {
				t.Errorf("%s, %s, %d wide: %q", name, theme, width, bad)
			}
		}
	}
	w.Look(1100, 800, "light")
}

// is waits until the page says that the site is in a state.
func (w *watched) is(state string) {
	w.t.Helper()
	w.Until(fmt.Sprintf(`document.querySelector("h1").textContent === "%s is %s"`, siteName, state))
}

// did waits until the page confirms what was asked of the site.
func (w *watched) did(what string) {
	w.t.Helper()
	w.Until(fmt.Sprintf(`document.querySelector(".done")?.textContent.includes(%q)`, what))
}

// TestStatusPageOfRealSites watches a site through its troubles in a browser, and mends them from there.
func TestStatusPageOfRealSites(t *testing.T) {
	t.Parallel()
	w := newWatched(t)
	push(t, w.pair, "app", "v1", image(1))
	w.Converges(t)
	w.signInByKeyboard(t)
	w.is("healthy")
	w.shootAll(t, "healthy")
	w.copies(t)
	w.fails(t)
	w.holds(t)
	w.pausesAndResumes(t)
	w.goesStale(t)
	w.withoutScripts(t)
}

func (w *watched) signInByKeyboard(t *testing.T) {
	t.Helper()
	w.Open(w.Primary.URL() + "/sign-in?next=/nodes/" + siteName)
	w.Run(chromedp.Focus("#token"), chromedp.KeyEvent(controlSecret+kb.Enter), chromedp.WaitVisible("#control"))
	var cookies []*network.Cookie
	w.Run(chromedp.ActionFunc(func(ctx context.Context) (err error) {
		cookies, err = network.GetCookies().Do(ctx)
		return err
	}))
	for _, c := range cookies {
		if !c.HTTPOnly || c.SameSite != network.CookieSameSiteStrict {
			t.Errorf("cookie %s: HttpOnly %t, SameSite %s", c.Name, c.HTTPOnly, c.SameSite)
		}
	}
	if len(cookies) < 2 {
		t.Errorf("%d cookies, want the session's and the form's", len(cookies))
	}
	w.Run(chromedp.Evaluate(`window.loadedOnce = true`, nil))
}

// copies follows an image of some MB through its progress bar, which moves without the page being loaded anew. Its layers
// are let through one after the other, so that however slow the browser is there is something to see.
func (w *watched) copies(t *testing.T) {
	t.Helper()
	image := registrytest.NewImage(2, 4, 1<<20)
	var layers []string
	for digest, blob := range image.Blobs {
		if len(blob) >= 1<<20 {
			layers = append(layers, digest)
		}
	}
	gates := map[string]chan struct{}{}
	for _, layer := range layers[1:] {
		gates[layer] = make(chan struct{})
	}
	w.Proxy.Fault(func(r *http.Request) registrytest.Fault {
		return registrytest.Fault{Delay: gates[path.Base(r.URL.Path)]}
	})
	push(t, w.pair, "team/big", "v1", image)
	const bar = `document.querySelector('progress[aria-label="team/big"]')`
	w.Until(bar + `?.value >= 20`) // the first layer is there
	w.is("syncing")
	before := browsertest.Eval[float64](w.Tab, bar+`.value`)
	w.shootAll(t, "copying")
	close(gates[layers[1]])
	w.Until(fmt.Sprintf(`%s?.value > %v && document.querySelector(".copying").textContent.includes(" of 4.0 MiB")`, bar, before))
	for _, layer := range layers[2:] {
		close(gates[layer])
	}
	w.is("healthy")
	w.Proxy.Fault(nil)
	w.Until(`!document.querySelector("progress")`)
	if !browsertest.Eval[bool](w.Tab, `window.loadedOnce === true`) {
		t.Error("the page was loaded anew")
	}
}

// fails lets the site's registry refuse a repository, with words that would do harm if they were more than words.
func (w *watched) fails(t *testing.T) {
	t.Helper()
	w.SiteProxy.Fault(func(r *http.Request) registrytest.Fault {
		if strings.Contains(r.URL.Path, "/bad/") && r.Method != http.MethodGet && r.Method != http.MethodHead {
			body := fmt.Sprintf(`{"errors":[{"code":"UNKNOWN","message":%q}]}`, hostile)
			return registrytest.Fault{Status: http.StatusInternalServerError, Body: body}
		}
		return registrytest.Fault{}
	})
	push(t, w.pair, "bad/app", "v1", image(3))
	w.Until(`document.querySelector('.troubled li[data-key="bad/app"]')?.textContent.includes("HTTP 500")`)
	w.is("degraded")
	text := browsertest.Eval[string](w.Tab, `document.querySelector('.troubled li[data-key="bad/app"]').textContent`)
	if err := contains(text, "destination side", "secondaryd explain bad/app", "secondaryd resync bad/app", "<script>"); err != nil {
		t.Error(err)
	}
	w.harmless(t, "/nodes/"+siteName)
	w.shootAll(t, "failed")
	w.SiteProxy.Fault(nil)
	w.Run(chromedp.Click(`.troubled li[data-key="bad/app"] button`, chromedp.ByQuery))
	w.did("became due")
	w.is("healthy")
}

// holds deletes more than the brake lets pass, and releases it by a click.
func (w *watched) holds(t *testing.T) {
	t.Helper()
	many := registrytest.NewClient(w.Registry.URL())
	defer many.Close()
	for i := range 6 {
		push(t, w.pair, "many", fmt.Sprint("v", i), image(4))
	}
	w.Converges(t, "many")
	w.paused(t, func() {
		for i := range 5 {
			if err := many.Delete(t.Context(), "many", fmt.Sprint("v", i)); err != nil {
				t.Fatal(err)
			}
		}
	})
	w.Until(`document.querySelector('.troubled li[data-key="many"]')?.textContent.includes("secondaryd release many")`)
	w.is("degraded")
	w.shootAll(t, "held")
	w.Run(chromedp.Click(`.troubled li[data-key="many"] button`, chromedp.ByQuery))
	w.did("was released")
	w.is("healthy")
	w.Converges(t, "many")
	if out := succeeds(t, w.Secondary, "explain", "many"); contains(out, "the brake was lifted by token on the status page, at the primary") != nil {
		t.Error(out)
	}
}

// paused does something while the site is paused, and lets that go on once it has heard of it: it is one sync then.
func (w *watched) paused(t *testing.T, do func()) {
	t.Helper()
	if _, err := w.Replication().Pause(t.Context(), &antipodev1.PauseRequest{}); err != nil {
		t.Fatal(err)
	}
	before := w.Status(t).GetHeadRevision()
	do()
	eventually(t, func(context.Context) error {
		if s := w.Status(t); s.GetCursorRevision() < before+5 {
			return fmt.Errorf("the cursor is at %d of %d", s.GetCursorRevision(), before+5)
		}
		return nil
	})
	if _, err := w.Replication().Resume(t.Context(), &antipodev1.ResumeRequest{}); err != nil {
		t.Fatal(err)
	}
}

// pausesAndResumes pauses by the keyboard, sees the site lag, and lets it go on by a click.
func (w *watched) pausesAndResumes(t *testing.T) {
	t.Helper()
	w.Run(chromedp.Focus(`form[action$="/pause"] button`), chromedp.KeyEvent(kb.Enter))
	w.did("was paused")
	w.is("paused")
	if !w.Status(t).GetPaused() {
		t.Error("the page says so, and the site does not")
	}
	push(t, w.pair, "app", "v2", image(5))
	w.Until(`!["0 s", ""].includes(document.querySelector(".big").textContent) && /[1-9]\d* pending/.test(document.querySelector(".legend").textContent)`)
	w.shootAll(t, "lagging")
	w.Run(chromedp.Click(`form[action$="/resume"] button`))
	w.did("goes on")
	w.is("healthy")
	w.Converges(t, "app")
}

// goesStale shows the site that was killed at the beginning, and the one that means ill, among all.
func (w *watched) goesStale(t *testing.T) {
	t.Helper()
	w.Open(w.Primary.URL() + "/")
	w.Until(`document.querySelector("#site-us-east .state").textContent.includes("stale")`)
	// Of a site that is silent nobody knows what it copies now.
	w.Until(`document.querySelector("#site-asia .state").textContent.includes("stale") && document.title !== "in" &&
		!document.querySelector("main script, main img, #site-asia .copying")`)
	w.shootAll(t, "overview")
	w.harmless(t, "/nodes/asia")
	w.shootAll(t, "hostile")
}

// harmless makes sure that what others said is text and nothing else.
func (w *watched) harmless(t *testing.T, path string) {
	t.Helper()
	w.Open(w.Primary.URL() + path)
	if !browsertest.Eval[bool](w.Tab, `!document.querySelector("main script, main img") && document.title !== "in" &&
		document.querySelector("main").textContent.includes("onerror=")`) {
		t.Errorf("%s: something got in, or was left out", path)
	}
}

// withoutScripts reads the same without JavaScript.
func (w *watched) withoutScripts(t *testing.T) {
	t.Helper()
	plain := tabs.NewTab(t)
	var text string
	plain.Run(network.SetExtraHTTPHeaders(network.Headers{"Authorization": "Bearer " + controlSecret}),
		emulation.SetScriptExecutionDisabled(true), chromedp.Navigate(w.Primary.URL()+"/"), chromedp.Text("main", &text))
	if err := contains(text, siteName, "us-east", "stale", "secondaryd doctor"); err != nil {
		t.Error(err)
	}
}
