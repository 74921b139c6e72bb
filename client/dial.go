package client

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/stats"
)

// Config says where primaryd, or a site's secondaryd, is and who calls.
//
// The files are read at each handshake, so that a renewed certificate needs no restart. A pair that does not match, as
// one that is half replaced, or a file that cannot be read leaves in use what was read before.
type Config struct {
	// Address is host:port; required. The host is what the server's certificate must be for.
	Address string
	// CertFile and KeyFile are the caller's certificate, PEM, with client-auth usage; required.
	CertFile, KeyFile string
	// CAFile holds the authorities that the server's certificate must come from, PEM; required unless OwnCertificate.
	CAFile string
	// OwnCertificate accepts exactly the certificate in CertFile from the server, whatever its names: a daemon's command
	// line calls the daemon itself with it.
	OwnCertificate bool
	// ServerRole, if set, refuses a server whose certificate names another role: "primary" where primaryd is called.
	ServerRole string
	// Manifests asks for the manifests of tags along with listings, as far as they are small: for who copies what it lists.
	Manifests bool
	// UserAgent names the calling program; "antipode" when empty.
	UserAgent string
	// Logger hears of files that cannot be used and of streams that broke off; nil discards.
	Logger *slog.Logger
	// StatsHandler hears of each RPC, as OpenTelemetry's otelgrpc.NewClientHandler wants to; nil: nobody does.
	StatsHandler stats.Handler
}

// Bounds of a connection, each set on purpose.
const (
	// maxResponse is what one message may be; the services send batches and pages well below it.
	maxResponse = 4 << 20
	// maxRequest is what the servers take.
	maxRequest = 1 << 20
	// connectTimeout is for TCP, TLS and HTTP/2 together.
	connectTimeout = 10 * time.Second
	// The servers tolerate a ping every 15 s.
	pingInterval = 30 * time.Second
	pingTimeout  = 10 * time.Second
)

// Connect returns a connection under mutual TLS 1.3 that is made at the first RPC and again whenever it is lost, after
// a pause that grows from half a second to ten. It notices a dead peer within 40 s. It fails at once only when the
// address or the files are unusable.
//
// RPCs fail fast while there is no connection (grpc.WaitForReady per call changes that) and are never repeated: a
// repeated subscription would start from an old cursor. Client-side health checks and service configs from DNS are
// off. HTTPS_PROXY and NO_PROXY are followed, as everywhere in Go: TLS runs through the proxy's tunnel unseen.
func Connect(cfg Config) (*grpc.ClientConn, error) {
	cfg = cfg.withDefaults()
	host, _, err := net.SplitHostPort(cfg.Address)
	if err != nil {
		return nil, fmt.Errorf("connect: %w", err)
	}
	if host == "" {
		return nil, errors.New("connect: a host is needed before the port of " + cfg.Address)
	}
	creds, err := newHandshaker(cfg)
	if err != nil {
		return nil, fmt.Errorf("connect: %w", err)
	}
	conn, err := grpc.NewClient("dns:///"+cfg.Address, options(cfg, creds)...)
	if err != nil {
		return nil, fmt.Errorf("connect to %s: %w", cfg.Address, err)
	}
	return conn, nil
}

func (cfg Config) withDefaults() Config {
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	if cfg.UserAgent == "" {
		cfg.UserAgent = "antipode"
	}
	return cfg
}

func options(cfg Config, creds *handshaker) []grpc.DialOption {
	list := []grpc.DialOption{
		grpc.WithTransportCredentials(creds),
		grpc.WithUserAgent(cfg.UserAgent),
		grpc.WithDisableHealthCheck(),
		grpc.WithDisableServiceConfig(),
		grpc.WithDisableRetry(),
		grpc.WithConnectParams(grpc.ConnectParams{
			Backoff: backoff.Config{
				BaseDelay: 500 * time.Millisecond, Multiplier: 1.6, Jitter: 0.2, MaxDelay: 10 * time.Second,
			},
			MinConnectTimeout: connectTimeout,
		}),
		grpc.WithKeepaliveParams(keepalive.ClientParameters{
			Time: pingInterval, Timeout: pingTimeout, PermitWithoutStream: true,
		}),
		grpc.WithDefaultCallOptions(
			grpc.MaxCallRecvMsgSize(maxResponse), grpc.MaxCallSendMsgSize(maxRequest), grpc.WaitForReady(false)),
	}
	if cfg.StatsHandler != nil {
		list = append(list, grpc.WithStatsHandler(cfg.StatsHandler))
	}
	return list
}
