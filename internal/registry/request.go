package registry

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"sync/atomic"

	"oras.land/oras-go/v2/registry/remote/auth"
	"oras.land/oras-go/v2/registry/remote/errcode"
)

// Kinds of requests, for metrics.
const (
	kindBase      = "base"
	kindCatalog   = "catalog"
	kindTags      = "tags"
	kindManifest  = "manifest"
	kindBlob      = "blob"
	kindUpload    = "upload"
	kindReferrers = "referrers"
	kindToken     = "token"
)

const (
	maxErrorBody = 64 << 10 // bytes of an answer that is read for its errors alone
	maxManifest  = 4 << 20  // bytes; the limit that the distribution specification recommends
	maxPage      = 16 << 20 // bytes of one page of a listing; 2.8 sends all tags in one
)

// call is what the layers below need to know about a request. It travels in the request's context, because the
// authorization client stands between the methods and the transport.
type call struct {
	op         string
	kind       string
	repository string
	reference  string
	path       string   // of the request itself; requests to other paths are for tokens, or redirected
	actions    []string // on repository
	scopes     []string // further ones
	limit      int64    // bytes of the answer that are read at most
	stream     bool     // the body of the request (PUT) or of a successful answer (GET) is of any size

	// answered is what the registry has answered already to the request that comes next; see dispatch. It may be nil.
	answered *atomic.Pointer[http.Response]
}

// upload tells whether a request of this method carries a body of any size.
func (c call) upload(method string) bool { return c.stream && method == http.MethodPut }

// inMemory tells whether a request's body is in memory and small enough to be sent as one piece. That of a manifest, which
// a guard may be asked for, is small enough where one system call sends it.
func (c call) inMemory(req *http.Request) bool {
	most := int64(atOnce)
	if c.kind == kindUpload {
		most = smallBlob
	}
	return req.GetBody != nil && !c.upload(req.Method) && req.ContentLength <= most
}

// alreadyAnswered returns the answer that is there, once.
func (c call) alreadyAnswered() *http.Response {
	if c.answered == nil {
		return nil
	}
	return c.answered.Swap(nil)
}

type callKey struct{}

func callFrom(ctx context.Context) call {
	if c, ok := ctx.Value(callKey{}).(*call); ok {
		return *c
	}
	return call{}
}

// answer is a response that has been read whole.
type answer struct {
	status int
	header http.Header
	body   []byte
	length int64    // Content-Length; -1 = not said
	url    *url.URL // what was asked, before any redirect
}

// on fills in what calls about a repository share.
func (c call) on(repository, reference string, actions ...string) call {
	c.repository, c.reference, c.actions = repository, reference, actions
	return c
}

// url returns the registry's address of path, which holds no character that needs escaping: names are validated.
func (r *Registry) url(path string, query url.Values) *url.URL {
	return &url.URL{Scheme: r.base.Scheme, Host: r.base.Host, Path: path, RawQuery: query.Encode()}
}

// get asks for the call's path.
func (r *Registry) get(ctx context.Context, c call, header http.Header) (*answer, error) {
	return r.exchange(ctx, c, http.MethodGet, r.url(c.path, nil), header, nil)
}

// exchange sends a request whose body is in memory and returns the answer, read up to the call's limit.
func (r *Registry) exchange(
	ctx context.Context, c call, method string, target *url.URL, header http.Header, body []byte,
) (*answer, error) {
	req := newRequest(method, target, header)
	if body != nil {
		req.ContentLength = int64(len(body))
		req.GetBody = func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(body)), nil }
		req.Body, _ = req.GetBody() // which does not fail
	}
	resp, err := r.send(ctx, c, req) //nolint:bodyclose // read does
	if err != nil {
		return nil, err
	}
	return r.read(c, target, resp)
}

// newRequest is http.NewRequest for an address that need not be parsed. It takes the header.
func newRequest(method string, target *url.URL, header http.Header) *http.Request {
	if header == nil {
		header = http.Header{}
	}
	return &http.Request{
		Method: method, URL: target, Host: target.Host, Header: header, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
	}
}

// send puts the call into the request's context.
func (r *Registry) send(ctx context.Context, c call, req *http.Request) (*http.Response, error) {
	c.path = req.URL.Path
	req = req.WithContext(context.WithValue(ctx, callKey{}, &c))
	resp, err := r.dispatch(c, req)
	if errors.Is(err, context.Canceled) && foreignCancel(ctx, err) && req.Body == nil {
		resp, err = r.dispatch(c, req)
	}
	if err != nil {
		return nil, r.unanswered(ctx, c, err)
	}
	return resp, nil
}

