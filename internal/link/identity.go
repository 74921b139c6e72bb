package link

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"net/url"

	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/peer"
)

// Role says what a certificate may act as. The zero value is a certificate that names no role.
type Role string

// The roles that a certificate can carry.
const (
	RolePrimary  Role = "primary"
	RoleNode     Role = "node"
	RoleOperator Role = "operator"
)

// Valid reports whether r is one of the three roles; the empty role is not.
func (r Role) Valid() bool {
	switch r {
	case RolePrimary, RoleNode, RoleOperator:
		return true
	default:
		return false
	}
}

// Identity is who the peer is, taken from its verified certificate and from nothing that a request says.
type Identity struct {
	// Role is empty when the certificate has no antipode URI.
	Role Role
	// Name is the name in the antipode URI or, without one, the certificate's common name. It is empty when that
	// common name does not follow ValidName.
	Name string
	// Self: the peer presented this server's own certificate, as the command line does when it talks to its daemon.
	Self bool
}

// String returns "role/name", or the name alone for a certificate without a role.
func (i Identity) String() string {
	if i.Role == "" {
		return i.Name
	}
	return string(i.Role) + "/" + i.Name
}

// uriScheme is the scheme of the URI subject alternative name that carries a role and a name.
const uriScheme = "antipode"

// maxName is the longest name, in bytes: that of one DNS label (RFC 1035, section 2.3.4).
const maxName = 63

// ValidName says whether name can be that of a node or an operator: 1 to 63 lower-case letters, digits, "-" and ".",
// beginning and ending with a letter or a digit. The same grammar holds in certificates and in config files, so that
// a name never has two spellings.
func ValidName(name string) error {
	if name == "" {
		return errors.New("a name cannot be empty")
	}
	if len(name) > maxName {
		return fmt.Errorf("a name has at most %d characters", maxName)
	}
	for i := range len(name) {
		edge := i == 0 || i == len(name)-1
		if !nameByte(name[i], edge) {
			return fmt.Errorf("%q is not a name: use lower-case letters, digits, %q and %q, "+
				"with a letter or digit at both ends", name, "-", ".")
		}
	}
	return nil
}

func nameByte(c byte, edge bool) bool {
	if c >= 'a' && c <= 'z' || c >= '0' && c <= '9' {
		return true
	}
	return !edge && (c == '-' || c == '.')
}

// IdentityURI returns the subject alternative name for a role and a name: antipode://ROLE/NAME.
func IdentityURI(role Role, name string) (*url.URL, error) {
	if !role.Valid() {
		return nil, fmt.Errorf("%q is not a role: use primary, node or operator", string(role))
	}
	if err := ValidName(name); err != nil {
		return nil, err
	}
	return &url.URL{Scheme: uriScheme, Host: string(role), Path: "/" + name}, nil
}

// identify reads the identity out of a certificate that is verified already. A certificate with more than one
// antipode URI, or a malformed one, is refused rather than read in one of several ways.
func identify(leaf *x509.Certificate) (Identity, error) {
	var found *url.URL
	for _, uri := range leaf.URIs {
		if uri.Scheme != uriScheme {
			continue
		}
		if found != nil {
			return Identity{}, errors.New("the certificate has more than one antipode URI")
		}
		found = uri
	}
	if found != nil {
		return parseURI(found)
	}
	id := Identity{Name: leaf.Subject.CommonName}
	if ValidName(id.Name) != nil {
		id.Name = "" // verified, but nobody that a config file could name
	}
	return id, nil
}

func parseURI(uri *url.URL) (Identity, error) {
	id := Identity{Role: Role(uri.Host)}
	if len(uri.Path) > 0 {
		id.Name = uri.Path[1:]
	}
	want, err := IdentityURI(id.Role, id.Name)
	if err != nil {
		return Identity{}, fmt.Errorf("the certificate's antipode URI: %w", err)
	}
	// Comparing with what we would write ourselves leaves no room for a port, a user, a query or an escape.
	if uri.String() != want.String() {
		return Identity{}, fmt.Errorf("the certificate's antipode URI is not of the form %s://ROLE/NAME", uriScheme)
	}
	return id, nil
}

// authInfo is what a verified connection knows of its peer.
type authInfo struct {
	credentials.TLSInfo
	identity Identity
	hangUp   func() error // closes the connection; nil in process
}

// IdentityFrom returns the identity of the RPC's peer. It is false outside of an RPC on a connection that this package
// served; a handler then has nobody to answer to.
func IdentityFrom(ctx context.Context) (Identity, bool) {
	p, ok := peer.FromContext(ctx)
	if !ok {
		return Identity{}, false
	}
	info, ok := p.AuthInfo.(authInfo)
	return info.identity, ok
}

// ContextWithIdentity returns a context in which IdentityFrom finds id. It is for calling a handler without a
// connection, in tests and in process.
func ContextWithIdentity(ctx context.Context, id Identity) context.Context {
	return peer.NewContext(ctx, &peer.Peer{Addr: inProcess{}, AuthInfo: authInfo{identity: id}})
}

// inProcess is the address of a peer without a connection.
type inProcess struct{}

func (inProcess) Network() string { return "process" }
func (inProcess) String() string  { return "in process" }
