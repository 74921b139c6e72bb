package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"
)

// command runs the command line and returns what it prints.
func command(t *testing.T, args ...string) (string, error) {
	t.Helper()
	var out bytes.Buffer
	root := newRoot()
	root.SetArgs(args)
	root.SetOut(&out)
	root.SetErr(&out)
	err := root.ExecuteContext(t.Context())
	return out.String(), err
}

// endpoint is the block as a registry reads it.
type endpoint struct {
	Notifications struct {
		Endpoints []struct {
			Name, URL string
			Headers   map[string][]string
			Ignore    struct{ Actions, Mediatypes []string }
		}
	}
}

func TestNotificationsPrintsWhatARegistryCanRead(t *testing.T) {
	t.Parallel()
	const awkward = `s"e\c: {r}e#t'`
	tests := map[string]struct {
		listen, flag, want string
		remark             string
	}{
		"one address":         {"10.1.2.3:8080", "", "http://10.1.2.3:8080/notifications", ""},
		"a name":              {"primary.internal:80", "", "http://primary.internal:80/notifications", ""},
		"an IPv6 address":     {"[fd00::1]:8080", "", "http://[fd00::1]:8080/notifications", ""},
		"all IPv4 interfaces": {"0.0.0.0:8080", "", "http://primaryd.example.com:8080/notifications", "on all interfaces"},
		"all IPv6 interfaces": {"[::]:8080", "", "http://primaryd.example.com:8080/notifications", "on all interfaces"},
		"all interfaces":      {":8080", "", "http://primaryd.example.com:8080/notifications", "on all interfaces"},
		"any port":            {"127.0.0.1:0", "", "http://127.0.0.1:0/notifications", "any free port"},
		"as told":             {":8080", "https://lb/notifications", "https://lb/notifications", ""},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			path := configuration(t)
			text, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			edited := strings.Replace(string(text), `http: {listen: "127.0.0.1:0"}`, `http: {listen: "`+test.listen+`"}`, 1)
			write(t, path, edited)
			write(t, filepath.Join(filepath.Dir(path), "notify.secret"), awkward+"\n")
			args := []string{"notifications", "--config", path}
			if test.flag != "" {
				args = append(args, "--url", test.flag)
			}
			out, err := command(t, args...)
			if err != nil {
				t.Fatal(err)
			}
			var got endpoint
			if err := yaml.Unmarshal([]byte(out), &got); err != nil || len(got.Notifications.Endpoints) != 1 {
				t.Fatalf("%v\n%s", err, out)
			}
			e := got.Notifications.Endpoints[0]
			if e.URL != test.want || e.Headers["Authorization"][0] != "Bearer "+awkward || e.Ignore.Actions[0] != "pull" {
				t.Errorf("%+v", e)
			}
			if remarked := strings.Contains(out, "# http.listen"); remarked != (test.remark != "") || !strings.Contains(out, test.remark) {
				t.Errorf("remark:\n%s", out)
			}
		})
	}
}

// TestNotificationsChecksAFile runs the check on what the command itself prints, and on a file that lacks it.
func TestNotificationsChecksAFile(t *testing.T) {
	t.Parallel()
	path := configuration(t)
	printed, err := command(t, "notifications", "--config", path, "--url", "http://lb/notifications")
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "config.yml")
	write(t, file, printed)
	check := []string{"notifications", "--config", path, "--url", "http://lb/notifications", "--check", file}
	if out, err := command(t, check...); err != nil || !strings.Contains(out, "presents the secret") {
		t.Errorf("%v\n%s", err, out)
	}
	write(t, file, strings.Replace(printed, "s3cret", "hunter2", 1))
	if out, err := command(t, check...); err == nil || !strings.Contains(out, "not our secret") || strings.Contains(out, "hunter2") {
		t.Errorf("%v\n%s", err, out)
	}
	zot := append(check, "--registry", "zot")
	if out, err := command(t, zot...); err == nil || !strings.Contains(out, "no sinks") {
		t.Errorf("%v\n%s", err, out)
	}
	for _, kind := range []string{"harbor", "quay"} {
		if out, err := command(t, append(check, "--registry", kind)...); err == nil || !strings.Contains(err.Error(), "has no file of "+kind) {
			t.Errorf("%v\n%s", err, out)
		}
	}
	if out, err := command(t, "notifications", "--config", path, "--registry", "other"); err == nil {
		t.Errorf("an unknown kind was taken:\n%s", out)
	}
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestASecretThatCannotBeUsedIsRefused(t *testing.T) {
	t.Parallel()
	path := configuration(t)
	for _, secret := range []string{" \n", "two\nlines\n"} {
		write(t, filepath.Join(filepath.Dir(path), "notify.secret"), secret)
		for _, name := range []string{"notifications", "serve"} {
			if _, err := command(t, name, "--config", path); err == nil || !strings.Contains(err.Error(), "notifications.secret_file") {
				t.Errorf("%q, %s: %v", secret, name, err)
			}
		}
	}
}

func TestPKI(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "pki")
	for _, test := range []struct {
		args []string
		want string // in the output, or in the error
		fail bool
	}{
		{[]string{"pki", "issue", "--help"}, "--role string", false},
		{[]string{"pki", "issue", "--dir", dir, "--name", "eu", "--role", "node"}, "ca.crt", true},
		{[]string{"pki", "init", "--dir", dir}, "ca.key", false},
		{[]string{"pki", "init", "--dir", dir}, "exist", true},
		{[]string{"pki", "issue", "--dir", dir, "--name", "primary", "--role", "primary", "--host", "a,b"}, "primary.crt", false},
		{[]string{"pki", "issue", "--dir", dir, "--name", "eu-west", "--role", "node"}, "eu-west.crt", false},
		{[]string{"pki", "issue", "--dir", dir, "--name", "eu-west", "--role", "admin"}, "not a role", true},
		{[]string{"pki", "issue", "--dir", dir, "--name", "EU", "--role", "node"}, "not a name", true},
		{[]string{"pki", "issue", "--dir", dir, "--name", "eu"}, "required flag(s)", true},
		{[]string{"pki", "issue", "stray"}, "stray", true},
	} {
		out, err := command(t, test.args...)
		if err != nil {
			out = err.Error()
		}
		if (err != nil) != test.fail || !strings.Contains(out, test.want) {
			t.Errorf("%v: %s, %v", test.args, out, err)
		}
	}
	for _, name := range []string{"ca.key", "eu-west.key", "primary.key"} {
		if info, err := os.Stat(filepath.Join(dir, name)); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v, %v", name, info, err)
		}
	}
}
