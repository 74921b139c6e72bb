// Package httpaccess is the door of what the daemons answer over HTTP to people and scripts: who may look, who may
// control, and what a browser may do with the answer.
//
// It guarantees that without any configuration only this machine may look and nobody may control; that what a request
// says about its sender counts only with a secret, or from a peer that the configuration trusts; that secrets are
// compared in constant time and read again at each request, so that a changed token ends its sessions; and that nothing is kept
// in the process, so that replicas behind one address agree. It refuses to be the way around a proxy that it does not
// know of, and around a browser's same-origin policy by a name that resolves to this machine.
package httpaccess

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"slices"
	"strings"
	"time"
	"unicode"
)

const (
	// shortestToken keeps guessing hopeless: there is no other limit on guesses.
	shortestToken = 16
	// answerWithin bounds the making of one answer.
	answerWithin = 15 * time.Second
	// longestBody bounds what a form may carry.
	longestBody = 64 << 10
	// longestName bounds what a proxy may call somebody.
	longestName = 128
)

// Config says who may come in. The zero value lets this machine look.
type Config struct {
	// ViewTokenFile and ControlTokenFile hold a secret each, of 16 characters or more; empty = there is none. Who knows the
	// second may also look.
	ViewTokenFile, ControlTokenFile string
	// Hosts are the names, without a port, by which requests without a secret may reach the server, besides localhost and
	// addresses.
	Hosts []string
	// ProxyHeader carries the name of the user that a reverse proxy let through; empty = there is none. It counts from
	// peers within ProxyTrusted alone.
	ProxyHeader  string
	ProxyTrusted []netip.Prefix
	// Controllers are the names in ProxyHeader that may control; the others may look.
	Controllers []string
	// Logger is slog.Default() when nil.
	Logger *slog.Logger
}

// Caller is who sent a request, and what they may do.
type Caller struct {
	Name    string // as the proxy told, or what let them in
	Control bool   // they may change something, not only look
	// Session says that they signed in, and can sign out.
	Session bool
	script  bool // a secret in a header, which no page of another origin can send
}

// Refusal is why a request was not let in.
type Refusal struct {
	Status int    // of HTTP
	Reason string // for the one who is refused: what would let them in
	SignIn bool   // a token would
}

// Room lets requests in. It is safe for concurrent use.
type Room struct{ cfg Config }

// Open returns the room, once every token can be read.
func Open(cfg Config) (*Room, error) {
	if cfg.Logger == nil {
		cfg.Logger = slog.Default()
	}
	r := &Room{cfg: cfg}
	_, err := r.secrets()
	return r, err
}

// CanSignIn says whether there is a token to sign in with.
func (r *Room) CanSignIn() bool { return r.cfg.ViewTokenFile != "" || r.cfg.ControlTokenFile != "" }

// secret is one token and what it opens.
type secret struct {
	text    []byte
	control bool
}

// secrets reads the tokens anew.
func (r *Room) secrets() ([]secret, error) {
	var all []secret
	for _, file := range []struct {
		key, path string
		control   bool
	}{
		{"http.control_token_file", r.cfg.ControlTokenFile, true},
		{"http.view_token_file", r.cfg.ViewTokenFile, false},
	} {
		if file.path == "" {
			continue
		}
		text, err := readToken(file.path)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", file.key, err)
		}
		all = append(all, secret{text: text, control: file.control})
	}
	return all, nil
}

func readToken(path string) ([]byte, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	token := strings.TrimSpace(string(text))
	if len(token) < shortestToken {
		return nil, fmt.Errorf("%s holds fewer than %d characters; make one with: openssl rand -hex 32", path, shortestToken)
	}
	if strings.ContainsFunc(token, unicode.IsControl) {
		return nil, fmt.Errorf("%s holds more than one line of text", path)
	}
	return []byte(token), nil
}

// match finds the secret that a token is. It takes the same time whichever it is, if any.
func match(secrets []secret, token string) (found secret, ok bool) {
	sum := sha256.Sum256([]byte(token))
	for _, s := range secrets {
		if want := sha256.Sum256(s.text); subtle.ConstantTimeCompare(sum[:], want[:]) == 1 && !ok {
			found, ok = s, true
		}
	}
	return found, ok
}

// errForm is what CheckForm says of a form that another page sent.
var errForm = errors.New("the form was not sent by this page, or is too old: load the page again")

// callerKey is the context's key of the Caller.
type callerKey struct{}

// CallerFrom returns who sent the request that a handler behind Admit answers. Outside of one it is nobody.
func CallerFrom(ctx context.Context) Caller {
	caller, _ := ctx.Value(callerKey{}).(Caller)
	return caller
}

// Admit passes on the requests of those who may look, with a deadline, and hands the others to refuse, which writes the
// answer; nil writes it as a text. What may be done is for the handler to look up, see CallerFrom and CheckForm.
func (r *Room) Admit(next http.Handler, refuse func(http.ResponseWriter, *http.Request, Refusal)) http.Handler {
	if refuse == nil {
		refuse = refuseText
	}
	return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		Lock(w.Header())
		ctx, cancel := context.WithTimeout(req.Context(), answerWithin)
		defer cancel()
		caller, refusal := r.caller(req)
		if refusal != nil {
			refuse(w, req, *refusal)
			return
		}
		req.Body = http.MaxBytesReader(w, req.Body, longestBody)
		next.ServeHTTP(w, req.WithContext(context.WithValue(ctx, callerKey{}, caller)))
	})
}

