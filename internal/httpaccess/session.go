package httpaccess

import (
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"
)

const (
	sessionCookie = "antipode_session"
	formCookie    = "antipode_form"
	// FormField is the form's field that carries FormToken.
	FormField = "form_token"
	// sessionLife is a shift's length.
	sessionLife = 12 * time.Hour
)

// SignIn begins a session for the one who knows a token: until it is over, or the token is changed, the browser is let
// in by a cookie. It says whether the token was right.
func (r *Room) SignIn(w http.ResponseWriter, req *http.Request, token string) (bool, error) {
	secrets, err := r.secrets()
	if err != nil {
		return false, err
	}
	found, ok := match(secrets, strings.TrimSpace(token))
	if !ok {
		return false, nil
	}
	value, err := found.sign(time.Now().Add(sessionLife))
	if err != nil {
		return false, err
	}
	setCookie(w, req, sessionCookie, value, sessionLife)
	return true, nil
}

// SignOut makes the browser forget its session.
func (r *Room) SignOut(w http.ResponseWriter, req *http.Request) {
	setCookie(w, req, sessionCookie, "", -time.Second)
}

func setCookie(w http.ResponseWriter, req *http.Request, name, value string, life time.Duration) {
	http.SetCookie(w, &http.Cookie{ //nolint:gosec // G124: Secure follows how the request came; over plain HTTP it could not be used
		Name: name, Value: value, Path: "/", MaxAge: int(life.Seconds()), HttpOnly: true, SameSite: http.SameSiteStrictMode,
		// Whoever claims https falsely gets a cookie that he cannot use.
		Secure: req.TLS != nil || strings.EqualFold(req.Header.Get("X-Forwarded-Proto"), "https"),
	})
}

// sign makes a session's value: when it ends, and a proof by a key that follows from the token. A session of another
// token, also of one that may do less, has another key.
func (s secret) sign(end time.Time) (string, error) {
	text := strconv.FormatInt(end.Unix(), 10)
	proof, err := s.proof(text)
	if err != nil {
		return "", err
	}
	return text + "." + base64.RawURLEncoding.EncodeToString(proof), nil
}

func (s secret) proof(text string) ([]byte, error) {
	key, err := hkdf.Key(sha256.New, s.text, nil, "antipode http session v1", sha256.Size)
	if err != nil {
		return nil, fmt.Errorf("derive the key of the sessions: %w", err)
	}
	mac := hmac.New(sha256.New, key)
	mac.Write([]byte(text))
	return mac.Sum(nil), nil
}

// session finds whose session a request carries.
func session(secrets []secret, req *http.Request, now time.Time) (Caller, bool) {
	cookie, err := req.Cookie(sessionCookie)
	if err != nil {
		return Caller{}, false
	}
	text, encoded, _ := strings.Cut(cookie.Value, ".")
	given, err := base64.RawURLEncoding.DecodeString(encoded)
	if err != nil {
		return Caller{}, false
	}
	end, err := strconv.ParseInt(text, 10, 64)
	if err != nil || now.Unix() >= end {
		return Caller{}, false
	}
	for _, s := range secrets {
		if want, err := s.proof(text); err == nil && hmac.Equal(given, want) {
			return Caller{Name: "token", Control: s.control, Session: true}, true
		}
	}
	return Caller{}, false
}

// FormToken is what a form of this page must carry in FormField: the value of a cookie that no other page can read.
func (r *Room) FormToken(w http.ResponseWriter, req *http.Request) string {
	if cookie, err := req.Cookie(formCookie); err == nil && len(cookie.Value) == len(rand.Text()) {
		return cookie.Value
	}
	token := rand.Text()
	setCookie(w, req, formCookie, token, sessionLife)
	return token
}

// CheckForm parses the form of a request that changes something, and refuses one that another page made the browser
// send: by what the browser says of its origin, and by the form's token. A script that sends its own secret needs none.
func (r *Room) CheckForm(req *http.Request) error {
	if err := http.NewCrossOriginProtection().Check(req); err != nil {
		return errForm
	}
	if err := req.ParseForm(); err != nil {
		return fmt.Errorf("the form cannot be read: %w", err)
	}
	if CallerFrom(req.Context()).script {
		return nil
	}
	cookie, err := req.Cookie(formCookie)
	if err != nil || cookie.Value == "" ||
		subtle.ConstantTimeCompare([]byte(cookie.Value), []byte(req.PostForm.Get(FormField))) != 1 {
		return errForm
	}
	return nil
}
