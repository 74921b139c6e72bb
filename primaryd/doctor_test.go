package main

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/antipode-registry/antipode/internal/authority"
	"github.com/antipode-registry/antipode/internal/checkup"
	"github.com/antipode-registry/antipode/internal/link"
	"github.com/antipode-registry/antipode/internal/registrytest"
)

// patient is a primary to examine: a configuration, and a registry that sends its notifications where that says.
type patient struct {
	path     string
	registry string // its URL
}

// notifying starts a real registry that presents secret.
func notifying(secret string) func(t *testing.T, hook string) string {
	return func(t *testing.T, hook string) string {
		t.Helper()
		return registrytest.Distribution(t, registrytest.WithNotifications(hook, secret)).URL()
	}
}

// silent is a registry that sends nothing.
func silent(t *testing.T, _ string) string {
	t.Helper()
	return registrytest.InMemory(t, true).URL()
}

func newPatient(t *testing.T, registry func(t *testing.T, hook string) string) *patient {
	t.Helper()
	p := &patient{path: configuration(t)}
	http := fmt.Sprintf("127.0.0.1:%d", registrytest.ReservePort(t))
	p.registry = registry(t, "http://"+http+"/notifications")
	p.change(t,
		`url: "http://127.0.0.1:1"`, `url: "`+p.registry+`"`,
		`http: {listen: "127.0.0.1:0"}`, `http: {listen: "`+http+`"}`,
		`grpc: {listen: "127.0.0.1:0"`, fmt.Sprintf(`grpc: {listen: "127.0.0.1:%d"`, registrytest.ReservePort(t)))
	return p
}

// change replaces parts of the configuration.
func (p *patient) change(t *testing.T, oldnew ...string) {
	t.Helper()
	text, err := os.ReadFile(p.path)
	if err != nil {
		t.Fatal(err)
	}
	write(t, p.path, strings.NewReplacer(oldnew...).Replace(string(text)))
}

func (p *patient) file(name string) string { return filepath.Join(filepath.Dir(p.path), name) }

// examined runs the doctor and returns its findings, and whether it says that something is wrong.
func examined(t *testing.T, path string, args ...string) (report checkup.Report, wrong bool) {
	t.Helper()
	out, err := command(t, append([]string{"doctor", "--config", path, "--output", "json"}, args...)...)
	if decoded := json.Unmarshal([]byte(out[:strings.LastIndex(out, "}")+1]), &report); decoded != nil {
		t.Fatalf("%v, %v\n%s", err, decoded, out)
	}
	return report, err != nil
}

// finds makes sure of a finding that says all of words, with a mend unless it is good.
func finds(t *testing.T, report checkup.Report, level checkup.Level, check string, words ...string) {
	t.Helper()
	for _, f := range report.Findings {
		if f.Level != level || f.Check != check || (f.Mend == "") != (level == checkup.OK) {
			continue
		}
		said, missing := f.Found+" "+f.Mend, false
		for _, word := range words {
			missing = missing || !strings.Contains(said, word)
		}
		if !missing {
			return
		}
	}
	t.Errorf("no finding %s of %s says %q:\n%+v", level, check, words, report.Findings)
}

func TestDoctorFindsAHealthyPrimaryHealthy(t *testing.T) {
	t.Parallel()
	p := newPatient(t, notifying("s3cret"))
	registrytest.Push(t, p.registry, "team/app", "v1", registrytest.NewImage(1, 1, 100))
	startProcess(t, "serve", "--config", p.path)
	report, wrong := examined(t, p.path, "--probe")
	if wrong {
		t.Errorf("something is wrong: %+v", report.Findings)
	}
	finds(t, report, checkup.OK, "secret")
	finds(t, report, checkup.OK, "grpc.cert_file", "antipode://primary/primary", "days")
	finds(t, report, checkup.OK, "grpc.client_ca_file")
	finds(t, report, checkup.OK, "database", "sqlite", "feed ")
	finds(t, report, checkup.OK, "registry", "takes our credentials")
	finds(t, report, checkup.OK, "registry", "catalog")
	finds(t, report, checkup.OK, "registry", "manifests and blobs can be read")
	finds(t, report, checkup.OK, "registry", "referrers API")
	finds(t, report, checkup.OK, "clock")
	finds(t, report, checkup.OK, "daemon", "revision")
	finds(t, report, checkup.Warn, "nodes", "none in the configuration")
	finds(t, report, checkup.OK, "notifications", "the daemon takes them")
	finds(t, report, checkup.OK, "notifications", "a probe's arrived")
	finds(t, report, checkup.OK, "registry", "tags can be deleted")
	if tags := registrytest.Tags(t, p.registry, "antipode/doctor"); len(tags) != 0 {
		t.Errorf("the probe is left behind: %v", tags)
	}
	report, wrong = examined(t, p.path)
	if wrong {
		t.Errorf("something is wrong: %+v", report.Findings)
	}
	finds(t, report, checkup.OK, "notifications", "the newest arrived at")
}

// TestDoctorFindsAWrongSecret is the trouble that is otherwise found at the failover.
func TestDoctorFindsAWrongSecret(t *testing.T) {
	t.Parallel()
	p := newPatient(t, notifying("another"))
	startProcess(t, "serve", "--config", p.path)
	report, wrong := examined(t, p.path)
	if wrong {
		t.Errorf("something is wrong before anything was pushed: %+v", report.Findings)
	}
	finds(t, report, checkup.Warn, "notifications", "none has arrived", "--probe")
	report, wrong = examined(t, p.path, "--probe")
	if !wrong {
		t.Error("nothing is wrong")
	}
	finds(t, report, checkup.Fail, "notifications", "unauthorized", "another secret")
	report, wrong = examined(t, p.path)
	if !wrong {
		t.Error("nothing is wrong any more")
	}
	finds(t, report, checkup.Fail, "notifications", "refused as unauthorized", "none has been accepted")
}

