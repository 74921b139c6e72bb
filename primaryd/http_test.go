package main

import (
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// Tokens of these tests, besides the notification secret of the configuration.
const viewToken, controlToken = "view-0123456789abcdef", "control-0123456789abcdef"

// withTokens has the page and the JSON want tokens.
func withTokens(t *testing.T) func(*settings) {
	t.Helper()
	dir := t.TempDir()
	return func(cfg *settings) {
		cfg.HTTP.ViewTokenFile, cfg.HTTP.ControlTokenFile = filepath.Join(dir, "view"), filepath.Join(dir, "control")
		write(t, cfg.HTTP.ViewTokenFile, viewToken)
		write(t, cfg.HTTP.ControlTokenFile, controlToken)
	}
}

// ask is one request in process, from this machine unless changed. It checks the headers that every answer has.
func ask(t *testing.T, handler http.Handler, method, path string, changes ...func(*http.Request)) *httptest.ResponseRecorder {
	t.Helper()
	req := httptest.NewRequestWithContext(t.Context(), method, path, strings.NewReader(`{"events":[]}`))
	req.RemoteAddr, req.Host = "127.0.0.1:40000", "localhost:8080"
	req.Header.Set("Content-Type", "application/vnd.docker.distribution.events.v2+json")
	for _, change := range changes {
		change(req)
	}
	answer := httptest.NewRecorder()
	handler.ServeHTTP(answer, req)
	locked(t, method+" "+path, req, answer)
	return answer
}

// locked checks what a browser may do with an answer.
func locked(t *testing.T, what string, req *http.Request, answer *httptest.ResponseRecorder) {
	t.Helper()
	cache := "no-store"
	if strings.HasPrefix(req.URL.Path, "/assets/") && answer.Code == http.StatusOK {
		cache = "public, max-age=31536000, immutable"
	}
	for name, want := range map[string]string{
		"X-Content-Type-Options": "nosniff", "Referrer-Policy": "no-referrer", "Cache-Control": cache,
		"Cross-Origin-Opener-Policy": "same-origin", "Cross-Origin-Resource-Policy": "same-origin",
	} {
		if got := answer.Header().Values(name); len(got) != 1 || got[0] != want {
			t.Errorf("%s: %d with %s %q, want %q", what, answer.Code, name, got, want)
		}
	}
	policy := answer.Header().Get("Content-Security-Policy")
	for _, part := range []string{"default-src 'none'", "frame-ancestors 'none'", "base-uri 'none'", "form-action 'self'"} {
		if !strings.Contains(policy, part) {
			t.Errorf("%s: the policy %q lacks %s", what, policy, part)
		}
	}
	if strings.Contains(policy, "unsafe") {
		t.Errorf("%s: the policy is %q", what, policy)
	}
	for _, cookie := range answer.Result().Cookies() {
		secure := req.Header.Get("X-Forwarded-Proto") == "https"
		if !cookie.HttpOnly || cookie.SameSite != http.SameSiteStrictMode || cookie.Secure != secure || cookie.Path != "/" {
			t.Errorf("%s sets %v", what, cookie)
		}
	}
}

// bearer presents a secret, or none.
func bearer(secret string) func(*http.Request) {
	return func(req *http.Request) {
		if secret != "" {
			req.Header.Set("Authorization", "Bearer "+secret)
		}
	}
}

// TestWhoMayAskOverHTTP walks all that primaryd answers over HTTP by every secret there is.
func TestWhoMayAskOverHTTP(t *testing.T) {
	t.Parallel()
	d := opened(t, withTokens(t))
	callers := []string{"", "a-guess-0123456789", "s3cret", viewToken, controlToken}
	page := [5]int{401, 401, 401, 200, 200}
	open := [5]int{200, 200, 200, 200, 200}
	for request, want := range map[string][5]int{
		"GET /":                           page,
		"GET /repositories":               {401, 401, 401, 400, 400},
		"GET /repositories/team/app":      page,
		"GET /nodes/none":                 {401, 401, 401, 404, 404},
		"POST /nodes/none/pause":          {401, 401, 401, 403, 404},
		"POST /nodes/none/resume":         {401, 401, 401, 403, 404},
		"POST /nodes/none/resync":         {401, 401, 401, 403, 400},
		"POST /nodes/none/release":        {401, 401, 401, 403, 400},
		"GET /api/v1/nodes":               page,
		"GET /api/v1/nodes/none":          {401, 401, 401, 404, 404},
		"GET /api/v1/nodes/none/history":  {401, 401, 401, 404, 404},
		"GET /api/v1/repositories":        page,
		"GET /api/v1/locate":              {401, 401, 401, 400, 400},
		"GET /api/openapi.json":           page,
		"GET /api/none":                   {401, 401, 401, 404, 404},
		"POST /api/v1/nodes":              {401, 401, 401, 405, 405},
		"POST /notifications":             {401, 401, 200, 401, 401},
		"GET /notifications":              {405, 405, 405, 405, 405},
		"GET /metrics":                    open,
		"GET /healthz":                    open,
		"GET /readyz":                     open,
		"GET /sign-in":                    open,
		"POST /sign-in":                   {403, 403, 403, 403, 403},
		"POST /sign-out":                  {303, 303, 303, 303, 303}, // without a session there is nothing to do
		"GET /assets/none":                {404, 404, 404, 404, 404},
		"GET /none":                       {404, 404, 404, 404, 404},
		"DELETE /nodes/none":              {405, 405, 405, 405, 405},
		"GET /notifications/none":         {404, 404, 404, 404, 404},
		"POST /metrics":                   {404, 404, 404, 404, 404},
		"GET /api/v1/../../notifications": {307, 307, 307, 307, 307},
	} {
		method, path, _ := strings.Cut(request, " ")
		for i, caller := range callers {
			if answer := ask(t, d.web, method, path, bearer(caller)); answer.Code != want[i] {
				t.Errorf("%s with %q: %d, want %d", request, caller, answer.Code, want[i])
			}
		}
	}
}

// TestWhoMayAskOverHTTPByAddress: without tokens, this machine may look and nobody may control.
func TestWhoMayAskOverHTTPByAddress(t *testing.T) {
	t.Parallel()
	d := opened(t)
	callers := []func(*http.Request){
		func(*http.Request) {},
		func(req *http.Request) { req.RemoteAddr = "192.0.2.7:1000" },
		func(req *http.Request) { req.Host = "elsewhere.example" },
		func(req *http.Request) { req.Header.Set("X-Forwarded-For", "192.0.2.7") },
	}
	page, open := [4]int{200, 403, 403, 403}, [4]int{200, 200, 200, 200}
	for request, want := range map[string][4]int{
		"GET /":                    page,
		"GET /repositories":        {400, 403, 403, 403},
		"GET /api/v1/nodes":        page,
		"GET /api/v1/repositories": page,
		"POST /nodes/none/pause":   {403, 403, 403, 403},
		"GET /metrics":             open,
		"GET /healthz":             open,
		"POST /notifications":      {401, 401, 401, 401},
		"GET /sign-in":             {404, 404, 404, 404},
	} {
		method, path, _ := strings.Cut(request, " ")
		for i, caller := range callers {
			if answer := ask(t, d.web, method, path, caller); answer.Code != want[i] {
				t.Errorf("%s by caller %d: %d, want %d", request, i, answer.Code, want[i])
			}
		}
	}
}

// TestCookiesHaveTheirFlags signs in, in plain text and behind a proxy with TLS, and asks for what the page loads.
func TestCookiesHaveTheirFlags(t *testing.T) {
	t.Parallel()
	d := opened(t, withTokens(t))
	for _, proto := range []string{"", "https"} {
		by := func(req *http.Request) {
			if proto != "" {
				req.Header.Set("X-Forwarded-Proto", proto)
			}
		}
		form := ask(t, d.web, http.MethodGet, "/sign-in", by)
		token := regexp.MustCompile(`name="form_token" value="([^"]+)"`).FindStringSubmatch(form.Body.String())
		if token == nil || len(form.Result().Cookies()) != 1 {
			t.Fatalf("the form has no token or no cookie:\n%s", form.Body)
		}
		signed := ask(t, d.web, http.MethodPost, "/sign-in", by, func(req *http.Request) {
			req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
			req.Header.Set("Sec-Fetch-Site", "same-origin")
			req.AddCookie(form.Result().Cookies()[0])
			fields := httptest.NewRequestWithContext(t.Context(), http.MethodPost, "/sign-in",
				strings.NewReader("form_token="+token[1]+"&token="+viewToken))
			req.Body = fields.Body
		})
		if signed.Code != http.StatusSeeOther || len(signed.Result().Cookies()) != 1 {
			t.Fatalf("signing in: %d %v", signed.Code, signed.Result().Cookies())
		}
		for _, path := range regexp.MustCompile(`/assets/[^"]+`).FindAllString(form.Body.String(), -1) {
			if asset := ask(t, d.web, http.MethodGet, path, by); asset.Code != http.StatusOK {
				t.Errorf("%s: %d", path, asset.Code)
			}
		}
	}
}

// A token that cannot be read lets nobody in, and does not stop notifications.
func TestTokensThatVanish(t *testing.T) {
	t.Parallel()
	d := opened(t, withTokens(t))
	if err := os.Remove(d.cfg.HTTP.ControlTokenFile); err != nil {
		t.Fatal(err)
	}
	for request, want := range map[string]int{
		"GET /": 503, "GET /api/v1/nodes": 503, "POST /notifications": 200, "GET /metrics": 200,
	} {
		method, path, _ := strings.Cut(request, " ")
		secret := viewToken
		if path == "/notifications" {
			secret = "s3cret"
		}
		if answer := ask(t, d.web, method, path, bearer(secret)); answer.Code != want {
			t.Errorf("%s: %d, want %d", request, answer.Code, want)
		}
	}
}
