package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"

	"github.com/antipode-registry/antipode/client"
	antipodev1 "github.com/antipode-registry/antipode/gen/antipode/v1"
	"github.com/antipode-registry/antipode/internal/cli"
	"github.com/antipode-registry/antipode/internal/database"
	"github.com/antipode-registry/antipode/internal/gateway"
	"github.com/antipode-registry/antipode/internal/httpaccess"
	"github.com/antipode-registry/antipode/internal/lease"
	"github.com/antipode-registry/antipode/internal/link"
	"github.com/antipode-registry/antipode/internal/registry"
	"github.com/antipode-registry/antipode/internal/telemetry"
	"github.com/antipode-registry/antipode/internal/transfer"
	"github.com/antipode-registry/antipode/secondaryd/internal/follow"
	"github.com/antipode-registry/antipode/secondaryd/internal/replica"
	"github.com/antipode-registry/antipode/secondaryd/internal/replicate"
	"github.com/antipode-registry/antipode/secondaryd/internal/service"
	"github.com/antipode-registry/antipode/secondaryd/internal/sweep"
	"github.com/antipode-registry/antipode/secondaryd/internal/tracking"
)

// claim is how long a claim of a repository lasts without being renewed, and so how long a repository waits for another
// worker after its own was killed.
const claim = 30 * time.Second

// soleTerm is how long a leader leads without a renewal where no other process may be: no slow disk ends its term, and
// the next process does not wait for it.
const soleTerm = 5 * time.Minute

func newServe() *cobra.Command {
	var path string
	cmd := &cobra.Command{
		Use:   "serve",
		Short: "Run the daemon until it is told to stop (SIGINT, SIGTERM)",
		Args:  cli.Args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := loadSettings(path)
			if err != nil {
				return err
			}
			logger, err := telemetry.NewLogger(os.Stderr, cfg.Log.Level, cfg.Log.Format)
			if err != nil {
				return err
			}
			return serve(cmd.Context(), cfg, logger.With("node", cfg.Node))
		},
	}
	configFlag(cmd, &path)
	return cmd
}

// daemon is secondaryd's parts.
type daemon struct {
	cfg      *settings
	logger   *slog.Logger
	metrics  *prometheus.Registry
	traces   *telemetry.Traces
	sides    *registry.Metrics
	download *registry.Bandwidth // over all sources
	started  time.Time
	db       *database.DB
	tracking *tracking.Store
	primary  *client.Client
	site     *registry.Registry
	replica  *replica.Replica // this process among those of the site
	engine   *replicate.Engine
	follower *follow.Follower
	status   *service.Status
	reporter *service.Reporter
	requests *service.Requests
	sweeper  *sweep.Sweeper
	server   *link.Server
	local    *link.Local // the services, for what answers them over HTTP
	room     *httpaccess.Room
	http     net.Listener
	web      http.Handler
}

// serve builds the parts, from the database up, and runs them until ctx ends or one of them fails.
func serve(ctx context.Context, cfg *settings, logger *slog.Logger) error {
	logger.Info("starting", "version", telemetry.Version())
	d := &daemon{cfg: cfg, logger: logger, started: time.Now(), metrics: telemetry.NewRegistry("secondaryd", telemetry.Version())}
	if err := d.open(ctx); err != nil {
		return errors.Join(err, d.close()) //nolint:contextcheck // ctx has ended, and what is left is bounded
	}
	d.logger.Info("listening", "service", "http", "address", d.http.Addr().String())
	d.logger.Info("listening", "service", "grpc", "address", d.server.Addr().String())
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return d.replica.Run(ctx, d.engine.Run, d.lead) })
	group.Go(func() error { return d.reporter.Run(ctx) })
	group.Go(func() error { return d.server.Run(ctx) })
	group.Go(func() error { return telemetry.ServeHTTP(ctx, d.http, d.web, d.logger) })
	err := group.Wait()
	d.logger.Info("stopped")
	return errors.Join(err, d.close()) //nolint:contextcheck // ctx has ended, and what is left is bounded
}

func (d *daemon) open(ctx context.Context) error {
	for _, step := range []func(context.Context) error{
		d.openTracking, d.openPrimary, d.openSite, d.openEngine, d.listen,
	} {
		if err := step(ctx); err != nil {
			return err
		}
	}
	return nil
}

func (d *daemon) openTracking(ctx context.Context) (err error) {
	if d.traces, err = telemetry.OpenTraces(ctx, d.cfg.Traces.config(d.cfg.Node, d.logger), d.metrics); err != nil {
		return err
	}
	if d.db, err = database.Open(ctx, d.cfg.Database, d.logger); err != nil {
		return err
	}
	if d.tracking, err = tracking.Open(ctx, d.db, tracking.Options{Lease: claim}); err != nil {
		return err
	}
	return d.openReplica(ctx)
}

func (d *daemon) openReplica(ctx context.Context) error {
	host, err := os.Hostname()
	if err != nil {
		return fmt.Errorf("name of this machine: %w", err)
	}
	name, shared, term := fmt.Sprintf("%s/%d", host, os.Getpid()), d.db.Dialect() == database.Postgres, lease.TTL
	if !shared {
		term = soleTerm
	}
	leases, err := lease.Open(ctx, d.db, lease.Options{Owner: name, TTL: term, Logger: d.logger})
	if err != nil {
		return err
	}
	d.replica = replica.New(d.tracking, leases, replica.Options{
		Name: name, Scope: d.cfg.scope(), Shared: shared, Logger: d.logger,
		Describe: func() string { return d.status.Describe() },
	})
	return nil
}

// lead does what one of the site's processes does for all.
func (d *daemon) lead(ctx context.Context) error {
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return d.follower.Run(ctx) })
	group.Go(func() error { return d.requests.Run(ctx) })
	group.Go(func() error { return d.sweeper.Run(ctx) })
	d.reporter.Begin()
	return group.Wait()
}