func TestDoctorFindsThatNothingNotifies(t *testing.T) {
	t.Parallel()
	p := newPatient(t, silent)
	startProcess(t, "serve", "--config", p.path)
	report, wrong := examined(t, p.path, "--probe")
	if !wrong {
		t.Error("nothing is wrong")
	}
	finds(t, report, checkup.Fail, "notifications", "no notification of it arrived", "primaryd notifications")
}

func TestDoctorWithoutTheDaemon(t *testing.T) {
	t.Parallel()
	p := newPatient(t, silent)
	report, wrong := examined(t, p.path, "--probe")
	if wrong {
		t.Errorf("something is wrong: %+v", report.Findings)
	}
	finds(t, report, checkup.Warn, "daemon", "does not answer", "primaryd serve")
	finds(t, report, checkup.Warn, "database", "there is no")
	finds(t, report, checkup.OK, "registry", "and is empty")
	if _, err := os.Stat(p.file("primary.db")); err == nil {
		t.Error("the doctor made a database")
	}
}

func TestDoctorFindsWhatIsBroken(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		breaks func(t *testing.T, p *patient)
		level  checkup.Level
		check  string
		words  []string
	}{
		"certificate ended": {func(t *testing.T, p *patient) {
			issue(t, p, authority.Leaf{Role: link.RolePrimary, Name: "primary", Hosts: []string{"localhost"}, NotBefore: time.Now().Add(-2 * time.Hour), NotAfter: time.Now().Add(-time.Hour)})
		}, checkup.Fail, "grpc.cert_file", []string{"ended at", "issue a new one"}},
		"certificate of a node": {func(t *testing.T, p *patient) {
			issue(t, p, authority.Leaf{Role: link.RoleNode, Name: "eu", Hosts: []string{"localhost"}})
		}, checkup.Fail, "grpc.cert_file", []string{"antipode://node/eu", "role primary"}},
		"key of another": {func(t *testing.T, p *patient) {
			if err := authority.Issue(filepath.Dir(p.path), "other", link.RolePrimary, nil); err != nil {
				t.Fatal(err)
			}
			if err := os.Rename(p.file("other.key"), p.file("primary.key")); err != nil {
				t.Fatal(err)
			}
		}, checkup.Fail, "grpc.cert_file", []string{"cannot be used"}},
		"key for all to read": {func(t *testing.T, p *patient) {
			if err := os.Chmod(p.file("primary.key"), 0o644); err != nil {
				t.Fatal(err)
			}
		}, checkup.Warn, "grpc.cert_file", []string{"0644", "chmod"}},
		"secret of two lines": {
			func(t *testing.T, p *patient) { write(t, p.file("notify.secret"), "a\nb\n") },
			checkup.Fail, "secret",
			[]string{"one line"},
		},
		"authorities without an authority": {
			func(t *testing.T, p *patient) { write(t, p.file("ca.crt"), "x") },
			checkup.Fail, "grpc.client_ca_file",
			[]string{"no certificate"},
		},
		"database dead": {
			func(t *testing.T, p *patient) { write(t, p.file("primary.db"), strings.Repeat("no database ", 100)) },
			checkup.Fail, "database",
			[]string{"not a database"},
		},
		"registry down": {
			func(t *testing.T, p *patient) { p.change(t, p.registry, "http://127.0.0.1:1") },
			checkup.Fail, "registry",
			[]string{"connection refused", "start the registry"},
		},
		"configuration": {
			func(t *testing.T, p *patient) { write(t, p.path, "registri: {}\n") },
			checkup.Fail, "configuration",
			[]string{"registri"},
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := newPatient(t, silent)
			test.breaks(t, p)
			report, wrong := examined(t, p.path)
			finds(t, report, test.level, test.check, test.words...)
			if wrong != (test.level == checkup.Fail) {
				t.Errorf("wrong: %t", wrong)
			}
		})
	}
}

func issue(t *testing.T, p *patient, leaf authority.Leaf) {
	t.Helper()
	ca, err := authority.Open(filepath.Dir(p.path))
	if err != nil {
		t.Fatal(err)
	}
	pair, err := ca.Issue(leaf)
	if err != nil {
		t.Fatal(err)
	}
	if err := authority.Write(pair, p.file("primary.crt"), p.file("primary.key")); err != nil {
		t.Fatal(err)
	}
}

// TestDoctorFindsCredentialsRefusedAndClocksOff examines registries that answer as a proxy tells them to.
func TestDoctorFindsCredentialsRefusedAndClocksOff(t *testing.T) {
	t.Parallel()
	p := newPatient(t, silent)
	stand := registrytest.NewProxy(t, p.registry)
	p.change(t, p.registry, stand.URL())
	stand.Fault(func(*http.Request) registrytest.Fault {
		return registrytest.Fault{Status: http.StatusUnauthorized, Body: `{"errors":[{"code":"UNAUTHORIZED"}]}`}
	})
	report, wrong := examined(t, p.path)
	if !wrong {
		t.Error("nothing is wrong")
	}
	finds(t, report, checkup.Fail, "registry", "401", "docker login")
	stand.Fault(func(*http.Request) registrytest.Fault {
		return registrytest.Fault{Status: http.StatusOK, Body: "{}", Header: http.Header{
			"Date": {time.Now().Add(-time.Hour).UTC().Format(http.TimeFormat)},
		}}
	})
	report, _ = examined(t, p.path)
	finds(t, report, checkup.Fail, "clock", "registry differs", "NTP")
}
