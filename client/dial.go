package client

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/keepalive"
)

// Config says where primaryd, or a site's secondaryd, is and who calls. The files are read at each handshake, so that
// a renewed certificate needs no restart.
type Config struct {
	// Address is host:port; required.
	Address string
	// CertFile and KeyFile are the caller's certificate, PEM; required.
	CertFile, KeyFile string
	// CAFile holds the authorities that the server's certificate must come from, PEM; required unless OwnCertificate.
	CAFile string
	// OwnCertificate accepts exactly the certificate in CertFile from the server, whatever its names: a daemon's command
	// line calls the daemon itself with it.
	OwnCertificate bool
	// UserAgent names the calling program; optional.
	UserAgent string
}

// maxMessage is what one message may be; the services send batches and pages well below it.
const maxMessage = 4 << 20

// Connect returns a lazy gRPC connection under mutual TLS 1.3, which reconnects with back-off (0.5 s to 10 s) and
// notices a dead peer within 40 s. Nothing is retried.
func Connect(cfg Config) (*grpc.ClientConn, error) {
	if _, err := tls.LoadX509KeyPair(cfg.CertFile, cfg.KeyFile); err != nil {
		return nil, fmt.Errorf("client certificate %s: %w", cfg.CertFile, err)
	}
	verify := verifyAuthority(cfg.CAFile)
	if cfg.OwnCertificate {
		verify = verifyOwn(cfg.CertFile, cfg.KeyFile)
	} else if _, err := readPool(cfg.CAFile); err != nil {
		return nil, err
	}
	tlsConfig := &tls.Config{
		MinVersion: tls.VersionTLS13,
		GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
			pair, err := tls.LoadX509KeyPair(cfg.CertFile, cfg.KeyFile)
			return &pair, err
		},
		// The standard verification reads its roots once; ours does the same checks with the file's present content.
		InsecureSkipVerify: true, //nolint:gosec // G402: VerifyConnection below verifies chain and name
		VerifyConnection:   verify,
	}
	conn, err := grpc.NewClient(cfg.Address,
		grpc.WithTransportCredentials(credentials.NewTLS(tlsConfig)),
		grpc.WithUserAgent(cfg.UserAgent),
		grpc.WithDisableRetry(),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxMessage)),
		grpc.WithConnectParams(grpc.ConnectParams{
			Backoff:           backoff.Config{BaseDelay: 500 * time.Millisecond, Multiplier: 1.6, Jitter: 0.2, MaxDelay: 10 * time.Second},
			MinConnectTimeout: 10 * time.Second,
		}),
		grpc.WithKeepaliveParams(keepalive.ClientParameters{
			Time: 30 * time.Second, Timeout: 10 * time.Second, PermitWithoutStream: true,
		}),
	)
	if err != nil {
		return nil, fmt.Errorf("connect to %s: %w", cfg.Address, err)
	}
	return conn, nil
}

// verifyAuthority checks the server's chain and name as RFC 5280 and RFC 9525 ask, against the file's authorities.
func verifyAuthority(caFile string) func(tls.ConnectionState) error {
	return func(state tls.ConnectionState) error {
		roots, err := readPool(caFile)
		if err != nil {
			return err
		}
		intermediates := x509.NewCertPool()
		for _, cert := range state.PeerCertificates[1:] {
			intermediates.AddCert(cert)
		}
		_, err = state.PeerCertificates[0].Verify(x509.VerifyOptions{
			Roots: roots, Intermediates: intermediates, DNSName: state.ServerName,
			KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		})
		return err
	}
}

// verifyOwn accepts the certificate of the file and no other.
func verifyOwn(certFile, keyFile string) func(tls.ConnectionState) error {
	return func(state tls.ConnectionState) error {
		own, err := tls.LoadX509KeyPair(certFile, keyFile)
		if err != nil {
			return err
		}
		if !own.Leaf.Equal(state.PeerCertificates[0]) {
			return errors.New("the server does not present the certificate of " + certFile)
		}
		return nil
	}
}

func readPool(caFile string) (*x509.CertPool, error) {
	pem, err := os.ReadFile(caFile)
	if err != nil {
		return nil, fmt.Errorf("certificate authorities: %w", err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("certificate authorities: %s holds no PEM certificate", caFile)
	}
	return pool, nil
}
