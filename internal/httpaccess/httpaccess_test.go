package httpaccess_test

import (
	"context"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/antipode-registry/antipode/internal/httpaccess"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	viewToken    = "view-0123456789abcdef"
	controlToken = "control-0123456789abcdef"
)

func tokenFile(t *testing.T, token string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(path, []byte(token+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func open(t *testing.T, cfg httpaccess.Config) *httpaccess.Room {
	t.Helper()
	cfg.Logger = slog.New(slog.DiscardHandler)
	room, err := httpaccess.Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return room
}

// request is one from the peer, as a browser on this machine sends it if nothing else is said.
type request struct {
	peer, host string
	header     http.Header
}

func (r request) make(ctx context.Context, method, target string, form url.Values) *http.Request {
	req := httptest.NewRequestWithContext(ctx, method, target, strings.NewReader(form.Encode()))
	req.RemoteAddr, req.Host = "127.0.0.1:40000", "localhost:8080"
	if r.peer != "" {
		req.RemoteAddr = r.peer
	}
	if r.host != "" {
		req.Host = r.host
	}
	for name, values := range r.header {
		req.Header[http.CanonicalHeaderKey(name)] = values
	}
	if method == http.MethodPost {
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	return req
}

// enter returns what the room's handler saw of the caller, and the status.
func enter(room *httpaccess.Room, req *http.Request) (caller httpaccess.Caller, answer *httptest.ResponseRecorder) {
	answer = httptest.NewRecorder()
	room.Admit(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		caller = httpaccess.CallerFrom(r.Context())
	}), nil).ServeHTTP(answer, req)
	return caller, answer
}

func header(pairs ...string) http.Header {
	h := http.Header{}
	for i := 0; i < len(pairs); i += 2 {
		h.Add(pairs[i], pairs[i+1])
	}
	return h
}

func TestWhoComesIn(t *testing.T) {
	t.Parallel()
	view, control := tokenFile(t, viewToken), tokenFile(t, controlToken)
	var (
		nothing = httpaccess.Config{}
		named   = httpaccess.Config{Hosts: []string{"status.example.com"}}
		tokens  = httpaccess.Config{ViewTokenFile: view, ControlTokenFile: control}
		half    = httpaccess.Config{ControlTokenFile: control}
		proxy   = httpaccess.Config{
			ProxyHeader: "X-Forwarded-User", ProxyTrusted: []netip.Prefix{netip.MustParsePrefix("10.1.0.0/16")},
			Controllers: []string{"ann"}, Hosts: []string{"status.example.com"},
		}
	)
	user := func(name string) http.Header { return header("X-Forwarded-User", name, "X-Forwarded-For", "192.0.2.1") }
	bearer := func(token string) http.Header { return header("Authorization", "Bearer "+token) }
	const remote, front = "192.0.2.7:1000", "10.1.2.3:1000"
	tests := []struct {
		name   string
		cfg    httpaccess.Config
		req    request
		status int
		reason string
		caller string
		may    bool // control
	}{
		{"this machine", nothing, request{}, 200, "", "this machine", false},
		{"this machine by IPv6", nothing, request{peer: "[::1]:4000", host: "[::1]:8080"}, 200, "", "this machine", false},
		{"this machine by IPv4 in IPv6", nothing, request{peer: "[::ffff:127.0.0.1]:1"}, 200, "", "this machine", false},
		{"another machine", nothing, request{peer: remote}, 403, "http.view_token_file", "", false},
		{"a name that resolves to this machine", nothing, request{host: "evil.example:8080"}, 403, "http.hosts", "", false},
		{"a name that only begins well", nothing, request{host: "localhost.evil.example"}, 403, "http.hosts", "", false},
		{"no name", nothing, request{host: ":8080"}, 403, "http.hosts", "", false},
		{"a name of ours", named, request{host: "Status.example.com:80"}, 200, "", "this machine", false},
		{"a proxy nobody knows of", nothing, request{header: user("ann")}, 403, "http.proxy is not configured", "", false},
		{"a token where there is none", nothing, request{header: bearer(viewToken)}, 401, "not the one", "", false},

		{"no token", tokens, request{}, 401, "a token is needed", "", false},
		{"the token to look", tokens, request{peer: remote, header: bearer(viewToken)}, 200, "", "token", false},
		{"the token to control", tokens, request{peer: remote, header: bearer(controlToken)}, 200, "", "token", true},
		{"by any name", tokens, request{host: "a.example", header: bearer(viewToken)}, 200, "", "token", false},
		{"a wrong token", tokens, request{header: bearer(viewToken + "x")}, 401, "not the one", "", false},
		{"an empty token", tokens, request{header: bearer("")}, 401, "not the one", "", false},
		{"another scheme", tokens, request{header: header("Authorization", "Basic "+viewToken)}, 401, "not the one", "", false},
		{"a token to control alone", half, request{}, 200, "", "this machine", false},
		{"and from elsewhere", half, request{peer: remote}, 401, "only this machine", "", false},

		{"a user", proxy, request{peer: front, host: "status.example.com", header: user("bob")}, 200, "", "bob", false},
		{"one who may control", proxy, request{peer: front, host: "status.example.com", header: user("ann")}, 200, "", "ann", true},
		{"in another spelling", proxy, request{peer: front, host: "status.example.com", header: user("Ann")}, 200, "", "Ann", false},
		{"around the proxy", proxy, request{peer: remote, header: user("ann")}, 403, "http.proxy.trusted", "", false},
		{"this machine is no proxy", proxy, request{header: user("ann")}, 403, "http.proxy.trusted", "", false},
		{"by another name", proxy, request{peer: front, host: "evil.example", header: user("ann")}, 403, "http.hosts", "", false},
		{"nobody", proxy, request{peer: front}, 403, "named no user", "", false},
		{"two at once", proxy, request{peer: front, header: header("X-Forwarded-User", "bob", "X-Forwarded-User", "ann")}, 403, "named no user", "", false},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			caller, answer := enter(open(t, test.cfg), test.req.make(t.Context(), http.MethodGet, "/", nil))
			if answer.Code != test.status || !strings.Contains(answer.Body.String(), test.reason) {
				t.Errorf("%d %s", answer.Code, answer.Body)
			}
			if caller.Name != test.caller || caller.Control != test.may {
				t.Errorf("%+v", caller)
			}
			if got := answer.Header().Get("WWW-Authenticate") != ""; got != (test.status == http.StatusUnauthorized) {
				t.Errorf("asks for a token: %v", got)
			}
			if !strings.Contains(answer.Header().Get("Content-Security-Policy"), "default-src 'none'") {
				t.Error("no policy")
			}
		})
	}
}

