package link

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync"
)

// followed is a value read from files, read again when they change. Reading happens when somebody asks, so there is no
// goroutine and no notification to lose. A new version that cannot be used leaves the old one in place and is tried
// again at the next question. It is safe for concurrent use.
type followed[T any] struct {
	paths  []string
	read   func() (T, error)
	logger *slog.Logger

	mu     sync.Mutex
	value  T
	stamps []os.FileInfo
	warned string
}

// follow reads the files once and fails if that does not succeed.
func follow[T any](logger *slog.Logger, read func() (T, error), paths ...string) (*followed[T], error) {
	f := &followed[T]{paths: paths, read: read, logger: logger}
	stamps, err := f.stat()
	if err != nil {
		return nil, err
	}
	if f.value, err = read(); err != nil {
		return nil, err
	}
	f.stamps = stamps
	return f, nil
}

// current returns the newest usable value.
func (f *followed[T]) current() T {
	f.mu.Lock()
	defer f.mu.Unlock()
	// The stamps are older than the content: a write between the two is seen as a change the next time.
	stamps, err := f.stat()
	if err == nil && sameFiles(stamps, f.stamps) {
		return f.value
	}
	if err == nil {
		var value T
		if value, err = f.read(); err == nil {
			f.value, f.stamps, f.warned = value, stamps, ""
			f.logger.Info("certificate files re-read", "files", f.paths)
			return f.value
		}
	}
	if err.Error() != f.warned {
		f.warned = err.Error()
		f.logger.Warn("certificate files changed and cannot be used; keeping what was read before",
			"files", f.paths, "error", err)
	}
	return f.value
}

func (f *followed[T]) stat() ([]os.FileInfo, error) {
	stamps := make([]os.FileInfo, len(f.paths))
	for i, path := range f.paths {
		info, err := os.Stat(path)
		if err != nil {
			return nil, err
		}
		stamps[i] = info
	}
	return stamps, nil
}

// sameFiles also compares the files themselves: a replacement by rename can have the same size and, on coarse clocks,
// the same time.
func sameFiles(a, b []os.FileInfo) bool {
	for i := range a {
		if a[i].Size() != b[i].Size() || !a[i].ModTime().Equal(b[i].ModTime()) || !os.SameFile(a[i], b[i]) {
			return false
		}
	}
	return true
}

// followPair follows a certificate and its key. Loaded is called with each certificate that is taken into use.
func followPair(
	logger *slog.Logger, certFile, keyFile string, loaded func(*x509.Certificate),
) (*followed[tls.Certificate], error) {
	read := func() (tls.Certificate, error) {
		// The errors of LoadX509KeyPair name the problem and the path, never the content.
		pair, err := tls.LoadX509KeyPair(certFile, keyFile)
		if err != nil {
			return tls.Certificate{}, fmt.Errorf("certificate %s with key %s: %w", certFile, keyFile, err)
		}
		loaded(pair.Leaf)
		return pair, nil
	}
	return follow(logger, read, certFile, keyFile)
}

// followRoots follows a file of CA certificates in PEM.
func followRoots(logger *slog.Logger, caFile string) (*followed[*x509.CertPool], error) {
	read := func() (*x509.CertPool, error) {
		content, err := os.ReadFile(caFile)
		if err != nil {
			return nil, err
		}
		pool, err := parseRoots(content)
		if err != nil {
			return nil, fmt.Errorf("CA file %s: %w", caFile, err)
		}
		return pool, nil
	}
	return follow(logger, read, caFile)
}

// parseRoots takes every certificate of the file or none: a half-read file must not quietly drop a CA.
func parseRoots(content []byte) (*x509.CertPool, error) {
	pool, found := x509.NewCertPool(), false
	for {
		var block *pem.Block
		if block, content = pem.Decode(content); block == nil {
			break
		}
		if block.Type != "CERTIFICATE" {
			return nil, fmt.Errorf("holds a %q block; only certificates belong there", block.Type)
		}
		certificate, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, err
		}
		pool.AddCert(certificate)
		found = true
	}
	if !found {
		return nil, errors.New("no certificate in it")
	}
	return pool, nil
}
