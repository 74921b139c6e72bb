package service

import (
	"context"
	"log/slog"
	"slices"
	"sync"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	antipodev1 "github.com/antipode-registry/antipode/gen/antipode/v1"
	"github.com/antipode-registry/antipode/secondaryd/internal/tracking"
)

const (
	requestsAtOnce  = 4
	requestsWaiting = 128 // more than the primary lets be open
)

// RequestKinds are the kinds of requests that a primary may make of a site.
func RequestKinds() []string { return []string{"pause", "resume", "resync", "release", "inspect"} }

// Answerer carries answers to the primary; *client.Client implements it.
type Answerer interface {
	Answer(ctx context.Context, id string, answer *antipodev1.SiteAnswer) error
}

// Requests does what the primary's operators ask of the site, as far as its configuration lets them. It does a few at a
// time; what exceeds the queue is dropped, and its asker told by nobody: they hear that the site did not answer.
type Requests struct {
	service  *ReplicationService
	tracking *tracking.Store
	primary  Answerer
	allowed  []string
	logger   *slog.Logger
	queue    chan *antipodev1.SiteRequest
}

// NewRequests returns a Requests that does what is allowed; Serve and then Run start it.
func NewRequests(t *tracking.Store, primary Answerer, allowed []string, logger *slog.Logger) *Requests {
	return &Requests{
		tracking: t, primary: primary, allowed: allowed, logger: logger,
		queue: make(chan *antipodev1.SiteRequest, requestsWaiting),
	}
}

// Serve sets the service that does the work. Call it before Run.
func (r *Requests) Serve(s *ReplicationService) { r.service = s }

// Take queues a request. It never blocks.
func (r *Requests) Take(request *antipodev1.SiteRequest) {
	select {
	case r.queue <- request:
	default:
		r.logger.Warn("too many requests of the primary; one is dropped", "side", "primary", "id", request.GetId())
	}
}

// Run does what is asked until ctx ends.
func (r *Requests) Run(ctx context.Context) error {
	var workers sync.WaitGroup
	for range requestsAtOnce {
		workers.Go(func() {
			for {
				select {
				case request := <-r.queue:
					r.one(ctx, request)
				case <-ctx.Done():
					return
				}
			}
		})
	}
	workers.Wait()
	return nil
}

// one does what is asked, by its time, and answers.
func (r *Requests) one(ctx context.Context, request *antipodev1.SiteRequest) {
	if expires := request.GetExpiresAt(); expires != nil {
		// The clocks may differ: by a minute less nothing bad comes of it, for every kind is harmless to repeat.
		if time.Since(expires.AsTime()) > time.Minute {
			return
		}
	}
	ctx, cancel := context.WithTimeout(ctx, reportWithin)
	defer cancel()
	kind, repository := describe(request)
	answer, err := r.do(tracking.AskedBy(ctx, request.GetAskedBy()+", at the primary"), kind, request)
	log := r.logger.With("kind", kind, "repository", repository, "asked_by", request.GetAskedBy())
	if err != nil {
		refusal := status.Convert(MapError(err))
		if refusal.Code() == codes.Unknown {
			refusal = status.New(codes.Internal, "internal error; see the site's log")
		}
		answer = &antipodev1.SiteAnswer{Outcome: &antipodev1.SiteAnswer_Refusal{Refusal: &antipodev1.SiteRefusal{
			Code: int32(refusal.Code()), Message: clip(refusal.Message()), //nolint:gosec // G115: 17 codes
		}}}
		log.Warn("refused what the primary asked", "error", err)
	} else if kind != "inspect" {
		log.Info("did what the primary asked")
	}
	if err := r.primary.Answer(ctx, request.GetId(), answer); err != nil && ctx.Err() == nil {
		log.Warn("could not answer the primary", "side", "primary", "error", err)
	}
}

func describe(request *antipodev1.SiteRequest) (kind, repository string) {
	switch ask := request.GetAsk().(type) {
	case *antipodev1.SiteRequest_Pause:
		return "pause", ""
	case *antipodev1.SiteRequest_Resume:
		return "resume", ""
	case *antipodev1.SiteRequest_Resync:
		return "resync", ask.Resync.GetRepository()
	case *antipodev1.SiteRequest_Release:
		return "release", ask.Release.GetRepository()
	case *antipodev1.SiteRequest_Inspect:
		return "inspect", ask.Inspect.GetRepository()
	}
	return "unknown", ""
}

func (r *Requests) do(ctx context.Context, kind string, request *antipodev1.SiteRequest) (*antipodev1.SiteAnswer, error) {
	if kind == "unknown" {
		return nil, status.Error(codes.Unimplemented, "this version of secondaryd does not know what is asked")
	}
	if !slices.Contains(r.allowed, kind) {
		return nil, status.Errorf(codes.PermissionDenied, "the site's primary.requests does not let its primary ask it to %s", kind)
	}
	if at, err := r.tracking.Promoted(ctx); err != nil || !at.IsZero() {
		if err == nil {
			err = tracking.ErrPromoted
		}
		return nil, err
	}
	switch ask := request.GetAsk().(type) {
	case *antipodev1.SiteRequest_Pause:
		resp, err := r.service.Pause(ctx, ask.Pause)
		return &antipodev1.SiteAnswer{Outcome: &antipodev1.SiteAnswer_Pause{Pause: resp}}, err
	case *antipodev1.SiteRequest_Resume:
		resp, err := r.service.Resume(ctx, ask.Resume)
		return &antipodev1.SiteAnswer{Outcome: &antipodev1.SiteAnswer_Resume{Resume: resp}}, err
	case *antipodev1.SiteRequest_Resync:
		resp, err := r.service.Resync(ctx, ask.Resync)
		return &antipodev1.SiteAnswer{Outcome: &antipodev1.SiteAnswer_Resync{Resync: resp}}, err
	case *antipodev1.SiteRequest_Release:
		resp, err := r.service.Release(ctx, ask.Release)
		return &antipodev1.SiteAnswer{Outcome: &antipodev1.SiteAnswer_Release{Release: resp}}, err
	default:
		resp, err := r.service.Inspect(ctx, request.GetInspect())
		return &antipodev1.SiteAnswer{Outcome: &antipodev1.SiteAnswer_Inspect{Inspect: resp}}, err
	}
}
