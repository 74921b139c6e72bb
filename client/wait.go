package client

import (
	"context"
	"fmt"
	"slices"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	antipodev1 "github.com/antipode-registry/antipode/gen/antipode/v1"
)

// waitEvery is how often Wait asks: the answer costs the primary one request to its registry and one to each site's.
const waitEvery = time.Second

// WaitOptions says what to wait for.
type WaitOptions struct {
	// Repository is its name at the primary; required.
	Repository string
	// Reference is a tag, or a digest as "algorithm:encoded"; required. A tag is looked up at the primary each time, so
	// that what is waited for is what it names when Wait returns.
	Reference string
	// Nodes are the sites that must have it; empty means all that are granted the repository.
	Nodes []string
	// Progress is told what each look found, if it is not nil.
	Progress func(*antipodev1.LocateReferenceResponse)
}

// Locate says once where a reference is: what it names at the primary's registry, and what each site has. Sites that do
// not answer are part of the answer.
func (c *Client) Locate(ctx context.Context, opts WaitOptions) (*antipodev1.LocateReferenceResponse, error) {
	resp, err := c.nodes.LocateReference(ctx, &antipodev1.LocateReferenceRequest{
		Repository: opts.Repository, Reference: opts.Reference, Nodes: opts.Nodes,
	})
	if err != nil {
		return nil, fmt.Errorf("locate %s at %s: %w", opts.Repository, opts.Reference, err)
	}
	return resp, nil
}

// Wait returns once every site asked about answers the reference with the digest that the primary's registry has, and
// returns that digest: the gate before a deployment. It waits as long as ctx lasts, also for a reference that the primary
// does not have yet and while the primary cannot be reached; what the primary refuses ends it with that error.
func (c *Client) Wait(ctx context.Context, opts WaitOptions) (digest string, err error) {
	for {
		resp, err := c.Locate(ctx, opts)
		switch status.Code(err) {
		case codes.OK:
			if opts.Progress != nil {
				opts.Progress(resp)
			}
			if everywhere(resp, opts.Nodes) {
				return resp.GetDigest(), nil
			}
		case codes.NotFound, codes.Unavailable, codes.ResourceExhausted, codes.DeadlineExceeded: // may come
		default:
			return "", err
		}
		timer := time.NewTimer(waitEvery)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return "", fmt.Errorf("wait for %s at %s: %w", opts.Repository, opts.Reference, ctx.Err())
		}
	}
}

// everywhere says whether all have it: none at all is not all, and a named site that is not granted the repository will
// never have it.
func everywhere(resp *antipodev1.LocateReferenceResponse, named []string) bool {
	lacks := slices.ContainsFunc(resp.GetNodes(), func(n *antipodev1.NodeReference) bool { return !n.GetEqual() })
	return len(resp.GetNodes()) > 0 && !lacks && len(resp.GetNodes()) >= len(named)
}
