package e2e

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"strings"
	"testing"

	"github.com/antipode-registry/antipode/internal/database/databasetest"
	"github.com/antipode-registry/antipode/internal/registrytest"
	"github.com/antipode-registry/antipode/internal/telemetry/telemetrytest"
)

// The secrets of this test besides the notification secret: each occurs nowhere else.
const (
	plantedPassword  = "planted-registry-password"
	plantedToken     = "planted-bearer-token"
	plantedDatabase  = "planted-database-password"
	plantedGuess     = "planted-wrong-secret"
	plantedInURL     = "planted-password-in-a-url"
	plantedSignature = "planted-signature"
)

// plantedAccount is the account of the registries as it goes over the wire.
var plantedAccount = base64.StdEncoding.EncodeToString([]byte("robot:" + plantedPassword))

// challenge makes a registry ask for the account or for a token, whichever the path says, before it answers.
func challenge(host string) func(*http.Request) registrytest.Fault {
	return func(r *http.Request) registrytest.Fault {
		header := http.Header{}
		switch {
		case r.URL.Path == "/token":
			return registrytest.Fault{Status: http.StatusOK, Body: `{"token":"` + plantedToken + `"}`}
		case r.Header.Get("Authorization") != "":
			return registrytest.Fault{}
		}
		header.Set("Www-Authenticate", `Bearer realm="http://`+host+`/token",service="test"`)
		return registrytest.Fault{Status: http.StatusUnauthorized, Header: header}
	}
}

// storage is challenge, with blobs elsewhere, under addresses that let in whoever knows them. That storage refuses all, and
// repeats what it was sent.
func storage(host string) func(*http.Request) registrytest.Fault {
	ask := challenge(host)
	return func(r *http.Request) registrytest.Fault {
		switch {
		case strings.HasPrefix(r.URL.Path, "/storage"):
			return registrytest.Fault{
				Status: http.StatusForbidden, Header: http.Header{"Content-Type": {"application/xml"}},
				Body: "<Error><Code>SignatureDoesNotMatch</Code><SignatureProvided>" + plantedSignature + "</SignatureProvided></Error>",
			}
		case strings.Contains(r.URL.Path, "/blobs/") && r.Header.Get("Authorization") != "":
			return registrytest.Fault{Status: http.StatusTemporaryRedirect, Header: http.Header{
				"Location": {"http://" + host + "/storage/x?X-Amz-Expires=60&X-Amz-Signature=" + plantedSignature},
			}}
		}
		return ask(r)
	}
}

// withPassword puts a password into a database's URL. The tests' server does not ask for one.
func withPassword(t *testing.T, text string) string {
	t.Helper()
	parsed, err := url.Parse(text)
	if err != nil {
		t.Fatal(err)
	}
	parsed.User = url.UserPassword("antipode", plantedDatabase)
	return parsed.String()
}

// TestSecretsStayIn plants secrets wherever a daemon is given some, lets everything succeed and then fail, and looks for
// them in all that the daemons say.
func TestSecretsStayIn(t *testing.T) {
	t.Parallel()
	databasetest.SkipWithoutPostgres(t)
	server := databasetest.Server(t)
	collector := telemetrytest.New(t)
	p := newPair(t, withPrimaryProxy(), withSiteProxy(), withTraces("http://"+collector.Address()),
		withPrimaryConfig("database", withPassword(t, databasetest.NewDatabase(t, server))),
		withSecondaryConfig("database", withPassword(t, databasetest.NewDatabase(t, server))))
	p.write("config.json", fmt.Sprintf(`{"auths":{%q:{"auth":%q},%q:{"auth":%q}}}`,
		p.Proxy.Host(), plantedAccount, p.SiteProxy.Host(), plantedAccount))
	p.Proxy.Fault(challenge(p.Proxy.Host()))
	p.SiteProxy.Fault(challenge(p.SiteProxy.Host()))

	push(t, p, "team/app", "v1", image(1))
	p.Converges(t)
	said := &strings.Builder{}
	p.listen(t, said)
	p.storageFails(t)
	p.listen(t, said)
	p.everythingFails(t)
	p.listen(t, said)
	p.startsThatFail(t, said)
	p.Primary.Stop()
	p.Secondary.Stop() // now all spans are there
	said.WriteString(p.Primary.Log() + p.Secondary.Log() + collector.Text())
	for _, known := range []string{
		"team/app", "team/signed", "antipode_", "notification not accepted", "DENIED", "registry.url",
		"take notification", "sync repository",
	} {
		if !strings.Contains(said.String(), known) {
			t.Errorf("nobody said %q: what was looked through is not what was meant", known)
		}
	}
	for what, planted := range p.planted(t) {
		if at := strings.Index(said.String(), planted); at >= 0 {
			t.Errorf("%s was said: ...%s", what, said.String()[max(0, at-300):at+len(planted)])
		}
	}
}

// planted are the secrets in every form that could be said.
func (p *pair) planted(t *testing.T) map[string]string {
	t.Helper()
	planted := map[string]string{
		"the notification secret": secret, "a guess at it": plantedGuess, "the registries' password": plantedPassword,
		"the registries' account": plantedAccount, "a token": plantedToken, "the databases' password": plantedDatabase,
		"a password in a URL": plantedInURL, "a signed address": plantedSignature,
	}
	for _, name := range []string{"primary", siteName} {
		text, err := os.ReadFile(p.key(name))
		if err != nil {
			t.Fatal(err)
		}
		block, _ := pem.Decode(text)
		if block == nil {
			t.Fatalf("%s is no PEM", p.key(name))
		}
		planted["the key of "+name] = string(bytes.Split(text, []byte("\n"))[1])
		planted["the bytes of the key of "+name] = string(block.Bytes)
	}
	return planted
}

