package dashboard_test

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/log"
	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"

	"github.com/antipode-registry/antipode/internal/database"
	"github.com/antipode-registry/antipode/internal/database/databasetest"
	"github.com/antipode-registry/antipode/internal/httpaccess"
	"github.com/antipode-registry/antipode/primaryd/internal/node"
	"github.com/antipode-registry/antipode/primaryd/internal/request"
)

// screenshots is the folder that gets pictures of the pages; empty for none.
const screenshots = "ANTIPODE_SCREENSHOTS"

var (
	stopBrowser = func() {}
	browser     = sync.OnceValue(func() context.Context {
		path, err := exec.LookPath("chromium")
		if err != nil {
			return nil
		}
		ctx, stop := chromedp.NewExecAllocator(context.Background(), append(chromedp.DefaultExecAllocatorOptions[:],
			chromedp.ExecPath(path), chromedp.NoSandbox, chromedp.DisableGPU, chromedp.Flag("disable-quic", true),
			chromedp.Flag("disable-component-update", true), chromedp.WSURLReadTimeout(2*time.Minute))...)
		ctx, stopTab := chromedp.NewContext(ctx)
		stopBrowser = func() { stopTab(); stop() }
		if err := chromedp.Run(ctx); err != nil {
			panic(err)
		}
		return ctx
	})
)

// tab is a page in the one browser of these tests, which begins without cookies. Whatever the page logs is an error.
type tab struct {
	t   *testing.T
	ctx context.Context
}

func newTab(t *testing.T) *tab {
	t.Helper()
	parent := browser()
	if parent == nil {
		t.Fatal("chromium is missing: run .ci/packages")
	}
	ctx, stop := chromedp.NewContext(parent)
	ctx, cancel := context.WithTimeout(ctx, 3*time.Minute)
	t.Cleanup(func() { cancel(); stop() })
	b := &tab{t: t, ctx: ctx}
	var mu sync.Mutex
	var said []string
	chromedp.ListenTarget(ctx, func(event any) {
		mu.Lock()
		defer mu.Unlock()
		switch e := event.(type) {
		case *log.EventEntryAdded:
			if e.Entry.Source == log.SourceSecurity || strings.Contains(e.Entry.Text, "Content Security Policy") {
				said = append(said, e.Entry.Text)
			}
		case *runtime.EventExceptionThrown:
			said = append(said, e.ExceptionDetails.Error())
		}
	})
	t.Cleanup(func() {
		mu.Lock()
		defer mu.Unlock()
		if len(said) > 0 {
			t.Errorf("the browser complains: %q", said)
		}
	})
	b.run(log.Enable(), network.ClearBrowserCookies())
	return b
}

func (b *tab) run(actions ...chromedp.Action) {
	b.t.Helper()
	if err := chromedp.Run(b.ctx, actions...); err != nil {
		b.t.Fatal(err)
	}
}

// open loads a page of the primary.
func (b *tab) open(p *primary, path string) {
	b.t.Helper()
	b.run(chromedp.Navigate(p.URL+path), chromedp.WaitVisible("main, h1"))
}

// until waits for a condition in the page.
func (b *tab) until(condition string) {
	b.t.Helper()
	b.run(chromedp.Poll(condition, nil, chromedp.WithPollingTimeout(2*time.Minute)))
}

func eval[T any](b *tab, expression string) (value T) {
	b.t.Helper()
	b.run(chromedp.Evaluate(expression, &value))
	return value
}

func (b *tab) look(wide, high int64, theme string) {
	b.t.Helper()
	b.run(chromedp.EmulateViewport(wide, high), emulation.SetEmulatedMedia().WithFeatures(
		[]*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: theme}}))
}

func (b *tab) shoot(name string) {
	b.t.Helper()
	folder := os.Getenv(screenshots)
	if folder == "" {
		return
	}
	var picture []byte
	b.run(chromedp.FullScreenshot(&picture, 100))
	if err := os.WriteFile(filepath.Join(folder, name+".png"), picture, 0o600); err != nil {
		b.t.Fatal(err)
	}
}

