package client

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"sync"
	"time"

	"google.golang.org/grpc/credentials"
)

// handshaker makes each TLS handshake from the files as they are at that moment. One snapshot serves the whole
// handshake, so that the certificate presented and the one that OwnCertificate compares with are the same.
type handshaker struct {
	credentials.TransportCredentials // Info of the template; the handshakes are below

	pair  *snapshot[tls.Certificate]
	roots *snapshot[*x509.CertPool] // nil: the server must present our own certificate
	role  string                    // of the server; "" = any
}

func newHandshaker(cfg Config) (*handshaker, error) {
	h := &handshaker{
		TransportCredentials: credentials.NewTLS(&tls.Config{MinVersion: tls.VersionTLS13}), role: cfg.ServerRole,
	}
	var err error
	if h.pair, err = newPair(cfg); err != nil || cfg.OwnCertificate {
		return h, err
	}
	h.roots, err = newRoots(cfg)
	return h, err
}

// ClientHandshake implements credentials.TransportCredentials. Authority is the name that the server's certificate must
// hold.
func (h *handshaker) ClientHandshake(
	ctx context.Context, authority string, raw net.Conn,
) (net.Conn, credentials.AuthInfo, error) {
	pair := h.pair.current()
	config := &tls.Config{
		MinVersion: tls.VersionTLS13,
		// With Certificates, a pair of a CA that the server does not name would not be sent at all, and the server's log
		// would speak of a missing certificate instead of an unknown authority.
		GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &pair, nil },
	}
	if h.roots == nil {
		pin(config, pair.Leaf)
	} else {
		config.RootCAs = h.roots.current()
		config.VerifyConnection = h.checkRole
	}
	return credentials.NewTLS(config).ClientHandshake(ctx, authority, raw)
}

// checkRole refuses a certificate that names another role than the server's: one authority issues those of nodes and of
// the primary, and their host names may overlap. A certificate that names no role is judged by its host name alone.
func (h *handshaker) checkRole(state tls.ConnectionState) error {
	for _, uri := range state.PeerCertificates[0].URIs {
		if h.role != "" && uri.Scheme == "antipode" && uri.Host != h.role {
			return fmt.Errorf("the server's certificate is that of a %s, not of a %s", uri.Host, h.role)
		}
	}
	return nil
}

// Clone returns the same credentials: they hold no per-connection state.
func (h *handshaker) Clone() credentials.TransportCredentials { return h }

// pin accepts one certificate and no other. The proof of the key is part of the TLS 1.3 handshake; names and chains say
// nothing more once the certificate itself is known.
func pin(config *tls.Config, own *x509.Certificate) {
	config.InsecureSkipVerify = true // replaced by a stricter check: equality with our own certificate
	config.VerifyConnection = func(state tls.ConnectionState) error {
		if len(state.PeerCertificates) == 0 || !bytes.Equal(state.PeerCertificates[0].Raw, own.Raw) {
			return errors.New("the server does not present our own certificate: " +
				"is this the daemon of the same config file?")
		}
		return nil
	}
}

// snapshot is what was last read from files, read again each time that it is asked for. What cannot be read or used
// leaves the value before in place. It is safe for concurrent use.
type snapshot[T any] struct {
	read   func() (T, error)
	doubt  func(T) error // what is wrong with a value that is used all the same
	logger *slog.Logger

	mu    sync.Mutex
	value T
	told  string
}

// newSnapshot reads once and fails if that does not succeed.
func newSnapshot[T any](logger *slog.Logger, read func() (T, error), doubt func(T) error) (*snapshot[T], error) {
	s := &snapshot[T]{read: read, doubt: doubt, logger: logger}
	var err error
	if s.value, err = read(); err == nil {
		s.tell(doubt(s.value))
	}
	return s, err
}

// current returns the newest usable value.
func (s *snapshot[T]) current() T {
	s.mu.Lock()
	defer s.mu.Unlock()
	value, err := s.read()
	if err != nil {
		s.tell(fmt.Errorf("cannot be used, what was read before is kept: %w", err))
		return s.value
	}
	s.value = value
	s.tell(s.doubt(value))
	return value
}

// tell logs the same trouble once.
func (s *snapshot[T]) tell(trouble error) {
	text := ""
	if trouble != nil {
		text = trouble.Error()
	}
	if text != "" && text != s.told {
		s.logger.Warn("certificate files need attention", "error", trouble)
	}
	s.told = text
}

func newPair(cfg Config) (*snapshot[tls.Certificate], error) {
	read := func() (tls.Certificate, error) {
		// The errors of LoadX509KeyPair name the problem and the path, never the content.
		pair, err := tls.LoadX509KeyPair(cfg.CertFile, cfg.KeyFile)
		if err != nil {
			return pair, fmt.Errorf("certificate %s with key %s: %w", cfg.CertFile, cfg.KeyFile, err)
		}
		return pair, nil
	}
	return newSnapshot(cfg.Logger, read, func(pair tls.Certificate) error { return outdated(cfg.CertFile, pair.Leaf) })
}

// outdated says whether a certificate is out of date. It is presented all the same: the server says no, and the file will
// be replaced.
func outdated(file string, leaf *x509.Certificate) error {
	now := time.Now()
	switch {
	case now.After(leaf.NotAfter):
		return fmt.Errorf("%s has expired at %s; servers will refuse it", file, leaf.NotAfter.Format(time.RFC3339))
	case now.Before(leaf.NotBefore):
		return fmt.Errorf("%s is not valid before %s; servers will refuse it", file, leaf.NotBefore.Format(time.RFC3339))
	}
	return nil
}

func newRoots(cfg Config) (*snapshot[*x509.CertPool], error) {
	return newSnapshot(cfg.Logger, func() (*x509.CertPool, error) { return readRoots(cfg.CAFile) },
		func(*x509.CertPool) error { return nil })
}

// readRoots takes every certificate of the file or none: a half-read file must not quietly drop an authority.
func readRoots(file string) (*x509.CertPool, error) {
	content, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("authorities: %w", err)
	}
	pool, found := x509.NewCertPool(), false
	for {
		var block *pem.Block
		if block, content = pem.Decode(content); block == nil {
			break
		}
		if block.Type != "CERTIFICATE" {
			return nil, fmt.Errorf("authorities: %s holds a %q block; only certificates belong there", file, block.Type)
		}
		certificate, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("authorities: %s: %w", file, err)
		}
		pool.AddCert(certificate)
		found = true
	}
	if !found {
		return nil, fmt.Errorf("authorities: no certificate in %s", file)
	}
	return pool, nil
}
