package link

import (
	"context"
	"crypto/x509"
	"crypto/x509/pkix"
	"net/url"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

func TestIdentify(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		name    string
		uris    []string
		want    Identity
		refused bool
	}{
		"node":                     {"x", []string{"antipode://node/eu-west"}, Identity{RoleNode, "eu-west", false}, false},
		"beside others":            {"x", []string{"foo://b", "antipode://node/a"}, Identity{RoleNode, "a", false}, false},
		"common name":              {"ops", nil, Identity{Name: "ops"}, false},
		"common name, foreign URI": {"ops", []string{"spiffe://a/b"}, Identity{Name: "ops"}, false},
		"unusable common name":     {"Jane Doe", nil, Identity{}, false},
		"two":                      {"x", []string{"antipode://node/a", "antipode://node/b"}, Identity{}, true},
		"twice the same":           {"x", []string{"antipode://node/a", "antipode://node/a"}, Identity{}, true},
		"unknown role":             {"x", []string{"antipode://admin/a"}, Identity{}, true},
		"role in capitals":         {"x", []string{"antipode://Node/a"}, Identity{}, true},
		"no name":                  {"x", []string{"antipode://node"}, Identity{}, true},
		"empty name":               {"x", []string{"antipode://node/"}, Identity{}, true},
		"path":                     {"x", []string{"antipode://node/a/b"}, Identity{}, true},
		"capitals":                 {"x", []string{"antipode://node/EU"}, Identity{}, true},
		"escaped":                  {"x", []string{"antipode://node/%61"}, Identity{}, true},
		"port":                     {"x", []string{"antipode://node:1/a"}, Identity{}, true},
		"user":                     {"x", []string{"antipode://u@node/a"}, Identity{}, true},
		"query":                    {"x", []string{"antipode://node/a?b"}, Identity{}, true},
		"fragment":                 {"x", []string{"antipode://node/a#b"}, Identity{}, true},
		"opaque":                   {"x", []string{"antipode:node/a"}, Identity{}, true},
		"malformed, with a name":   {"ops", []string{"antipode://nobody/a"}, Identity{}, true},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			leaf := &x509.Certificate{Subject: pkix.Name{CommonName: test.name}}
			for _, text := range test.uris {
				uri, err := url.Parse(text)
				if err != nil {
					t.Fatal(err)
				}
				leaf.URIs = append(leaf.URIs, uri)
			}
			got, err := identify(leaf)
			if (err != nil) != test.refused || got != test.want {
				t.Errorf("got %+v, %v", got, err)
			}
		})
	}
}

func TestIdentityURI(t *testing.T) {
	t.Parallel()
	uri, err := IdentityURI(RoleNode, "eu-west")
	if err != nil || uri.String() != "antipode://node/eu-west" {
		t.Errorf("got %v, %v", uri, err)
	}
	if uri, err := IdentityURI("", "eu-west"); err == nil {
		t.Errorf("no role gave %v", uri)
	}
	if uri, err := IdentityURI(RoleNode, "eu/west"); err == nil {
		t.Errorf("a path gave %v", uri)
	}
}

func TestIdentityWithoutConnection(t *testing.T) {
	t.Parallel()
	if id, ok := IdentityFrom(t.Context()); ok {
		t.Errorf("nobody is %v", id)
	}
	want := Identity{Role: RoleOperator, Name: "ops"}
	if id, ok := IdentityFrom(ContextWithIdentity(t.Context(), want)); !ok || id != want {
		t.Errorf("got %v, %v", id, ok)
	}
}

// A verified certificate that names nobody may call nothing that is guarded.
func TestNobodyIsNotAuthenticated(t *testing.T) {
	t.Parallel()
	guard := authorizer(func(context.Context, string, Identity) error { return nil })
	for want, ctx := range map[codes.Code]context.Context{
		codes.Unauthenticated: ContextWithIdentity(t.Context(), Identity{}),
		codes.OK:              ContextWithIdentity(t.Context(), Identity{Self: true}),
	} {
		if err := guard.check(ctx, "/s/m"); status.Code(err) != want {
			t.Errorf("got %v, want %v", err, want)
		}
	}
	if err := guard.check(t.Context(), "/s/m"); status.Code(err) != codes.Unauthenticated {
		t.Errorf("without a connection: %v", err)
	}
}
