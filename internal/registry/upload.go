package registry

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"sync"
	"sync/atomic"
	"time"

	"github.com/opencontainers/go-digest"
	"oras.land/oras-go/v2/registry/remote/auth"
)

const (
	// cancelTimeout bounds the request that drops a failed upload; it runs when the caller's context may be over.
	cancelTimeout = 10 * time.Second
	// askFirst is the size of a blob from which on the registry is asked to agree before bytes are sent (Expect:
	// 100-continue), so that an expired token or an overload costs no transfer. Below, the round trip costs more.
	askFirst = 1 << 20
	// smallBlob is the size of a blob up to which it is in memory before its upload begins. Its bytes then leave with few
	// system calls, and its place among the requests to this registry is not held while they come from the other one.
	smallBlob = 256 << 10
)

// PutBlob makes repository hold a blob. With mountFrom, which may be repository itself, the registry is first asked to
// take the blob from there (distribution specification, "Mounting a blob from another repository"); mounted says that
// it did. Otherwise the upload that this same request has opened goes on ("POST then PUT"), in one PUT.
//
// Content is called when the first byte is needed, so never for a mount, and is read once: up to 256 KiB into memory,
// more of it unbuffered. It is called again only when the registry has refused the PUT of such a stream because the token
// expired, after a new one was obtained. An error of content's comes back wrapped but not as this registry's, so that it
// keeps the side it is about. An upload that fails or is cancelled is dropped at the registry, for which PutBlob may take
// ten seconds longer than ctx.
func (r *Registry) PutBlob(
	ctx context.Context, repository string, desc Descriptor, mountFrom string,
	content func() (io.ReadCloser, error),
) (mounted bool, err error) {
	c := call{op: "write blob", kind: kindUpload, limit: maxErrorBody}.
		on(repository, desc.Digest, auth.ActionPull, auth.ActionPush)
	if err := errors.Join(ValidRepository(repository), validBlob(desc)); err != nil {
		return false, r.invalid(c, err)
	}
	c.path = "/v2/" + repository + "/blobs/uploads/"
	location, err := r.openUpload(ctx, c, desc, mountFrom)
	if err != nil || location == nil {
		return err == nil, err
	}
	if err := r.upload(ctx, c, location, desc, content); err != nil {
		r.dropUpload(ctx, c, location)
		return false, err
	}
	return false, nil
}

// openUpload returns where the upload goes on, or nil when the blob was mounted. A mount that is refused for a reason
// of its own, such as no access to the other repository, becomes a plain upload. Blobs under another digest than sha256
// are never mounted: distribution says that it did, and then knows them by their sha256 alone.
func (r *Registry) openUpload(ctx context.Context, c call, desc Descriptor, mountFrom string) (*url.URL, error) {
	itself := mountFrom == c.repository
	if mountFrom == "" || digest.Digest(desc.Digest).Algorithm() != digest.Canonical || itself && !r.selfMounts.worthwhile() {
		return r.startUpload(ctx, c, nil, desc)
	}
	if err := ValidRepository(mountFrom); err != nil {
		return nil, r.invalid(c, fmt.Errorf("mount from: %w", err))
	}
	mount := c
	mount.op = "mount blob from " + mountFrom + " as"
	mount.scopes = []string{auth.ScopeRepository(mountFrom, auth.ActionPull)}
	location, err := r.startUpload(ctx, mount, url.Values{"mount": {desc.Digest}, "from": {mountFrom}}, desc)
	refused, ok := errors.AsType[*Error](err)
	ok = ok && refused.Status/100 == 4 && !errors.Is(err, ErrUnavailable)
	if itself {
		r.selfMounts.asked(ok)
	}
	if ok {
		return r.startUpload(ctx, c, nil, desc)
	}
	return location, err
}

// selfMounts is whether it is worth asking the registry to mount a blob from the repository itself. Most answer that by
// opening the upload where the blob is not there, so that it costs nothing; one that refuses instead is asked seldom.
type selfMounts struct {
	refused atomic.Int64 // in a row
	skipped atomic.Int64
}

