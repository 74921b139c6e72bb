// Package client talks to primaryd from other Go services: it follows the change feed, lists tags with their digests and
// reads how the sites are. secondaryd is built on it.
//
// It guarantees that Changes yields each change at least once and in revision order, whatever happens to the link; that
// Tags returns a whole listing or an error, never a part of one; that Wait returns only when every site asked about
// answered with the primary's digest, just then. It does not retry what is asked once (Tags, Nodes, Locate).
//
// Identity is the client certificate's. A Client is safe for concurrent use. Errors are gRPC status errors, wrapped
// with what was asked; ErrStartOver and ErrIncomplete are the two that a caller must tell apart.
package client

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"google.golang.org/grpc"

	antipodev1 "github.com/antipode-registry/antipode/gen/antipode/v1"
)

// ErrStartOver says that a cursor does not fit the feed: the primary was replaced, or restored to an older state. Read
// the feed again from its beginning, and conclude nothing else from it.
var ErrStartOver = errors.New("the cursor does not belong to the primary's feed")

// ErrIncomplete says that a listing ended without its summary, or with one that it does not match. It is no listing.
var ErrIncomplete = errors.New("the listing is not complete")

// Client calls the services of primaryd.
type Client struct {
	feed   antipodev1.FeedServiceClient
	nodes  antipodev1.NodeServiceClient
	close  func() error
	logger *slog.Logger
	// manifests is Config.Manifests.
	manifests bool
}

// New returns a Client over a connection that the caller made and closes. It logs nothing.
func New(conn grpc.ClientConnInterface) *Client {
	return &Client{
		feed: antipodev1.NewFeedServiceClient(conn), nodes: antipodev1.NewNodeServiceClient(conn),
		close: func() error { return nil }, logger: slog.New(slog.DiscardHandler),
	}
}

// Dial returns a Client over a connection of its own; Close ends it. It does not wait for the connection.
func Dial(cfg Config) (*Client, error) {
	conn, err := Connect(cfg)
	if err != nil {
		return nil, err
	}
	c := New(conn)
	c.close, c.logger, c.manifests = conn.Close, cfg.withDefaults().Logger, cfg.Manifests
	return c, nil
}

// Close ends the connection that Dial made.
func (c *Client) Close() error { return c.close() }

// Position is a place in a feed. The zero value is its beginning.
type Position struct {
	// FeedID is the feed's, as an Event told it.
	FeedID string
	// Revision is the newest that the caller has stored.
	Revision int64
	// Incarnation is what the revision belongs to, as the Event told it. Without it a primary that was restored from a
	// backup is known only as long as its head is below the revision.
	Incarnation string
}

// Change says that a repository may differ from what it was.
type Change struct {
	Repository string
	Revision   int64
	// ChangedAt is when it happened at the primary's registry, or when a sweep found it.
	ChangedAt time.Time
	// TraceParent names the trace that the change belongs to, as W3C Trace Context does; empty when it is not traced, or
	// happened more than a day ago. It is what the primary says, and unchecked.
	TraceParent string
	// Hint names the tags that were announced to be touched; nil where that is not known, and for what happened before a
	// subscription from the beginning. It says where to look, never what is there: that Tags says.
	Hint *Hint
}

// Hint names tags that were announced to be touched.
type Hint struct {
	// BaseRevision: every tag that was touched after it is in Tags.
	BaseRevision int64
	// Tags by name, 16 at most.
	Tags []TouchedTag
}

// TouchedTag is a tag that was announced to be written or deleted.
type TouchedTag struct {
	// Tag, or "@" and the digest of a manifest that was pushed without a tag.
	Tag string
	// Digest that was announced; empty when none was, and for a deletion.
	Digest string
	// Deleted says that it was announced to be gone.
	Deleted bool
	// At is when, by the announcement.
	At time.Time
	// Revision is the newest that touched it.
	Revision int64
}

// Event is one message of a subscription.
type Event struct {
	// FeedID identifies the feed; the same in every event of a stream.
	FeedID string
	// Incarnation is what Cursor belongs to: store it with Cursor.
	Incarnation string
	// Changes in revision order; empty in a sign of life.
	Changes []Change
	// Cursor is the position once the changes are stored.
	Cursor int64
	// Head is the newest revision of the feed.
	Head int64
	// HeadChangedAt is when the newest change of the feed that was heard of happened; zero before the first.
	HeadChangedAt time.Time
	// BackfillTo is the head when the stream began: changes up to it are history, those above it live.
	BackfillTo int64
	// Request is something that is asked of the caller, if it is a node; nil in every other event. Answer it.
	Request *antipodev1.SiteRequest
}

// Nodes returns every node that the certificate may see, by name.
func (c *Client) Nodes(ctx context.Context) ([]*antipodev1.Node, error) {
	resp, err := c.nodes.ListNodes(ctx, &antipodev1.ListNodesRequest{})
	if err != nil {
		return nil, fmt.Errorf("list the primary's nodes: %w", err)
	}
	return resp.GetNodes(), nil
}

// Report stores the caller's own status at the primary. Only a node may.
func (c *Client) Report(ctx context.Context, node string, s *antipodev1.NodeStatus) error {
	if _, err := c.nodes.ReportStatus(ctx, &antipodev1.ReportStatusRequest{Node: node, Status: s}); err != nil {
		return fmt.Errorf("report the status to the primary: %w", err)
	}
	return nil
}

// Answer tells the primary what came of a request. Only the node that was asked may. That nobody waits for the answer any
// more is no error.
func (c *Client) Answer(ctx context.Context, id string, answer *antipodev1.SiteAnswer) error {
	if _, err := c.nodes.AnswerRequest(ctx, &antipodev1.AnswerRequestRequest{Id: id, Answer: answer}); err != nil {
		return fmt.Errorf("answer a request of the primary: %w", err)
	}
	return nil
}
