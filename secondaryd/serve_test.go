package main

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/durationpb"

	antipodev1 "github.com/antipode-registry/antipode/gen/antipode/v1"
	"github.com/antipode-registry/antipode/internal/authority"
	"github.com/antipode-registry/antipode/internal/database"
	"github.com/antipode-registry/antipode/internal/link"
	"github.com/antipode-registry/antipode/internal/registrytest"
	"github.com/antipode-registry/antipode/secondaryd/internal/tracking"
)

// asDaemon makes the test binary secondaryd itself.
const asDaemon = "SECONDARYD_TEST_AS_DAEMON"

func TestMain(m *testing.M) {
	if os.Getenv(asDaemon) != "" {
		main() // exits
	}
	goleak.VerifyTestMain(m)
}

// enough bounds every wait. It is for a machine that is busy with others.
const enough = time.Minute

// hub is a primary that announces one repository, and lists what it was told to.
type hub struct {
	antipodev1.UnimplementedFeedServiceServer
	antipodev1.UnimplementedNodeServiceServer
	repository, registry string
	tags                 []*antipodev1.Tag
	stopping             <-chan struct{}

	mu       sync.Mutex
	reported int
}

func (h *hub) Subscribe(req *antipodev1.SubscribeRequest, stream grpc.ServerStreamingServer[antipodev1.SubscribeResponse]) error {
	messages := []*antipodev1.SubscribeResponse{
		{Kind: &antipodev1.SubscribeResponse_Hello{Hello: &antipodev1.Hello{
			FeedId: "feed-1", HeadRevision: 1, HeartbeatInterval: durationpb.New(time.Minute),
		}}},
	}
	if req.GetAfterRevision() < 1 {
		messages = append(messages, &antipodev1.SubscribeResponse{Kind: &antipodev1.SubscribeResponse_Changes{
			Changes: &antipodev1.ChangeBatch{
				Changes:      []*antipodev1.Change{{Repository: h.repository, Revision: 1}},
				HeadRevision: 1, CursorRevision: 1,
			},
		}})
	}
	for _, message := range messages {
		if err := stream.Send(message); err != nil {
			return err
		}
	}
	select {
	case <-stream.Context().Done():
	case <-h.stopping:
	}
	return nil
}

func (h *hub) ListTags(_ *antipodev1.ListTagsRequest, stream grpc.ServerStreamingServer[antipodev1.ListTagsResponse]) error {
	err := stream.Send(&antipodev1.ListTagsResponse{Kind: &antipodev1.ListTagsResponse_Page{
		Page: &antipodev1.TagPage{Tags: h.tags},
	}})
	if err != nil {
		return err
	}
	return stream.Send(&antipodev1.ListTagsResponse{Kind: &antipodev1.ListTagsResponse_Summary{
		Summary: &antipodev1.TagSummary{
			ListingKind: antipodev1.ListingKind_LISTING_KIND_COMPLETE, Presence: antipodev1.Presence_PRESENCE_PRESENT,
			TagCount: int64(len(h.tags)), Revision: 1, RegistryUrl: h.registry,
		},
	}})
}

func (h *hub) ReportStatus(context.Context, *antipodev1.ReportStatusRequest) (*antipodev1.ReportStatusResponse, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.reported++
	return &antipodev1.ReportStatusResponse{}, nil
}

