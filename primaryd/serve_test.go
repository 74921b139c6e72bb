package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/antipode-registry/antipode/client"
	"github.com/antipode-registry/antipode/internal/authority"
	"github.com/antipode-registry/antipode/internal/link"
	"github.com/antipode-registry/antipode/internal/registrytest"
)

// asDaemon makes the test binary primaryd itself.
const asDaemon = "PRIMARYD_TEST_AS_DAEMON"

func TestMain(m *testing.M) {
	if os.Getenv(asDaemon) != "" {
		main() // exits
	}
	goleak.VerifyTestMain(m)
}

// process is a primaryd in a process of its own.
type process struct {
	cmd        *exec.Cmd
	http, grpc string
	log        *bytes.Buffer // once ended is closed
	ended      chan struct{}
}

func startProcess(t *testing.T, args ...string) *process {
	t.Helper()
	p := &process{log: &bytes.Buffer{}, ended: make(chan struct{})}
	p.cmd = exec.CommandContext(t.Context(), os.Args[0], args...)
	p.cmd.Env = append(os.Environ(), asDaemon+"=1")
	stderr, err := p.cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	listening := make(chan [2]string, 2)
	go func() {
		defer close(p.ended)
		defer close(listening)
		pattern := regexp.MustCompile(`msg=listening service=(\w+) address=(\S+)`)
		for lines := bufio.NewScanner(stderr); lines.Scan(); {
			p.log.WriteString(lines.Text() + "\n")
			if found := pattern.FindStringSubmatch(lines.Text()); found != nil {
				listening <- [2]string{found[1], found[2]}
			}
		}
	}()
	t.Cleanup(func() {
		_ = p.cmd.Process.Kill()
		<-p.ended
		_ = p.cmd.Wait()
	})
	for found := range listening {
		if found[0] == "http" {
			p.http = found[1]
		} else {
			p.grpc = found[1]
		}
		if p.http != "" && p.grpc != "" {
			break
		}
	}
	return p
}

// wait returns the exit code.
func (p *process) wait(t *testing.T) int {
	t.Helper()
	<-p.ended
	if err := p.cmd.Wait(); err != nil && p.cmd.ProcessState == nil {
		t.Fatal(err)
	}
	return p.cmd.ProcessState.ExitCode()
}

func (p *process) request(t *testing.T, method, path, bearer, body string) int {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, "http://"+p.http+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/vnd.docker.distribution.events.v2+json")
	if bearer != "" {
		req.Header.Set("Authorization", "Bearer "+bearer)
	}
	web := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := web.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if _, err := io.Copy(io.Discard, resp.Body); err != nil {
		t.Error(err)
	}
	return resp.StatusCode
}

const pushed = `{"events":[{"id":"1","timestamp":"2026-01-02T03:04:05Z","action":"push","target":{"mediaType":
"application/vnd.oci.image.manifest.v1+json","repository":"team/app","tag":"v1","digest":
"sha256:0000000000000000000000000000000000000000000000000000000000000000"}}]}`

// A stop is bounded and clean whoever is connected.
func TestSIGTERMStopsWithLiveSubscribers(t *testing.T) {
	t.Parallel()
	path := configuration(t)
	dir := filepath.Dir(path)
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	source := registrytest.InMemory(t, false)
	write(t, path, strings.Replace(string(text), "http://127.0.0.1:1", source.URL(), 1)+
		"nodes: [{name: eu-west, repositories: ['**']}]\noperators: [ops]\n")
	p := startProcess(t, "serve", "--config", path)
	for want, code := range map[int]int{
		http.StatusOK:           p.request(t, http.MethodPost, "/notifications", "s3cret", pushed),
		http.StatusUnauthorized: p.request(t, http.MethodPost, "/notifications", "wrong", pushed),
	} {
		if code/100 != want/100 {
			t.Errorf("notification: %d, want %d", code, want)
		}
	}
	for _, path := range []string{"/", "/metrics", "/healthz", "/readyz", "/api/v1/nodes", "/api/openapi.json"} {
		if code := p.request(t, http.MethodGet, path, "", ""); code != http.StatusOK {
			t.Errorf("%s: %d", path, code)
		}
	}
	heard, ended := make(chan client.Event, 100), make(chan error, 100)
	for name, role := range map[string]link.Role{"eu-west": link.RoleNode, "ops": link.RoleOperator} {
		if err := authority.Issue(dir, name, role, nil); err != nil {
			t.Fatal(err)
		}
		subscriber, err := client.Dial(client.Config{
			Address: p.grpc, CertFile: filepath.Join(dir, name+".crt"), KeyFile: filepath.Join(dir, name+".key"),
			CAFile: filepath.Join(dir, "ca.crt"),
		})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = subscriber.Close() })
		for range 3 {
			go func() {
				for event, err := range subscriber.Subscribe(t.Context(), "", client.Position{}) {
					if err != nil {
						ended <- err
					} else if len(event.Changes) > 0 {
						heard <- event
					}
				}
			}()
		}
	}
	for range 6 {
		if event := <-heard; event.Changes[0].Repository != "team/app" {
			t.Errorf("%+v", event)
		}
	}

	began := time.Now()
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if code := p.wait(t); code != 0 {
		t.Errorf("exit code %d:\n%s", code, p.log)
	}
	if took := time.Since(began); took > 20*time.Second {
		t.Errorf("it took %v", took)
	}
	for range 6 {
		if err := <-ended; status.Code(err) != codes.Unavailable {
			t.Errorf("a stream ended with %v", err)
		}
	}
	if text := p.log.String(); strings.Contains(text, "did not end in time") || strings.Contains(text, "level=ERROR") ||
		!strings.Contains(text, "msg=stopped") {
		t.Errorf("log:\n%s", text)
	}
}

func TestExitCodes(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		code int
		args []string
	}{
		{0, []string{"--version"}},
		{0, []string{"pki", "issue", "--help"}},
		{1, []string{"serve", "--config", filepath.Join(t.TempDir(), "none.yaml")}},
		{2, []string{"frob"}},
		{2, []string{"serve", "--frob"}},
		{2, []string{"serve", "stray"}},
		{2, []string{"pki", "issue"}},
		{2, []string{"nodes", "--output", "xml"}},
	} {
		if code := startProcess(t, test.args...).wait(t); code != test.code {
			t.Errorf("%v: exit code %d, want %d", test.args, code, test.code)
		}
	}
}

// What was opened before something failed is closed again.
func TestServeFailsCleanly(t *testing.T) {
	t.Parallel()
	path := configuration(t)
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	taken := opened(t).http.Addr().String()
	for name, edit := range map[string][2]string{
		"http port taken": {`http: {listen: "127.0.0.1:0"}`, `http: {listen: "` + taken + `"}`},
		"grpc port taken": {`grpc: {listen: "127.0.0.1:0"`, `grpc: {listen: "` + taken + `"`},
		"no database":     {"sqlite:", "sqlite:/does/not/exist"},
	} {
		write(t, path, strings.Replace(string(text), edit[0], edit[1], 1))
		cfg, err := loadSettings(path)
		if err != nil {
			t.Fatal(err)
		}
		if err := serve(t.Context(), path, cfg, slog.New(slog.DiscardHandler)); err == nil || errors.Is(err, context.Canceled) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
