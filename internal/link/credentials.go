package link

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"time"

	"golang.org/x/time/rate"
	"google.golang.org/grpc/credentials"
)

// serverCredentials makes each handshake from the files as they are at that moment. One snapshot serves the whole
// handshake, so the certificate presented and the one that Self compares with are the same.
//
// Session tickets are off: a resumed session would skip the check against the current CA file.
type serverCredentials struct {
	credentials.TransportCredentials // Info and Clone of the template; the handshakes are below

	pair     *followed[tls.Certificate]
	roots    *followed[*x509.CertPool]
	refusals *refusals
	own      func(raw net.Conn, owner string, most int) bool // connections.Listener's
}

func newServerCredentials(cfg ServerConfig) (*serverCredentials, error) {
	pair, err := followPair(cfg.Logger, cfg.CertFile, cfg.KeyFile, func(leaf *x509.Certificate) {
		warnExpired(cfg.Logger, cfg.CertFile, leaf)
		cfg.Metrics.setExpiry(leaf.NotAfter)
	})
	if err != nil {
		return nil, err
	}
	roots, err := followRoots(cfg.Logger, cfg.ClientCAFile)
	if err != nil {
		return nil, err
	}
	return &serverCredentials{
		TransportCredentials: credentials.NewTLS(&tls.Config{MinVersion: tls.VersionTLS13}),
		pair:                 pair,
		roots:                roots,
		refusals:             newRefusals(cfg.Logger, cfg.Metrics),
	}, nil
}

// ServerHandshake verifies the client's certificate: chain, dates and client-auth usage by crypto/tls, the identity
// here. A refusal is logged and counted; the client sees a TLS alert and no more.
func (c *serverCredentials) ServerHandshake(raw net.Conn) (net.Conn, credentials.AuthInfo, error) {
	pair := c.pair.current()
	var identity Identity
	config := &tls.Config{
		MinVersion:             tls.VersionTLS13,
		Certificates:           []tls.Certificate{pair},
		ClientAuth:             tls.RequireAndVerifyClientCert,
		ClientCAs:              c.roots.current(),
		SessionTicketsDisabled: true,
		VerifyConnection: func(state tls.ConnectionState) (err error) {
			leaf := state.PeerCertificates[0]
			identity, err = identify(leaf)
			identity.Self = bytes.Equal(leaf.Raw, pair.Leaf.Raw)
			return err
		},
	}
	conn, info, err := credentials.NewTLS(config).ServerHandshake(raw)
	if err != nil {
		c.refusals.report(raw.RemoteAddr(), err)
		return nil, nil, err
	}
	verified, ok := info.(credentials.TLSInfo)
	if !ok {
		return nil, nil, errors.Join(fmt.Errorf("link: unexpected handshake result %T", info), conn.Close())
	}
	if !c.own(raw, identity.String(), maxOwned) {
		err := fmt.Errorf("%s has %d connections already", identity, maxOwned)
		c.refusals.report(raw.RemoteAddr(), err)
		return nil, nil, errors.Join(err, conn.Close())
	}
	return conn, authInfo{TLSInfo: verified, identity: identity, hangUp: raw.Close}, nil
}

// Clone returns the same credentials: they hold no per-connection state.
func (c *serverCredentials) Clone() credentials.TransportCredentials { return c }

// warnExpired tells of a certificate that peers will refuse. It is loaded all the same: the daemon's other work goes
// on, and the file will be replaced.
func warnExpired(logger *slog.Logger, file string, leaf *x509.Certificate) {
	now := time.Now()
	switch {
	case now.After(leaf.NotAfter):
		logger.Warn("certificate has expired; peers will refuse it", "file", file, "not_after", leaf.NotAfter)
	case now.Before(leaf.NotBefore):
		logger.Warn("certificate is not valid yet; peers will refuse it", "file", file, "not_before", leaf.NotBefore)
	}
}

// Refused handshakes are logged at this rate, so that a port scan or a client in a loop cannot fill the disk.
const (
	refusalInterval = time.Second
	refusalBurst    = 20
)

// refusals logs handshakes that failed, with how many were left out since the last line.
type refusals struct {
	logger  *slog.Logger
	metrics *Metrics
	limiter *rate.Limiter
}

func newRefusals(logger *slog.Logger, metrics *Metrics) *refusals {
	return &refusals{
		logger: logger, metrics: metrics,
		limiter: rate.NewLimiter(rate.Every(refusalInterval), refusalBurst),
	}
}

func (r *refusals) report(remote net.Addr, err error) {
	if errors.Is(err, io.EOF) {
		// Connected and left without a word: a load balancer's or a monitor's TCP probe.
		r.logger.Debug("connection closed before the TLS handshake", "remote", remote.String())
		return
	}
	r.metrics.countRefusal()
	if r.limiter.Allow() {
		r.logger.Warn("TLS handshake refused", "remote", remote.String(), "error", err)
	}
}
