package authority_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/antipode-registry/antipode/internal/authority"
	"github.com/antipode-registry/antipode/internal/link"
)

func initialized(t *testing.T) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "pki")
	if err := authority.Init(dir); err != nil {
		t.Fatal(err)
	}
	return dir
}

func read(t *testing.T, dir, name string) []byte {
	t.Helper()
	content, err := os.ReadFile(filepath.Join(dir, name))
	if err != nil {
		t.Fatal(err)
	}
	return content
}

func certificate(t *testing.T, content []byte) *x509.Certificate {
	t.Helper()
	block, rest := pem.Decode(content)
	if block == nil || len(rest) > 0 {
		t.Fatalf("not one PEM block: %q", content)
	}
	parsed, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	return parsed
}

// lasts says whether a validity is as long as years from now, give or take a day.
func lasts(c *x509.Certificate, years int) bool {
	return c.NotAfter.Sub(time.Now().AddDate(years, 0, 0)).Abs() < 24*time.Hour && c.NotBefore.Before(time.Now())
}

func TestInit(t *testing.T) {
	t.Parallel()
	dir := initialized(t)
	ca := certificate(t, read(t, dir, "ca.crt"))
	key, ok := ca.PublicKey.(*ecdsa.PublicKey)
	if !ok || key.Curve != elliptic.P256() {
		t.Errorf("the key is a %T", ca.PublicKey)
	}
	if !ca.IsCA || !ca.MaxPathLenZero || ca.KeyUsage != x509.KeyUsageCertSign|x509.KeyUsageCRLSign || !lasts(ca, 10) {
		t.Errorf("not the CA that was wanted: %+v", ca)
	}
	for name, mode := range map[string]fs.FileMode{"ca.key": 0o600, "ca.crt": 0o644} {
		if info, err := os.Stat(filepath.Join(dir, name)); err != nil || info.Mode() != mode {
			t.Errorf("%s: %v, %v", name, info.Mode(), err)
		}
	}
}

func TestInitNeverOverwrites(t *testing.T) {
	t.Parallel()
	for _, remaining := range []string{"ca.crt", "ca.key"} {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, remaining), []byte("precious"), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := authority.Init(dir); !errors.Is(err, fs.ErrExist) {
			t.Errorf("with %s there: %v", remaining, err)
		}
		entries, err := os.ReadDir(dir)
		if err != nil || len(entries) != 1 || string(read(t, dir, remaining)) != "precious" {
			t.Errorf("with %s there, afterwards: %v, %v", remaining, entries, err)
		}
	}
}

func TestInitAtOnceMakesOneAuthority(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	errs := make([]error, 4)
	var wg sync.WaitGroup
	for i := range errs {
		wg.Go(func() { errs[i] = authority.Init(dir) })
	}
	wg.Wait()
	made := 0
	for _, err := range errs {
		if err == nil {
			made++
		} else if !errors.Is(err, fs.ErrExist) {
			t.Error(err)
		}
	}
	if _, err := authority.Open(dir); made != 1 || err != nil {
		t.Errorf("%d of them made it; opened: %v", made, err)
	}
}

func TestIssue(t *testing.T) {
	t.Parallel()
	dir := initialized(t)
	if err := authority.Issue(dir, "eu-west", link.RoleNode, nil); err != nil {
		t.Fatal(err)
	}
	pair, err := tls.X509KeyPair(read(t, dir, "eu-west.crt"), read(t, dir, "eu-west.key"))
	if err != nil {
		t.Fatal(err)
	}
	leaf := pair.Leaf
	roots := x509.NewCertPool()
	roots.AddCert(certificate(t, read(t, dir, "ca.crt")))
	for _, usage := range []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth} {
		for _, host := range []string{"localhost", "127.0.0.1", "::1"} {
			options := x509.VerifyOptions{Roots: roots, DNSName: host, KeyUsages: []x509.ExtKeyUsage{usage}}
			if _, err := leaf.Verify(options); err != nil {
				t.Errorf("%s: %v", host, err)
			}
		}
	}
	if leaf.IsCA || leaf.KeyUsage != x509.KeyUsageDigitalSignature || !lasts(leaf, 1) {
		t.Errorf("not the leaf that was wanted: %+v", leaf)
	}
	if leaf.Subject.CommonName != "eu-west" {
		t.Errorf("common name: %s", leaf.Subject.CommonName)
	}
	if len(leaf.URIs) != 1 || leaf.URIs[0].String() != "antipode://node/eu-west" {
		t.Errorf("URIs: %v", leaf.URIs)
	}
	if bits := leaf.SerialNumber.BitLen(); bits < 64 || bits > 128 {
		t.Errorf("a serial number of %d bits", bits)
	}
	for name, mode := range map[string]fs.FileMode{"eu-west.key": 0o600, "eu-west.crt": 0o644} {
		if info, err := os.Stat(filepath.Join(dir, name)); err != nil || info.Mode() != mode {
			t.Errorf("%s: %v, %v", name, info.Mode(), err)
		}
	}
}

