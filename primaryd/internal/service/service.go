// Package service is the primary's gRPC surface: it turns protobuf into calls of the domain packages and back, checks
// who may see what, and does nothing else. Who calls is read from the certificate by package link; a request's own
// words about its sender grant nothing.
package service

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/antipode-registry/antipode/internal/database"
	"github.com/antipode-registry/antipode/internal/link"
	"github.com/antipode-registry/antipode/internal/registry"
	"github.com/antipode-registry/antipode/primaryd/internal/feed"
	"github.com/antipode-registry/antipode/primaryd/internal/node"
)

// Access decides what an identity may do. Its zero value lets nobody in.
type Access struct {
	// Nodes are the configured sites and their grants.
	Nodes *node.Directory
	// Operators may query and control everything; nil = nobody may.
	Operators *Operators
}

// Operators are the names of operators' certificates. They can be replaced while RPCs run.
type Operators struct{ names atomic.Pointer[[]string] }

// NewOperators returns the operators of these names.
func NewOperators(names ...string) *Operators {
	o := &Operators{}
	o.Replace(names...)
	return o
}

// Replace puts other names in place of those before.
func (o *Operators) Replace(names ...string) { o.names.Store(&names) }

func (o *Operators) include(name string) bool {
	return o != nil && slices.Contains(*o.names.Load(), name)
}

// Reconfigure puts other nodes and operators in place of those before. Streams that are no longer allowed, or no longer
// allowed the same, end. An error leaves everything as it was.
func (a Access) Reconfigure(nodes []node.Config, operators []string) error {
	before := *a.Operators.names.Load()
	a.Operators.Replace(operators...) // first: the nodes' change is what wakes the streams
	if err := a.Nodes.Configure(nodes); err != nil {
		a.Operators.Replace(before...)
		return err
	}
	return nil
}

// IsNode says whether id is a configured site.
func (a Access) IsNode(id link.Identity) bool {
	return (id.Role == link.RoleNode || id.Role == "") && a.Nodes.Known(id.Name)
}

// IsOperator says whether id may query and control everything: a configured operator, or this primary's own
// certificate, which its command line uses.
func (a Access) IsOperator(id link.Identity) bool {
	return id.Self || (id.Role == link.RoleOperator || id.Role == "") && a.Operators.include(id.Name)
}

// MaySee says whether id may read a repository.
func (a Access) MaySee(id link.Identity, repository string) bool {
	return a.IsOperator(id) || a.IsNode(id) && a.Nodes.MaySee(id.Name, repository)
}

// Authorize lets configured nodes and operators call at all; each RPC narrows that further. It is package link's hook
// before every RPC.
func (a Access) Authorize(_ context.Context, method string, id link.Identity) error {
	if a.IsNode(id) || a.IsOperator(id) {
		return nil
	}
	return status.Errorf(codes.Unauthenticated, "the certificate of %q is not one of a configured node or operator", id.Name)
}

// caller returns who calls; package link guarantees an identity on every connection.
func caller(ctx context.Context) (link.Identity, error) {
	id, ok := link.IdentityFrom(ctx)
	if !ok {
		return id, status.Error(codes.Unauthenticated, "no client certificate")
	}
	return id, nil
}

// asItself refuses a caller that names another node as itself.
func asItself(id link.Identity, claimed string) error {
	if claimed != "" && claimed != id.Name {
		return status.Errorf(codes.PermissionDenied, "the certificate is that of %q, not of %q", id.Name, claimed)
	}
	return nil
}

// MapError turns domain errors into status errors: the one place where codes are chosen. It is package link's hook
// after every RPC. What it does not know it returns as it is; package link logs that and tells the caller nothing of it.
func MapError(err error) error {
	var answered *registry.Error
	switch {
	case requestCode(err) != codes.OK:
		return status.Error(requestCode(err), err.Error())
	case errors.Is(err, feed.ErrOutOfRange):
		return status.Errorf(codes.OutOfRange, "%v: start over", err)
	case errors.Is(err, database.ErrUnavailable):
		return status.Error(codes.Unavailable, "the primary's database cannot be reached")
	case errors.Is(err, registry.ErrUnavailable), errors.Is(err, registry.ErrUnauthorized):
		return status.Error(codes.Unavailable, err.Error())
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		// Not the caller's own end, which package link sees first: a walk took too long, or was given up.
		return status.Error(codes.Unavailable, "the primary's registry took too long")
	case errors.As(err, &answered):
		return status.Error(codes.FailedPrecondition, err.Error())
	case errors.Is(err, node.ErrInvalidStatus):
		return status.Error(codes.InvalidArgument, err.Error())
	}
	return err
}

// page reads the size and the token of a request for a page: names after the token, at most size of them.
func page(size int32, token string) (limit int, after string, err error) {
	const standard, most = 100, 1000
	if size < 0 {
		return 0, "", status.Error(codes.InvalidArgument, "page_size is negative")
	}
	if limit = min(int(size), most); limit == 0 {
		limit = standard
	}
	if token == "" {
		return limit, "", nil
	}
	after, ok := strings.CutPrefix(token, tokenPrefix)
	if !ok || registry.ValidRepository(after) != nil {
		return 0, "", status.Error(codes.InvalidArgument, "page_token was not made by this service")
	}
	return limit, after, nil
}

// tokenPrefix versions page tokens, so that their form can change.
const tokenPrefix = "after:"

func nextToken(last string) string { return fmt.Sprint(tokenPrefix, last) }