// dispatch sends a request as it is, until the registry asks who we are for the first time, and from then on through the
// authorization client, which costs each request more. That begins with the answer that is there.
func (r *Registry) dispatch(c call, req *http.Request) (*http.Response, error) {
	if r.challenged.Load() {
		return r.authorized(c, req)
	}
	req.Header.Set("User-Agent", r.userAgent)
	resp, err := r.client.Client.Do(req)
	if err != nil || resp.StatusCode != http.StatusUnauthorized {
		return resp, err
	}
	if redirected := resp.Request.Response != nil; redirected {
		_ = resp.Body.Close() // it is of somebody else, to whom the client tells nothing
		return r.authorized(c, req)
	}
	r.challenged.Store(true)
	c.answered = &atomic.Pointer[http.Response]{}
	c.answered.Store(resp)
	return r.authorized(c, req)
}

// authorized sends a request through the authorization client, with the scopes that it needs, so that one token is asked
// for and covers the whole operation.
func (r *Registry) authorized(c call, req *http.Request) (*http.Response, error) {
	scopes := c.scopes
	if scope := auth.ScopeRepository(c.repository, c.actions...); scope != "" {
		scopes = append([]string{scope}, scopes...)
	}
	ctx := auth.WithScopesForHost(context.WithValue(req.Context(), callKey{}, &c), r.base.Host, scopes...)
	req.Header.Del("User-Agent") // the client adds it
	return r.client.Do(req.WithContext(ctx))
}

// foreignCancel reports whether err is the cancellation of somebody else: simultaneous requests share one token
// request, which ends for all of them when the one that sent it is cancelled.
func foreignCancel(ctx context.Context, err error) bool {
	return ctx.Err() == nil && (errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded))
}

// unanswered makes the error of a request that ended without a response.
func (r *Registry) unanswered(ctx context.Context, c call, err error) *Error {
	if fromURL, ok := errors.AsType[*url.Error](err); ok {
		err = fromURL.Err // the address may hold a signature, and the error names host and reference anyway
	}
	token, fromToken := errors.AsType[*errcode.ErrorResponse](err)
	switch {
	case ctx.Err() != nil:
		if cause := context.Cause(ctx); !errors.Is(err, cause) {
			err = cause
		}
		return r.fail(c, 0, fmt.Errorf("given up: %w", err))
	case errors.Is(err, ErrFenced):
		return r.fail(c, 0, err)
	case errors.Is(err, auth.ErrBasicCredentialNotFound):
		return r.fail(c, http.StatusUnauthorized, fmt.Errorf("%w: no credentials for this registry", ErrUnauthorized))
	case fromToken:
		return r.refusedToken(c, token)
	case foreignCancel(ctx, err):
		return r.fail(c, 0, fmt.Errorf("%w: %v", ErrUnavailable, err)) //nolint:errorlint // not this caller's cancellation
	}
	return r.fail(c, 0, fmt.Errorf("%w: %w", ErrUnavailable, err))
}

// refusedToken makes the error of a token service that did not give a token.
func (r *Registry) refusedToken(c call, token *errcode.ErrorResponse) *Error {
	reason := ErrUnauthorized
	if retryableStatus(token.StatusCode) || token.StatusCode >= http.StatusInternalServerError {
		reason = ErrUnavailable
	}
	detail := http.StatusText(token.StatusCode)
	if len(token.Errors) > 0 {
		detail = token.Errors.Error()
	}
	return r.fail(c, token.StatusCode, fmt.Errorf("%w: token service %s: %s", reason, token.URL.Host, detail))
}

// read takes a response that the transport has buffered already.
func (r *Registry) read(c call, target *url.URL, resp *http.Response) (*answer, error) {
	defer func() { _ = resp.Body.Close() }() // in memory: closing cannot fail
	var body []byte
	if there, ok := resp.Body.(*buffered); ok {
		body = there.content
	} else if all, err := io.ReadAll(resp.Body); err == nil {
		body = all
	} else {
		return nil, r.fail(c, resp.StatusCode, fmt.Errorf("%w: %w", ErrUnavailable, err))
	}
	return &answer{
		status: resp.StatusCode, header: resp.Header, body: body, length: resp.ContentLength, url: target,
	}, nil
}

// sameOrigin resolves ref, as a registry sent it, against base and refuses to leave the registry for it: the request
// that follows carries credentials.
func (r *Registry) sameOrigin(base *url.URL, ref string) (*url.URL, error) {
	parsed, err := url.Parse(ref)
	if err != nil {
		return nil, fmt.Errorf("address %q: %w", shorten(ref, 100), err)
	}
	target := base.ResolveReference(parsed)
	if target.Scheme != r.base.Scheme || !strings.EqualFold(hostPort(target), hostPort(r.base)) {
		return nil, fmt.Errorf("it points to %s://%s and not to the registry at %s", target.Scheme, target.Host, r.base)
	}
	target.User = nil
	return target, nil
}

// hostPort is the host with its port, be it said or implied.
func hostPort(u *url.URL) string {
	if port := u.Port(); port != "" {
		return u.Hostname() + ":" + port
	}
	if u.Scheme == "https" {
		return u.Hostname() + ":443"
	}
	return u.Hostname() + ":80"
}
