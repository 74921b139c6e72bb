package link_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"net"
	"net/url"
	"os"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/status"

	"github.com/antipode-registry/antipode/internal/authority"
	"github.com/antipode-registry/antipode/internal/link"
)

func TestGoodCertificatesConnect(t *testing.T) {
	t.Parallel()
	f := serve(t)
	for want, leaf := range map[string]authority.Leaf{
		"node/eu-west": nodeLeaf("eu-west"),
		"operator/ops": {Name: "ops", Role: link.RoleOperator},
		"plain":        {Name: "plain"},
	} {
		got, err := whoami(deadline(t), f.dial(t, newFiles(t, f.ca, f.ca, leaf)))
		if err != nil || got != want {
			t.Errorf("%s: got %q, %v", want, got, err)
		}
	}
}

// refusedClients are certificates that must not get as far as a handler, with what the server's log says of them.
func refusedClients(t *testing.T, ca *authority.Authority) map[string]struct {
	config *tls.Config
	logged string
} {
	t.Helper()
	hour := time.Hour
	now := time.Now()
	node := nodeLeaf("eu-west")
	with := func(issuer *authority.Authority, change func(*authority.Leaf)) *tls.Config {
		leaf := node
		change(&leaf)
		return clientTLS(t, ca, newFiles(t, issuer, ca, leaf))
	}
	old := with(ca, func(*authority.Leaf) {})
	old.MinVersion, old.MaxVersion = tls.VersionTLS12, tls.VersionTLS12
	none := clientTLS(t, ca, newFiles(t, ca, ca, node))
	none.Certificates, none.GetClientCertificate = nil, nil
	uri := func(text string) *url.URL {
		parsed, err := url.Parse(text)
		if err != nil {
			t.Fatal(err)
		}
		return parsed
	}
	return map[string]struct {
		config *tls.Config
		logged string
	}{
		"no certificate": {none, "client didn't provide a certificate"},
		"expired": {with(ca, func(l *authority.Leaf) {
			l.NotBefore, l.NotAfter = now.Add(-2*hour), now.Add(-hour)
		}), "certificate has expired or is not yet valid: current time "},
		"not yet valid": {with(ca, func(l *authority.Leaf) { l.NotBefore = now.Add(hour) }), " is before "},
		"wrong CA":      {with(newAuthority(t), func(*authority.Leaf) {}), "unknown authority"},
		"wrong usage": {with(ca, func(l *authority.Leaf) {
			l.Usages = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
		}), "incompatible key usage"},
		"two identities": {with(ca, func(l *authority.Leaf) {
			l.ExtraURIs = []*url.URL{uri("antipode://operator/ops")}
		}), "more than one antipode URI"},
		"malformed identity": {with(ca, func(l *authority.Leaf) {
			l.Role, l.ExtraURIs = "", []*url.URL{uri("antipode://node/../ops")}
		}), "is not a name"},
		"TLS 1.2": {old, "client offered only unsupported versions"},
	}
}

// clientTLS is a plain TLS client, without the checks that package client makes on its own side.
func clientTLS(t *testing.T, ca *authority.Authority, f files) *tls.Config {
	t.Helper()
	pair, err := tls.LoadX509KeyPair(f.cert, f.key)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(ca.CertificatePEM())
	return &tls.Config{
		MinVersion: tls.VersionTLS13, RootCAs: pool,
		Certificates:         []tls.Certificate{pair},
		GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &pair, nil },
	}
}

func TestServerRefusesClients(t *testing.T) {
	t.Parallel()
	f := serve(t)
	for name, test := range refusedClients(t, f.ca) {
		t.Run(name, func(t *testing.T) {
			conn, err := grpc.NewClient(f.server.Addr().String(), grpc.WithTransportCredentials(credentials.NewTLS(test.config)))
			if err != nil {
				t.Fatal(err)
			}
			closeAtEnd(t, conn)
			_, err = whoami(deadline(t), conn)
			if status.Code(err) != codes.Unavailable {
				t.Errorf("got %v", err)
			}
			// What the caller reads is the alert, never our words.
			if strings.Contains(err.Error(), test.logged) && !strings.Contains(err.Error(), "remote error: tls") {
				t.Errorf("the reason reached the caller: %v", err)
			}
			f.log.wait(t, "level=WARN msg=\"TLS handshake refused\" remote=127.0.0.1:", test.logged)
		})
	}
	if calls := f.service.calls.Load(); calls != 0 {
		t.Errorf("%d calls reached the handler", calls)
	}
}

func TestServerRefusesPlainText(t *testing.T) {
	t.Parallel()
	f := serve(t)
	conn, err := (&net.Dialer{}).DialContext(deadline(t), "tcp", f.server.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := conn.Write([]byte("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")); err != nil {
		t.Fatal(err)
	}
	f.log.wait(t, "does not look like a TLS handshake")
	if err := conn.Close(); err != nil {
		t.Error(err)
	}
}

func TestSelfIsTheServersOwnCertificate(t *testing.T) {
	t.Parallel()
	f := serve(t)
	for want, as := range map[string]files{
		"primary/primary self": f.files,
		"primary/primary":      newFiles(t, f.ca, f.ca, primaryLeaf()), // the same name and CA, another certificate
	} {
		if got, err := whoami(deadline(t), f.dial(t, as)); err != nil || got != want {
			t.Errorf("%s: got %q, %v", want, got, err)
		}
	}
}

func TestUnusableFilesFailAtOnce(t *testing.T) {
	t.Parallel()
	ca := newAuthority(t)
	good := newFiles(t, ca, ca, primaryLeaf())
	other := newFiles(t, ca, ca, primaryLeaf())
	key, err := os.ReadFile(good.key)
	if err != nil {
		t.Fatal(err)
	}
	tests := map[string]files{
		"missing certificate": {good.cert + "x", good.key, good.ca},
		"missing key":         {good.cert, good.key + "x", good.ca},
		"missing CA":          {good.cert, good.key, good.ca + "x"},
		"another's key":       {good.cert, other.key, good.ca},
		"key as certificate":  {good.key, good.key, good.ca},
		"certificate as key":  {good.cert, good.cert, good.ca},
		"key as CA":           {good.cert, good.key, good.key},
		"empty CA":            {good.cert, good.key, os.DevNull},
	}
	authorize := func(context.Context, string, link.Identity) error { return nil }
	for name, f := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, err := link.Listen(link.ServerConfig{
				Listen: "127.0.0.1:0", CertFile: f.cert, KeyFile: f.key, ClientCAFile: f.ca, Authorize: authorize,
			})
			if err == nil {
				t.Error("taken")
			} else if strings.Contains(err.Error(), strings.Split(string(key), "\n")[1]) {
				t.Errorf("it shows the key: %v", err)
			}
		})
	}
}

func TestUnusableSettingsFailAtOnce(t *testing.T) {
	t.Parallel()
	ca := newAuthority(t)
	good := newFiles(t, ca, ca, primaryLeaf())
	cfg := link.ServerConfig{Listen: "127.0.0.1:0", CertFile: good.cert, KeyFile: good.key, ClientCAFile: good.ca}
	if _, err := link.Listen(cfg); err == nil {
		t.Error("a server without authorization was taken")
	}
	cfg.Authorize = func(context.Context, string, link.Identity) error { return nil }
	cfg.Listen = "127.0.0.1:none"
	if _, err := link.Listen(cfg); err == nil {
		t.Error("a port without a number was taken")
	}
}