// audit is what of the page somebody could not use, in words: names, landmarks, headings, contrast.
const audit = `(() => {
  const bad = [];
  const parse = (c) => (c.match(/[\d.]+/g) || []).map(Number);
  const light = ([r, g, b]) => [r, g, b].map((v) => (v /= 255) <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
    .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
  const ground = (e) => {
    for (; e; e = e.parentElement) {
      const c = parse(getComputedStyle(e).backgroundColor);
      if (c.length && (c.length < 4 || c[3] > 0)) return c;
    }
    return [255, 255, 255];
  };
  for (const e of document.querySelectorAll("body *")) {
    const own = [...e.childNodes].some((n) => n.nodeType === 3 && n.data.trim());
    if (!own || !e.getClientRects().length || e.closest(".skip, .hidden, svg, [hidden]")) continue;
    const style = getComputedStyle(e);
    const [a, b] = [light(parse(style.color)), light(ground(e))].sort((x, y) => y - x);
    const large = parseFloat(style.fontSize) >= 24;
    const ratio = (a + 0.05) / (b + 0.05);
    if (ratio < (large ? 3 : 4.5)) bad.push("contrast " + ratio.toFixed(2) + " of " + e.textContent.trim().slice(0, 40));
  }
  for (const e of document.querySelectorAll("input:not([type=hidden])")) if (!e.labels.length) bad.push("no label: " + e.name);
  for (const e of document.querySelectorAll("a, button")) if (!e.textContent.trim()) bad.push("no name: " + e.outerHTML);
  for (const e of document.querySelectorAll("img")) if (!e.hasAttribute("alt")) bad.push("no text: " + e.src);
  for (const e of document.querySelectorAll("svg:not([aria-hidden])")) if (!e.getAttribute("aria-label")) bad.push("no text: svg");
  for (const e of document.querySelectorAll("progress")) if (!e.getAttribute("aria-label")) bad.push("no name: progress");
  for (const what of ["main", "h1", "footer", "header", "[role=search]"])
    if (document.querySelectorAll(what === "header" ? "body > header" : what).length !== 1) bad.push("not one " + what);
  const ids = [...document.querySelectorAll("[id]")].map((e) => e.id);
  if (new Set(ids).size !== ids.length) bad.push("an id twice");
  let level = 0;
  for (const h of document.querySelectorAll("h1, h2, h3")) {
    const l = Number(h.tagName[1]);
    if (l > level + 1) bad.push("a heading is skipped before " + h.textContent);
    level = l;
  }
  if (!document.documentElement.lang) bad.push("no language");
  if (document.documentElement.scrollWidth > document.documentElement.clientWidth) bad.push("wider than the screen");
  return bad;
})()`

