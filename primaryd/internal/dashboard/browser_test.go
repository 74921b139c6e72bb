package dashboard_test

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"

	"github.com/antipode-registry/antipode/internal/browsertest"
	"github.com/antipode-registry/antipode/internal/database"
	"github.com/antipode-registry/antipode/internal/database/databasetest"
	"github.com/antipode-registry/antipode/internal/httpaccess"
	"github.com/antipode-registry/antipode/primaryd/internal/node"
	"github.com/antipode-registry/antipode/primaryd/internal/request"
)

// tabs is the one browser of these tests; TestMain stops it.
var tabs browsertest.Browser

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
	b := tabs.NewTab(t)
	for _, theme := range []string{"light", "dark"} {
		for _, page := range []struct{ name, path string }{
			{"overview", "/"},
			{"healthy", "/nodes/africa"},
			{"lagging", "/nodes/asia"},
			{"failed", "/nodes/eu-west"},
			{"held", "/nodes/us-east"},
			{"message", "/nodes/none"},
		} {
			b.Look(1100, 800, theme)
			b.Open(p.URL + page.path)
			b.Shoot(page.name + "-" + theme)
			if bad := b.Audit(); len(bad) > 0 {
				t.Errorf("%s, %s: %q", page.name, theme, bad)
			}
			b.Look(360, 740, theme)
			if bad := b.Audit(); len(bad) > 0 {
				t.Errorf("%s, %s, narrow: %q", page.name, theme, bad)
			}
			b.Shoot(page.name + "-" + theme + "-narrow")
		}
	}
}

// The page follows by itself: without being loaded anew, and without taking the focus or what was typed.
func TestPageFollows(t *testing.T) {
	p := start(t, databasetest.OpenSQLite(t), httpaccess.Config{}, "eu-west")
	p.report(t, "eu-west", nil)
	b := tabs.NewTab(t)
	b.Open(p.URL + "/")
	b.Run(chromedp.Evaluate(`window.here = true`, nil), chromedp.SendKeys("#q", "prod/api"))
	p.report(t, "eu-west", failed)
	b.Until(`document.querySelector("h1").textContent === "eu-west is degraded"`)
	if !browsertest.Eval[bool](b, `window.here && document.activeElement.id === "q" && document.querySelector("#q").value === "prod/api"`) {
		t.Error("it was loaded anew, or took the focus or the text")
	}
	p.report(t, "eu-west", nil)
	b.Until(`document.querySelector("h1").textContent === "The site is good" && !document.querySelector(".why")`)
	p.CloseClientConnections()
	p.Config.Handler = http.HandlerFunc(func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) })
	b.Until(`!document.getElementById("silent").hidden`)
}

func TestPageWithoutJavaScript(t *testing.T) {
	p := start(t, databasetest.OpenSQLite(t), httpaccess.Config{}, "eu-west")
	p.report(t, "eu-west", failed)
	b := tabs.NewTab(t)
	b.Run(emulation.SetScriptExecutionDisabled(true))
	b.Run(chromedp.Navigate(p.URL + "/"))
	var title, text string
	b.Run(chromedp.Title(&title), chromedp.Text("main", &text))
	if !strings.HasPrefix(title, "eu-west is degraded") || !strings.Contains(text, "507 Insufficient Storage") ||
		!strings.Contains(text, "secondaryd explain team/app") {
		t.Errorf("%q: %s", title, text)
	}
}

func TestHostileTextsDoNothing(t *testing.T) {
	p := start(t, databasetest.OpenSQLite(t), httpaccess.Config{}, "eu-west")
	p.report(t, "eu-west", hostileStatus)
	b := tabs.NewTab(t)
	for _, path := range []string{"/", "/nodes/eu-west"} {
		b.Open(p.URL + path)
		if got := browsertest.Eval[int](b, `document.querySelectorAll("main script, main img").length`); got != 0 {
			t.Errorf("%s: %d elements got in", path, got)
		}
	}
}

// The whole way by the keyboard: sign in, pause a site, sign out.
func TestControlByTheKeyboard(t *testing.T) {
	p := start(t, databasetest.OpenSQLite(t), httpaccess.Config{ControlTokenFile: tokenFile(t)}, "eu-west")
	p.report(t, "eu-west", nil)
	asked := p.answers(t, "eu-west", func(ask request.Ask) request.Answer { return request.Answer{Kind: ask.Kind} })
	b := tabs.NewTab(t)
	b.Open(p.URL + "/sign-in?next=/nodes/eu-west")
	b.Run(chromedp.Focus("#token"), chromedp.KeyEvent(controlToken+kb.Enter))
	b.Run(chromedp.WaitVisible("#control"))
	b.Shoot("control")
	if bad := b.Audit(); len(bad) > 0 {
		t.Errorf("%q", bad)
	}
	var order []string
	for range 20 {
		b.Run(chromedp.KeyEvent(kb.Tab))
		order = append(order, browsertest.Eval[string](b, `document.activeElement.textContent.trim() || document.activeElement.name || ""`))
		if order[len(order)-1] == "Pause" {
			break
		}
	}
	if !slices.Contains(order, "Skip to the content") || order[len(order)-1] != "Pause" {
		t.Fatalf("the order of the tab key: %q", order)
	}
	b.Run(chromedp.KeyEvent(kb.Enter))
	b.Run(chromedp.WaitVisible(".done"))
	if r := <-asked; r.Ask.Kind != request.Pause || !strings.HasPrefix(r.AskedBy, "token") {
		t.Errorf("%+v", r)
	}
	b.Run(chromedp.Submit(`footer form`))
	b.Run(chromedp.WaitVisible(`footer a[href="/sign-in"]`))
}

// A page of another origin cannot make a controller's browser ask anything.
func TestAnotherOriginCannotControl(t *testing.T) {
	p := start(t, databasetest.OpenSQLite(t), httpaccess.Config{ControlTokenFile: tokenFile(t)}, "eu-west")
	p.report(t, "eu-west", nil)
	asked := p.answers(t, "eu-west", func(ask request.Ask) request.Answer { return request.Answer{Kind: ask.Kind} })
	b := tabs.NewTab(t)
	b.Open(p.URL + "/sign-in")
	b.Run(chromedp.SendKeys("#token", controlToken+kb.Enter))
	b.Run(chromedp.WaitVisible(`form[action="/sign-out"]`))
	page := fmt.Sprintf(`<form method=post action="%s/nodes/eu-west/pause"><button id=go>x</button></form>`, p.URL)
	b.Run(chromedp.Navigate("data:text/html,"+url.PathEscape(page)), chromedp.Click("#go"))
	b.Run(chromedp.WaitVisible("main h1"))
	if text := browsertest.Eval[string](b, `document.body.textContent`); !strings.Contains(text, "Refused") {
		t.Error(text)
	}
	select {
	case r := <-asked:
		t.Errorf("the site was asked: %+v", r)
	default:
	}
}
