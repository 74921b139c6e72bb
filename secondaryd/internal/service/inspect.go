package service

import (
	"context"
	"errors"
	"strings"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	antipodev1 "github.com/antipode-registry/antipode/gen/antipode/v1"
	"github.com/antipode-registry/antipode/internal/registry"
	"github.com/antipode-registry/antipode/secondaryd/internal/tracking"
)

// Bounds of how often Wait looks when nothing wakes it.
const (
	leastLook = 250 * time.Millisecond
	mostLook  = 5 * time.Second
)

// Inspect implements the RPC.
func (s *ReplicationService) Inspect(
	ctx context.Context, req *antipodev1.InspectRequest,
) (*antipodev1.InspectResponse, error) {
	repository, reference := req.GetRepository(), req.GetReference()
	if err := registry.ValidRepository(repository); err != nil {
		return nil, status.Error(codes.InvalidArgument, err.Error())
	}
	if reference != "" {
		if err := registry.ValidReference(reference); err != nil {
			return nil, status.Error(codes.InvalidArgument, err.Error())
		}
	}
	row, err := s.tracked(ctx, repository)
	if err != nil {
		return nil, err
	}
	resp := &antipodev1.InspectResponse{Repository: repositoryProto(row)}
	if reference == "" {
		return resp, nil
	}
	if resp.Digest, err = s.engine.LookHere(ctx, repository, reference); err != nil || resp.GetDigest() == "" {
		return resp, err
	}
	entries, err := s.tracking.Journal(ctx, repository, 500)
	resp.Since = timeProto(writtenAt(entries, reference, resp.GetDigest()))
	return resp, err
}

// writtenAt is when a reference last got this digest, by a journal, newest first; zero when that does not say.
func writtenAt(entries []tracking.Entry, reference, digest string) time.Time {
	for _, e := range entries {
		if e.Digest != digest || e.Action != "copied" && e.Action != "tagged" && e.Action != "restore" {
			continue
		}
		if e.Reference == reference || strings.Contains(reference, ":") {
			return e.At
		}
	}
	return time.Time{}
}

// Wait implements the RPC.
func (s *ReplicationService) Wait(ctx context.Context, req *antipodev1.WaitRequest) (*antipodev1.WaitResponse, error) {
	repository, reference := req.GetRepository(), req.GetReference()
	err := errors.Join(registry.ValidRepository(repository), registry.ValidReference(reference))
	if err != nil {
		return nil, status.Error(codes.InvalidArgument, err.Error())
	}
	if !s.wants(repository) {
		return nil, status.Errorf(codes.FailedPrecondition, "the site does not replicate %s", repository)
	}
	wake, stop := s.tracking.Watch()
	defer stop()
	for look := leastLook; ; look = min(2*look, mostLook) {
		if at, err := s.tracking.Promoted(ctx); err != nil || !at.IsZero() {
			return nil, errors.Join(err, tracking.ErrPromoted)
		}
		primary, here, err := s.engine.Look(ctx, repository, reference)
		if err == nil && primary != "" && primary == here {
			return &antipodev1.WaitResponse{Digest: here}, nil
		}
		// A registry or a primary that cannot be asked now is waited for like the reference itself.
		if !rest(ctx, leastLook) {
			return nil, ctx.Err()
		}
		timer := time.NewTimer(look)
		select {
		case <-wake:
		case <-timer.C:
		case <-ctx.Done():
		}
		timer.Stop()
	}
}
