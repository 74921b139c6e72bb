package checkup

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/antipode-registry/antipode/internal/link"
)

// soon is how long before its end a certificate is complained about.
const soon = 30 * 24 * time.Hour

const renew = "issue a new one in its place, with primaryd pki issue or your own authority; no restart is needed"

// Pair is a certificate with its key, and what it is for.
type Pair struct {
	Check             string // the finding's subject, such as the key of the configuration
	CertFile, KeyFile string
	Usage             x509.ExtKeyUsage // server or client
	Role              link.Role        // that it should name
	Name              string           // that it should name; "" for any
}

// CheckPair looks at a certificate and its key: that they belong together, when they end, what they may be used for and
// whom they name.
func (r *Report) CheckPair(p Pair) {
	loaded, err := tls.LoadX509KeyPair(p.CertFile, p.KeyFile)
	if err != nil {
		r.Fail(p.Check, "put the certificate and the key that belongs to it there, both PEM",
			"%s and %s cannot be used: %v", p.CertFile, p.KeyFile, err)
		return
	}
	r.checkPrivate(p.Check, p.KeyFile)
	leaf := loaded.Leaf
	switch {
	case !slices.Contains(leaf.ExtKeyUsage, p.Usage) && !slices.Contains(leaf.ExtKeyUsage, x509.ExtKeyUsageAny):
		r.Fail(p.Check, "issue a certificate for "+usageName(p.Usage)+" use", "%s is not for %s use", p.CertFile, usageName(p.Usage))
	case p.Usage == x509.ExtKeyUsageServerAuth && len(leaf.DNSNames)+len(leaf.IPAddresses) == 0:
		r.Fail(p.Check, "issue one with the host names that it is reached at (primaryd pki issue --host)",
			"%s names no host, so nobody can verify it", p.CertFile)
	case !fits(leaf, p.Role, p.Name):
		r.Fail(p.Check, strings.TrimSpace(fmt.Sprintf("issue one with the role %s and the name of the configuration %s", p.Role, p.Name)),
			"%s is for %s", p.CertFile, identities(leaf))
	default:
		r.checkEnd(p.Check, p.CertFile, leaf)
	}
}

// checkPrivate complains of a secret that others can read.
func (r *Report) checkPrivate(check, file string) {
	info, err := os.Stat(file)
	if err != nil {
		r.Fail(check, "put the file there, readable for the daemon's user", "%s cannot be read: %v", file, err)
		return
	}
	const others fs.FileMode = 0o077
	if mode := info.Mode().Perm(); mode&others&^0o040 != 0 { // a group may: that is how services are given secrets
		r.Warn(check, "chmod go= "+file, "%s can be read by everybody (mode %04o)", file, mode)
	}
}

// CheckSecret looks at a file that holds a secret.
func (r *Report) CheckSecret(check, file string, read func() ([]byte, error)) {
	if _, err := read(); err != nil {
		r.Fail(check, "write one line of text into the file, readable for the daemon's user", "%v", err)
		return
	}
	before := len(r.Findings)
	if r.checkPrivate(check, file); len(r.Findings) == before {
		r.OK(check, "%s holds a secret", file)
	}
}

func (r *Report) checkEnd(check, file string, leaf *x509.Certificate) {
	now := time.Now()
	left := leaf.NotAfter.Sub(now)
	end := leaf.NotAfter.Format(time.DateOnly)
	switch {
	case now.Before(leaf.NotBefore):
		r.Fail(check, "set the clock, or wait", "%s is not valid before %s", file, leaf.NotBefore.Format(time.RFC3339))
	case left <= 0:
		r.Fail(check, renew, "%s ended at %s", file, leaf.NotAfter.Format(time.RFC3339))
	case left < soon:
		r.Warn(check, renew, "%s ends at %s, in %d days", file, end, days(left))
	default:
		r.OK(check, "%s: %s, until %s, %d days", file, identities(leaf), end, days(left))
	}
}

func days(d time.Duration) int { return int(d / (24 * time.Hour)) }

// CheckAuthorities looks at a file of authorities: what is in it, and when the first of them ends.
func (r *Report) CheckAuthorities(check, file string) {
	authorities, err := readAuthorities(file)
	if err != nil {
		r.Fail(check, "put the authorities' certificates there, PEM, and nothing else", "%s cannot be used: %v", file, err)
		return
	}
	first := slices.MinFunc(authorities, func(a, b *x509.Certificate) int { return a.NotAfter.Compare(b.NotAfter) })
	if !first.IsCA {
		r.Fail(check, "put the authority's certificate there, not one that it issued", "%s holds a certificate that is no authority's", file)
		return
	}
	r.checkEnd(check, fmt.Sprintf("%s (%d authorities, the first to end)", file, len(authorities)), first)
}

func readAuthorities(file string) ([]*x509.Certificate, error) {
	content, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	var list []*x509.Certificate
	for {
		var block *pem.Block
		if block, content = pem.Decode(content); block == nil {
			break
		}
		if block.Type != "CERTIFICATE" {
			return nil, fmt.Errorf("it holds a %q block", block.Type)
		}
		certificate, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, err
		}
		list = append(list, certificate)
	}
	if len(list) == 0 {
		return nil, fmt.Errorf("no certificate in it")
	}
	return list, nil
}

func usageName(usage x509.ExtKeyUsage) string {
	if usage == x509.ExtKeyUsageClientAuth {
		return "client"
	}
	return "server"
}

// fits says whether the certificate is of the role, and of the name unless that is "". One that names no role is known by
// its common name.
func fits(leaf *x509.Certificate, role link.Role, name string) bool {
	for _, uri := range leaf.URIs {
		if uri.Scheme == "antipode" {
			return uri.Host == string(role) && (name == "" || uri.Path == "/"+name)
		}
	}
	return name == "" || leaf.Subject.CommonName == name
}

// identities words whom a certificate is for.
func identities(leaf *x509.Certificate) string {
	var list []string
	for _, uri := range leaf.URIs {
		list = append(list, uri.String())
	}
	list = append(list, leaf.DNSNames...)
	for _, address := range leaf.IPAddresses {
		list = append(list, address.String())
	}
	if len(list) == 0 {
		return leaf.Subject.String()
	}
	return strings.Join(list, ", ")
}
