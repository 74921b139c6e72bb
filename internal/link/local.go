package link

import (
	"context"
	"slices"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
)

// Local calls services within the process, for what answers their RPCs in another form. A call goes through the same
// interceptors as one from outside: it is counted, logged, authorized, and its errors are mapped. It carries an identity
// that the process chose, hence it can call only what is listed.
//
// It is a grpc.ServiceRegistrar, to register the services on, and then a grpc.ClientConnInterface that may be used from
// many goroutines. Streams cannot be called.
type Local struct {
	identity Identity
	methods  []string
	chain    []grpc.UnaryServerInterceptor
	handlers map[string]localHandler
}

// localHandler is one RPC of a registered service.
type localHandler struct {
	service any
	call    grpc.MethodHandler
}

// NewLocal returns a Local that calls as id, through the hooks of cfg, the given full methods, such as
// "/package.Service/Method". Of cfg only Logger, Metrics, Authorize and MapError count.
func NewLocal(cfg ServerConfig, id Identity, methods ...string) *Local {
	return &Local{
		identity: id, methods: methods, chain: unaryChain(cfg.withDefaults()), handlers: map[string]localHandler{},
	}
}

// RegisterService implements grpc.ServiceRegistrar.
func (l *Local) RegisterService(desc *grpc.ServiceDesc, service any) {
	for _, method := range desc.Methods {
		name := "/" + desc.ServiceName + "/" + method.MethodName
		if slices.Contains(l.methods, name) {
			l.handlers[name] = localHandler{service: service, call: method.Handler}
		}
	}
}

// Invoke implements grpc.ClientConnInterface. Options are ignored: there are neither headers nor trailers.
func (l *Local) Invoke(ctx context.Context, method string, args, reply any, _ ...grpc.CallOption) error {
	handler, found := l.handlers[method]
	if !found {
		return status.Errorf(codes.Unimplemented, "%s cannot be called here", method)
	}
	// The handler gets a message of its own, as it would from the wire.
	decode := func(into any) error {
		proto.Merge(into.(proto.Message), args.(proto.Message))
		return nil
	}
	response, err := handler.call(handler.service, ContextWithIdentity(ctx, l.identity), decode, l.intercept)
	if err != nil {
		return err
	}
	proto.Merge(reply.(proto.Message), response.(proto.Message))
	return nil
}

// intercept runs the chain, outermost first, around the handler.
func (l *Local) intercept(ctx context.Context, req any, info *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
	for _, interceptor := range slices.Backward(l.chain) {
		next := handler
		handler = func(ctx context.Context, req any) (any, error) { return interceptor(ctx, req, info, next) }
	}
	return handler(ctx, req)
}

// NewStream implements grpc.ClientConnInterface by refusing.
func (l *Local) NewStream(context.Context, *grpc.StreamDesc, string, ...grpc.CallOption) (grpc.ClientStream, error) {
	return nil, status.Error(codes.Unimplemented, "streams cannot be called within the process")
}
