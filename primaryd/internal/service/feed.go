package service

import (
	"context"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	antipodev1 "github.com/antipode-registry/antipode/gen/antipode/v1"
	"github.com/antipode-registry/antipode/internal/link"
	"github.com/antipode-registry/antipode/internal/registry"
	"github.com/antipode-registry/antipode/internal/telemetry"
	"github.com/antipode-registry/antipode/primaryd/internal/feed"
	"github.com/antipode-registry/antipode/primaryd/internal/listing"
	"github.com/antipode-registry/antipode/primaryd/internal/request"
)

// Bounds of one message: 500 changes with names of 255 bytes are 150 KiB, 1,000 tags with 128-byte names 300 KiB, well
// under the 4 MiB that a client receives by default.
const (
	changesPerBatch = 500
	tagsPerPage     = 1000
	// rowsAtOnce is how many rows of the feed are read at a time.
	rowsAtOnce = 1000
)

// FeedOptions configures a FeedService.
type FeedOptions struct {
	// Heartbeat is how often a silent stream shows a sign of life; required.
	Heartbeat time.Duration
	// RegistryURL is where sites reach the primary's registry; required.
	RegistryURL string
	// Version is primaryd's.
	Version string
	// Stopping is closed when the server begins to stop, so that streams end by themselves.
	Stopping <-chan struct{}
	// Requests are what is asked of the sites; required.
	Requests *request.Desk
	Metrics  *Metrics
	Tracer   *telemetry.Tracer
}

// FeedService implements antipode.v1.FeedService.
type FeedService struct {
	antipodev1.UnimplementedFeedServiceServer
	access Access
	feed   *feed.Feed
	lister *listing.Lister
	opts   FeedOptions
}

// NewFeedService returns the service over the feed and the lister.
func NewFeedService(access Access, f *feed.Feed, l *listing.Lister, opts FeedOptions) *FeedService {
	return &FeedService{access: access, feed: f, lister: l, opts: opts}
}

// Subscribe implements the RPC. It holds no transaction and no lock while it sends: a slow reader costs this one
// goroutine, and reads where it left off.
func (s *FeedService) Subscribe(
	req *antipodev1.SubscribeRequest, stream grpc.ServerStreamingServer[antipodev1.SubscribeResponse],
) error {
	ctx := stream.Context()
	id, err := caller(ctx)
	if err != nil {
		return err
	}
	if err := asItself(id, req.GetNode()); err != nil {
		return err
	}
	// Watch first, read afterwards: a change between the two only wakes us once too often.
	wake, stop := s.feed.Watch()
	defer stop()
	reconfigured := s.access.Nodes.Reconfigured()
	feedID := s.feedID(id)
	standing, err := s.begin(ctx, req, feedID)
	if err != nil {
		return err
	}
	if s.access.IsNode(id) {
		defer s.access.Nodes.Subscribed(id.Name)()
	}
	defer s.opts.Metrics.subscribed()()
	if err := stream.Send(s.hello(feedID, standing)); err != nil {
		return err
	}
	sub := subscription{
		FeedService: s, id: id, send: stream.Send, standing: standing,
		cursor: feed.Cursor{Revision: req.GetAfterRevision(), Incarnation: standing.Incarnation},
		sees:   feedID, reconfigured: reconfigured,
	}
	if req.GetAfterRevision() == 0 {
		sub.hintless = standing.Head // who has nothing needs all
	}
	if s.access.IsNode(id) {
		asked, stop := s.opts.Requests.Watch(id.Name)
		defer stop()
		sub.asked = asked
	}
	return sub.run(ctx, wake)
}

// feedID is the feed as the caller sees it. A node whose grant was changed sees another one: its cursor has passed by
// rows that were not granted, or that no longer are.
func (s *FeedService) feedID(id link.Identity) string {
	if view := s.access.Nodes.View(id.Name); view != "" && s.access.IsNode(id) {
		return s.feed.ID() + "." + view
	}
	return s.feed.ID()
}

// begin checks that the request's cursor belongs to this feed and its history.
func (s *FeedService) begin(
	ctx context.Context, req *antipodev1.SubscribeRequest, feedID string,
) (standing feed.Standing, err error) {
	after := req.GetAfterRevision()
	if after < 0 || after > 0 && req.GetFeedId() == "" {
		return standing, status.Error(codes.InvalidArgument, "after_revision must not be negative, and needs a feed_id")
	}
	if req.GetFeedId() != "" && req.GetFeedId() != feedID {
		return standing, status.Errorf(codes.OutOfRange, "the cursor is of feed %s, this is feed %s: start over", req.GetFeedId(), feedID)
	}
	return s.feed.Stand(ctx, feed.Cursor{Revision: after, Incarnation: req.GetIncarnation()})
}

