package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"time"
	"unicode"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"

	antipodev1 "github.com/antipode-registry/antipode/gen/antipode/v1"
	"github.com/antipode-registry/antipode/internal/cli"
	"github.com/antipode-registry/antipode/internal/database"
	"github.com/antipode-registry/antipode/internal/gateway"
	"github.com/antipode-registry/antipode/internal/httpaccess"
	"github.com/antipode-registry/antipode/internal/lease"
	"github.com/antipode-registry/antipode/internal/link"
	"github.com/antipode-registry/antipode/internal/registry"
	"github.com/antipode-registry/antipode/internal/telemetry"
	"github.com/antipode-registry/antipode/primaryd/internal/feed"
	"github.com/antipode-registry/antipode/primaryd/internal/listing"
	"github.com/antipode-registry/antipode/primaryd/internal/node"
	"github.com/antipode-registry/antipode/primaryd/internal/request"
	"github.com/antipode-registry/antipode/primaryd/internal/service"
	"github.com/antipode-registry/antipode/primaryd/internal/sweep"
)

// reportWithin is how often sites report their status.
const reportWithin = 10 * time.Second

func newServe() *cobra.Command {
	var path string
	cmd := &cobra.Command{
		Use:   "serve",
		Short: "Run the daemon until it is told to stop (SIGINT, SIGTERM)",
		Long: "Run the daemon until it is told to stop (SIGINT, SIGTERM). SIGHUP has it read nodes and operators of its " +
			"configuration again.",
		Args: cli.Args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := loadSettings(path)
			if err != nil {
				return err
			}
			logger, err := telemetry.NewLogger(os.Stderr, cfg.Log.Level, cfg.Log.Format)
			if err != nil {
				return err
			}
			return serve(cmd.Context(), path, cfg, logger)
		},
	}
	configFlag(cmd, &path)
	return cmd
}

// daemon is primaryd's parts.
type daemon struct {
	path     string // of the configuration
	cfg      *settings
	logger   *slog.Logger
	metrics  *prometheus.Registry
	traces   *telemetry.Traces
	db       *database.DB
	feed     *feed.Feed
	nodes    *node.Directory
	registry *registry.Registry
	lister   *listing.Lister
	requests *request.Desk
	sweeper  *sweep.Sweeper
	leases   *lease.Leases
	wanted   chan struct{} // of one: see wantSweep
	access   service.Access
	server   *link.Server
	locator  *request.Locator
	local    *link.Local // the services, for what answers them over HTTP
	room     *httpaccess.Room
	http     net.Listener
	web      http.Handler
	hangups  <-chan os.Signal
}

// serve builds the parts, from the database up, and runs them until ctx ends or one of them fails. The path is where the
// configuration was read, and is read again.
func serve(ctx context.Context, path string, cfg *settings, logger *slog.Logger) error {
	logger.Info("starting", "version", telemetry.Version())
	d := &daemon{
		path: path, cfg: cfg, logger: logger, metrics: telemetry.NewRegistry("primaryd", telemetry.Version()),
		wanted: make(chan struct{}, 1),
	}
	received, stop := hangups()
	defer stop()
	d.hangups = received
	if err := d.open(ctx); err != nil {
		if d.http != nil {
			err = errors.Join(err, d.http.Close()) // of which run would have taken care
		}
		return errors.Join(err, d.close()) //nolint:contextcheck // ctx has ended, and what is left is bounded
	}
	d.logger.Info("listening", "service", "http", "address", d.http.Addr().String())
	d.logger.Info("listening", "service", "grpc", "address", d.server.Addr().String())
	err := d.run(ctx)
	d.logger.Info("stopped")
	return errors.Join(err, d.close()) //nolint:contextcheck // ctx has ended, and what is left is bounded
}

// run runs the parts. The feed goes on until nobody can call it any more, so that a notification that was taken during
// the stop is committed.
func (d *daemon) run(ctx context.Context) error {
	group, ctx := errgroup.WithContext(ctx)
	feeding, stopFeeding := context.WithCancel(context.WithoutCancel(ctx))
	defer stopFeeding()
	group.Go(func() error { return d.feed.Run(feeding) })
	group.Go(func() error {
		defer stopFeeding()
		return d.fronts(ctx)
	})
	return group.Wait()
}

// fronts runs everything that uses the feed.
func (d *daemon) fronts(ctx context.Context) error {
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return d.nodes.Run(ctx) })
	group.Go(func() error { return d.sweep(ctx) })
	group.Go(func() error { return d.server.Run(ctx) })
	group.Go(func() error { return telemetry.ServeHTTP(ctx, d.http, d.web, d.logger) })
	group.Go(func() error { return d.reload(ctx, d.hangups) })
	return group.Wait()
}