// signIn returns the browser's cookies after signing in.
func signIn(t *testing.T, room *httpaccess.Room, token string, with request) []*http.Cookie {
	t.Helper()
	answer := httptest.NewRecorder()
	right, err := room.SignIn(answer, with.make(t.Context(), http.MethodPost, "/sign-in", nil), token)
	if err != nil || !right {
		t.Fatalf("SignIn = %v, %v", right, err)
	}
	return answer.Result().Cookies()
}

func withCookies(req *http.Request, cookies []*http.Cookie) *http.Request {
	for _, cookie := range cookies {
		req.AddCookie(cookie)
	}
	return req
}

func TestASessionLastsAShift(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cfg := httpaccess.Config{ViewTokenFile: tokenFile(t, viewToken), ControlTokenFile: tokenFile(t, controlToken)}
		room, replica := open(t, cfg), open(t, cfg)
		cookies := signIn(t, room, " "+controlToken+"\n", request{})
		look := func(room *httpaccess.Room) (httpaccess.Caller, int) {
			caller, answer := enter(room, withCookies(request{peer: "192.0.2.7:1"}.make(t.Context(), http.MethodGet, "/", nil), cookies))
			return caller, answer.Code
		}
		if caller, code := look(room); code != 200 || !caller.Control || !caller.Session {
			t.Errorf("%d %+v", code, caller)
		}
		if caller, code := look(replica); code != 200 || !caller.Control {
			t.Errorf("another replica: %d %+v", code, caller)
		}
		<-time.After(12 * time.Hour)
		if _, code := look(room); code != 401 {
			t.Errorf("twelve hours later: %d", code)
		}
	})
}

func TestAChangedTokenEndsItsSessions(t *testing.T) {
	t.Parallel()
	cfg := httpaccess.Config{ViewTokenFile: tokenFile(t, viewToken), ControlTokenFile: tokenFile(t, controlToken)}
	room := open(t, cfg)
	viewer, controller := signIn(t, room, viewToken, request{}), signIn(t, room, controlToken, request{})
	if err := os.WriteFile(cfg.ControlTokenFile, []byte("another-control-token"), 0o600); err != nil {
		t.Fatal(err)
	}
	get := func(cookies []*http.Cookie) (httpaccess.Caller, int) {
		caller, answer := enter(room, withCookies(request{}.make(t.Context(), http.MethodGet, "/", nil), cookies))
		return caller, answer.Code
	}
	if _, code := get(controller); code != 401 {
		t.Errorf("the changed token's session: %d", code)
	}
	if caller, code := get(viewer); code != 200 || caller.Control {
		t.Errorf("the other session: %d %+v", code, caller)
	}
	if right, err := room.SignIn(httptest.NewRecorder(), request{}.make(t.Context(), http.MethodPost, "/", nil), controlToken); right || err != nil {
		t.Errorf("the old token: %v, %v", right, err)
	}
	if err := os.Remove(cfg.ControlTokenFile); err != nil {
		t.Fatal(err)
	}
	if _, code := get(viewer); code != 503 {
		t.Errorf("without its file: %d", code)
	}
}