// serve serves the hub with the folder's certificates and returns its address.
func (h *hub) serve(t *testing.T, dir string) string {
	t.Helper()
	server, err := link.Listen(link.ServerConfig{
		Listen: "127.0.0.1:0", CertFile: filepath.Join(dir, "primary.crt"), KeyFile: filepath.Join(dir, "primary.key"),
		ClientCAFile: filepath.Join(dir, "ca.crt"), StopTimeout: time.Second,
		Authorize: func(context.Context, string, link.Identity) error { return nil },
	})
	if err != nil {
		t.Fatal(err)
	}
	h.stopping = server.Stopping()
	antipodev1.RegisterFeedServiceServer(server.GRPC(), h)
	antipodev1.RegisterNodeServiceServer(server.GRPC(), h)
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	done := make(chan error, 1)
	go func() { done <- server.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return server.Addr().String()
}

// site is what a secondaryd is started with.
type site struct {
	dir, config, database string
	hub                   *hub
	source, registry      *registrytest.Proxy
	image                 registrytest.Image
}

// newSite makes a site whose primary has one image with a layer.
func newSite(t *testing.T) *site {
	t.Helper()
	s := &site{dir: t.TempDir(), image: registrytest.NewImage(1, 2, 1<<20)}
	s.source = registrytest.NewProxy(t, registrytest.InMemory(t, false).URL())
	s.registry = registrytest.NewProxy(t, registrytest.InMemory(t, false).URL())
	for _, err := range []error{
		authority.Init(s.dir), authority.Issue(s.dir, "primary", link.RolePrimary, nil),
		authority.Issue(s.dir, "eu-west", link.RoleNode, nil),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	registrytest.Push(t, s.source.URL(), "team/app", "v1", s.image)
	s.hub = &hub{repository: "team/app", registry: s.source.URL(), tags: []*antipodev1.Tag{{
		Name: "v1", Digest: s.image.Digest, MediaType: s.image.MediaType, Size: int64(len(s.image.Manifest)),
	}}}
	address := s.hub.serve(t, s.dir)
	in := func(name string) string { return filepath.Join(s.dir, name) }
	s.database = "sqlite:" + in("secondary.db")
	s.config = in("secondary.yaml")
	text := fmt.Sprintf(`
node: eu-west
database: %q
primary: {address: %q, cert_file: %q, key_file: %q, ca_file: %q}
registry: {url: %q}
http: {listen: "127.0.0.1:0"}
grpc: {listen: "127.0.0.1:0", cert_file: %q, key_file: %q, client_ca_file: %q}
`, s.database, address, in("eu-west.crt"), in("eu-west.key"), in("ca.crt"), s.registry.URL(), in("eu-west.crt"),
		in("eu-west.key"), in("ca.crt"))
	if err := os.WriteFile(s.config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return s
}

// process is a secondaryd in a process of its own.
type process struct {
	cmd   *exec.Cmd
	http  string
	log   *bytes.Buffer // to be read once ended is closed
	ended chan struct{}
}

func (s *site) start(t *testing.T) *process {
	t.Helper()
	p := &process{log: &bytes.Buffer{}, ended: make(chan struct{})}
	p.cmd = exec.CommandContext(t.Context(), os.Args[0], "serve", "--config", s.config)
	p.cmd.Env = append(os.Environ(), asDaemon+"=1")
	stderr, err := p.cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	listening := make(chan string, 1)
	go func() {
		defer close(p.ended)
		defer close(listening)
		pattern := regexp.MustCompile(`msg=listening .*service=http address=(\S+)`)
		for lines := bufio.NewScanner(stderr); lines.Scan(); {
			p.log.WriteString(lines.Text() + "\n")
			if found := pattern.FindStringSubmatch(lines.Text()); found != nil {
				listening <- found[1]
			}
		}
	}()
	t.Cleanup(func() {
		_ = p.cmd.Process.Kill()
		<-p.ended
		_ = p.cmd.Wait()
	})
	if p.http = <-listening; p.http == "" {
		t.Fatalf("secondaryd did not start:\n%s", p.log)
	}
	return p
}

// stop sends SIGTERM and returns the exit code and how long the end took.
func (p *process) stop(t *testing.T) (code int, took time.Duration) {
	t.Helper()
	began := time.Now()
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	select {
	case <-p.ended:
	case <-time.After(enough):
		t.Fatal("secondaryd did not end")
	}
	_ = p.cmd.Wait() // the state says how it went
	return p.cmd.ProcessState.ExitCode(), time.Since(began)
}

func (p *process) get(t *testing.T, path string) (status int, body string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+p.http+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	web := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := web.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Error(err)
	}
	return resp.StatusCode, string(text)
}

// row reads the site's database while no daemon has it.
func (s *site) row(t *testing.T) tracking.Repository {
	t.Helper()
	db, err := database.Open(t.Context(), s.database, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := db.Close(); err != nil {
			t.Error(err)
		}
	}()
	store, err := tracking.Open(t.Context(), db, tracking.Options{})
	if err != nil {
		t.Fatal(err)
	}
	row, found, err := store.Get(t.Context(), "team/app")
	if err != nil || !found {
		t.Fatalf("row: found %t, %v", found, err)
	}
	return row
}

// A daemon that is told to stop does so within seconds and in good order, in the middle of a download too; the next one
// goes on where it was.
func TestStopInTheMiddleOfACopy(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	reached, opened := make(chan struct{}), make(chan struct{})
	once := sync.OnceFunc(func() { close(reached) })
	defer close(opened)
	s.source.Fault(func(r *http.Request) registrytest.Fault {
		if r.Method == http.MethodGet && strings.HasSuffix(r.URL.Path, s.image.Layers()[1]) {
			once()
			return registrytest.Fault{Delay: opened}
		}
		return registrytest.Fault{}
	})
	p := s.start(t)
	select {
	case <-reached:
	case <-p.ended:
		t.Fatalf("secondaryd ended:\n%s", p.log)
	case <-time.After(enough):
		t.Fatal("no download began")
	}
	code, took := p.stop(t)
	// Five seconds are for RPCs and requests that do not end; there are none.
	if code != 0 || took > 20*time.Second || !strings.Contains(p.log.String(), "msg=stopped") {
		t.Errorf("ended with %d after %v:\n%s", code, took, p.log)
	}
	for _, word := range []string{"level=ERROR", "panic", "sync failed"} {
		if strings.Contains(p.log.String(), word) {
			t.Errorf("a stop is no failure:\n%s", p.log)
		}
	}
	row := s.row(t)
	if row.State != tracking.Pending || row.Failures != 0 || row.LastError != nil {
		t.Errorf("after the stop: %+v", row)
	}
	if tags := registrytest.Tags(t, s.registry.URL(), "team/app"); len(tags) > 0 {
		t.Errorf("the site has %v before the image is whole", tags)
	}

	s.source.Fault(nil)
	again := s.start(t)
	registrytest.Eventually(t, enough, func(ctx context.Context) error {
		return registrytest.Equal(ctx, s.source.URL(), s.registry.URL(), "team/app")
	})
	if code, _ := again.stop(t); code != 0 {
		t.Errorf("ended with %d:\n%s", code, again.log)
	}
	if row := s.row(t); row.State != tracking.Synced {
		t.Errorf("after the second stop: %+v", row)
	}
}

// What an orchestrator asks: alive, ready while database and registry answer, whatever the primary does.
func TestHealth(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	p := s.start(t)
	for path, want := range map[string]string{"/healthz": "ok", "/readyz": "ready", "/metrics": "antipode_build_info"} {
		if status, body := p.get(t, path); status != http.StatusOK || !strings.Contains(body, want) {
			t.Errorf("%s answers %d: %s", path, status, body)
		}
	}
	s.registry.Fault(func(*http.Request) registrytest.Fault {
		return registrytest.Fault{Status: http.StatusInternalServerError}
	})
	if status, body := p.get(t, "/readyz"); status != http.StatusServiceUnavailable || !strings.Contains(body, "registry") {
		t.Errorf("without a registry /readyz answers %d: %s", status, body)
	}
	if status, _ := p.get(t, "/healthz"); status != http.StatusOK {
		t.Errorf("without a registry /healthz answers %d", status)
	}
	registrytest.Eventually(t, enough, func(context.Context) error {
		s.hub.mu.Lock()
		defer s.hub.mu.Unlock()
		if s.hub.reported == 0 {
			return fmt.Errorf("no status was reported")
		}
		return nil
	})
	if code, _ := p.stop(t); code != 0 {
		t.Errorf("ended with %d:\n%s", code, p.log)
	}
}

// A daemon that cannot start says why, at once, and exits with 1.
func TestStartFails(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		edit func(text string) string
		says string
	}{
		"configuration": {edit: func(text string) string { return text + "sweeep: {}\n" }, says: "sweeep"},
		"database":      {edit: func(text string) string { return strings.Replace(text, "secondary.db", "no/such/folder/x.db", 1) }, says: "no/such/folder"},
		"certificate":   {edit: func(text string) string { return strings.ReplaceAll(text, "eu-west.crt", "ca.crt") }, says: "ca.crt"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			path := configuration(t)
			text, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(path, []byte(tc.edit(string(text))), 0o600); err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithTimeout(t.Context(), enough)
			defer cancel()
			cmd := exec.CommandContext(ctx, os.Args[0], "serve", "--config", path)
			cmd.Env = append(os.Environ(), asDaemon+"=1")
			said, err := cmd.CombinedOutput()
			if cmd.ProcessState.ExitCode() != 1 || !strings.Contains(string(said), tc.says) {
				t.Errorf("ended with %v and said:\n%s", err, said)
			}
		})
	}
}
