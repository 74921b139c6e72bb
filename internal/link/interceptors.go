package link

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime/debug"
	"strings"

	"github.com/grpc-ecosystem/go-grpc-middleware/v2/interceptors"
	"github.com/grpc-ecosystem/go-grpc-middleware/v2/interceptors/logging"
	"github.com/grpc-ecosystem/go-grpc-middleware/v2/interceptors/recovery"
	"github.com/grpc-ecosystem/go-grpc-middleware/v2/interceptors/selector"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// chain is what goes around every RPC, see unaryChain.
func chain(cfg ServerConfig) []grpc.ServerOption {
	logger, logOptions := logs(cfg)
	running := newCrowd()
	stream := []grpc.StreamServerInterceptor{
		logging.StreamServerInterceptor(logger, logOptions...),
		mapStream(cfg.MapError),
		recovery.StreamServerInterceptor(recovery.WithRecoveryHandlerContext(recovered(cfg))),
		running.stream,
		selector.StreamServerInterceptor(authorizer(cfg.Authorize).stream, guarded),
		stall{timeout: cfg.StallTimeout, logger: cfg.Logger}.stream,
	}
	if cfg.Metrics != nil {
		stream = append([]grpc.StreamServerInterceptor{cfg.Metrics.rpc.StreamServerInterceptor()}, stream...)
	}
	return []grpc.ServerOption{
		grpc.ChainUnaryInterceptor(append(unaryChain(cfg), running.unary)...), grpc.ChainStreamInterceptor(stream...),
	}
}

// unaryChain returns the interceptors, outermost first: metrics, logs, error map, recovery, authorization. Metrics and
// logs thus see the code that the caller gets, and a panic in the authorization is recovered like one in a handler.
func unaryChain(cfg ServerConfig) []grpc.UnaryServerInterceptor {
	logger, logOptions := logs(cfg)
	unary := []grpc.UnaryServerInterceptor{
		logging.UnaryServerInterceptor(logger, logOptions...),
		mapUnary(cfg.MapError),
		recovery.UnaryServerInterceptor(recovery.WithRecoveryHandlerContext(recovered(cfg))),
		selector.UnaryServerInterceptor(authorizer(cfg.Authorize).unary, guarded),
	}
	if cfg.Metrics != nil {
		unary = append([]grpc.UnaryServerInterceptor{cfg.Metrics.rpc.UnaryServerInterceptor()}, unary...)
	}
	return unary
}

func logs(cfg ServerConfig) (logging.Logger, []logging.Option) {
	logger := logging.LoggerFunc(func(ctx context.Context, level logging.Level, message string, fields ...any) {
		cfg.Logger.Log(ctx, slog.Level(level), message, fields...) //nolint:sloglint // the middleware's own two messages
	})
	return logger, []logging.Option{
		logging.WithLogOnEvents(logging.FinishCall),
		logging.WithLevels(levelOf),
		logging.WithFieldsFromContext(peerFields),
		logging.WithDisableLoggingFields(logging.SystemTag[0], logging.ComponentFieldKey),
	}
}

// guarded matches what is authorized.
var guarded = selector.MatchFunc(func(_ context.Context, call interceptors.CallMeta) bool {
	return !open(call.FullMethod())
})

// open says whether a method needs no more than a verified certificate: health and reflection.
func open(fullMethod string) bool {
	return strings.HasPrefix(fullMethod, "/grpc.health.v1.Health/") ||
		strings.HasPrefix(fullMethod, "/grpc.reflection.")
}

// peerFields puts the caller's name on its log lines.
func peerFields(ctx context.Context) logging.Fields {
	id, ok := IdentityFrom(ctx)
	switch {
	case !ok:
		return nil
	case id.Role == RoleNode:
		return logging.Fields{"node", id.Name}
	default:
		return logging.Fields{"peer", id.String()}
	}
}

