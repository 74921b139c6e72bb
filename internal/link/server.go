package link

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/reflection"
	"google.golang.org/grpc/stats"

	"github.com/antipode-registry/antipode/internal/connections"
)

// Bounds of the server, each set on purpose.
const (
	// maxRequestBytes: requests are small; the largest is a status report, which is bounded by its own limits.
	maxRequestBytes = 1 << 20
	// maxResponseBytes is what a client accepts; a batch or a page beyond it fails where it is made.
	maxResponseBytes = 4 << 20
	// maxHeaderBytes bounds the metadata of one RPC.
	maxHeaderBytes = 64 << 10
	// maxStreams per connection: a site uses one subscription, its reports and a listing per worker.
	maxStreams = 128
	// defaultMaxConnections is for some thousand sites, of which each holds one connection for each of its processes.
	defaultMaxConnections = 4096
	// maxOwned is how many connections one certificate's name has: several processes of a site and its command lines.
	maxOwned = 32
	// maxRunning is how many RPCs of one name run at once, over all of its connections.
	maxRunning = 256
	// connectionTimeout is for the TLS and HTTP/2 handshakes together.
	connectionTimeout = 10 * time.Second

	// Clients ping every 30 s; grpc's default for the shortest interval it tolerates, 5 min, would cut them off.
	minClientPing = 15 * time.Second
	pingInterval  = 30 * time.Second
	pingTimeout   = 10 * time.Second

	// defaultStallTimeout is long enough for a message over the slowest line, and for a site whose database is slow.
	defaultStallTimeout     = 2 * time.Minute
	defaultMaxConnectionAge = 30 * time.Minute
	connectionAgeGrace      = 5 * time.Minute
	defaultStopTimeout      = 5 * time.Second
	// handlerGrace is how long handlers get to return once their connections are closed.
	handlerGrace = time.Second
)

// ServerConfig says what a Server listens on and whom it lets in.
type ServerConfig struct {
	// Listen is host:port; port 0 picks one, see Server.Addr. Required.
	Listen string
	// CertFile and KeyFile are the server's PEM pair, with server-auth usage. Required, re-read when they change.
	CertFile, KeyFile string
	// ClientCAFile holds the CAs that client certificates must chain to. Required, re-read when it changes.
	ClientCAFile string
	// Logger is slog.Default() when nil.
	Logger *slog.Logger
	// Metrics may be nil.
	Metrics *Metrics
	// Stats hears of each RPC, as OpenTelemetry's otelgrpc.NewServerHandler wants to; it may be nil.
	Stats stats.Handler
	// Authorize is asked before every RPC, streams included, except health and reflection, which need only a verified
	// certificate. Required. Its errors go through MapError like a handler's.
	Authorize func(ctx context.Context, fullMethod string, id Identity) error
	// MapError turns a domain error into a status error; anything else that it returns becomes Internal without detail.
	// It does not see errors that are a status already, nor the end of the RPC's own context.
	MapError func(error) error
	// StopTimeout bounds the graceful part of a stop; 0 = 5 s.
	StopTimeout time.Duration
	// StallTimeout is how long a stream's message may wait for a peer to take it; then the connection is closed, for the
	// peer reads nothing any more. 0 = 2 min.
	StallTimeout time.Duration
	// MaxConnections bounds the connections of all peers together. Those that have not shown their certificate yet make
	// room for new ones. 0 = 4096.
	MaxConnections int
	// MaxConnectionAge, plus five minutes for running RPCs, ends each connection, so that a withdrawn or expired
	// certificate does not live on; 0 = 30 min.
	MaxConnectionAge time.Duration
}

// Server is a gRPC server on mutual TLS 1.3 with health and reflection.
type Server struct {
	cfg      ServerConfig
	listener *connections.Listener
	grpc     *grpc.Server
	health   *health.Server
	stopping chan struct{}
	stop     sync.Once
}

