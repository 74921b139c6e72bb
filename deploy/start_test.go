package deploy

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/antipode-registry/antipode/internal/authority"
	"github.com/antipode-registry/antipode/internal/database/databasetest"
	"github.com/antipode-registry/antipode/internal/link"
)

// nobody owns nothing, and is who the tests' own Postgres lets in.
const nobody = 65534

// TestConfigurationsStart runs the image's programs with each configuration of this folder: as a user who owns nothing,
// where nothing can be written, on Postgres. Each serves, says that it lives, and ends by itself in time.
func TestConfigurationsStart(t *testing.T) {
	t.Parallel()
	databasetest.SkipWithoutPostgres(t)
	composed, cluster := composeFiles(t, prepared(t)), kubernetesFiles(t)
	for name, c := range map[string]struct {
		daemon, text string
		files        map[string]string
	}{
		"compose primary":    {"primaryd", read(t, "compose/primary.yaml"), composed},
		"compose secondary":  {"secondaryd", read(t, "compose/secondary.yaml"), composed},
		"kubernetes primary": {"primaryd", decodeFolder(t, "kubernetes/primary").config.Data["primary.yaml"], cluster},
		"kubernetes site":    {"secondaryd", decodeFolder(t, "kubernetes/site").config.Data["secondary.yaml"], cluster},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			// The database and the ports are of this machine, everything else is as it is.
			database := databasetest.NewDatabase(t, databasetest.Server(t))
			text := regexp.MustCompile(`(?m)^database: \S+`).ReplaceAllLiteralString(c.text, "database: "+database)
			text = regexp.MustCompile(`listen: ":\d+"`).ReplaceAllLiteralString(text, `listen: "127.0.0.1:0"`)
			serves(t, program(t, c.daemon), mapped(t, text, c.files))
		})
	}
}

// kubernetesFiles says where the files of the pods are here.
func kubernetesFiles(t *testing.T) map[string]string {
	t.Helper()
	dir := readable(t)
	secret := filepath.Join(dir, "secret")
	if err := errors.Join(
		authority.Init(filepath.Join(dir, "pki")),
		authority.Issue(filepath.Join(dir, "pki"), "primary", link.RolePrimary, nil),
		os.WriteFile(secret, []byte("a secret"), 0o644),
		os.Chmod(filepath.Join(dir, "pki"), 0o755),
		os.Chmod(filepath.Join(dir, "pki/primary.key"), 0o644),
	); err != nil {
		t.Fatal(err)
	}
	return map[string]string{
		"/etc/antipode/tls/tls.crt": filepath.Join(dir, "pki/primary.crt"),
		"/etc/antipode/tls/tls.key": filepath.Join(dir, "pki/primary.key"),
		"/etc/antipode/tls/ca.crt":  filepath.Join(dir, "pki/ca.crt"), "/etc/antipode/notifications/secret": secret,
	}
}

// mapped writes a configuration with the files that are here in place of those of the containers.
func mapped(t *testing.T, text string, files map[string]string) string {
	t.Helper()
	for there, here := range files {
		text = strings.ReplaceAll(text, there, here)
	}
	path := filepath.Join(readable(t), "config.yaml")
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

// serves runs a daemon from its start to its end.
func serves(t *testing.T, program, config string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	log, err := os.Create(filepath.Join(t.TempDir(), "log"))
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	root := readable(t)
	if err := os.Chmod(root, 0o555); err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(ctx, program, "serve", "--config", config)
	cmd.Dir, cmd.Stdout, cmd.Stderr, cmd.Env = root, log, log, []string{"HOME=/nonexistent"}
	if os.Geteuid() == 0 {
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}}
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() {
		ended <- cmd.Wait()
		cancel()
	}()
	alive := lives(ctx, log.Name())
	began := time.Now()
	_ = cmd.Process.Signal(syscall.SIGTERM) // the only error is that it has ended already
	if err := errors.Join(alive, <-ended); err != nil {
		t.Errorf("%v\n%s", err, read(t, log.Name()))
	}
	if took := time.Since(began); took > stopsWithin {
		t.Errorf("it ended %s after SIGTERM", took)
	}
	if made, err := os.ReadDir(root); err != nil || len(made) > 0 {
		t.Errorf("it wrote %v: %v", made, err)
	}
}

// lives waits until the daemon whose log this is answers /healthz.
func lives(ctx context.Context, log string) error {
	address := regexp.MustCompile(`listening.*service"?[=:]"?http"?[ ,]"?address"?[=:]"?([^\s",}]+)`)
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		text, err := os.ReadFile(log)
		if err != nil {
			return err
		}
		if found := address.FindSubmatch(text); found != nil {
			return healthy(ctx, client, "http://"+string(found[1])+"/healthz")
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return fmt.Errorf("it does not listen: %w", ctx.Err())
		}
	}
}

func healthy(ctx context.Context, client *http.Client, url string) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, http.NoBody)
	if err != nil {
		return err
	}
	resp, err := client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("%s answers %s", url, resp.Status)
	}
	return nil
}
