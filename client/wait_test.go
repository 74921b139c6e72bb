package client_test

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/antipode-registry/antipode/client"
	antipodev1 "github.com/antipode-registry/antipode/gen/antipode/v1"
)

// What is not there yet, at the primary, at a site, or because the primary is away, is waited for.
func TestWait(t *testing.T) {
	t.Parallel()
	var looks atomic.Int64
	p := &primary{locate: func(req *antipodev1.LocateReferenceRequest) (*antipodev1.LocateReferenceResponse, error) {
		if req.GetRepository() == "refused" {
			return nil, status.Error(codes.PermissionDenied, "no")
		}
		switch looks.Add(1) {
		case 1:
			return nil, status.Error(codes.NotFound, "not pushed yet")
		case 2:
			return nil, status.Error(codes.Unavailable, "restarting")
		}
		return &antipodev1.LocateReferenceResponse{Digest: "sha256:1", Nodes: []*antipodev1.NodeReference{
			{Node: "asia", Equal: true}, {Node: "eu", Equal: looks.Load() > 3},
		}}, nil
	}}
	c := p.run(t)
	digest, err := c.Wait(t.Context(), client.WaitOptions{Repository: "a", Reference: "v1"})
	if err != nil || digest != "sha256:1" || looks.Load() != 4 {
		t.Errorf("%s, %v after %d looks", digest, err, looks.Load())
	}
	_, err = c.Wait(t.Context(), client.WaitOptions{Repository: "refused", Reference: "v1"})
	if status.Code(err) != codes.PermissionDenied {
		t.Errorf("a refusal ended in %v", err)
	}
	// A named site that is not granted the repository never has it.
	brief, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	named := client.WaitOptions{Repository: "a", Reference: "v1", Nodes: []string{"asia", "eu", "mars"}}
	if _, err = c.Wait(brief, named); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a site without a grant: %v", err)
	}
}