const (
	maxRefused   = 8  // in a row, before it is no longer asked each time
	askSelfAfter = 32 // blobs
)

func (s *selfMounts) worthwhile() bool {
	return s.refused.Load() < maxRefused || s.skipped.Add(1)%askSelfAfter == 0
}

func (s *selfMounts) asked(refused bool) {
	if !refused {
		s.refused.Store(0)
		return
	}
	s.refused.Add(1)
}

// startUpload sends the POST.
func (r *Registry) startUpload(ctx context.Context, c call, query url.Values, desc Descriptor) (*url.URL, error) {
	a, err := r.exchange(ctx, c, http.MethodPost, r.url(c.path, query), nil, nil)
	if err != nil {
		return nil, err
	}
	switch {
	case a.status == http.StatusAccepted:
		location, err := r.location(a)
		if err != nil {
			return nil, r.malformed(c, a.status, "%w", err)
		}
		return location, nil
	case a.status == http.StatusCreated && query != nil:
		return nil, r.confirm(ctx, c, a, desc)
	}
	return nil, r.unexpected(c, a)
}

// location reads where an upload goes on.
func (r *Registry) location(a *answer) (*url.URL, error) {
	said := a.header.Get("Location")
	if said == "" {
		return nil, errors.New("upload without a Location")
	}
	location, err := r.sameOrigin(a.url, said)
	if err != nil {
		return nil, fmt.Errorf("header Location: %w", err)
	}
	return location, nil
}

// upload sends the blob's bytes in one PUT: a small blob's from memory, a large one's as they come.
func (r *Registry) upload(
	ctx context.Context, c call, location *url.URL, desc Descriptor, content func() (io.ReadCloser, error),
) error {
	source := &blobSource{open: content, size: desc.Size}
	header := http.Header{"Content-Type": {"application/octet-stream"}}
	if desc.Size <= smallBlob {
		return r.uploadSmall(ctx, c, withDigest(location, desc.Digest), desc, source, header)
	}
	c.stream = true
	req := newRequest(http.MethodPut, withDigest(location, desc.Digest), header)
	req.Body, req.GetBody, req.ContentLength = source.reader(), source.again, desc.Size
	if desc.Size >= askFirst {
		req.Header.Set("Expect", "100-continue")
	}
	resp, err := r.send(ctx, c, req)
	if failed := source.failure(); failed != nil {
		if err == nil {
			_ = resp.Body.Close() // in memory
		}
		return fmt.Errorf("content of blob %s: %w", desc.Digest, failed)
	}
	if err != nil {
		return err
	}
	a, err := r.read(c, location, resp)
	if err != nil {
		return err
	}
	return r.uploaded(ctx, c, a, desc)
}

// smallBlobs are the buffers of small blobs.
var smallBlobs sync.Pool // of *[smallBlob]byte

// uploadSmall sends a blob from memory.
func (r *Registry) uploadSmall(
	ctx context.Context, c call, target *url.URL, desc Descriptor, source *blobSource, header http.Header,
) error {
	buffer, ok := smallBlobs.Get().(*[smallBlob]byte)
	if !ok {
		buffer = new([smallBlob]byte)
	}
	content, err := source.whole(buffer[:desc.Size])
	if err != nil {
		return fmt.Errorf("content of blob %s: %w", desc.Digest, err)
	}
	a, err := r.exchange(ctx, c, http.MethodPut, target, header, content)
	if err != nil {
		return err
	}
	if err := r.uploaded(ctx, c, a, desc); err != nil {
		return err
	}
	// A registry that has stored the blob has read it to its end. After any other answer the transport may still be
	// sending from the buffer, which is then left to it.
	smallBlobs.Put(buffer)
	return nil
}

// uploaded reads the answer to the PUT that completes an upload.
func (r *Registry) uploaded(ctx context.Context, c call, a *answer, desc Descriptor) error {
	if a.status != http.StatusCreated && a.status != http.StatusNoContent {
		return r.unexpected(c, a)
	}
	return r.confirm(ctx, c, a, desc)
}