func (s *FeedService) hello(feedID string, standing feed.Standing) *antipodev1.SubscribeResponse {
	return &antipodev1.SubscribeResponse{Kind: &antipodev1.SubscribeResponse_Hello{Hello: &antipodev1.Hello{
		FeedId: feedID, HeadRevision: standing.Head, HeartbeatInterval: durationpb.New(s.opts.Heartbeat),
		Version: s.opts.Version, Incarnation: standing.Incarnation,
	}}}
}

// subscription is one running stream.
type subscription struct {
	*FeedService
	id       link.Identity
	send     func(*antipodev1.SubscribeResponse) error
	cursor   feed.Cursor   // what was sent
	standing feed.Standing // of the feed, when it was read last

	sees         string          // the feed as the caller saw it at the beginning
	reconfigured <-chan struct{} // closed when that may have changed

	hintless int64 // changes up to it are sent without their hints

	asked <-chan struct{}     // nil for who is no node
	told  map[string]struct{} // the open requests that this stream has carried
}

func (s *subscription) run(ctx context.Context, wake <-chan struct{}) error {
	heartbeat := time.NewTicker(s.opts.Heartbeat)
	defer heartbeat.Stop()
	for {
		sent, err := s.drain(ctx)
		if err != nil {
			return err
		}
		if sent {
			heartbeat.Reset(s.opts.Heartbeat)
		}
		if err := s.tell(ctx); err != nil {
			return err
		}
		select {
		case <-wake:
		case <-s.reconfigured:
			s.reconfigured = s.access.Nodes.Reconfigured()
		case <-s.asked:
		case <-heartbeat.C:
			if err := s.beat(); err != nil {
				return err
			}
		case <-s.opts.Stopping:
			return status.Error(codes.Unavailable, "the server is stopping")
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// drain sends everything after the cursor. Where the feed's history was rewritten below the cursor, Follow refuses it,
// and the stream ends as its beginning would.
func (s *subscription) drain(ctx context.Context) (sent bool, err error) {
	for {
		if err := s.still(ctx); err != nil {
			return sent, err
		}
		rows, standing, err := s.feed.Follow(ctx, s.cursor, changesPerBatch)
		if err != nil {
			return sent, err
		}
		if standing.Head < s.standing.Head && standing.Incarnation == s.standing.Incarnation {
			return sent, status.Errorf(codes.OutOfRange, "the feed's head went back from %d to %d: start over",
				s.standing.Head, standing.Head)
		}
		s.standing, s.cursor = standing, feed.Cursor{Revision: standing.Head, Incarnation: standing.Incarnation}
		if len(rows) == changesPerBatch {
			s.cursor.Revision = rows[len(rows)-1].Revision
		}
		changes := s.visible(rows)
		if len(changes) > 0 {
			sent = true
			batch := &antipodev1.ChangeBatch{
				Changes: changes, HeadRevision: standing.Head, CursorRevision: s.cursor.Revision,
				Incarnation: standing.Incarnation,
			}
			if err := s.sendBatch(ctx, batch); err != nil {
				return sent, err
			}
		}
		if len(rows) < changesPerBatch {
			return sent, nil
		}
	}
}

// sendBatch sends changes. Each that is traced gets a span, so that its trace says when it left for whom.
func (s *subscription) sendBatch(ctx context.Context, batch *antipodev1.ChangeBatch) error {
	var spans []telemetry.Span
	for _, change := range batch.GetChanges() {
		if change.GetTraceparent() == "" {
			continue
		}
		_, span := s.opts.Tracer.Start(telemetry.WithTraceParent(ctx, change.GetTraceparent()), "send change",
			telemetry.About{
				Role: telemetry.Handing, Node: s.id.Name, Repository: change.GetRepository(), Revision: change.GetRevision(),
			})
		spans = append(spans, span)
	}
	err := s.send(&antipodev1.SubscribeResponse{Kind: &antipodev1.SubscribeResponse_Changes{Changes: batch}})
	for _, span := range spans {
		span.Fail("primary", err)
		span.End()
	}
	return err
}

// tell sends what is asked of the site and was not sent on this stream. It moves no cursor and is no sign that the feed
// was read, so that heartbeats come as ever.
func (s *subscription) tell(ctx context.Context) error {
	if s.asked == nil {
		return nil
	}
	pending, err := s.opts.Requests.Pending(ctx, s.id.Name)
	if err != nil {
		return err
	}
	told := make(map[string]struct{}, len(pending))
	for _, r := range pending {
		if _, before := s.told[r.ID]; !before {
			if err := s.send(&antipodev1.SubscribeResponse{
				Kind: &antipodev1.SubscribeResponse_Request{Request: requestProto(r)},
			}); err != nil {
				return err
			}
		}
		told[r.ID] = struct{}{}
	}
	s.told = told
	return nil
}

// still ends the stream of a caller that was taken out of the configuration, and of one whose grant is another one now:
// its cursor has passed by rows that it may see since.
func (s *subscription) still(ctx context.Context) error {
	if err := s.access.Authorize(ctx, "", s.id); err != nil {
		return err
	}
	if s.feedID(s.id) != s.sees {
		return status.Errorf(codes.OutOfRange, "what %s is granted was changed: start over", s.id.Name)
	}
	return nil
}

func (s *subscription) visible(rows []feed.Row) []*antipodev1.Change {
	changes := make([]*antipodev1.Change, 0, len(rows))
	for _, row := range rows {
		if s.access.MaySee(s.id, row.Repository) {
			change := &antipodev1.Change{
				Repository: row.Repository, Revision: row.Revision, ChangedAt: timestamppb.New(row.ChangedAt),
				Traceparent: s.traceParent(row),
			}
			if row.Revision > s.hintless {
				change.Hint = hintProto(row.Hint)
			}
			changes = append(changes, change)
		}
	}
	return changes
}

// tracedFor is how long a site may go on with the trace of a change: what is told to a new site months later is no part of
// a push any more.
const tracedFor = 24 * time.Hour

func (s *subscription) traceParent(row feed.Row) string {
	if !s.opts.Tracer.Enabled() || time.Since(row.ChangedAt) > tracedFor {
		return ""
	}
	return row.TraceParent
}

func (s *subscription) beat() error {
	return s.send(&antipodev1.SubscribeResponse{Kind: &antipodev1.SubscribeResponse_Heartbeat{Heartbeat: &antipodev1.Heartbeat{
		HeadRevision: s.standing.Head, CursorRevision: s.cursor.Revision, SentAt: timestamppb.Now(),
		Incarnation: s.cursor.Incarnation, HeadChangedAt: timeProto(s.standing.ChangedAt),
	}}})
}

// ListRepositories implements the RPC.
func (s *FeedService) ListRepositories(
	ctx context.Context, req *antipodev1.ListRepositoriesRequest,
) (*antipodev1.ListRepositoriesResponse, error) {
	id, err := caller(ctx)
	if err != nil {
		return nil, err
	}
	limit, after, err := page(req.GetPageSize(), req.GetPageToken())
	if err != nil {
		return nil, err
	}
	rows, more, err := s.granted(ctx, id, after, limit)
	if err != nil {
		return nil, err
	}
	resp := &antipodev1.ListRepositoriesResponse{}
	for _, row := range rows {
		resp.Repositories = append(resp.Repositories, repositoryProto(row))
	}
	if more {
		resp.NextPageToken = nextToken(rows[limit-1].Repository)
	}
	return resp, nil
}

// granted returns up to limit rows that id may see, by name, and whether there are more. It reads on over rows that are
// not granted, so that neither a page's length nor its token tells of them.
func (s *FeedService) granted(
	ctx context.Context, id link.Identity, after string, limit int,
) (rows []feed.Row, more bool, err error) {
	for {
		chunk, err := s.feed.List(ctx, after, rowsAtOnce)
		if err != nil {
			return nil, false, err
		}
		for _, row := range chunk {
			if after = row.Repository; !s.access.MaySee(id, after) {
				continue
			}
			if len(rows) == limit {
				return rows, true, nil
			}
			rows = append(rows, row)
		}
		if len(chunk) < rowsAtOnce {
			return rows, false, nil
		}
	}
}

func repositoryProto(row feed.Row) *antipodev1.Repository {
	r := &antipodev1.Repository{
		Name: row.Repository, Revision: row.Revision, ChangedAt: timestamppb.New(row.ChangedAt), Fingerprint: row.Fingerprint,
	}
	if !row.SweptAt.IsZero() {
		r.SweptAt = timestamppb.New(row.SweptAt)
	}
	return r
}

// ListTags implements the RPC. The walk is whole before the first page is sent, so that an error can never look like
// a short listing.
func (s *FeedService) ListTags(
	req *antipodev1.ListTagsRequest, stream grpc.ServerStreamingServer[antipodev1.ListTagsResponse],
) error {
	id, err := caller(stream.Context())
	if err != nil {
		return err
	}
	if err := registry.ValidRepository(req.GetRepository()); err != nil {
		return status.Error(codes.InvalidArgument, err.Error())
	}
	if req.GetSinceRevision() < 0 {
		return status.Error(codes.InvalidArgument, "since_revision is negative")
	}
	// Also before each page: a walk takes a while, and so does a caller that reads slowly.
	granted := grantedStream{ServerStreamingServer: stream, check: func() error {
		if !s.access.MaySee(id, req.GetRepository()) {
			return status.Errorf(codes.PermissionDenied, "repository %s is not granted to %s", req.GetRepository(), id.Name)
		}
		return nil
	}}
	if err := granted.check(); err != nil {
		return err
	}
	since := feed.Cursor{Revision: req.GetSinceRevision(), Incarnation: req.GetIncarnation()}
	if req.GetFeedId() != s.feedID(id) {
		since = feed.Cursor{}
	}
	// A site waits for this answer; a sweep can wait for the site.
	ctx := registry.WithUrgency(stream.Context())
	if req.GetWantManifests() && since.Revision == req.GetSinceRevision() {
		ctx = registry.WithManifests(ctx, manifestRoom)
	}
	answer, err := s.lister.List(ctx, req.GetRepository(), s.feed.ID(), since)
	if err != nil {
		return err
	}
	s.opts.Metrics.listed(answer.Complete, len(answer.Tags))
	return s.sendListing(granted, answer)
}

// grantedStream sends nothing that is not granted any more.
type grantedStream struct {
	grpc.ServerStreamingServer[antipodev1.ListTagsResponse]
	check func() error
}

// Send implements grpc.ServerStreamingServer.
func (s grantedStream) Send(response *antipodev1.ListTagsResponse) error {
	if err := s.check(); err != nil {
		return err
	}
	return s.ServerStreamingServer.Send(response)
}

func (s *FeedService) sendListing(
	stream grpc.ServerStreamingServer[antipodev1.ListTagsResponse], answer listing.Listing,
) error {
	if err := sendTags(stream, answer.Tags); err != nil {
		return err
	}
	if err := sendSubjects(stream, answer.Subjects); err != nil {
		return err
	}
	summary := &antipodev1.TagSummary{
		ListingKind: antipodev1.ListingKind_LISTING_KIND_DELTA, Presence: antipodev1.Presence_PRESENCE_PRESENT,
		TagCount: int64(len(answer.Tags)), Fingerprint: answer.Fingerprint(), Revision: answer.Revision,
		AbsentTags: answer.Absent, UnsettledTags: answer.Unsettled, RegistryUrl: s.opts.RegistryURL,
		ReferrersApi: answer.ReferrersAPI, SubjectCount: int64(len(answer.Subjects)),
	}
	if answer.Complete {
		summary.ListingKind = antipodev1.ListingKind_LISTING_KIND_COMPLETE
	}
	if !answer.Present {
		summary.Presence = antipodev1.Presence_PRESENCE_ABSENT
	}
	return stream.Send(&antipodev1.ListTagsResponse{Kind: &antipodev1.ListTagsResponse_Summary{Summary: summary}})
}

const (
	// maxPageBytes bounds the manifests, or the descriptors, of one page; their annotations may be long.
	maxPageBytes = 1 << 20
	// manifestRoom bounds the manifests that come along with one listing.
	manifestRoom = 4 << 20
)

// sendTags sends the tags in pages by number and by the size of the manifests that come along.
func sendTags(stream grpc.ServerStreamingServer[antipodev1.ListTagsResponse], tags []registry.Tag) error {
	var page []*antipodev1.Tag
	size := 0
	for i, tag := range tags {
		page = append(page, &antipodev1.Tag{
			Name: tag.Name, Digest: tag.Digest, MediaType: tag.MediaType, Size: tag.Size, Manifest: tag.Manifest,
		})
		size += len(tag.Manifest)
		if len(page) < tagsPerPage && size < maxPageBytes && i < len(tags)-1 {
			continue
		}
		full := &antipodev1.ListTagsResponse_Page{Page: &antipodev1.TagPage{Tags: page}}
		if err := stream.Send(&antipodev1.ListTagsResponse{Kind: full}); err != nil {
			return err
		}
		page, size = nil, 0
	}
	return nil
}

// sendSubjects sends the subjects in pages by size. A subject whose own list is longer than a page goes alone.
func sendSubjects(
	stream grpc.ServerStreamingServer[antipodev1.ListTagsResponse], subjects []listing.Subject,
) error {
	page, size := &antipodev1.TagPage{}, 0
	flush := func() error {
		if len(page.GetSubjects()) == 0 {
			return nil
		}
		full := page
		page, size = &antipodev1.TagPage{}, 0
		return stream.Send(&antipodev1.ListTagsResponse{Kind: &antipodev1.ListTagsResponse_Page{Page: full}})
	}
	for _, subject := range subjects {
		message := subjectProto(subject)
		if size += proto.Size(message); size > maxPageBytes {
			if err := flush(); err != nil {
				return err
			}
			size = proto.Size(message)
		}
		page.Subjects = append(page.Subjects, message)
	}
	return flush()
}
