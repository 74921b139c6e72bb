package registry

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"oras.land/oras-go/v2/registry/remote/auth"
)

// Blob opens a blob for reading from offset on (distribution specification, "Pulling blobs"; ranges as in RFC 9110). The
// reader ends with io.EOF after exactly desc.Size-offset bytes and with an *Error otherwise; a minute without a byte is
// ErrUnavailable. The digest is not checked here: the reader may be one of several that make up the blob. When offset
// is not 0 and the registry does not continue there, the error is ErrRangeIgnored.
func (r *Registry) Blob(ctx context.Context, repository string, desc Descriptor, offset int64) (io.ReadCloser, error) {
	c := call{op: "read blob", kind: kindBlob, stream: true}.on(repository, desc.Digest, auth.ActionPull)
	if err := errors.Join(ValidRepository(repository), validBlob(desc)); err != nil {
		return nil, r.invalid(c, err)
	}
	if offset < 0 || offset > desc.Size {
		return nil, r.invalid(c, fmt.Errorf("offset %d is outside of %d bytes", offset, desc.Size))
	}
	if offset > 0 && offset == desc.Size {
		return http.NoBody, nil // a range of nothing cannot be asked for
	}
	c.path = "/v2/" + repository + "/blobs/" + desc.Digest
	req := newRequest(http.MethodGet, r.url(c.path, nil), http.Header{"Accept": {"*/*"}})
	if offset > 0 {
		req.Header.Set("Range", fmt.Sprintf("bytes=%d-", offset))
	}
	resp, err := r.send(ctx, c, req)
	if err != nil {
		return nil, err
	}
	if err := r.checkBlob(c, req, resp, desc, offset); err != nil {
		_ = resp.Body.Close() // the answer is of no use
		return nil, err
	}
	return &blobReader{ctx: ctx, registry: r, call: c, body: resp.Body, left: desc.Size - offset}, nil
}

func validBlob(desc Descriptor) error {
	if desc.Size < 0 {
		return fmt.Errorf("blob of %d bytes", desc.Size)
	}
	return validDigest(desc.Digest)
}

// checkBlob accepts the answer that begins at offset and has the right length.
func (r *Registry) checkBlob(c call, req *http.Request, resp *http.Response, desc Descriptor, offset int64) error {
	switch {
	case resp.StatusCode/100 != 2:
		a, err := r.read(c, req.URL, resp)
		if err != nil {
			return err
		}
		e := r.unexpected(c, a)
		if offset > 0 && a.status == http.StatusRequestedRangeNotSatisfiable {
			e.Err = fmt.Errorf("%w: %w", ErrRangeIgnored, e.Err)
		}
		return e
	case offset == 0 && resp.StatusCode == http.StatusOK:
	case offset > 0 && resp.StatusCode == http.StatusPartialContent && continues(resp.Header, desc.Size, offset):
	case offset > 0:
		return r.fail(c, resp.StatusCode, fmt.Errorf("%w: asked for bytes from %d, got Content-Range %q",
			ErrRangeIgnored, offset, resp.Header.Get("Content-Range")))
	default:
		return r.malformed(c, resp.StatusCode, "status of a blob that was asked for as a whole")
	}
	if left := desc.Size - offset; resp.ContentLength >= 0 && resp.ContentLength != left {
		return r.malformed(c, resp.StatusCode, "%d bytes where %d were expected", resp.ContentLength, left)
	}
	return nil
}

// continues reads Content-Range: it must go from offset to the end of a blob of size bytes.
func continues(header http.Header, size, offset int64) bool {
	span, ok := strings.CutPrefix(header.Get("Content-Range"), "bytes ")
	if !ok {
		return false
	}
	span, total, ok := strings.Cut(span, "/")
	if !ok || (total != "*" && total != strconv.FormatInt(size, 10)) {
		return false
	}
	return span == fmt.Sprintf("%d-%d", offset, size-1)
}

// blobReader makes sure that a download has the length it should have, and gives its errors a name.
type blobReader struct {
	ctx      context.Context //nolint:containedctx // of the request, whose body this is
	registry *Registry
	call     call
	body     io.ReadCloser
	left     int64
}

// Read implements io.Reader.
func (b *blobReader) Read(p []byte) (int, error) {
	n, err := b.body.Read(p)
	b.left -= int64(n)
	switch {
	case b.left < 0:
		return n + int(b.left), b.registry.malformed(b.call, http.StatusOK, "more bytes than the blob has")
	case err == nil:
		return n, nil
	case errors.Is(err, io.EOF) && b.left == 0:
		return n, io.EOF
	case errors.Is(err, io.EOF):
		err = fmt.Errorf("%d bytes are missing: %w", b.left, io.ErrUnexpectedEOF)
	}
	return n, b.registry.unanswered(b.ctx, b.call, err)
}

// Close implements io.Closer.
func (b *blobReader) Close() error { return b.body.Close() }

// withDigest adds to the address of an upload the digest that completes it, leaving the registry's own parameters
// exactly as they are.
func withDigest(location *url.URL, digest string) *url.URL {
	complete := *location
	if complete.RawQuery != "" {
		complete.RawQuery += "&"
	}
	complete.RawQuery += "digest=" + url.QueryEscape(digest)
	return &complete
}