// remember gives a site a day of samples, with a gap.
func remember(t *testing.T, db *database.DB, name string) {
	t.Helper()
	err := db.Write(t.Context(), func(ctx context.Context, tx *database.Tx) error {
		minute := time.Now().Truncate(time.Minute)
		for i := range 1400 {
			lag := int64(0)
			if i%211 < 9 {
				lag = int64(i%211) * 2500
			}
			if i < 60 {
				lag = int64(60-i) * 3000
			}
			if i > 700 && i < 760 {
				continue
			}
			_, err := tx.ExecContext(ctx, "INSERT INTO node_sample VALUES ($1, $2, $3, $4, $5, 0, 0) ON CONFLICT DO NOTHING", name,
				minute.Add(-time.Duration(i)*time.Minute).UnixMilli(), lag, lag/1000, lag*90_000+int64(i%7)<<20)
			if err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestEveryPageIsUsableByAll(t *testing.T) {
	db := databasetest.OpenSQLite(t)
	p := start(t, db, httpaccess.Config{}, "africa", "asia", "eu-west", "us-east")
	for name, change := range map[string]func(*node.Status){"africa": nil, "asia": lagging, "eu-west": storage, "us-east": held} {
		p.report(t, name, change)
		remember(t, db, name)
	}
	b := newTab(t)
	for _, theme := range []string{"light", "dark"} {
		for _, page := range []struct{ name, path string }{
			{"overview", "/"},
			{"healthy", "/nodes/africa"},
			{"lagging", "/nodes/asia"},
			{"failed", "/nodes/eu-west"},
			{"held", "/nodes/us-east"},
			{"message", "/nodes/none"},
		} {
			b.look(1100, 800, theme)
			b.open(p, page.path)
			b.shoot(page.name + "-" + theme)
			if bad := eval[[]string](b, audit); len(bad) > 0 {
				t.Errorf("%s, %s: %q", page.name, theme, bad)
			}
			b.look(360, 740, theme)
			if bad := eval[[]string](b, audit); len(bad) > 0 {
				t.Errorf("%s, %s, narrow: %q", page.name, theme, bad)
			}
			b.shoot(page.name + "-" + theme + "-narrow")
		}
	}
}

// The page follows by itself: without being loaded anew, and without taking the focus or what was typed.
func TestPageFollows(t *testing.T) {
	p := start(t, databasetest.OpenSQLite(t), httpaccess.Config{}, "eu-west")
	p.report(t, "eu-west", nil)
	b := newTab(t)
	b.open(p, "/")
	b.run(chromedp.Evaluate(`window.here = true`, nil), chromedp.SendKeys("#q", "prod/api"))
	p.report(t, "eu-west", failed)
	b.until(`document.querySelector("h1").textContent === "eu-west is degraded"`)
	if !eval[bool](b, `window.here && document.activeElement.id === "q" && document.querySelector("#q").value === "prod/api"`) {
		t.Error("it was loaded anew, or took the focus or the text")
	}
	p.report(t, "eu-west", nil)
	b.until(`document.querySelector("h1").textContent === "The site is good" && !document.querySelector(".why")`)
	p.CloseClientConnections()
	p.Config.Handler = http.HandlerFunc(func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) })
	b.until(`!document.getElementById("silent").hidden`)
}

func TestPageWithoutJavaScript(t *testing.T) {
	p := start(t, databasetest.OpenSQLite(t), httpaccess.Config{}, "eu-west")
	p.report(t, "eu-west", failed)
	b := newTab(t)
	b.run(emulation.SetScriptExecutionDisabled(true))
	b.run(chromedp.Navigate(p.URL + "/"))
	var title, text string
	b.run(chromedp.Title(&title), chromedp.Text("main", &text))
	if !strings.HasPrefix(title, "eu-west is degraded") || !strings.Contains(text, "507 Insufficient Storage") ||
		!strings.Contains(text, "secondaryd explain team/app") {
		t.Errorf("%q: %s", title, text)
	}
}

func TestHostileTextsDoNothing(t *testing.T) {
	p := start(t, databasetest.OpenSQLite(t), httpaccess.Config{}, "eu-west")
	p.report(t, "eu-west", hostileStatus)
	b := newTab(t)
	for _, path := range []string{"/", "/nodes/eu-west"} {
		b.open(p, path)
		if got := eval[int](b, `document.querySelectorAll("main script, main img").length`); got != 0 {
			t.Errorf("%s: %d elements got in", path, got)
		}
	}
}

// The whole way by the keyboard: sign in, pause a site, sign out.
func TestControlByTheKeyboard(t *testing.T) {
	p := start(t, databasetest.OpenSQLite(t), httpaccess.Config{ControlTokenFile: tokenFile(t)}, "eu-west")
	p.report(t, "eu-west", nil)
	asked := p.answers(t, "eu-west", func(ask request.Ask) request.Answer { return request.Answer{Kind: ask.Kind} })
	b := newTab(t)
	b.open(p, "/sign-in?next=/nodes/eu-west")
	b.run(chromedp.Focus("#token"), chromedp.KeyEvent(controlToken+kb.Enter))
	b.run(chromedp.WaitVisible("#control"))
	b.shoot("control")
	if bad := eval[[]string](b, audit); len(bad) > 0 {
		t.Errorf("%q", bad)
	}
	var order []string
	for range 20 {
		b.run(chromedp.KeyEvent(kb.Tab))
		order = append(order, eval[string](b, `document.activeElement.textContent.trim() || document.activeElement.name || ""`))
		if order[len(order)-1] == "Pause" {
			break
		}
	}
	if !slices.Contains(order, "Skip to the content") || order[len(order)-1] != "Pause" {
		t.Fatalf("the order of the tab key: %q", order)
	}
	b.run(chromedp.KeyEvent(kb.Enter))
	b.run(chromedp.WaitVisible(".done"))
	if r := <-asked; r.Ask.Kind != request.Pause || !strings.HasPrefix(r.AskedBy, "token") {
		t.Errorf("%+v", r)
	}
	b.run(chromedp.Submit(`footer form`))
	b.run(chromedp.WaitVisible(`footer a[href="/sign-in"]`))
}

// A page of another origin cannot make a controller's browser ask anything.
func TestAnotherOriginCannotControl(t *testing.T) {
	p := start(t, databasetest.OpenSQLite(t), httpaccess.Config{ControlTokenFile: tokenFile(t)}, "eu-west")
	p.report(t, "eu-west", nil)
	asked := p.answers(t, "eu-west", func(ask request.Ask) request.Answer { return request.Answer{Kind: ask.Kind} })
	b := newTab(t)
	b.open(p, "/sign-in")
	b.run(chromedp.SendKeys("#token", controlToken+kb.Enter))
	b.run(chromedp.WaitVisible(`form[action="/sign-out"]`))
	page := fmt.Sprintf(`<form method=post action="%s/nodes/eu-west/pause"><button id=go>x</button></form>`, p.URL)
	b.run(chromedp.Navigate("data:text/html,"+url.PathEscape(page)), chromedp.Click("#go"))
	b.run(chromedp.WaitVisible("main h1"))
	if text := eval[string](b, `document.body.textContent`); !strings.Contains(text, "Refused") {
		t.Error(text)
	}
	select {
	case r := <-asked:
		t.Errorf("the site was asked: %+v", r)
	default:
	}
}
