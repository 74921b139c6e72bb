// Package authority is a small certificate authority, for trying Antipode and for its tests.
//
// It guarantees ECDSA P-256 keys, random 128-bit serial numbers, certificates that name one role and one name, key
// files that only their owner can read, and that a CA is never overwritten.
//
// It refuses to be more: no revocation, no intermediate CAs, no renewal of the CA. Sites with a CA of their own need
// nothing from it: the daemons take any certificate with the URI antipode://ROLE/NAME among its alternative names.
package authority

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"net/netip"
	"net/url"
	"time"

	"github.com/antipode-registry/antipode/internal/link"
)

const (
	caYears   = 10
	leafYears = 1
	// backdate tolerates peers whose clock is a little behind.
	backdate = 5 * time.Minute

	blockCertificate = "CERTIFICATE"
	blockKey         = "PRIVATE KEY"
)

// Authority issues certificates. It is safe for concurrent use.
type Authority struct {
	certificate *x509.Certificate
	key         *ecdsa.PrivateKey
}

// Pair is a certificate and its key, both PEM; the key is PKCS #8.
type Pair struct {
	Certificate []byte
	Key         []byte
}

// Leaf says what a certificate is to hold.
type Leaf struct {
	// Name is the common name and, with a role, the name in the antipode URI. Required; see link.ValidName.
	Name string
	// Role may be empty: the certificate then has no antipode URI.
	Role link.Role
	// Hosts are the DNS names and IP addresses under which the holder can be dialled; none = none.
	Hosts []string
	// NotBefore and NotAfter bound the validity; zero = from just before now, for a year.
	NotBefore, NotAfter time.Time
	// Usages are the extended key usages; none = server and client authentication.
	Usages []x509.ExtKeyUsage
	// ExtraURIs are further URI alternative names, as a certificate from elsewhere may have.
	ExtraURIs []*url.URL
}

// New makes an authority with a key of its own, valid for ten years.
func New() (*Authority, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("authority: making the key: %w", err)
	}
	now := time.Now()
	template := &x509.Certificate{
		// A random part in the name keeps two authorities apart in a CA file that holds both.
		Subject:               pkix.Name{CommonName: "Antipode CA " + rand.Text()[:8]},
		NotBefore:             now.Add(-backdate),
		NotAfter:              now.AddDate(caYears, 0, 0),
		KeyUsage:              x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
		BasicConstraintsValid: true,
		IsCA:                  true,
		MaxPathLenZero:        true,
	}
	certificate, err := sign(template, template, key, key)
	if err != nil {
		return nil, err
	}
	return &Authority{certificate: certificate, key: key}, nil
}

// Parse reads an authority from its two PEM parts. It refuses a certificate that is not a CA's, is out of date, or does
// not belong to the key.
func Parse(pair Pair) (*Authority, error) {
	certificate, err := parseCertificate(pair.Certificate)
	if err != nil {
		return nil, err
	}
	block, _ := pem.Decode(pair.Key)
	if block == nil || block.Type != blockKey {
		return nil, errors.New("authority: the key file holds no PKCS #8 key in PEM")
	}
	parsed, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil, errors.New("authority: the key file cannot be parsed")
	}
	key, ok := parsed.(*ecdsa.PrivateKey)
	if !ok || !key.PublicKey.Equal(certificate.PublicKey) {
		return nil, errors.New("authority: the key does not belong to the CA certificate")
	}
	return &Authority{certificate: certificate, key: key}, nil
}

func parseCertificate(content []byte) (*x509.Certificate, error) {
	block, _ := pem.Decode(content)
	if block == nil || block.Type != blockCertificate {
		return nil, errors.New("authority: the CA file holds no certificate in PEM")
	}
	certificate, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("authority: the CA certificate: %w", err)
	}
	if !certificate.IsCA {
		return nil, errors.New("authority: the certificate is not that of a CA")
	}
	if now := time.Now(); now.Before(certificate.NotBefore) || now.After(certificate.NotAfter) {
		return nil, fmt.Errorf("authority: the CA certificate is valid from %s to %s only",
			certificate.NotBefore.Format(time.DateOnly), certificate.NotAfter.Format(time.DateOnly))
	}
	return certificate, nil
}

// CertificatePEM returns the CA certificate, for the CA files of the peers.
func (a *Authority) CertificatePEM() []byte {
	return pem.EncodeToMemory(&pem.Block{Type: blockCertificate, Bytes: a.certificate.Raw})
}

