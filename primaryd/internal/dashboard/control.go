package dashboard

import (
	"errors"
	"net/http"
	"net/url"
	"strings"

	"github.com/antipode-registry/antipode/internal/httpaccess"
	"github.com/antipode-registry/antipode/primaryd/internal/request"
)

// actions are what can be asked of a site on the page.
var actions = map[string]request.Kind{
	"pause": request.Pause, "resume": request.Resume, "resync": request.Resync, "release": request.Release,
}

// control asks a site what a form says, and shows the site again.
func (p *page) control(w http.ResponseWriter, r *http.Request) {
	name, action := r.PathValue("node"), r.PathValue("action")
	back := "/nodes/" + url.PathEscape(name)
	kind, known := actions[action]
	caller := httpaccess.CallerFrom(r.Context())
	if !known {
		p.say(w, r, http.StatusNotFound, "No such thing", "Nothing of that name can be asked of a site.", back)
		return
	}
	if err := p.Room.CheckForm(r); err != nil {
		p.say(w, r, http.StatusForbidden, "Not done", "Refused: "+err.Error()+".", back)
		return
	}
	if !caller.Control {
		p.say(w, r, http.StatusForbidden, "Not done", "You may look, but not control. Sign in with the control token.", back)
		return
	}
	ask := request.Ask{Kind: kind, Repository: strings.TrimSpace(r.PostForm.Get("repository"))}
	ask.All = kind == request.Resync && r.PostForm.Get("all") != ""
	if needs := kind == request.Release || kind == request.Resync && !ask.All; needs && !isRepository(ask.Repository) {
		p.say(w, r, http.StatusBadRequest, "Not done", "Name a repository, such as prod/api.", back)
		return
	}
	_, err := p.Desk.Ask(r.Context(), name, askedBy(caller), ask)
	if err != nil {
		p.Logger.Warn("a site did not do as it was asked", "node", name, "action", action, "by", caller.Name, "error", err)
		status, why := unasked(err)
		p.say(w, r, status, "Not done", why, back)
		return
	}
	p.Logger.Info("a site was asked on the status page", "node", name, "action", action, "repository", ask.Repository, "by", caller.Name)
	http.Redirect(w, r, back+"?done="+action, http.StatusSeeOther) //nolint:gosec // G710: a path of this page, escaped
}

// askedBy is what a site's journal says of who asked.
func askedBy(caller httpaccess.Caller) string {
	return strings.ToValidUTF8(caller.Name, "?") + " on the status page"
}

// unasked is what to say of an error of Desk.Ask.
func unasked(err error) (status int, why string) {
	var refused *request.Refusal
	switch {
	case errors.As(err, &refused):
		return http.StatusConflict, "The site refused: " + refused.Message
	case errors.Is(err, request.ErrUnanswered):
		return http.StatusGatewayTimeout, "The site did not answer in time. It may do as it was asked all the same."
	case errors.Is(err, request.ErrUnknownNode):
		return http.StatusNotFound, "No site of that name is configured."
	case errors.Is(err, request.ErrTooMany):
		return http.StatusTooManyRequests, "Too much is asked of the site already; wait for its answers."
	}
	return http.StatusServiceUnavailable, "The site could not be asked; see primaryd's log."
}

// refuse answers those who are not let in: with the form where a token would do, and otherwise with what to configure.
func (p *page) refuse(w http.ResponseWriter, r *http.Request, refusal httpaccess.Refusal) {
	if !refusal.SignIn {
		p.say(w, r, refusal.Status, "Not let in", refusal.Reason, "")
		return
	}
	// A browser that comes by a link from elsewhere, such as an alert's, leaves the session's cookie at home. Once more from
	// here it brings it along.
	if r.Header.Get("Sec-Fetch-Site") == "cross-site" && r.Method == http.MethodGet {
		p.write(w, http.StatusOK, "again.html", p.frame(w, r, "Antipode"))
		return
	}
	p.form(w, r, http.StatusUnauthorized, r.URL.RequestURI(), "")
}

// signInView is the form for a token.
type signInView struct {
	frame
	Next, Problem string
}

func (p *page) form(w http.ResponseWriter, r *http.Request, status int, next, problem string) {
	p.write(w, status, "sign-in.html", signInView{frame: p.frame(w, r, "Sign in"), Next: next, Problem: problem})
}

func (p *page) signInForm(w http.ResponseWriter, r *http.Request) {
	httpaccess.Lock(w.Header())
	if !p.Room.CanSignIn() {
		p.say(w, r, http.StatusNotFound, "No token", "No token is configured: see http.view_token_file and http.control_token_file.", "/")
		return
	}
	p.form(w, r, http.StatusOK, r.URL.Query().Get("next"), "")
}

func (p *page) signIn(w http.ResponseWriter, r *http.Request) {
	httpaccess.Lock(w.Header())
	r.Body = http.MaxBytesReader(w, r.Body, 16<<10)
	if err := p.Room.CheckForm(r); err != nil {
		p.form(w, r, http.StatusForbidden, "/", "Refused: "+err.Error()+".")
		return
	}
	next := r.PostForm.Get("next")
	right, err := p.Room.SignIn(w, r, r.PostForm.Get("token"))
	switch {
	case err != nil:
		p.unavailable(w, r, err)
	case !right:
		p.form(w, r, http.StatusUnauthorized, next, "That is not the token.")
	default:
		http.Redirect(w, r, local(next), http.StatusSeeOther) //nolint:gosec // G710: local lets no other origin through
	}
}

// local is a path of this page, whatever the form said.
func local(next string) string {
	target, err := url.Parse(next)
	if err != nil || target.IsAbs() || target.Host != "" || !strings.HasPrefix(next, "/") || strings.HasPrefix(next, "//") ||
		strings.Contains(next, "\\") || strings.HasPrefix(next, "/sign-") {
		return "/"
	}
	return next
}

func (p *page) signOut(w http.ResponseWriter, r *http.Request) {
	httpaccess.Lock(w.Header())
	r.Body = http.MaxBytesReader(w, r.Body, 16<<10)
	if err := p.Room.CheckForm(r); err == nil {
		p.Room.SignOut(w, r)
	}
	http.Redirect(w, r, "/", http.StatusSeeOther)
}
