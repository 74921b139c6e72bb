package transfer

import (
	"context"
	"errors"
	"fmt"
	"hash"
	"io"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/antipode-registry/antipode/internal/registry"
)

const (
	maxStalled = 5                      // attempts in a row to take up a download that bring no byte
	backoffMin = 100 * time.Millisecond // before the second of them; doubles with each
	backoffMax = 5 * time.Second
)

// errClosed is what a stream answers once its reader has closed it: whoever closes early has a reason of its own, and
// the end of the download is not it.
var errClosed = errors.New("closed by the upload")

// download is the content of one blob, for as many uploads as are tried with it.
type download struct {
	job  *job
	ctx  context.Context //nolint:containedctx // an io.Reader has nowhere else to take it from
	desc registry.Descriptor

	mu       sync.Mutex
	latest   *stream
	credited int64 // bytes of latest that were reported as progress
}

// open begins the download, from the first byte. What an earlier stream brought no longer counts as progress: uploads
// call this again when they were refused before they began.
//
// The source is asked only when the first byte is read, which is when the upload has its place among the requests to
// the destination. Asking here would hold a place at the source while waiting for one at the destination, and a
// download that is taken up again waits the other way round: with few places left, neither would ever move.
func (d *download) open() (io.ReadCloser, error) {
	ctx, cancel := context.WithCancel(d.ctx)
	s := &stream{download: d, ctx: ctx, cancel: cancel, hash: digest.Digest(d.desc.Digest).Algorithm().Hash()}
	d.mu.Lock()
	credited := d.credited
	d.latest, d.credited = s, 0
	d.mu.Unlock()
	d.job.progress.add(-credited)
	return s, nil
}

// count adds n bytes that s delivered to all that count them.
func (d *download) count(s *stream, n int) {
	d.mu.Lock()
	current := d.latest == s
	if current {
		d.credited += int64(n)
	}
	d.mu.Unlock()
	if current {
		d.job.progress.add(int64(n))
	}
	d.job.metrics.read(n)
	d.job.read(n)
}

// stream reads a blob through as many connections as it takes. It delivers exactly desc.Size bytes of the right digest,
// or an error in place of the last of them. Close may be called during a Read, as net/http does; all else belongs to
// one goroutine at a time.
type stream struct {
	download *download
	ctx      context.Context //nolint:containedctx // ends with Close
	cancel   context.CancelFunc
	hash     hash.Hash
	body     io.ReadCloser // the present connection; nil = none
	offset   int64         // bytes delivered
	stalled  int           // attempts since the last byte
	failure  error         // the last word

	mu     sync.Mutex
	closed bool
	inRead bool // the body is Read's to close
}

// Read implements io.Reader.
func (s *stream) Read(p []byte) (int, error) {
	if !s.enter() {
		return 0, errClosed
	}
	defer s.leave()
	size := s.download.desc.Size
	switch {
	case s.failure != nil:
		return 0, s.failure
	case s.offset == size:
		return 0, io.EOF
	case len(p) == 0:
		return 0, nil
	}
	n, err := s.fill(p[:min(int64(len(p)), size-s.offset)])
	if err != nil {
		return 0, s.fail(err)
	}
	s.hash.Write(p[:n])
	s.offset += int64(n)
	if s.offset == size {
		if err := s.verify(); err != nil {
			return 0, s.fail(err)
		}
	}
	s.download.count(s, n)
	return n, nil
}

// Close implements io.Closer. A Read under way ends with an error.
func (s *stream) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	s.cancel()
	if !s.inRead {
		s.drop()
	}
	return nil
}

func (s *stream) enter() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.inRead = !s.closed
	return s.inRead
}

func (s *stream) leave() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.inRead = false
	if s.closed {
		s.drop()
	}
}

// verify checks the whole once it is read.
func (s *stream) verify() error {
	want := digest.Digest(s.download.desc.Digest)
	if got := digest.NewDigest(want.Algorithm(), s.hash); got != want {
		return fmt.Errorf("%d bytes of the source have the digest %s: %w", s.offset, got, registry.ErrMalformed)
	}
	return nil
}

// fail makes err the stream's last word.
func (s *stream) fail(err error) error {
	s.drop()
	if s.ctx.Err() != nil && s.download.ctx.Err() == nil {
		err = errClosed
	}
	s.failure = err
	return err
}

// fill reads at least one byte, connecting as often as it takes.
func (s *stream) fill(p []byte) (int, error) {
	if s.body == nil { // registries retry a request that was not answered; to do so here too would multiply
		if err := s.connect(); err != nil {
			return 0, err
		}
	}
	for {
		n, err := s.body.Read(p)
		if n > 0 {
			s.stalled = 0
			return n, nil // an error that came along comes again, or does not matter any more
		}
		if err == nil {
			continue
		}
		if errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF // fewer bytes than there should be
		}
		if err := s.resume(err); err != nil {
			return 0, err
		}
	}
}

// resume opens another connection after one broke, unless too many before it brought nothing.
func (s *stream) resume(broke error) error {
	for {
		s.drop()
		if s.ctx.Err() != nil {
			return s.ctx.Err()
		}
		if s.stalled >= maxStalled {
			return fmt.Errorf("%d attempts in a row brought nothing after %d of %d bytes: %w",
				s.stalled, s.offset, s.download.desc.Size, broke)
		}
		s.note(broke)
		if err := s.pause(); err != nil {
			return err
		}
		s.stalled++
		err := s.connect()
		if err == nil || final(err) {
			return err
		}
		broke = err
	}
}

func (s *stream) note(broke error) {
	j := s.download.job
	j.metrics.resumed()
	j.logger.WarnContext(s.ctx, "a download broke and is taken up again",
		"repository", j.req.SourceRepository, "digest", s.download.desc.Digest, "side", string(registry.Source),
		"offset", s.offset, "error", broke)
}

// pause waits, the longer the more attempts brought nothing.
func (s *stream) pause() error {
	wait := min(backoffMin<<s.stalled, backoffMax)
	timer := time.NewTimer(wait/2 + rand.N(wait/2))
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-s.ctx.Done():
		return s.ctx.Err()
	}
}

// connect asks the source for what is left. A source that ignores ranges is read again from the start: the upload is
// under way and worth more than the bytes.
func (s *stream) connect() error {
	req, desc := s.download.job.req, s.download.desc
	body, err := req.Source.Blob(s.ctx, req.SourceRepository, desc, s.offset)
	if s.offset > 0 && errors.Is(err, registry.ErrRangeIgnored) {
		body, err = s.rewind()
	}
	if err != nil {
		return err
	}
	s.body = body
	return nil
}

func (s *stream) rewind() (io.ReadCloser, error) {
	req := s.download.job.req
	body, err := req.Source.Blob(s.ctx, req.SourceRepository, s.download.desc, 0)
	if err != nil {
		return nil, err
	}
	if _, err := io.CopyN(io.Discard, body, s.offset); err != nil {
		_ = body.Close()
		return nil, fmt.Errorf("skip the %d bytes that were read before: %w", s.offset, err)
	}
	return body, nil
}

// drop ends the present connection, if there is one.
func (s *stream) drop() {
	if s.body != nil {
		_ = s.body.Close() // only read from: there is nothing to lose
		s.body = nil
	}
}

// final tells errors that another attempt would meet again: the source does not have it, or does not give it to us.
func final(err error) bool {
	return errors.Is(err, registry.ErrNotFound) || errors.Is(err, registry.ErrUnauthorized)
}