func (d *daemon) openPrimary(context.Context) (err error) {
	d.primary, err = client.Dial(client.Config{
		Address: d.cfg.Primary.Address, CertFile: d.cfg.Primary.CertFile, KeyFile: d.cfg.Primary.KeyFile,
		CAFile: d.cfg.Primary.CAFile, ServerRole: string(link.RolePrimary), UserAgent: userAgent(), Logger: d.logger,
		Manifests: true, StatsHandler: d.traces.ClientHandler(antipodev1.FeedService_ListTags_FullMethodName),
	})
	if err != nil {
		return fmt.Errorf("primary: %w", err)
	}
	d.requests = service.NewRequests(d.tracking, d.primary, d.cfg.Primary.Requests, d.logger)
	d.follower = follow.New(d.primary, d.tracking, follow.Options{
		Node: d.cfg.Node, Wants: d.cfg.wants, Asked: func(e client.Event) { d.requests.Take(e.Request) }, Logger: d.logger,
		Tracer: d.traces.Tracer(),
	})
	return nil
}

func (d *daemon) openSite(context.Context) (err error) {
	d.sides = registry.NewMetrics(d.metrics)
	d.site, err = registry.Open(registry.Config{
		URL: d.cfg.Registry.URL, Side: registry.Destination, UserAgent: userAgent(),
		Concurrency: d.cfg.Registry.Concurrency, CAFile: d.cfg.Registry.CAFile, Metrics: d.sides,
		Tracer: d.traces.Tracer(), Upload: d.cfg.Replication.Bandwidth.upload(),
	})
	if err != nil {
		return fmt.Errorf("registry: %w", err)
	}
	d.sweeper = sweep.New(d.site, d.tracking, d.tracking.Content(), sweep.Options{
		Interval: time.Duration(d.cfg.Sweep.Interval), VerifyAfter: time.Duration(d.cfg.Sweep.VerifyAfter),
		Target: d.cfg.target, Logger: d.logger, Metrics: sweep.NewMetrics(d.metrics),
	})
	return nil
}

func (d *daemon) openSource(url string) (*registry.Registry, error) {
	return registry.Open(registry.Config{
		URL: url, Side: registry.Source, UserAgent: userAgent(), Concurrency: d.cfg.Primary.RegistryConcurrency,
		CAFile: d.cfg.Primary.RegistryCAFile, Metrics: d.sides, Download: d.download,
		Tracer: d.traces.Tracer(),
	})
}

func (d *daemon) openEngine(context.Context) error {
	d.download = d.cfg.Replication.Bandwidth.download()
	copier := transfer.New(d.site, d.tracking.Content(), transfer.Options{
		Blobs: d.cfg.Replication.Blobs, Logger: d.logger, Metrics: transfer.NewMetrics(d.metrics),
		Tracer: d.traces.Tracer(),
	})
	d.engine = replicate.New(
		replicate.Parts{Tracking: d.tracking, Primary: d.primary, Site: d.site, Copier: copier},
		replicate.Options{
			Owner: d.replica.Name(), Workers: d.cfg.Replication.Workers, Lease: claim,
			Policy: d.cfg.policy(), SiteBrake: d.cfg.siteBrake(), Target: d.cfg.target, OpenSource: d.openSource,
			SourceURL: d.cfg.Primary.RegistryURL, Logger: d.logger, Metrics: replicate.NewMetrics(d.metrics),
			Tracer: d.traces.Tracer(),
		})
	return nil
}

func (d *daemon) listen(ctx context.Context) (err error) {
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
	access := service.Access{Node: d.cfg.Node, Operators: d.cfg.Operators}
	cfg := link.ServerConfig{
		Listen: d.cfg.GRPC.Listen, CertFile: d.cfg.GRPC.CertFile, KeyFile: d.cfg.GRPC.KeyFile,
		ClientCAFile: d.cfg.GRPC.ClientCAFile, Logger: d.logger, Metrics: link.NewMetrics(d.metrics),
		Authorize: access.Authorize, MapError: service.MapError,
	}
	if d.server, err = link.Listen(cfg); err != nil {
		return fmt.Errorf("grpc: %w", err)
	}
	d.local = link.NewLocal(cfg, link.Identity{Role: link.RoleOperator, Name: "http", Self: true}, gateway.SecondaryMethods...)
	d.status = service.NewStatus(service.StatusSources{
		Version: telemetry.Version(), StartedAt: d.started, Tracking: d.tracking, Database: d.db, Registry: d.site,
		Replica: d.replica, Follower: d.follower, Engine: d.engine, Bytes: d.engine.Bytes,
	})
	service.RegisterMetrics(d.metrics, d.status)
	replication := service.NewReplicationService(service.Parts{
		Node: d.cfg.Node, Tracking: d.tracking, Engine: d.engine, Status: d.status, Primary: d.primary, Wants: d.cfg.wants,
		Logger: d.logger,
	})
	d.requests.Serve(replication)
	for _, registrar := range []grpc.ServiceRegistrar{d.server.GRPC(), d.local} {
		antipodev1.RegisterReplicationServiceServer(registrar, replication)
	}
	d.reporter = service.NewReporter(d.cfg.Node, d.status, d.primary, d.tracking.Watch, d.logger)
	return nil
}

func (d *daemon) close() error {
	var errs []error
	if d.primary != nil {
		errs = append(errs, d.primary.Close())
	}
	if d.db != nil {
		errs = append(errs, d.db.Close())
	}
	if d.traces != nil { // last: all the others may still have something to say
		errs = append(errs, d.traces.Close())
	}
	return errors.Join(errs...)
}