// levelOf keeps the log of a healthy pair quiet: what succeeded is for debugging, what the caller got wrong is
// information, what somebody should look at warns.
func levelOf(code codes.Code) logging.Level {
	switch code {
	case codes.OK:
		return logging.LevelDebug
	case codes.Canceled, codes.InvalidArgument, codes.NotFound, codes.AlreadyExists, codes.FailedPrecondition,
		codes.OutOfRange:
		return logging.LevelInfo
	case codes.PermissionDenied, codes.Unauthenticated, codes.DeadlineExceeded, codes.ResourceExhausted, codes.Aborted,
		codes.Unavailable, codes.Unimplemented:
		return logging.LevelWarn
	case codes.Unknown, codes.Internal, codes.DataLoss:
		return logging.LevelError
	default:
		return logging.LevelError
	}
}

// recovered logs a panic with its stack and tells the caller nothing of it.
func recovered(cfg ServerConfig) recovery.RecoveryHandlerFuncContext {
	return func(ctx context.Context, cause any) error {
		cfg.Metrics.countPanic()
		cfg.Logger.ErrorContext(ctx, "panic in an RPC handler", "error", fmt.Sprint(cause), "stack", string(debug.Stack()))
		return status.Error(codes.Internal, "internal error")
	}
}

// authorizer asks before each RPC, streams included.
type authorizer func(ctx context.Context, fullMethod string, id Identity) error

func (a authorizer) check(ctx context.Context, fullMethod string) error {
	id, ok := IdentityFrom(ctx)
	if !ok {
		return status.Error(codes.Unauthenticated, "no verified certificate")
	}
	if id.Name == "" && !id.Self {
		return status.Error(codes.Unauthenticated, "the certificate holds no usable name")
	}
	return a(ctx, fullMethod, id)
}

func (a authorizer) unary(
	ctx context.Context, request any, info *grpc.UnaryServerInfo, handler grpc.UnaryHandler,
) (any, error) {
	if err := a.check(ctx, info.FullMethod); err != nil {
		return nil, err
	}
	return handler(ctx, request)
}

func (a authorizer) stream(
	server any, stream grpc.ServerStream, info *grpc.StreamServerInfo, handler grpc.StreamHandler,
) error {
	if err := a.check(stream.Context(), info.FullMethod); err != nil {
		return err
	}
	return handler(server, stream)
}

func mapUnary(mapError func(error) error) grpc.UnaryServerInterceptor {
	return func(ctx context.Context, request any, _ *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
		response, err := handler(ctx, request)
		return response, mapped(ctx, mapError, err)
	}
}

func mapStream(mapError func(error) error) grpc.StreamServerInterceptor {
	return func(server any, stream grpc.ServerStream, _ *grpc.StreamServerInfo, handler grpc.StreamHandler) error {
		return mapped(stream.Context(), mapError, handler(server, stream))
	}
}

// answer is what the caller gets; its text, for our logs, is the error that led to it.
type answer struct {
	status *status.Status
	cause  error
}

func (a *answer) Error() string              { return a.cause.Error() }
func (a *answer) Unwrap() error              { return a.cause }
func (a *answer) GRPCStatus() *status.Status { return a.status }

// mapped turns a handler's error into what the caller gets. A status error stays. The caller's own cancellation or
// deadline comes before the map, because a domain error is then only its echo. What nobody knows is Internal, without
// its text.
func mapped(ctx context.Context, mapError func(error) error, err error) error {
	if err == nil {
		return nil
	}
	if _, ok := statusOf(err); ok {
		return err
	}
	ended := errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded)
	if ended && ctx.Err() != nil {
		return &answer{status: status.FromContextError(ctx.Err()), cause: err}
	}
	if mapError != nil {
		if result, ok := statusOf(mapError(err)); ok {
			return &answer{status: result, cause: err}
		}
	}
	if ended {
		return &answer{status: endedStatus(err), cause: err}
	}
	return &answer{status: status.New(codes.Internal, "internal error"), cause: err}
}

// statusOf returns the status that err is. One that err merely wraps came from another server and was not meant for
// this caller, so errors.As would be wrong here.
func statusOf(err error) (*status.Status, bool) {
	carrier, ok := err.(interface{ GRPCStatus() *status.Status })
	if !ok || carrier.GRPCStatus().Code() == codes.OK {
		return nil, false
	}
	return carrier.GRPCStatus(), true
}

func endedStatus(err error) *status.Status {
	if errors.Is(err, context.DeadlineExceeded) {
		return status.FromContextError(context.DeadlineExceeded)
	}
	return status.FromContextError(context.Canceled)
}