// storageFails has the source's blobs in a storage that refuses them.
func (p *pair) storageFails(t *testing.T) {
	t.Helper()
	p.Proxy.Fault(storage(p.Proxy.Host()))
	push(t, p, "team/signed", "v1", image(3))
	eventually(t, func(ctx context.Context) error {
		if p.Status(t).GetRepositories().GetFailed() == 0 {
			return errors.New("nothing has failed yet")
		}
		return ctx.Err()
	})
	p.Proxy.Fault(challenge(p.Proxy.Host()))
}

// everythingFails has registries, notifications and the operator's own commands fail.
func (p *pair) everythingFails(t *testing.T) {
	t.Helper()
	refuse := func(*http.Request) registrytest.Fault {
		header := http.Header{"Www-Authenticate": {`Basic realm="home"`}}
		return registrytest.Fault{Status: http.StatusUnauthorized, Header: header, Body: `{"errors":[{"code":"DENIED"}]}`}
	}
	p.SiteProxy.Fault(refuse)
	push(t, p, "team/app", "v2", image(2))
	eventually(t, func(ctx context.Context) error {
		if problems := p.Status(t).GetProblems(); len(problems) == 0 {
			return errors.New("the site has no problem yet")
		}
		return ctx.Err()
	})
	p.Proxy.Fault(refuse)
	for _, body := range []string{"{", `{"events":[{"action":"push","target":{"repository":"` + plantedGuess[:7] + `"}}]}`} {
		for _, bearer := range []string{secret, plantedGuess} {
			req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, p.Primary.URL()+"/notifications", strings.NewReader(body))
			if err != nil {
				t.Fatal(err)
			}
			req.Header.Set("Authorization", "Bearer "+bearer)
			resp, err := (&http.Client{Transport: &http.Transport{DisableKeepAlives: true}}).Do(req)
			if err != nil {
				t.Fatal(err)
			}
			_ = resp.Body.Close()
		}
	}
}

// listen collects what the daemons answer to whoever asks.
func (p *pair) listen(t *testing.T, said *strings.Builder) {
	t.Helper()
	for _, d := range []*daemon{p.Primary, p.Secondary} {
		for _, path := range []string{"/", "/metrics", "/healthz", "/readyz"} {
			_, body, err := httpGet(t.Context(), d.URL()+path)
			if err != nil {
				t.Fatal(err)
			}
			said.WriteString(body)
		}
	}
	for d, commands := range map[*daemon][]string{
		p.Primary: {"nodes --output json", "repositories --output json", "doctor", "notifications --output json"},
		p.Secondary: {
			"status --output json", "repositories --output json", "diff team/app", "explain team/app", "doctor", "verify team/app",
		},
	} {
		for _, line := range commands {
			stdout, stderr, _ := d.Command(strings.Fields(line)...)
			if line == "notifications --output json" { // what it prints is for the registry: the secret belongs there
				stdout = strings.ReplaceAll(stdout, secret, "")
			}
			said.WriteString(stdout + stderr)
		}
	}
}

// startsThatFail runs the daemons with databases that are not there, and with URLs that are none.
func (p *pair) startsThatFail(t *testing.T, said *strings.Builder) {
	t.Helper()
	for _, d := range []*daemon{p.Primary, p.Secondary} {
		for _, broken := range []string{
			"database: postgres://robot:" + plantedDatabase + "@127.0.0.1:1/none?sslmode=disable",
			"database: postgres://robot:" + plantedDatabase + "@[::1/none",
			"database: postgres://robot:" + plantedDatabase + "/%zz@127.0.0.1/none",
			"database: mysql://robot:" + plantedDatabase + "@127.0.0.1/none",
			"url: http://robot:" + plantedInURL + "@127.0.0.1:1",
			"url: http://robot:" + plantedInURL + "@[::1",
			"url: http://" + plantedInURL + "%zz@127.0.0.1:1",
			"url: ftp://robot:" + plantedInURL + "@127.0.0.1",
			"url: http://127.0.0.1:1/?token=" + plantedInURL,
		} {
			stdout, stderr, code := command(t, d.dir, binary(d.name), "serve", "--config", d.changed(t, broken))
			if code == 0 {
				t.Errorf("%s started with %s", d.name, broken)
			}
			said.WriteString(stdout + stderr)
		}
	}
}

// changed is the daemon's configuration with another value under the first key of that name.
func (d *daemon) changed(t *testing.T, line string) (path string) {
	t.Helper()
	config, err := os.ReadFile(d.config)
	if err != nil {
		t.Fatal(err)
	}
	key, value, _ := strings.Cut(line, ": ")
	before, rest, found := strings.Cut(string(config), key+": ")
	_, after, _ := strings.Cut(rest, "\n")
	if !found {
		t.Fatalf("the configuration of %s has no %s:\n%s", d.name, key, config)
	}
	path = t.TempDir() + "/broken.yaml"
	text := fmt.Sprintf("%s%s: %q\n%s", before, key, value, after)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}