// Pair returns the CA certificate and its key. The key is the whole secret of the authority.
func (a *Authority) Pair() (Pair, error) {
	return encode(a.certificate, a.key)
}

// Issue makes a key and a certificate for it.
func (a *Authority) Issue(leaf Leaf) (Pair, error) {
	template, err := leaf.template(a.certificate.NotAfter)
	if err != nil {
		return Pair{}, fmt.Errorf("authority: %w", err)
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return Pair{}, fmt.Errorf("authority: making the key: %w", err)
	}
	certificate, err := sign(template, a.certificate, key, a.key)
	if err != nil {
		return Pair{}, err
	}
	return encode(certificate, key)
}

// template checks the request. A leaf never outlives its CA: peers would refuse it at a time that nobody expects.
func (l Leaf) template(caEnd time.Time) (*x509.Certificate, error) {
	if err := link.ValidName(l.Name); err != nil {
		return nil, err
	}
	now := time.Now()
	template := &x509.Certificate{
		Subject:               pkix.Name{CommonName: l.Name},
		NotBefore:             now.Add(-backdate),
		NotAfter:              now.AddDate(leafYears, 0, 0),
		KeyUsage:              x509.KeyUsageDigitalSignature,
		ExtKeyUsage:           []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
		BasicConstraintsValid: true,
		URIs:                  l.ExtraURIs,
	}
	if !l.NotBefore.IsZero() {
		template.NotBefore = l.NotBefore
	}
	if !l.NotAfter.IsZero() {
		template.NotAfter = l.NotAfter
	}
	if template.NotAfter.After(caEnd) {
		template.NotAfter = caEnd
	}
	if len(l.Usages) > 0 {
		template.ExtKeyUsage = l.Usages
	}
	if l.Role != "" {
		uri, err := link.IdentityURI(l.Role, l.Name)
		if err != nil {
			return nil, err
		}
		template.URIs = append([]*url.URL{uri}, l.ExtraURIs...)
	}
	return template, addHosts(template, l.Hosts)
}

func addHosts(template *x509.Certificate, hosts []string) error {
	for _, host := range hosts {
		if address, err := netip.ParseAddr(host); err == nil && address.Zone() == "" {
			template.IPAddresses = append(template.IPAddresses, net.IP(address.AsSlice()))
			continue
		}
		if !validHost(host) {
			return fmt.Errorf("%q is neither a host name nor an IP address (no port, no URL)", host)
		}
		template.DNSNames = append(template.DNSNames, host)
	}
	return nil
}

// validHost accepts the host names of RFC 1123, section 2.1, and a wildcard as the first label.
func validHost(host string) bool {
	if len(host) == 0 || len(host) > 253 {
		return false
	}
	start := 0
	if len(host) > 2 && host[:2] == "*." {
		start = 2
	}
	label := 0
	for i := start; i <= len(host); i++ {
		if i == len(host) || host[i] == '.' {
			if label == 0 || label > 63 || host[i-1] == '-' {
				return false
			}
			label = 0
			continue
		}
		if !hostByte(host[i]) || label == 0 && host[i] == '-' {
			return false
		}
		label++
	}
	return true
}

func hostByte(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '-' || c == '_'
}

// sign fills in the serial number: 128 random bits, never zero (RFC 5280, section 4.1.2.2).
func sign(template, parent *x509.Certificate, key, parentKey *ecdsa.PrivateKey) (*x509.Certificate, error) {
	serial := make([]byte, 16)
	if _, err := rand.Read(serial); err != nil {
		return nil, fmt.Errorf("authority: making a serial number: %w", err)
	}
	template.SerialNumber = new(big.Int).SetBytes(serial)
	der, err := x509.CreateCertificate(rand.Reader, template, parent, &key.PublicKey, parentKey)
	if err != nil {
		return nil, fmt.Errorf("authority: signing: %w", err)
	}
	certificate, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, fmt.Errorf("authority: reading back what was signed: %w", err)
	}
	return certificate, nil
}

func encode(certificate *x509.Certificate, key *ecdsa.PrivateKey) (Pair, error) {
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return Pair{}, fmt.Errorf("authority: encoding the key: %w", err)
	}
	return Pair{
		Certificate: pem.EncodeToMemory(&pem.Block{Type: blockCertificate, Bytes: certificate.Raw}),
		Key:         pem.EncodeToMemory(&pem.Block{Type: blockKey, Bytes: der}),
	}, nil
}