// confirm checks the registry's word on what it has now. Distribution keeps a blob that was sent under a sha512 digest
// under that and its sha256, and says the latter: then the blob is looked up by the digest that it must be known by.
func (r *Registry) confirm(ctx context.Context, c call, a *answer, desc Descriptor) error {
	said := a.header.Get(headerDigest)
	if said == "" || said == desc.Digest {
		return nil
	}
	if validDigest(said) != nil || digest.Digest(said).Algorithm() == digest.Digest(desc.Digest).Algorithm() {
		return r.malformed(c, a.status, "it has %s instead", said)
	}
	look := c
	look.op, look.kind, look.stream = "look for blob", kindBlob, false
	look.path = "/v2/" + c.repository + "/blobs/" + desc.Digest
	found, err := r.exchange(ctx, look, http.MethodHead, r.url(look.path, nil), nil, nil)
	if err != nil {
		return err
	}
	if found.status != http.StatusOK || (found.length >= 0 && found.length != desc.Size) {
		return r.malformed(c, a.status, "it has %s and does not know it as %s", said, desc.Digest)
	}
	return nil
}

// dropUpload tells the registry to forget an upload. It may fail: the registry may have dropped it by itself, and
// purges what is left over in time.
func (r *Registry) dropUpload(ctx context.Context, c call, location *url.URL) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), cancelTimeout)
	defer cancel()
	c.op = "cancel upload of"
	_, _ = r.exchange(ctx, c, http.MethodDelete, location, nil, nil) // the caller gets the error that led here
}

// blobSource opens a blob's content when it is first read, and remembers what goes wrong with it: the transport reports
// a body that fails as a failure of the registry's.
type blobSource struct {
	open func() (io.ReadCloser, error)
	size int64

	mu  sync.Mutex
	err error
}

// whole reads all of it into a slice of its size.
func (s *blobSource) whole(all []byte) ([]byte, error) {
	if s.size == 0 {
		return nil, nil
	}
	reader := s.reader()
	defer reader.Close()
	if _, err := io.ReadFull(reader, all); err != nil {
		return nil, err
	}
	if _, err := io.ReadFull(reader, make([]byte, 1)); !errors.Is(err, io.EOF) {
		return nil, err // more bytes than there should be
	}
	return all, nil
}

func (s *blobSource) reader() io.ReadCloser { return &blobContent{source: s} }

func (s *blobSource) again() (io.ReadCloser, error) { return s.reader(), nil }

func (s *blobSource) failure() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.err
}

func (s *blobSource) failed(err error) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.err = err
	return err
}

// blobContent is one reading of a blobSource. Closing may come from another goroutine than reading, before it or during
// it.
type blobContent struct {
	source *blobSource
	read   int64

	mu     sync.Mutex
	body   io.ReadCloser
	closed bool
}

// Read implements io.Reader.
func (b *blobContent) Read(p []byte) (int, error) {
	body, err := b.opened()
	if err != nil {
		return 0, err
	}
	n, err := body.Read(p)
	b.read += int64(n)
	switch {
	case err != nil && b.isClosed():
		return n, err // the registry has answered early: what a closed body says is nothing about the content
	case b.read > b.source.size:
		return 0, b.source.failed(fmt.Errorf("more than %d bytes", b.source.size))
	case errors.Is(err, io.EOF) && b.read < b.source.size:
		return n, b.source.failed(fmt.Errorf("%d of %d bytes: %w", b.read, b.source.size, io.ErrUnexpectedEOF))
	case errors.Is(err, io.EOF), err == nil:
		return n, err
	}
	return n, b.source.failed(err)
}

func (b *blobContent) opened() (io.ReadCloser, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed {
		return nil, http.ErrBodyReadAfterClose
	}
	if b.body == nil {
		body, err := b.source.open()
		if err != nil {
			return nil, b.source.failed(err)
		}
		b.body = body
	}
	return b.body, nil
}

func (b *blobContent) isClosed() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.closed
}

// Close implements io.Closer.
func (b *blobContent) Close() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed || b.body == nil {
		b.closed = true
		return nil
	}
	b.closed = true
	return b.body.Close()
}
