package deploy

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/compose-spec/compose-go/v2/cli"
	"github.com/compose-spec/compose-go/v2/types"
	"github.com/google/go-cmp/cmp"
	"go.yaml.in/yaml/v3"
)

// stopsWithin is more than a daemon takes to end by itself: whoever kills it sooner takes work from its hands.
const stopsWithin = 15 * time.Second

func TestCompose(t *testing.T) {
	t.Parallel()
	folder := prepared(t)
	options, err := cli.NewProjectOptions([]string{filepath.Join(folder, "compose.yaml")})
	if err != nil {
		t.Fatal(err)
	}
	project, err := options.LoadProject(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"primaryd", "secondaryd"} {
		checkService(t, project.Services[name])
	}
	for name, config := range project.Configs {
		exists(t, "config "+name, config.File)
	}
	for name, secret := range project.Secrets {
		exists(t, "secret "+name, secret.File)
	}
	for _, name := range []string{"pki/ca.key", "pki/ops.key"} {
		info, err := os.Stat(filepath.Join(folder, "secrets", name))
		if err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v %v, want mode 0600", name, info, err)
		}
	}
}

func checkService(t *testing.T, s types.ServiceConfig) {
	t.Helper()
	if s.Deploy == nil || s.Deploy.Replicas == nil || *s.Deploy.Replicas != 2 {
		t.Errorf("%s has not two replicas", s.Name)
	}
	if !s.ReadOnly || s.User != "65532:65532" || len(s.CapDrop) == 0 {
		t.Errorf("%s may do more than it needs", s.Name)
	}
	if s.StopSignal != "SIGTERM" || s.StopGracePeriod == nil || time.Duration(*s.StopGracePeriod) < stopsWithin {
		t.Errorf("%s is stopped by %q within %v", s.Name, s.StopSignal, s.StopGracePeriod)
	}
}

func exists(t *testing.T, what, path string) {
	t.Helper()
	if _, err := os.Stat(path); err != nil {
		t.Errorf("%s: %v", what, err)
	}
}

// TestComposeRegistryNotifies compares what the prepared registry is told with what primaryd itself would tell it.
func TestComposeRegistryNotifies(t *testing.T) {
	t.Parallel()
	folder := prepared(t)
	config := mapped(t, read(t, filepath.Join(folder, "primary.yaml")), composeFiles(t, folder))
	printed, err := exec.CommandContext(t.Context(), program(t, "primaryd"), "notifications", "--config", config,
		"--url", "http://primary:8080/notifications").Output()
	if err != nil {
		t.Fatal(err)
	}
	var want, got struct {
		Notifications any `yaml:"notifications"`
	}
	for text, into := range map[string]any{
		string(printed): &want, read(t, filepath.Join(folder, "secrets/primary-registry.yaml")): &got,
	} {
		if err := yaml.Unmarshal([]byte(text), into); err != nil {
			t.Fatal(err)
		}
	}
	if diff := cmp.Diff(want, got); want.Notifications == nil || diff != "" {
		t.Errorf("the registry's notifications (-primaryd says, +prepare made):\n%s", diff)
	}
}

// TestHAProxy has the load balancer judge its own configuration.
func TestHAProxy(t *testing.T) {
	t.Parallel()
	haproxy, err := exec.LookPath("haproxy")
	if err != nil {
		haproxy = "/usr/sbin/haproxy" // which is not on every user's PATH
	}
	output, err := exec.CommandContext(t.Context(), haproxy, "-c", "-f", "compose/haproxy.cfg").CombinedOutput()
	if err != nil {
		t.Errorf("%v: %s; if it is not installed: make tools", err, output)
	}
}

// prepared is a copy of compose/ after its script has run.
func prepared(t *testing.T) string {
	t.Helper()
	folder := readable(t)
	if err := os.CopyFS(folder, os.DirFS("compose")); err != nil {
		t.Fatal(err)
	}
	if err := os.RemoveAll(filepath.Join(folder, "secrets")); err != nil { // of whoever tried it in place
		t.Fatal(err)
	}
	script := exec.CommandContext(t.Context(), filepath.Join(folder, "prepare"))
	script.Env = append(os.Environ(), "PATH="+filepath.Dir(program(t, "primaryd"))+":"+os.Getenv("PATH"))
	if output, err := script.CombinedOutput(); err != nil {
		t.Fatalf("prepare: %v: %s", err, output)
	}
	return folder
}

// composeFiles copies the secrets of a prepared folder to where any user may look, as Docker does for a container, and says
// where each is. Their modes stay.
func composeFiles(t *testing.T, folder string) map[string]string {
	t.Helper()
	dir, files := readable(t), map[string]string{}
	for _, name := range []string{
		"notify.secret", "pki/ca.crt", "pki/primary.crt", "pki/primary.key", "pki/eu-west.crt", "pki/eu-west.key",
	} {
		from := filepath.Join(folder, "secrets", name)
		info, err := os.Stat(from)
		if err != nil {
			t.Fatal(err)
		}
		to := filepath.Join(dir, filepath.Base(name))
		if err := errors.Join(
			os.WriteFile(to, []byte(read(t, from)), info.Mode().Perm()), os.Chmod(to, info.Mode().Perm()),
		); err != nil {
			t.Fatal(err)
		}
		files["/run/secrets/"+filepath.Base(name)] = to
	}
	return files
}