func TestIssueAgainReplaces(t *testing.T) {
	t.Parallel()
	dir := initialized(t)
	issue := func(hosts ...string) *x509.Certificate {
		t.Helper()
		if err := authority.Issue(dir, "primary", link.RolePrimary, hosts); err != nil {
			t.Fatal(err)
		}
		if _, err := tls.LoadX509KeyPair(filepath.Join(dir, "primary.crt"), filepath.Join(dir, "primary.key")); err != nil {
			t.Fatal(err)
		}
		return certificate(t, read(t, dir, "primary.crt"))
	}
	first, second := issue(), issue("primary.example.com", "*.example.com", "192.0.2.1", "2001:db8::1")
	sameKey := bytes.Equal(first.RawSubjectPublicKeyInfo, second.RawSubjectPublicKeyInfo)
	if sameKey || first.SerialNumber.Cmp(second.SerialNumber) == 0 {
		t.Error("the second has the first's number or key")
	}
	if diff := cmp.Diff([]string{"primary.example.com", "*.example.com"}, second.DNSNames); diff != "" {
		t.Error(diff)
	}
	if len(second.IPAddresses) != 2 || !second.IPAddresses[0].Equal(net.ParseIP("192.0.2.1")) {
		t.Errorf("addresses: %v", second.IPAddresses)
	}
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) != 4 {
		t.Errorf("something was left behind: %v, %v", entries, err)
	}
}

func TestIssueRefuses(t *testing.T) {
	t.Parallel()
	dir := initialized(t)
	tests := map[string]struct {
		name  string
		role  link.Role
		hosts []string
	}{
		"no name":              {"", link.RoleNode, nil},
		"a path":               {"../eu", link.RoleNode, nil},
		"capitals":             {"EU", link.RoleNode, nil},
		"the CA's name":        {"ca", link.RoleNode, nil},
		"no role":              {"eu", "", nil},
		"unknown role":         {"eu", "admin", nil},
		"host with a port":     {"eu", link.RoleNode, []string{"localhost:7443"}},
		"host as a URL":        {"eu", link.RoleNode, []string{"https://localhost"}},
		"empty host":           {"eu", link.RoleNode, []string{""}},
		"empty label":          {"eu", link.RoleNode, []string{"a..b"}},
		"trailing dot":         {"eu", link.RoleNode, []string{"a."}},
		"hyphen at the end":    {"eu", link.RoleNode, []string{"a-.b"}},
		"hyphen at the start":  {"eu", link.RoleNode, []string{"-a"}},
		"wildcard alone":       {"eu", link.RoleNode, []string{"*"}},
		"wildcard inside":      {"eu", link.RoleNode, []string{"a.*.b"}},
		"address with a zone":  {"eu", link.RoleNode, []string{"fe80::1%eth0"}},
		"a label of 64":        {"eu", link.RoleNode, []string{strings.Repeat("a", 64)}},
		"a name of 254":        {"eu", link.RoleNode, []string{strings.Repeat("a.", 127)}},
		"bytes beyond letters": {"eu", link.RoleNode, []string{"é.example.com"}},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if err := authority.Issue(dir, test.name, test.role, test.hosts); err == nil {
				t.Error("was taken")
			}
		})
	}
	if err := authority.Issue(t.TempDir(), "eu", link.RoleNode, nil); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("without a CA: %v", err)
	}
}

func TestLeafNeverOutlivesItsAuthority(t *testing.T) {
	t.Parallel()
	a, err := authority.New()
	if err != nil {
		t.Fatal(err)
	}
	pair, err := a.Issue(authority.Leaf{Name: "eu", NotAfter: time.Now().AddDate(20, 0, 0)})
	if err != nil {
		t.Fatal(err)
	}
	if leaf, ca := certificate(t, pair.Certificate), certificate(t, a.CertificatePEM()); leaf.NotAfter.After(ca.NotAfter) {
		t.Errorf("until %v, the CA until %v", leaf.NotAfter, ca.NotAfter)
	}
}

func TestParseRefuses(t *testing.T) {
	t.Parallel()
	first, second := authorityPair(t), authorityPair(t)
	a, err := authority.Parse(first)
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := a.Issue(authority.Leaf{Name: "eu"})
	if err != nil {
		t.Fatal(err)
	}
	tests := map[string]authority.Pair{
		"another's key": {Certificate: first.Certificate, Key: second.Key},
		"a leaf":        leaf,
		"empty":         {},
		"no key":        {Certificate: first.Certificate},
		"swapped":       {Certificate: first.Key, Key: first.Certificate},
		"a broken key": {
			Certificate: first.Certificate, Key: pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: []byte("x")}),
		},
		"a broken certificate": {
			Certificate: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: []byte("x")}), Key: first.Key,
		},
	}
	for name, pair := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if _, err := authority.Parse(pair); err == nil {
				t.Error("was taken")
			}
		})
	}
}

func authorityPair(t *testing.T) authority.Pair {
	t.Helper()
	a, err := authority.New()
	if err != nil {
		t.Fatal(err)
	}
	pair, err := a.Pair()
	if err != nil {
		t.Fatal(err)
	}
	return pair
}
