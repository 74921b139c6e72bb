package registry

import (
	"encoding/json"
	"errors"
	"fmt"
	"mime"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"oras.land/oras-go/v2/registry/remote/errcode"
)

// Reasons that callers act on; test for them with errors.Is.
var (
	// ErrNotFound: the registry answered 404 with a well-formed OCI error body that says so. A bare or HTML 404 is not
	// this but ErrMalformed, for it may come from a proxy in between.
	ErrNotFound = errors.New("not found")
	// ErrUnavailable: no answer, a broken one, 5xx, 429 or 408. Trying again later may help.
	ErrUnavailable = errors.New("registry unavailable")
	// ErrUnauthorized: 401 or 403, or no credentials where the registry demands some.
	ErrUnauthorized = errors.New("not authorized")
	// ErrMalformed: answered, but not what the specification says.
	ErrMalformed = errors.New("unexpected answer")
	// ErrBlobUnknown: a manifest was refused because something that it refers to is missing in the repository.
	ErrBlobUnknown = errors.New("referenced content is missing")
	// ErrRangeIgnored: the registry did not continue at the wanted offset; read the blob from its beginning.
	ErrRangeIgnored = errors.New("range not honoured")
)

// Error is what every method of Registry returns when it fails. Its text names the side, the host, the operation, the
// repository and the reference, the status and the cause, and what can be done.
type Error struct {
	Side       Side
	Host       string // host[:port]
	Op         string // for instance "list tags"
	Repository string // "" where none is concerned
	Reference  string // a tag or digest; "" where none is concerned
	Status     int    // HTTP; 0 = no answer
	Code       string // the first OCI error code of the answer; "" = none
	Err        error  // wraps one of the reasons above where one fits
}

// Error implements error.
func (e *Error) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s registry %s: %s", e.Side, e.Host, e.Op)
	if e.Repository != "" {
		fmt.Fprintf(&b, " %s", e.Repository)
	}
	switch {
	case e.Reference == "":
	case isDigest(e.Reference):
		fmt.Fprintf(&b, "@%s", e.Reference)
	default:
		fmt.Fprintf(&b, ":%s", e.Reference)
	}
	if e.Status != 0 {
		fmt.Fprintf(&b, ": HTTP %d", e.Status)
	}
	fmt.Fprintf(&b, ": %v", e.Err)
	if hint := e.hint(); hint != "" {
		fmt.Fprintf(&b, " (%s)", hint)
	}
	return b.String()
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// SideOf says on which side err came about, as logs, metrics and spans name it: that of the registry that failed, or else
// "local", this process.
func SideOf(err error) string {
	if failed, ok := errors.AsType[*Error](err); ok {
		return string(failed.Side)
	}
	return "local"
}

// hint says what an operator can do, where the reason alone does not.
func (e *Error) hint() string {
	switch {
	case errors.Is(e.Err, ErrUnauthorized):
		return "log in with docker login " + e.Host + " as the daemon's user, with an account that may do this"
	case e.Status == http.StatusMethodNotAllowed && strings.HasPrefix(e.Op, "delete"):
		return "allow deletes in the registry's configuration"
	case errors.Is(e.Err, ErrMalformed):
		return "check that the URL is a registry's and that no proxy or login page answers in its place"
	case errors.Is(e.Err, ErrUnavailable):
		return "check that the registry is up and reachable; it can be tried again"
	}
	return ""
}

// fail makes the error of a call that got no usable answer.
func (r *Registry) fail(c call, status int, err error) *Error {
	return &Error{
		Side: r.side, Host: r.base.Host, Op: c.op, Repository: c.repository, Reference: c.reference,
		Status: status, Err: err,
	}
}

// malformed makes the error of an answer that is not what the specification says.
func (r *Registry) malformed(c call, status int, format string, args ...any) *Error {
	return r.fail(c, status, fmt.Errorf("%w: %w", ErrMalformed, fmt.Errorf(format, args...)))
}