// Listen reads the certificates and opens the port. Register services on GRPC, then call Run, which also closes the
// port.
func Listen(cfg ServerConfig) (*Server, error) {
	if cfg.Authorize == nil {
		return nil, errors.New("link: Authorize is required")
	}
	cfg = cfg.withDefaults()
	creds, err := newServerCredentials(cfg)
	if err != nil {
		return nil, fmt.Errorf("link: %w", err)
	}
	inner, err := (&net.ListenConfig{}).Listen(context.Background(), "tcp", cfg.Listen)
	if err != nil {
		return nil, fmt.Errorf("link: %w", err)
	}
	listener := connections.Limit(inner, cfg.MaxConnections, cfg.Logger)
	creds.own = listener.Own
	s := &Server{
		cfg:      cfg,
		listener: listener,
		grpc:     grpc.NewServer(append(limits(cfg), append(chain(cfg), grpc.Creds(creds))...)...),
		health:   health.NewServer(),
		stopping: make(chan struct{}),
	}
	healthpb.RegisterHealthServer(s.grpc, s.health)
	reflection.Register(s.grpc)
	return s, nil
}

func (cfg ServerConfig) withDefaults() ServerConfig {
	if cfg.Logger == nil {
		cfg.Logger = slog.Default()
	}
	if cfg.StopTimeout <= 0 {
		cfg.StopTimeout = defaultStopTimeout
	}
	if cfg.StallTimeout <= 0 {
		cfg.StallTimeout = defaultStallTimeout
	}
	if cfg.MaxConnections <= 0 {
		cfg.MaxConnections = defaultMaxConnections
	}
	if cfg.MaxConnectionAge <= 0 {
		cfg.MaxConnectionAge = defaultMaxConnectionAge
	}
	return cfg
}

func limits(cfg ServerConfig) []grpc.ServerOption {
	list := []grpc.ServerOption{
		grpc.MaxRecvMsgSize(maxRequestBytes),
		grpc.MaxSendMsgSize(maxResponseBytes),
		grpc.MaxHeaderListSize(maxHeaderBytes),
		grpc.MaxConcurrentStreams(maxStreams),
		grpc.ConnectionTimeout(connectionTimeout),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: minClientPing, PermitWithoutStream: true}),
		grpc.KeepaliveParams(keepalive.ServerParameters{
			MaxConnectionAge:      cfg.MaxConnectionAge,
			MaxConnectionAgeGrace: connectionAgeGrace,
			Time:                  pingInterval,
			Timeout:               pingTimeout,
		}),
	}
	if cfg.Stats != nil {
		list = append(list, grpc.StatsHandler(cfg.Stats))
	}
	return list
}

// GRPC returns the server to register services on, before Run.
func (s *Server) GRPC() *grpc.Server { return s.grpc }

// Addr returns the address that the server listens on, with the port that was picked.
func (s *Server) Addr() net.Addr { return s.listener.Addr() }

// SetServing sets what health answers. A new server is serving; after the stop began it has no effect.
func (s *Server) SetServing(serving bool) {
	state := healthpb.HealthCheckResponse_NOT_SERVING
	if serving {
		state = healthpb.HealthCheckResponse_SERVING
	}
	s.health.SetServingStatus("", state)
}

// Stopping is closed when the stop begins. A handler of a long stream selects on it and returns, or it is cut off when
// the stop timeout is over.
func (s *Server) Stopping() <-chan struct{} { return s.stopping }

// Run serves until ctx is done, then stops within StopTimeout and one second: health says NOT_SERVING, Stopping is
// closed, running RPCs may finish, and what has not by then is cut off. It returns nil after such a stop, and the error
// when the port fails before it. It can be called once.
func (s *Server) Run(ctx context.Context) error {
	var failure error
	served := make(chan struct{})
	go func() {
		defer close(served)
		failure = s.grpc.Serve(s.listener)
	}()
	select {
	case <-served:
		s.halt()
		return fmt.Errorf("link: serving on %s: %w", s.Addr(), failure)
	case <-ctx.Done():
		s.halt()
		<-served
		return nil
	}
}

// halt stops the server. GracefulStop alone would wait for idle streams for ever.
func (s *Server) halt() {
	s.stop.Do(func() { close(s.stopping) })
	s.health.Shutdown()
	graceful := make(chan struct{})
	go func() {
		defer close(graceful)
		s.grpc.GracefulStop()
	}()
	timer := time.NewTimer(s.cfg.StopTimeout)
	defer timer.Stop()
	select {
	case <-graceful:
		return
	case <-timer.C:
		s.cfg.Logger.Warn("RPCs did not end in time; closing their connections", "timeout", s.cfg.StopTimeout)
	}
	s.grpc.Stop()
	timer.Reset(handlerGrace)
	select {
	case <-graceful:
	case <-timer.C:
		s.cfg.Logger.Warn("RPC handlers still run after their connections were closed")
	}
}
