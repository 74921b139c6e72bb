// Package browsertest opens pages in a real Chromium, for tests.
//
// It guarantees that a tab begins without cookies, and that what a page logs against its content security policy, or
// throws, fails its test. It refuses to go without the browser: .ci/packages installs it.
package browsertest

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/log"
	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"
)

// Screenshots names the environment variable of the folder that gets pictures of the pages; empty for none.
const Screenshots = "ANTIPODE_SCREENSHOTS"

// patience bounds everything that is waited for: the machine may be busy with others.
const patience = 2 * time.Minute

// Browser is one browser for the tests of a package. The zero value starts it with the first tab.
type Browser struct {
	once sync.Once
	ctx  context.Context //nolint:containedctx // of the browser's life, which is the tests'
	stop func()
	err  error
}

func (b *Browser) start() {
	path, err := exec.LookPath("chromium")
	if err != nil {
		b.err = err
		return
	}
	ctx, stop := chromedp.NewExecAllocator(context.Background(), append(chromedp.DefaultExecAllocatorOptions[:],
		chromedp.ExecPath(path), chromedp.NoSandbox, chromedp.DisableGPU, chromedp.Flag("disable-quic", true),
		chromedp.Flag("disable-component-update", true), chromedp.WSURLReadTimeout(patience))...)
	ctx, stopTab := chromedp.NewContext(ctx)
	b.ctx, b.stop = ctx, func() { stopTab(); stop() }
	b.err = chromedp.Run(ctx)
}

// Stop ends the browser, if it was started. Call it after the last test.
func (b *Browser) Stop() {
	if b.stop != nil {
		b.stop()
	}
}

// Tab is a page in the browser. Its methods are for the goroutine of its test, and fail it.
type Tab struct {
	t   testing.TB
	ctx context.Context //nolint:containedctx // of the tab's life, which is the test's
}

// NewTab opens a tab for the length of the test.
func (b *Browser) NewTab(t testing.TB) *Tab {
	t.Helper()
	b.once.Do(b.start)
	if b.err != nil {
		t.Fatalf("no chromium, which .ci/packages installs: %v", b.err)
	}
	ctx, stop := chromedp.NewContext(b.ctx)
	t.Cleanup(stop)
	if err := chromedp.Run(ctx); err != nil { // the tab lives as long as the context of its first run
		t.Fatal(err)
	}
	tab := &Tab{t: t, ctx: ctx}
	tab.listen()
	tab.Run(log.Enable(), network.ClearBrowserCookies())
	return tab
}

// listen fails the test for what the browser complains of.
func (b *Tab) listen() {
	var mu sync.Mutex
	var said []string
	chromedp.ListenTarget(b.ctx, func(event any) {
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
	b.t.Cleanup(func() {
		mu.Lock()
		defer mu.Unlock()
		if len(said) > 0 {
			b.t.Errorf("the browser complains: %q", said)
		}
	})
}

// Run does something in the tab.
func (b *Tab) Run(actions ...chromedp.Action) {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(b.ctx, patience)
	defer cancel()
	if err := chromedp.Run(ctx, actions...); err != nil {
		b.t.Fatal(err)
	}
}

// Open loads a page.
func (b *Tab) Open(url string) {
	b.t.Helper()
	b.Run(chromedp.Navigate(url), chromedp.WaitVisible("main, h1"))
}

// Until waits for a condition in the page, also when that goes on to another one meanwhile.
func (b *Tab) Until(condition string) {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(b.ctx, patience)
	defer cancel()
	for {
		err := chromedp.Run(ctx, chromedp.WaitReady("body"), chromedp.Poll(condition, nil, chromedp.WithPollingTimeout(patience)))
		if err == nil {
			return
		}
		if ctx.Err() != nil || errors.Is(err, chromedp.ErrPollingTimeout) {
			b.t.Fatalf("%s: %v; the page says:\n%s", condition, err, Eval[string](b, `document.body?.innerText ?? ""`))
		}
	}
}

// Eval returns the value of an expression in the page.
func Eval[T any](b *Tab, expression string) (value T) {
	b.t.Helper()
	b.Run(chromedp.Evaluate(expression, &value))
	return value
}

// Look sets the size of the window, and the theme: light or dark.
func (b *Tab) Look(wide, high int64, theme string) {
	b.t.Helper()
	b.Run(chromedp.EmulateViewport(wide, high), emulation.SetEmulatedMedia().WithFeatures(
		[]*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: theme}}))
}

// Audit returns what of the page somebody could not use, in words.
func (b *Tab) Audit() []string {
	b.t.Helper()
	return Eval[[]string](b, audit)
}

// Shoot leaves a picture of the page in the folder for them, if there is one.
func (b *Tab) Shoot(name string) {
	b.t.Helper()
	folder := os.Getenv(Screenshots)
	if folder == "" {
		return
	}
	var picture []byte
	b.Run(chromedp.FullScreenshot(&picture, 100))
	if err := os.WriteFile(filepath.Join(folder, name+".png"), picture, 0o600); err != nil {
		b.t.Fatal(err)
	}
}