func refuseText(w http.ResponseWriter, _ *http.Request, refusal Refusal) {
	if refusal.SignIn {
		w.Header().Set("WWW-Authenticate", `Bearer realm="antipode"`)
	}
	http.Error(w, refusal.Reason, refusal.Status)
}

// policy lets a page use this server's own files and nothing else, whatever might slip into it.
const policy = "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self'; connect-src 'self'; " +
	"form-action 'self'; base-uri 'none'; frame-ancestors 'none'"

// Lock sets the headers that every answer has: nobody frames it, keeps it, guesses its type or learns its
// address, and it fetches nothing from elsewhere.
func Lock(header http.Header) {
	header.Set("Content-Security-Policy", policy)
	header.Set("X-Content-Type-Options", "nosniff")
	header.Set("Referrer-Policy", "no-referrer")
	header.Set("Cross-Origin-Opener-Policy", "same-origin")
	header.Set("Cross-Origin-Resource-Policy", "same-origin")
	header.Set("Cache-Control", "no-store")
}

// Locked is Lock on every answer of a server, also where nothing is found. A handler may take a header back.
func Locked(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		Lock(w.Header())
		next.ServeHTTP(w, req)
	})
}

// caller goes from what proves most to what proves least. A token that is wrong is an error and not a reason to look
// for another way in.
func (r *Room) caller(req *http.Request) (Caller, *Refusal) {
	secrets, err := r.secrets()
	if err != nil {
		r.cfg.Logger.Error("could not read a token", "side", "local", "error", err)
		return Caller{}, &Refusal{Status: http.StatusServiceUnavailable, Reason: "A token cannot be read; see the daemon's log."}
	}
	if header := req.Header.Get("Authorization"); header != "" {
		return bearer(secrets, header)
	}
	if caller, ok := session(secrets, req, time.Now()); ok {
		return caller, nil
	}
	caller, refusal := r.byAddress(req)
	if refusal != nil && r.CanSignIn() && refusal.Status == http.StatusForbidden {
		refusal.Status, refusal.SignIn = http.StatusUnauthorized, true
	}
	return caller, refusal
}

func bearer(secrets []secret, header string) (Caller, *Refusal) {
	scheme, token, _ := strings.Cut(header, " ")
	if found, ok := match(secrets, strings.TrimSpace(token)); ok && strings.EqualFold(scheme, "Bearer") {
		return Caller{Name: "token", Control: found.control, script: true}, nil
	}
	return Caller{}, &Refusal{
		Status: http.StatusUnauthorized, SignIn: true,
		Reason: "The token is not the one of http.view_token_file or http.control_token_file.",
	}
}

// byAddress lets in whom a trusted proxy vouches for, and this machine where nothing else is configured. Both rest on
// where the request comes from, hence a page of another origin must not be able to send it: a name that its owner lets
// resolve to this machine is refused.
func (r *Room) byAddress(req *http.Request) (Caller, *Refusal) {
	peer, err := netip.ParseAddrPort(req.RemoteAddr)
	if err != nil {
		return Caller{}, forbidden("the request has no address")
	}
	caller, refusal := r.vouched(req, peer.Addr().Unmap())
	if refusal == nil && !r.knows(req.Host) {
		return Caller{}, forbidden(fmt.Sprintf("the name %.100q is neither localhost nor in http.hosts", hostname(req.Host)))
	}
	return caller, refusal
}

func (r *Room) vouched(req *http.Request, peer netip.Addr) (Caller, *Refusal) {
	if r.cfg.ProxyHeader != "" {
		trusted := slices.ContainsFunc(r.cfg.ProxyTrusted, func(p netip.Prefix) bool { return p.Contains(peer) })
		names := req.Header.Values(r.cfg.ProxyHeader)
		switch {
		case !trusted:
			return Caller{}, forbidden("it did not come from an address in http.proxy.trusted")
		case len(names) != 1 || names[0] == "" || len(names[0]) > longestName:
			return Caller{}, forbidden("the proxy named no user in " + r.cfg.ProxyHeader)
		}
		return Caller{Name: names[0], Control: slices.Contains(r.cfg.Controllers, names[0])}, nil
	}
	switch {
	case r.cfg.ViewTokenFile != "":
		return Caller{}, forbidden("a token is needed")
	case !peer.IsLoopback():
		return Caller{}, forbidden("only this machine may look while neither http.view_token_file nor http.proxy is configured")
	case forwarded(req.Header):
		return Caller{}, forbidden("it came through a proxy, and http.proxy is not configured")
	}
	return Caller{Name: "this machine"}, nil
}

func forbidden(why string) *Refusal {
	return &Refusal{Status: http.StatusForbidden, Reason: "Not let in: " + why + ". See http in the configuration."}
}

// forwarded says whether a proxy passed the request on: its own address then says nothing about who sent it.
func forwarded(header http.Header) bool {
	return slices.ContainsFunc([]string{"Forwarded", "Via", "X-Forwarded-For", "X-Forwarded-Host", "X-Real-Ip"},
		func(name string) bool { return len(header.Values(name)) > 0 })
}

// knows says whether a Host header names this server. An address always does: a page that was loaded from a name cannot
// be of the same origin as an address.
func (r *Room) knows(host string) bool {
	name := hostname(host)
	if _, err := netip.ParseAddr(name); err == nil || name == "localhost" {
		return true
	}
	return slices.ContainsFunc(r.cfg.Hosts, func(known string) bool { return strings.EqualFold(known, name) })
}

// hostname is a Host header without its port, in lower case.
func hostname(host string) string {
	if name, _, err := net.SplitHostPort(host); err == nil {
		host = name
	}
	return strings.ToLower(strings.TrimSuffix(strings.Trim(host, "[]"), "."))
}
