package registry

import (
	"context"
	"errors"
	"net/http"
	"strconv"
	"strings"

	"oras.land/oras-go/v2/registry/remote/auth"
)

// HasBlob asks whether repository has a blob, and how many bytes it has there (distribution specification, "Checking if
// content exists in the registry"). That the bytes are the right ones is not looked at.
//
// Most often that is one HEAD. What a HEAD does not settle is asked again with a GET for the first byte alone: a 404,
// which comes without a body and so could be anybody's, an answer without a length, and one that looks like a page for
// people. Found is false only when that GET is answered with a 404 in the registry's own words; a GET that delivers
// wins over a HEAD that denied. Where the range is ignored the whole blob is offered; its length is in the headers and
// the body is not read.
func (r *Registry) HasBlob(ctx context.Context, repository, digest string) (size int64, found bool, err error) {
	c := call{op: "look for blob", kind: kindBlob, limit: maxErrorBody}.on(repository, digest, auth.ActionPull)
	if err := errors.Join(ValidRepository(repository), validDigest(digest)); err != nil {
		return 0, false, r.invalid(c, err)
	}
	c.path = "/v2/" + repository + "/blobs/" + digest
	a, err := r.exchange(ctx, c, http.MethodHead, r.url(c.path, nil), http.Header{"Accept": {"*/*"}}, nil)
	switch {
	case err != nil:
		return 0, false, err
	case a.status == http.StatusOK:
		if isOtherBlob(a.header, digest) {
			return 0, false, r.malformed(c, a.status, "answered about the blob %s", a.header.Get(headerDigest))
		}
		if a.length >= 0 && !isHTML(a.header) {
			return a.length, true, nil
		}
	case a.status != http.StatusNotFound:
		return 0, false, r.unexpected(c, a)
	}
	return r.hasFirstByte(ctx, c)
}

// isOtherBlob reports whether the header names another blob. A registry may know the same bytes by a digest of another
// algorithm, which says nothing.
func isOtherBlob(header http.Header, digest string) bool {
	said := header.Get(headerDigest)
	algorithm, _, _ := strings.Cut(digest, ":")
	return said != digest && strings.HasPrefix(said, algorithm+":")
}

// hasFirstByte settles with a GET what a HEAD did not.
func (r *Registry) hasFirstByte(ctx context.Context, c call) (size int64, found bool, err error) {
	c.stream = true
	req := newRequest(http.MethodGet, r.url(c.path, nil), http.Header{"Accept": {"*/*"}})
	req.Header.Set("Range", "bytes=0-0")
	resp, err := r.send(ctx, c, req)
	if err != nil {
		return 0, false, err
	}
	defer func() { _ = resp.Body.Close() }() // of no interest
	if size, ok := deliveredSize(resp, c.reference); ok {
		return size, true, nil
	}
	if resp.StatusCode/100 == 2 {
		return 0, false, r.malformed(c, resp.StatusCode, "neither a part of the blob nor the whole of a known length")
	}
	a, err := r.read(c, req.URL, resp)
	if err != nil {
		return 0, false, err
	}
	if a.saysNotFound() {
		return 0, false, nil
	}
	return 0, false, r.unexpected(c, a)
}

// deliveredSize is the size of the blob in an answer to a request for its first byte: a part, the whole, or, of an
// empty blob, none (RFC 9110, sections 14.4 and 15.5.17).
func deliveredSize(resp *http.Response, digest string) (size int64, ok bool) {
	named := resp.Header.Get(headerDigest) == digest
	switch {
	case isOtherBlob(resp.Header, digest), isHTML(resp.Header) && !named:
		return 0, false
	case resp.StatusCode == http.StatusOK:
		return resp.ContentLength, resp.ContentLength >= 0
	case resp.StatusCode == http.StatusPartialContent:
		total, ok := strings.CutPrefix(resp.Header.Get("Content-Range"), "bytes 0-0/")
		size, err := strconv.ParseInt(total, 10, 64)
		return size, ok && err == nil && size > 0
	case resp.StatusCode == http.StatusRequestedRangeNotSatisfiable:
		return 0, resp.Header.Get("Content-Range") == "bytes */0"
	}
	return 0, false
}