func TestASessionCannotBeMade(t *testing.T) {
	t.Parallel()
	room := open(t, httpaccess.Config{ViewTokenFile: tokenFile(t, viewToken)})
	value := signIn(t, room, viewToken, request{})[0].Value
	end, proof, _ := strings.Cut(value, ".")
	for _, forged := range []string{"", ".", end, end + ".", "9" + end + "." + proof, end + "." + strings.ToUpper(proof), "x." + proof} {
		req := request{}.make(t.Context(), http.MethodGet, "/", nil)
		req.AddCookie(&http.Cookie{Name: "antipode_session", Value: forged})
		if caller, answer := enter(room, req); answer.Code != 401 {
			t.Errorf("%q: %d %+v", forged, answer.Code, caller)
		}
	}
}

func TestCookiesAreForThisPageAlone(t *testing.T) {
	t.Parallel()
	room := open(t, httpaccess.Config{ViewTokenFile: tokenFile(t, viewToken)})
	for _, secure := range []bool{false, true} {
		with := request{}
		if secure {
			with.header = header("X-Forwarded-Proto", "https")
		}
		for _, cookie := range signIn(t, room, viewToken, with) {
			if !cookie.HttpOnly || cookie.SameSite != http.SameSiteStrictMode || cookie.Secure != secure || cookie.Path != "/" ||
				cookie.MaxAge != 12*60*60 {
				t.Errorf("%+v", cookie)
			}
		}
	}
	answer := httptest.NewRecorder()
	room.SignOut(answer, request{}.make(t.Context(), http.MethodPost, "/", nil))
	if cookie := answer.Result().Cookies()[0]; cookie.MaxAge >= 0 || cookie.Value != "" {
		t.Errorf("after signing out: %+v", cookie)
	}
}

func TestForms(t *testing.T) {
	t.Parallel()
	room := open(t, httpaccess.Config{ControlTokenFile: tokenFile(t, controlToken)})
	cookies := signIn(t, room, controlToken, request{})
	made := httptest.NewRecorder()
	token := room.FormToken(made, withCookies(request{}.make(t.Context(), http.MethodGet, "/", nil), cookies))
	cookies = append(cookies, made.Result().Cookies()...)
	again := room.FormToken(httptest.NewRecorder(), withCookies(request{}.make(t.Context(), http.MethodGet, "/", nil), cookies))
	if again != token {
		t.Error("the token of a page that is open already was changed")
	}
	tests := map[string]struct {
		req     request
		cookies []*http.Cookie
		token   string
		fine    bool
	}{
		"ours":                      {request{header: header("Sec-Fetch-Site", "same-origin")}, cookies, token, true},
		"of an old browser":         {request{header: header("Origin", "http://localhost:8080")}, cookies, token, true},
		"of another origin":         {request{header: header("Sec-Fetch-Site", "cross-site")}, cookies, token, false},
		"of another port":           {request{header: header("Origin", "http://localhost:9999")}, cookies, token, false},
		"without a token":           {request{}, cookies, "", false},
		"with another token":        {request{}, cookies, token[1:] + "A", false},
		"without the form cookie":   {request{}, cookies[:1], token, false},
		"a script's":                {request{header: header("Authorization", "Bearer "+controlToken)}, nil, "", true},
		"a script's, elsewhere":     {request{header: header("Authorization", "Bearer "+controlToken, "Sec-Fetch-Site", "cross-site")}, nil, "", false},
		"larger than a form can be": {request{}, cookies, strings.Repeat("x", 70_000), false},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var err error
			handler := room.Admit(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { err = room.CheckForm(r) }), nil)
			form := url.Values{httpaccess.FormField: {test.token}}
			handler.ServeHTTP(httptest.NewRecorder(), withCookies(test.req.make(t.Context(), http.MethodPost, "/", form), test.cookies))
			if (err == nil) != test.fine {
				t.Error(err)
			}
		})
	}
}

func TestTokensThatAreNone(t *testing.T) {
	t.Parallel()
	for name, path := range map[string]string{
		"missing": filepath.Join(t.TempDir(), "none"), "empty": tokenFile(t, ""), "short": tokenFile(t, "123456789012345"),
		"two lines": tokenFile(t, "0123456789abcdef\n0123456789abcdef"),
	} {
		if _, err := httpaccess.Open(httpaccess.Config{ControlTokenFile: path}); err == nil ||
			!strings.Contains(err.Error(), "http.control_token_file") {
			t.Errorf("%s: %v", name, err)
		}
	}
}
