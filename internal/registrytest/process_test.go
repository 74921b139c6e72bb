package registrytest_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/antipode-registry/antipode/internal/registrytest"
)

// orphanEnv makes TestOrphan, run in a test binary of its own, start a registry and wait to be killed.
const orphanEnv = "REGISTRYTEST_ORPHAN"

func get(t *testing.T, url string) (status int, body string) {
	t.Helper()
	status, body, err := tryGet(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	return status, body
}

// tryGet makes one request on a connection of its own, so that nothing is repeated behind the test's back.
func tryGet(ctx context.Context, url string) (status int, body string, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, http.NoBody)
	if err != nil {
		return 0, "", err
	}
	resp, err := (&http.Client{Transport: &http.Transport{DisableKeepAlives: true}}).Do(req)
	if err != nil {
		return 0, "", err
	}
	defer resp.Body.Close()
	read, err := io.ReadAll(resp.Body)
	return resp.StatusCode, string(read), err
}

func TestKillAndStartKeepPortAndContent(t *testing.T) {
	t.Parallel()
	kinds := map[string]func(testing.TB, ...registrytest.Option) *registrytest.Process{
		"distribution": registrytest.Distribution, "debian": registrytest.Debian,
	}
	for name, start := range kinds {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := start(t)
			url, img := p.URL(), registrytest.NewImage(1, 2, 256)
			registrytest.Push(t, url, "app", "v1", img)
			for range 3 {
				p.Kill()
				p.Kill() // a second time does nothing
				if _, _, err := tryGet(t.Context(), url+"/v2/"); err == nil {
					t.Fatal("a killed registry answers")
				}
				p.Start()
				if p.URL() != url {
					t.Fatalf("moved from %s to %s", url, p.URL())
				}
				if got := registrytest.Tags(t, url, "app")["v1"]; got != img.Digest {
					t.Fatalf("v1 is %s after a restart, want %s", got, img.Digest)
				}
			}
		})
	}
}

func TestStorageCanBeHandedOn(t *testing.T) {
	t.Parallel()
	dir, img := t.TempDir(), registrytest.NewImage(1, 1, 64)
	first := registrytest.Distribution(t, registrytest.WithStorage(dir))
	registrytest.Push(t, first.URL(), "app", "v1", img)
	first.Kill()
	second := registrytest.Debian(t, registrytest.WithStorage(dir))
	if got := registrytest.Tags(t, second.URL(), "app")["v1"]; got != img.Digest {
		t.Errorf("v1 is %q in the second registry, want %s", got, img.Digest)
	}
}

func TestConfigCanBeEdited(t *testing.T) {
	t.Parallel()
	p := registrytest.Distribution(t, registrytest.WithConfig(func(config map[string]any) {
		config["storage"].(map[string]any)["delete"] = map[string]any{"enabled": false}
		config["log"] = map[string]any{"level": "info"}
	}))
	img := registrytest.NewImage(1, 1, 64)
	registrytest.Push(t, p.URL(), "app", "v1", img)
	c := registrytest.NewClient(p.URL())
	t.Cleanup(c.Close)
	if err := c.Delete(t.Context(), "app", img.Digest); err == nil {
		t.Error("deleted although deletes are off")
	}
	if !contains(p.Log(), "listening on") {
		t.Errorf("the log does not say where it listens:\n%s", p.Log())
	}
}

// event is what the tests read of a notification.
type event struct {
	Action string `json:"action"`
	Target struct {
		Repository string `json:"repository"`
		Tag        string `json:"tag"`
		Digest     string `json:"digest"`
		MediaType  string `json:"mediaType"`
	} `json:"target"`
}

func TestNotificationsCarryTheSecret(t *testing.T) {
	t.Parallel()
	kinds := []struct {
		name, contentType string
		start             func(testing.TB, ...registrytest.Option) *registrytest.Process
	}{
		{"distribution", "application/vnd.docker.distribution.events.v2+json", registrytest.Distribution},
		{"debian", "application/vnd.docker.distribution.events.v1+json", registrytest.Debian},
	}
	for _, kind := range kinds {
		t.Run(kind.name, func(t *testing.T) {
			t.Parallel()
			events := make(chan event, 100)
			server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if err := receive(r, kind.contentType, events); err != nil {
					t.Error(err)
				}
			}))
			t.Cleanup(server.Close)
			p := kind.start(t, registrytest.WithNotifications(server.URL+"/notifications", "s3cret"))
			img := registrytest.NewImage(1, 2, 128)
			registrytest.Push(t, p.URL(), "team/app", "v1", img)
			registrytest.Tags(t, p.URL(), "team/app") // pulls, which are to be ignored
			registrytest.Retag(t, p.URL(), "team/app", img.Digest, "v2")
			for _, want := range []string{"v1", "v2"} {
				got := await(t, events)
				if got.Action != "push" || got.Target.Tag != want || got.Target.Repository != "team/app" ||
					got.Target.Digest != img.Digest {
					t.Errorf("event %+v, want the push of %s and no other", got, want)
				}
			}
		})
	}
}

