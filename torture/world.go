package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"go.yaml.in/yaml/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/antipode-registry/antipode/client"
	antipodev1 "github.com/antipode-registry/antipode/gen/antipode/v1"
	"github.com/antipode-registry/antipode/internal/authority"
	"github.com/antipode-registry/antipode/internal/link"
	"github.com/antipode-registry/antipode/internal/registrytest"
)

// Names in the configuration of every pair.
const (
	siteName     = "site"
	operatorName = "ops"
	primaryName  = "primary"
	secret       = "the secret of the torture"
)

// The five links, named by who calls whom.
const (
	notifyLink  = "primary registry -> primaryd"
	readLink    = "primaryd -> primary registry"
	followLink  = "secondaryd -> primaryd"
	sourceLink  = "secondaryd -> primary registry"
	replicaLink = "secondaryd -> site registry"
)

// world is everything that runs: two registries, the daemons of both sides, their databases, and what stands between
// them.
//
//	primary registry -- link -- hook -- balancer --> primaryd (one, or two on one Postgres)
//	primaryd ---------- link -- front -------------> primary registry
//	secondaryd -------- link -- balancer ----------> primaryd
//	secondaryd -------- link -- front -------------> primary registry
//	secondaryd (one, or two on one Postgres) -- link -- front --> site registry
type world struct {
	options
	dir       string
	diary     *diary
	ports     map[string]int
	processes map[string]*process
	links     map[string]*wire
	fronts    map[string]*front
	disks     map[string]*disk
	hook      *hook
	ledger    *ledger
	turns     map[string]*sync.Mutex // of the faults on one target
	closers   []func()

	mu          sync.Mutex
	clients     map[string]*grpc.ClientConn
	siteRewound time.Time // when secondaryd's database last became an older copy of itself
	failed      error
}

// newWorld makes and starts a world, and returns when every daemon is ready. Close ends it, also after an error.
func newWorld(ctx context.Context, o options, d *diary, l *ledger) (*world, error) {
	dir, err := os.MkdirTemp("", "antipode-torture-")
	if err != nil {
		return nil, err
	}
	w := &world{
		options: o, dir: dir, diary: d, ports: map[string]int{}, processes: map[string]*process{},
		links: map[string]*wire{}, fronts: map[string]*front{}, clients: map[string]*grpc.ClientConn{},
		disks: map[string]*disk{}, ledger: l, turns: map[string]*sync.Mutex{},
	}
	d.Note("world", "in %s", dir)
	// Postgres runs as another user where we are root.
	return w, errors.Join(os.Chmod(dir, 0o755), w.make(ctx))
}

func (w *world) make(ctx context.Context) error {
	for _, step := range []func() error{
		w.reserve, w.certificates, w.makeDisks, w.databases,
		func() error { return w.connect(ctx) },
		w.registries, w.daemons,
	} {
		if err := step(); err != nil {
			return err
		}
	}
	for _, name := range w.startOrder() {
		p := w.processes[name]
		if err := p.Start(); err != nil {
			return err
		}
		if err := p.Await(ctx); err != nil {
			return err
		}
	}
	return nil
}

// Close ends every process and removes the folder, unless it is to be kept.
func (w *world) Close(keep bool) {
	for _, name := range slices.Backward(w.startOrder()) {
		if p := w.processes[name]; p != nil {
			p.Kill()
		}
	}
	for _, conn := range w.clients {
		_ = conn.Close()
	}
	for _, end := range slices.Backward(w.closers) {
		end()
	}
	if keep {
		w.diary.Note("world", "left in %s", w.dir)
		return
	}
	_ = os.RemoveAll(w.dir) // what is left is in the way of nothing
}

// replicas is how many of each daemon there are.
func (w *world) replicas() int {
	if w.Database == "postgres" {
		return 2
	}
	return 1
}

func (w *world) named(daemon string) []string {
	var names []string
	for i := range w.replicas() {
		names = append(names, fmt.Sprintf("%s-%d", daemon, i+1))
	}
	return names
}

func (w *world) startOrder() []string {
	names := []string{primaryRegistry, siteRegistry}
	if w.Database == "postgres" {
		names = append(names, "primary-postgres", "site-postgres")
	}
	return append(names, w.daemonNames()...)
}

func (w *world) daemonNames() []string { return append(w.named("primaryd"), w.named("secondaryd")...) }

