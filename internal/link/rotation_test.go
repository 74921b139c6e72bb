package link_test

import (
	"os"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"

	"github.com/antipode-registry/antipode/internal/authority"
	"github.com/antipode-registry/antipode/internal/link"
)

// shortLived makes the server end its connections quickly, so that one client sees rotations without being told.
func shortLived(cfg *link.ServerConfig, _ *service) { cfg.MaxConnectionAge = 20 * time.Millisecond }

// until calls again and again, each time on whatever connection there is, until done is content.
func until(t *testing.T, conn *grpc.ClientConn, done func(name, server string, err error) bool) {
	t.Helper()
	ctx := deadline(t)
	for {
		var from peer.Peer
		name, err := whoami(ctx, conn, grpc.Peer(&from))
		server := ""
		if info, ok := from.AuthInfo.(credentials.TLSInfo); ok {
			server = info.State.PeerCertificates[0].Subject.CommonName
		}
		if done(name, server, err) {
			return
		}
		if ctx.Err() != nil {
			t.Fatalf("never came: last %q from %q, %v", name, server, err)
		}
	}
}

func TestServerCertificateRotates(t *testing.T) {
	t.Parallel()
	f := serve(t, shortLived)
	conn := f.dial(t, f.node(t, "eu-west"))
	until(t, conn, func(_, server string, err error) bool { return err == nil && server == "primary" })
	leaf := primaryLeaf()
	leaf.Name = "renewed"
	f.files.issue(t, f.ca, leaf)
	until(t, conn, func(_, server string, err error) bool {
		if err != nil {
			t.Fatalf("a rotation was felt: %v", err)
		}
		return server == "renewed"
	})
}

// A CA that the server no longer trusts ends its clients, those already connected included, until they have another
// certificate.
func TestCAFileRotates(t *testing.T) {
	t.Parallel()
	f := serve(t, shortLived)
	node := f.node(t, "eu-west")
	conn := f.dial(t, node)
	until(t, conn, func(_, _ string, err error) bool { return err == nil })

	second := newAuthority(t)
	f.files.trust(t, second)
	until(t, conn, func(_, _ string, err error) bool { return status.Code(err) == codes.Unavailable })
	f.log.wait(t, "TLS handshake refused", "unknown authority")
	node.issue(t, second, nodeLeaf("eu-west"))
	conn.ResetConnectBackoff()
	until(t, conn, func(_, _ string, err error) bool { return err == nil })
}

func TestBrokenFilesKeepTheOldOnes(t *testing.T) {
	t.Parallel()
	f := serve(t)
	node := f.node(t, "eu-west")
	key, err := os.ReadFile(f.files.key)
	if err != nil {
		t.Fatal(err)
	}
	secret := strings.Split(string(key), "\n")[1]
	connects := func(why string) {
		t.Helper()
		if _, err := whoami(deadline(t), f.dial(t, node)); err != nil {
			t.Errorf("%s: %v", why, err)
		}
	}
	overwrite := func(path, content string) {
		t.Helper()
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	warning := "certificate files changed and cannot be used"

	overwrite(f.files.key, string(key)[:len(key)/2])
	connects("half a key")
	f.log.wait(t, warning, "level=WARN")
	connects("half a key, again")
	if n := strings.Count(f.log.String(), warning); n != 1 {
		t.Errorf("%d warnings for one broken file", n)
	}
	if err := os.Remove(f.files.cert); err != nil {
		t.Fatal(err)
	}
	connects("no certificate")
	overwrite(f.files.ca, "")
	connects("an empty CA file")
	overwrite(f.files.ca, string(f.ca.CertificatePEM())+"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")
	connects("a CA file with a broken second part")
	if strings.Contains(f.log.String(), secret) {
		t.Error("key material in the log")
	}

	f.files.issue(t, f.ca, primaryLeaf())
	connects("a new pair")
	f.log.wait(t, "certificate files re-read")
}

func TestExpiredCertificateIsToldOf(t *testing.T) {
	t.Parallel()
	now := time.Now()
	for want, change := range map[string]func(*authority.Leaf){
		"certificate has expired": func(l *authority.Leaf) {
			l.NotBefore, l.NotAfter = now.Add(-2*time.Hour), now.Add(-time.Hour)
		},
		"certificate is not valid yet": func(l *authority.Leaf) { l.NotBefore = now.Add(time.Hour) },
	} {
		leaf := primaryLeaf()
		change(&leaf)
		f := serve(t, func(cfg *link.ServerConfig, _ *service) {
			late := newFiles(t, newAuthority(t), newAuthority(t), leaf)
			cfg.CertFile, cfg.KeyFile = late.cert, late.key
		})
		f.log.wait(t, want)
	}
}
