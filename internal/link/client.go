package link

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/keepalive"
)

// ClientConfig says whom to dial and as whom.
type ClientConfig struct {
	// Address is host:port. The host is what the server's certificate must be for.
	Address string
	// CertFile and KeyFile are the client's PEM pair, with client-auth usage. Required, re-read when they change.
	CertFile, KeyFile string
	// CAFile holds the CAs that the server's certificate must chain to; re-read when it changes. Unused with Self.
	CAFile string
	// Self demands that the server present our own certificate, and checks nothing else of it. It is how the command
	// line reaches the daemon that runs from the same config file.
	Self bool
	// Logger is slog.Default() when nil.
	Logger *slog.Logger
	// UserAgent is "antipode" when empty.
	UserAgent string
}

// Dial returns a connection that is made at the first RPC and again whenever it is lost, after a pause that grows from
// half a second to ten. It fails at once only when the address or the files are unusable.
//
// RPCs fail fast while there is no connection (grpc.WaitForReady per call changes that) and are never repeated: a
// repeated subscription would start from an old cursor. Client-side health checks and service configs from DNS are
// off. HTTPS_PROXY and NO_PROXY are followed, as everywhere in Go: TLS runs through the proxy's tunnel unseen.
func Dial(cfg ClientConfig) (*grpc.ClientConn, error) {
	if cfg.Logger == nil {
		cfg.Logger = slog.Default()
	}
	if cfg.UserAgent == "" {
		cfg.UserAgent = "antipode"
	}
	host, _, err := net.SplitHostPort(cfg.Address)
	if err != nil {
		return nil, fmt.Errorf("link: address: %w", err)
	}
	if host == "" {
		return nil, errors.New("link: address: a host is needed before the port")
	}
	creds, err := newClientCredentials(cfg)
	if err != nil {
		return nil, fmt.Errorf("link: %w", err)
	}
	conn, err := grpc.NewClient("dns:///"+cfg.Address, dialOptions(cfg, creds)...)
	if err != nil {
		return nil, fmt.Errorf("link: dialling %s: %w", cfg.Address, err)
	}
	return conn, nil
}

func dialOptions(cfg ClientConfig, creds *clientCredentials) []grpc.DialOption {
	return []grpc.DialOption{
		grpc.WithTransportCredentials(creds),
		grpc.WithUserAgent(cfg.UserAgent),
		grpc.WithDisableHealthCheck(),
		grpc.WithDisableServiceConfig(),
		grpc.WithDisableRetry(),
		grpc.WithConnectParams(grpc.ConnectParams{
			Backoff: backoff.Config{
				BaseDelay: 500 * time.Millisecond, Multiplier: 1.6, Jitter: 0.2, MaxDelay: 10 * time.Second,
			},
			MinConnectTimeout: connectionTimeout,
		}),
		grpc.WithKeepaliveParams(keepalive.ClientParameters{
			Time: pingInterval, Timeout: pingTimeout, PermitWithoutStream: true,
		}),
		grpc.WithDefaultCallOptions(
			grpc.MaxCallRecvMsgSize(maxResponseBytes), grpc.MaxCallSendMsgSize(maxRequestBytes), grpc.WaitForReady(false)),
	}
}