func (d *daemon) open(ctx context.Context) (err error) {
	// Without a secret every notification would be refused, for ever and out of sight.
	if _, err := d.secret(); err != nil {
		return err
	}
	if d.traces, err = telemetry.OpenTraces(ctx, d.cfg.Traces.config(d.logger), d.metrics); err != nil {
		return err
	}
	if d.db, err = database.Open(ctx, d.cfg.Database, d.logger); err != nil {
		return err
	}
	if d.feed, err = feed.Open(ctx, d.db, feed.Options{
		Logger: d.logger, Metrics: feed.NewMetrics(d.metrics), Tracer: d.traces.Tracer(),
	}); err != nil {
		return err
	}
	if d.leases, err = openLeases(ctx, d.db, d.logger); err != nil {
		return err
	}
	if d.nodes, err = node.Open(ctx, d.db, d.cfg.nodes(), node.Options{ReportInterval: reportWithin}); err != nil {
		return err
	}
	if d.requests, err = request.Open(ctx, d.db, d.nodes); err != nil {
		return err
	}
	d.registry, err = registry.Open(registry.Config{
		URL: d.cfg.Registry.URL, Side: registry.Source, UserAgent: userAgent(), Concurrency: d.cfg.Registry.Concurrency,
		CAFile: d.cfg.Registry.CAFile, Metrics: registry.NewMetrics(d.metrics), Tracer: d.traces.Tracer(),
	})
	if err != nil {
		return err
	}
	d.lister = listing.New(d.registry, d.feed, listing.WithTracer(d.traces.Tracer()))
	d.sweeper = sweep.New(d.registry, d.lister, d.feed, sweep.Options{
		Interval: time.Duration(d.cfg.Sweep.Interval), Logger: d.logger, Metrics: sweep.NewMetrics(d.metrics),
	})
	if d.room, err = httpaccess.Open(d.cfg.HTTP.access(d.logger)); err != nil {
		return err
	}
	if d.http, err = (&net.ListenConfig{}).Listen(ctx, "tcp", d.cfg.HTTP.Listen); err != nil {
		return fmt.Errorf("http.listen: %w", err)
	}
	if err := d.listenGRPC(); err != nil { //nolint:contextcheck // handlers take the contexts of their streams
		return err
	}
	d.web, err = d.handler(ctx)
	return err
}

func (d *daemon) listenGRPC() (err error) {
	d.access = service.Access{Nodes: d.nodes, Operators: service.NewOperators(d.cfg.Operators...)}
	access := d.access
	cfg := link.ServerConfig{
		Listen: d.cfg.GRPC.Listen, CertFile: d.cfg.GRPC.CertFile, KeyFile: d.cfg.GRPC.KeyFile,
		ClientCAFile: d.cfg.GRPC.ClientCAFile, Logger: d.logger, Metrics: link.NewMetrics(d.metrics),
		Authorize: access.Authorize, MapError: service.MapError,
		Stats: d.traces.ServerHandler(antipodev1.FeedService_ListTags_FullMethodName),
	}
	if d.server, err = link.Listen(cfg); err != nil {
		return fmt.Errorf("grpc: %w", err)
	}
	d.local = link.NewLocal(cfg, link.Identity{Role: link.RoleOperator, Name: "http", Self: true}, gateway.PrimaryMethods...)
	d.locator = request.NewLocator(d.requests, d.nodes, d.registry)
	feeds := service.NewFeedService(access, d.feed, d.lister, service.FeedOptions{
		Heartbeat: time.Duration(d.cfg.GRPC.Heartbeat), RegistryURL: d.cfg.advertised(), Version: telemetry.Version(),
		Stopping: d.server.Stopping(), Requests: d.requests, Metrics: service.NewMetrics(d.metrics),
		Tracer: d.traces.Tracer(),
	})
	service.RegisterNodeMetrics(d.metrics, d.nodes, d.feed)
	nodes := service.NewNodeService(access, d.feed, service.NodeOptions{
		ReportWithin: reportWithin, Stopping: d.server.Stopping(), Requests: d.requests, Locator: d.locator,
	})
	for _, registrar := range []grpc.ServiceRegistrar{d.server.GRPC(), d.local} {
		antipodev1.RegisterFeedServiceServer(registrar, feeds)
		antipodev1.RegisterNodeServiceServer(registrar, nodes)
	}
	return nil
}

func (d *daemon) close() error {
	var errs []error
	if d.db != nil {
		errs = append(errs, d.db.Close())
	}
	if d.traces != nil { // last: all the others may still have something to say
		errs = append(errs, d.traces.Close())
	}
	return errors.Join(errs...)
}

// secret reads the shared secret of the notifications anew each time, so that it can be changed without a restart.
func (d *daemon) secret() ([]byte, error) {
	text, err := os.ReadFile(d.cfg.Notifications.SecretFile)
	if err != nil {
		return nil, fmt.Errorf("notifications.secret_file: %w", err)
	}
	if text = bytes.TrimSpace(text); len(text) == 0 {
		return nil, fmt.Errorf("notifications.secret_file: %s is empty", d.cfg.Notifications.SecretFile)
	}
	if bytes.ContainsFunc(text, unicode.IsControl) {
		return nil, fmt.Errorf("notifications.secret_file: %s holds more than one line of text, which no HTTP header can carry",
			d.cfg.Notifications.SecretFile)
	}
	return text, nil
}

func userAgent() string { return "antipode-primaryd/" + telemetry.Version() }