// parts is what faults may be done to, in a fixed order. Where the daemons are left alive, a slow leak has the time to
// show; a registry in memory would lose all that it has.
func (w *world) parts() parts {
	cast := w.cast()
	killed := slices.DeleteFunc(w.startOrder(), func(name string) bool {
		return cast.alive && slices.Contains(w.daemonNames(), name) ||
			cast.primary == inMemory && name == primaryRegistry || cast.site == inMemory && name == siteRegistry
	})
	var restarted []string
	rewound := w.rewindings()
	if cast.alive {
		rewound = slices.DeleteFunc(rewound, func(way rewinding) bool { return way.how != failover })
	} else {
		restarted = w.daemonNames()
	}
	return parts{
		frozen:       w.startOrder(),
		killed:       killed,
		restarted:    restarted,
		rewound:      rewound,
		links:        []string{notifyLink, readLink, followLink, sourceLink, replicaLink},
		fronts:       []string{readLink, sourceLink, replicaLink},
		certificates: []string{primaryName, siteName},
		disks:        []string{primaryStorage, siteStorage, primaryData, siteData},
	}
}

// reserve picks the ports of everything that is started again.
func (w *world) reserve() error {
	names := []string{primaryRegistry, siteRegistry, notifyLink, readLink, followLink, sourceLink, replicaLink}
	for _, daemon := range append(w.named("primaryd"), w.named("secondaryd")...) {
		names = append(names, daemon+" http", daemon+" grpc")
	}
	for _, name := range names {
		port, release, err := registrytest.Reserve()
		if err != nil {
			return err
		}
		w.ports[name] = port
		w.closers = append(w.closers, release)
	}
	return nil
}

func (w *world) address(name string) string { return loopback(w.ports[name]) }

// url is where something listens that speaks plain HTTP.
func (w *world) url(name string) string { return "http://" + w.address(name) }

func (w *world) certificates() error {
	pki := w.path("pki")
	return errors.Join(
		os.WriteFile(w.path("notify.secret"), []byte(secret+"\n"), 0o600),
		authority.Init(pki),
		authority.Issue(pki, primaryName, link.RolePrimary, nil),
		authority.Issue(pki, siteName, link.RoleNode, nil),
		authority.Issue(pki, operatorName, link.RoleOperator, nil),
	)
}

// renew replaces a certificate by another of the same authority.
func (w *world) renew(name string) error {
	role := link.RoleNode
	if name == primaryName {
		role = link.RolePrimary
	}
	return authority.Issue(w.path("pki"), name, role, nil)
}

func (w *world) path(name string) string { return filepath.Join(w.dir, name) }

// connect makes what stands between the processes.
func (w *world) connect(ctx context.Context) error {
	random := func(n uint64) *rand.Rand { return rand.New(rand.NewPCG(w.Seed, n)) }
	var grpcTargets, httpTargets []string
	for _, name := range w.named("primaryd") {
		grpcTargets = append(grpcTargets, w.address(name+" grpc"))
		httpTargets = append(httpTargets, w.address(name+" http"))
	}
	services, err := newBalancer(grpcTargets)
	if err != nil {
		return err
	}
	pages, err := newBalancer(httpTargets)
	if err != nil {
		return err
	}
	if w.hook, err = newHook(ctx, pages.Address(), random(10), w.ledger.Acknowledged); err != nil {
		return err
	}
	w.closers = append(w.closers, services.Close, pages.Close, w.hook.Close)
	to := map[string]string{notifyLink: w.hook.Address(), followLink: services.Address()}
	for i, name := range []string{readLink, sourceLink, replicaLink} {
		registry := primaryRegistry
		if name == replicaLink {
			registry = siteRegistry
		}
		f, err := newFront(w.address(registry), random(20+uint64(i)))
		if err != nil {
			return err
		}
		w.fronts[name], to[name] = f, f.Address()
		w.closers = append(w.closers, f.Close)
	}
	for name, target := range to {
		l, err := newWire(name, w.ports[name], target)
		if err != nil {
			return err
		}
		w.links[name] = l
		w.closers = append(w.closers, l.Close)
	}
	return nil
}

// add makes a process that is not started yet.
func (w *world) add(name string, ready func(context.Context) error, argv ...string) {
	w.processes[name] = &process{
		name: name, dir: w.dir, argv: argv, ready: ready, diary: w.diary,
		// Nothing of whoever runs this: no credentials, no exporter that a registry would wait for.
		env: []string{"PATH=" + os.Getenv("PATH"), "HOME=" + w.dir, "DOCKER_CONFIG=" + w.dir, "OTEL_TRACES_EXPORTER=none"},
	}
}