// invalid makes the error of an argument that is refused before anything is sent.
func (r *Registry) invalid(c call, err error) *Error { return r.fail(c, 0, err) }

// unexpected makes the error of an answer whose status is not the one that means success.
func (r *Registry) unexpected(c call, a *answer) *Error {
	reported := a.errors()
	e := r.fail(c, a.status, nil)
	detail := describe(a, reported)
	if len(reported) > 0 {
		e.Code = reported[0].Code
	}
	switch {
	case a.status == http.StatusUnauthorized || a.status == http.StatusForbidden:
		e.Err = fmt.Errorf("%w: %s", ErrUnauthorized, detail)
	case retryableStatus(a.status) || a.status >= http.StatusInternalServerError:
		e.Err = fmt.Errorf("%w: %s", ErrUnavailable, detail)
	case a.saysNotFound():
		e.Err = fmt.Errorf("%w: %s", ErrNotFound, detail)
	case a.status == http.StatusNotFound, a.status < http.StatusBadRequest:
		e.Err = fmt.Errorf("%w: %s", ErrMalformed, detail)
	default:
		e.Err = fmt.Errorf("refused: %s", detail)
	}
	return e
}

// describe says what the registry said: its own words, or what stood in their place.
func describe(a *answer, reported errcode.Errors) string {
	if len(reported) == 0 {
		return fmt.Sprintf("%s, %s", strconv.Quote(http.StatusText(a.status)), describeBody(a))
	}
	said := make([]string, 0, len(reported))
	for _, one := range reported {
		if one.Message == "" {
			said = append(said, one.Code)
			continue
		}
		said = append(said, one.Code+": "+one.Message)
	}
	return shorten(strings.Join(said, "; "), 300)
}

// describeBody says what kind of body came instead of OCI errors.
func describeBody(a *answer) string {
	switch {
	case len(a.body) == 0:
		return "without a body"
	case isHTML(a.header):
		return "with an HTML page"
	}
	return "with a body that is not an OCI error"
}

func shorten(s string, limit int) string {
	if len(s) <= limit {
		return s
	}
	return strings.ToValidUTF8(s[:limit], "") + "..."
}

// errors returns the OCI errors in the body, or none when it is not a well-formed error body
// (distribution specification, "Error Codes").
func (a *answer) errors() errcode.Errors {
	var body struct {
		Errors errcode.Errors `json:"errors"`
	}
	if wellFormed := json.Unmarshal(a.body, &body) == nil; !wellFormed {
		return nil
	}
	for _, one := range body.Errors {
		if one.Code == "" {
			return nil
		}
	}
	return body.Errors
}

// saysNotFound reports whether this is a 404 that the registry itself has written: a well-formed error body in which
// every code says that something is not known.
func (a *answer) saysNotFound() bool {
	reported := a.errors()
	if a.status != http.StatusNotFound || len(reported) == 0 {
		return false
	}
	for _, one := range reported {
		if !strings.HasSuffix(one.Code, "_UNKNOWN") && one.Code != "NOT_FOUND" {
			return false
		}
	}
	return true
}

// saysRepositoryUnknown reports whether this is a 404 that is about the repository as a whole.
func (a *answer) saysRepositoryUnknown() bool {
	if !a.saysNotFound() {
		return false
	}
	for _, one := range a.errors() {
		if one.Code != errcode.ErrorCodeNameUnknown && one.Code != "NOT_FOUND" {
			return false
		}
	}
	return true
}

// saysAnyOf reports whether the well-formed error body holds one of codes.
func (a *answer) saysAnyOf(codes ...string) bool {
	for _, one := range a.errors() {
		if slices.Contains(codes, one.Code) {
			return true
		}
	}
	return false
}

func isHTML(header http.Header) bool {
	mediaType, _, err := mime.ParseMediaType(header.Get("Content-Type"))
	return err == nil && (mediaType == "text/html" || mediaType == "application/xhtml+xml")
}
