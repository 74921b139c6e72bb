package main

import (
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestWhoMayAskOverHTTP walks all that secondaryd answers over HTTP, by token and by address, and checks the headers that
// every answer has.
func TestWhoMayAskOverHTTP(t *testing.T) {
	t.Parallel()
	const view = "view-0123456789abcdef"
	token := filepath.Join(t.TempDir(), "view")
	if err := os.WriteFile(token, []byte(view), 0o600); err != nil {
		t.Fatal(err)
	}
	closed, local := opened(t, func(cfg *settings) { cfg.HTTP.ViewTokenFile = token }), opened(t)
	callers := []struct {
		daemon           *daemon
		peer, host, auth string
	}{
		{closed, "127.0.0.1:1", "localhost", ""},
		{closed, "127.0.0.1:1", "localhost", "Bearer a-guess-0123456789"},
		{closed, "192.0.2.7:1", "elsewhere.example", "Bearer " + view},
		{local, "127.0.0.1:1", "localhost", ""},
		{local, "192.0.2.7:1", "localhost", ""},
		{local, "127.0.0.1:1", "elsewhere.example", ""},
	}
	for request, want := range map[string][6]int{
		"GET /api/v1/status":                {401, 401, 200, 200, 403, 403},
		"GET /api/v1/repositories":          {401, 401, 200, 200, 403, 403},
		"GET /api/v1/repositories/team/app": {401, 401, 404, 404, 403, 403},
		"GET /api/openapi.json":             {401, 401, 200, 200, 403, 403},
		"GET /api/none":                     {401, 401, 404, 404, 403, 403},
		"POST /api/v1/status":               {401, 401, 405, 405, 403, 403},
		"GET /metrics":                      {200, 200, 200, 200, 200, 200},
		"GET /healthz":                      {200, 200, 200, 200, 200, 200},
		"POST /metrics":                     {405, 405, 405, 405, 405, 405},
		"GET /":                             {404, 404, 404, 404, 404, 404},
		"POST /notifications":               {404, 404, 404, 404, 404, 404},
	} {
		method, path, _ := strings.Cut(request, " ")
		for i, caller := range callers {
			req := httptest.NewRequestWithContext(t.Context(), method, path, nil)
			req.RemoteAddr, req.Host = caller.peer, caller.host
			if caller.auth != "" {
				req.Header.Set("Authorization", caller.auth)
			}
			answer := httptest.NewRecorder()
			caller.daemon.web.ServeHTTP(answer, req)
			if answer.Code != want[i] {
				t.Errorf("%s by caller %d: %d, want %d", request, i, answer.Code, want[i])
			}
			for name, value := range map[string]string{
				"X-Content-Type-Options": "nosniff", "Referrer-Policy": "no-referrer", "Cache-Control": "no-store",
			} {
				if got := answer.Header().Values(name); len(got) != 1 || got[0] != value {
					t.Errorf("%s by caller %d: %s is %q", request, i, name, got)
				}
			}
			policy := answer.Header().Get("Content-Security-Policy")
			if !strings.Contains(policy, "default-src 'none'") || !strings.Contains(policy, "frame-ancestors 'none'") {
				t.Errorf("%s by caller %d: the policy is %q", request, i, policy)
			}
			if cookies := answer.Result().Cookies(); len(cookies) > 0 {
				t.Errorf("%s by caller %d sets %v", request, i, cookies)
			}
		}
	}
}