// configure writes a configuration file and returns its path.
func (w *world) configure(name string, config map[string]any) (string, error) {
	text, err := yaml.Marshal(config)
	if err != nil {
		return "", err
	}
	path := w.path(name + ".yaml")
	return path, os.WriteFile(path, text, 0o600)
}

// dial connects to a daemon's services as the operator, around all faults.
func (w *world) dial(name string) (*grpc.ClientConn, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if conn := w.clients[name]; conn != nil {
		return conn, nil
	}
	conn, err := client.Connect(client.Config{
		Address: w.address(name + " grpc"), CertFile: w.path("pki/" + operatorName + ".crt"),
		KeyFile: w.path("pki/" + operatorName + ".key"), CAFile: w.path("pki/ca.crt"),
	})
	if err == nil {
		w.clients[name] = conn
	}
	return conn, err
}

// ask calls each of a daemon's replicas until one answers.
func ask[T any](ctx context.Context, w *world, daemon string, call func(context.Context, *grpc.ClientConn) (T, error)) (T, error) {
	var none T
	var all []error
	for _, name := range w.named(daemon) {
		conn, err := w.dial(name)
		if err != nil {
			return none, err
		}
		answer, err := within(ctx, conn, call)
		if err == nil {
			return answer, nil
		}
		all = append(all, fmt.Errorf("%s: %w", name, err))
	}
	return none, errors.Join(all...)
}

func within[T any](ctx context.Context, conn *grpc.ClientConn, call func(context.Context, *grpc.ClientConn) (T, error)) (T, error) {
	ctx, cancel := context.WithTimeout(ctx, answerPatience)
	defer cancel()
	return call(ctx, conn)
}

// feedRow asks primaryd for the feed's row of a repository, nil where there is none.
func (w *world) feedRow(ctx context.Context, repository string) (*antipodev1.Repository, error) {
	list, err := ask(ctx, w, "primaryd", func(ctx context.Context, conn *grpc.ClientConn) (*antipodev1.ListRepositoriesResponse, error) {
		return antipodev1.NewFeedServiceClient(conn).ListRepositories(ctx, &antipodev1.ListRepositoriesRequest{PageSize: 1000})
	})
	if err != nil {
		return nil, err
	}
	for _, row := range list.GetRepositories() {
		if row.GetName() == repository {
			return row, nil
		}
	}
	return nil, nil // as documented
}

// siteRow asks secondaryd for its row of a repository.
func (w *world) siteRow(ctx context.Context, repository string) (*antipodev1.TrackedRepository, error) {
	answer, err := ask(ctx, w, "secondaryd", func(ctx context.Context, conn *grpc.ClientConn) (*antipodev1.GetRepositoryResponse, error) {
		return antipodev1.NewReplicationServiceClient(conn).GetRepository(ctx, &antipodev1.GetRepositoryRequest{Repository: repository})
	})
	return answer.GetRepository(), err
}

// siteStatus asks secondaryd how the site is.
func (w *world) siteStatus(ctx context.Context) (*antipodev1.NodeStatus, error) {
	answer, err := ask(ctx, w, "secondaryd", func(ctx context.Context, conn *grpc.ClientConn) (*antipodev1.GetStatusResponse, error) {
		return antipodev1.NewReplicationServiceClient(conn).GetStatus(ctx, &antipodev1.GetStatusRequest{})
	})
	return answer.GetStatus(), err
}

// siteFits says whether the site's cursor is of the history that the feed has now.
func (w *world) siteFits(ctx context.Context) (bool, error) {
	at, err := w.siteStatus(ctx)
	if err != nil {
		return false, err
	}
	feed, _, _ := strings.Cut(at.GetFeedId(), ".") // what follows says what of it the site may see
	return ask(ctx, w, "primaryd", func(ctx context.Context, conn *grpc.ClientConn) (bool, error) {
		stream, err := antipodev1.NewFeedServiceClient(conn).Subscribe(ctx, &antipodev1.SubscribeRequest{
			FeedId: feed, AfterRevision: at.GetCursorRevision(), Incarnation: at.GetIncarnation(),
		})
		if err != nil {
			return false, err
		}
		_, err = stream.Recv()
		if status.Code(err) == codes.OutOfRange {
			return false, nil
		}
		return err == nil, err
	})
}