func receive(r *http.Request, contentType string, events chan<- event) error {
	if got := r.Header.Get("Authorization"); got != "Bearer s3cret" {
		return fmt.Errorf("authorization is %q", got)
	}
	if got := r.Header.Get("Content-Type"); got != contentType {
		return fmt.Errorf("content type is %q", got)
	}
	var envelope struct{ Events []event }
	if err := json.NewDecoder(r.Body).Decode(&envelope); err != nil {
		return err
	}
	for _, e := range envelope.Events {
		events <- e
	}
	return nil
}

func await[T any](t *testing.T, from <-chan T) (value T) {
	t.Helper()
	select {
	case value = <-from:
	case <-time.After(30 * time.Second):
		t.Fatal("nothing came")
	}
	return value
}

// TestOrphan is the helper of TestRegistryDiesWithTheTestBinary and does nothing on its own.
func TestOrphan(t *testing.T) {
	if os.Getenv(orphanEnv) == "" {
		return
	}
	fmt.Printf("\nurl=%s\n", registrytest.Distribution(t).URL())
	<-t.Context().Done()
}

func TestRegistryDiesWithTheTestBinary(t *testing.T) {
	t.Parallel()
	if runtime.GOOS != "linux" {
		t.Skip("death signals are Linux's")
	}
	ctx, cancel := context.WithCancel(t.Context())
	cmd := exec.CommandContext(ctx, os.Args[0], "-test.run=^TestOrphan$", "-test.v") // killed by cancel: SIGKILL
	cmd.Env = append(os.Environ(), orphanEnv+"=1", "TMPDIR="+t.TempDir())
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	url := scanURL(t, out)
	if status, _ := get(t, url+"/v2/"); status != http.StatusOK {
		t.Fatalf("the orphan's registry answers %d", status)
	}
	cancel()
	_ = cmd.Wait() // says that it was killed
	registrytest.Eventually(t, 10*time.Second, func(ctx context.Context) error {
		if _, _, err := tryGet(ctx, url+"/v2/"); err == nil {
			return errors.New("the registry outlives its test binary")
		}
		return nil
	})
}

func scanURL(t *testing.T, out io.Reader) string {
	t.Helper()
	var seen strings.Builder
	buffer := make([]byte, 1024)
	for {
		n, err := out.Read(buffer)
		seen.Write(buffer[:n])
		if _, after, ok := strings.Cut(seen.String(), "url="); ok {
			if url, _, ok := strings.Cut(after, "\n"); ok {
				return url
			}
		}
		if err != nil {
			t.Fatalf("the helper ended: %v\n%s", err, seen.String())
		}
	}
}

// failing is a test that has failed: it notes what is logged, and runs its cleanups when told.
type failing struct {
	testing.TB
	logged   strings.Builder
	cleanups []func()
}

func (f *failing) Failed() bool { return true }

func (f *failing) Cleanup(fn func()) { f.cleanups = append(f.cleanups, fn) }

func (f *failing) Logf(format string, args ...any) { fmt.Fprintf(&f.logged, format, args...) }

func TestLogIsShownWhereTheTestFailed(t *testing.T) {
	t.Parallel()
	f := &failing{TB: t}
	p := registrytest.Debian(f, registrytest.WithConfig(func(config map[string]any) {
		config["log"] = map[string]any{"level": "info"}
	}))
	for _, cleanup := range slices.Backward(f.cleanups) {
		cleanup()
	}
	if logged := f.logged.String(); !contains(logged, p.URL()) || !contains(logged, "listening on") {
		t.Errorf("a failed test shows %q", logged)
	}
	if _, _, err := tryGet(t.Context(), p.URL()+"/v2/"); err == nil {
		t.Error("the registry outlives its test")
	}
}
