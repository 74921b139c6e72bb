package service_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	antipodev1 "github.com/antipode-registry/antipode/gen/antipode/v1"
	"github.com/antipode-registry/antipode/internal/database"
	"github.com/antipode-registry/antipode/internal/registry"
	"github.com/antipode-registry/antipode/secondaryd/internal/plan"
	"github.com/antipode-registry/antipode/secondaryd/internal/replicate"
	"github.com/antipode-registry/antipode/secondaryd/internal/service"
	"github.com/antipode-registry/antipode/secondaryd/internal/tracking"
)

// differ answers with a plan or an error.
type differ struct {
	plan plan.Plan
	err  error
	head int64

	direct    plan.Plan // without primaryd
	directErr error
	diffErr   error

	mu            sync.Mutex
	primary, site map[string]string // reference to digest
}

func (d *differ) Diff(context.Context, string) (plan.Plan, error) {
	return d.plan, errors.Join(d.err, d.diffErr)
}

func (d *differ) DiffDirect(context.Context, string) (plan.Plan, error) { return d.direct, d.directErr }

func (d *differ) SourceAnswers(context.Context) error { return d.directErr }

func (d *differ) Look(_ context.Context, _, reference string) (primary, site string, err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.primary[reference], d.site[reference], d.err
}

func (d *differ) LookHere(ctx context.Context, repository, reference string) (string, error) {
	_, site, _ := d.Look(ctx, repository, reference)
	return site, nil
}

func (d *differ) Active() []*replicate.Active { return nil }

// Nodes answers as a primary that knows this site.
func (d *differ) Nodes(context.Context) ([]*antipodev1.Node, error) {
	return []*antipodev1.Node{{Name: "eu-west", HeadRevision: d.head}}, d.err
}

// counter is a site with its service.
type counter struct {
	*place
	api    *service.ReplicationService
	differ *differ
}

func newCounter(t *testing.T) *counter {
	t.Helper()
	c := &counter{place: newPlace(t), differ: &differ{}}
	c.api = service.NewReplicationService(service.Parts{
		Node: "eu-west", Tracking: c.store, Engine: c.differ, Status: c.status, Primary: c.differ,
		Wants: func(repository string) bool { return repository != "other" }, Logger: c.log(),
	})
	return c
}

func (c *counter) log() *slog.Logger { return slog.New(slog.DiscardHandler) }

// want fails the test unless err, mapped, has the code; it returns the message.
func (c *counter) want(err error, want codes.Code) string {
	c.Helper()
	if err != nil {
		err = service.MapError(err)
	}
	if got := status.Code(err); got != want {
		c.Errorf("answered %v (%v), want %v", got, err, want)
	}
	return status.Convert(err).Message()
}

func TestGetStatus(t *testing.T) {
	t.Parallel()
	c := newCounter(t)
	resp, err := c.api.GetStatus(t.Context(), &antipodev1.GetStatusRequest{})
	if err != nil || resp.GetNode() != "eu-west" || resp.GetStatus().GetVersion() != "v1" {
		t.Errorf("status %v, %v", resp, err)
	}
}

// Pages join without gaps and repetitions, and end.
func TestListRepositories(t *testing.T) {
	t.Parallel()
	c := newCounter(t)
	var names []string
	for i := range 25 {
		names = append(names, fmt.Sprintf("team/r%02d", i))
	}
	c.apply(1, 25, names...)
	for range 5 {
		c.finish(tracking.Outcome{Synced: true})
	}
	list := func(state antipodev1.RepositoryState, size int32) (all []string, pages int) {
		t.Helper()
		for token := ""; ; pages++ {
			resp, err := c.api.ListRepositories(t.Context(), &antipodev1.ReplicationServiceListRepositoriesRequest{
				State: state, PageSize: size, PageToken: token,
			})
			c.must(err)
			for _, r := range resp.GetRepositories() {
				all = append(all, r.GetName())
			}
			if token = resp.GetNextPageToken(); token == "" {
				return all, pages + 1
			}
		}
	}
	const synced = antipodev1.RepositoryState_REPOSITORY_STATE_SYNCED
	for _, tc := range []struct {
		state antipodev1.RepositoryState
		size  int32
		want  []string
		pages int
	}{
		{size: 0, want: names, pages: 1},
		{size: 10, want: names, pages: 3},
		{size: 5, want: names, pages: 6}, // the last full page does not know that it is the last
		{size: 1 << 30, want: names, pages: 1},
		{state: synced, size: 2, want: names[:5], pages: 3},
		{state: antipodev1.RepositoryState_REPOSITORY_STATE_PENDING, size: 100, want: names[5:], pages: 1},
		{state: antipodev1.RepositoryState_REPOSITORY_STATE_HELD, want: nil, pages: 1},
	} {
		got, pages := list(tc.state, tc.size)
		if diff := cmp.Diff(tc.want, got); diff != "" || pages != tc.pages {
			t.Errorf("state %v by %d: %d pages, want %d (-want +got):\n%s", tc.state, tc.size, pages, tc.pages, diff)
		}
	}
	for _, bad := range []*antipodev1.ReplicationServiceListRepositoriesRequest{
		{PageSize: -1},
		{PageToken: "team/r01"},
		{PageToken: "after:"},
		{PageToken: "after:UPPER"},
		{PageToken: "after:a' OR 1=1"},
		{State: 99},
	} {
		_, err := c.api.ListRepositories(t.Context(), bad)
		c.want(err, codes.InvalidArgument)
	}
}

func TestGetRepository(t *testing.T) {
	t.Parallel()
	c := newCounter(t)
	c.apply(7, 9, "team/app")
	var story []tracking.Entry
	for i := range 60 {
		story = append(story, tracking.Entry{
			Action: "tagged", Reference: fmt.Sprint(i), Digest: "sha256:1", Previous: "sha256:0", Detail: "d",
		})
	}
	c.finish(tracking.Outcome{
		Failure: &tracking.Failure{Reference: "v1", Side: "source", Message: "503"}, TagCount: 4, Journal: story,
	})
	_, err := c.store.Resync(t.Context(), "team/app")
	c.must(err)
	get := func(size int32) *antipodev1.GetRepositoryResponse {
		t.Helper()
		resp, err := c.api.GetRepository(t.Context(), &antipodev1.GetRepositoryRequest{Repository: "team/app", JournalSize: size})
		c.must(err)
		return resp
	}
	r := get(0).GetRepository()
	if r.GetState() != antipodev1.RepositoryState_REPOSITORY_STATE_FAILED || r.GetWantedRevision() != 7 ||
		r.GetSyncedRevision() != 0 || r.GetFailures() != 1 || r.GetTagCount() != 4 || r.GetNextAttemptAt() == nil ||
		r.GetLastSyncedAt() != nil || r.GetLastError().GetSide() != antipodev1.Side_SIDE_SOURCE {
		t.Errorf("repository %v", r)
	}
	for size, want := range map[int32]int{0: 50, 3: 3, -4: 50, 1000: 61} {
		if n := len(get(size).GetJournal()); n != want {
			t.Errorf("asked for %d entries, got %d, want %d", size, n, want)
		}
	}
	journal := get(2).GetJournal()
	if journal[0].GetAction() != "resync" || journal[1].GetReference() != "59" || journal[1].GetDigest() != "sha256:1" ||
		journal[1].GetPreviousDigest() != "sha256:0" || journal[1].GetDetail() != "d" || journal[1].GetAt() == nil {
		t.Errorf("journal %v", journal)
	}
	for name, want := range map[string]codes.Code{"": codes.InvalidArgument, "nobody": codes.NotFound} {
		_, err := c.api.GetRepository(t.Context(), &antipodev1.GetRepositoryRequest{Repository: name})
		c.want(err, want)
	}
}

func TestDiffRepository(t *testing.T) {
	t.Parallel()
	c := newCounter(t)
	c.differ.plan = plan.Plan{
		Copies:   []plan.Copy{{Digest: "sha256:2", Tags: []plan.Retag{{Name: "a"}, {Name: "b", Previous: "sha256:1"}}}},
		Removals: []plan.Removal{{Tag: "c", Digest: "sha256:3"}},
		Kept:     []plan.Kept{{Tag: "d", Digest: "sha256:4", Reason: "the tag is protected"}},
		Held:     "too many", Equal: 8,
	}
	resp, err := c.api.DiffRepository(t.Context(), &antipodev1.DiffRepositoryRequest{Repository: "team/app"})
	c.must(err)
	var got []string
	for _, s := range resp.GetSteps() {
		got = append(got, fmt.Sprint(s.GetKind(), " ", s.GetTag(), " ", s.GetPreviousDigest(), " -> ", s.GetDigest(), " ", s.GetReason()))
	}
	want := []string{
		"STEP_KIND_COPY a  -> sha256:2 ", "STEP_KIND_COPY b sha256:1 -> sha256:2 ",
		"STEP_KIND_REMOVE c sha256:3 ->  ", "STEP_KIND_KEEP d sha256:4 ->  the tag is protected",
	}
	if diff := cmp.Diff(want, got); diff != "" || resp.GetHeldReason() != "too many" || resp.GetEqualTags() != 8 {
		t.Errorf("held %q, %d equal, steps (-want +got):\n%s", resp.GetHeldReason(), resp.GetEqualTags(), diff)
	}
	_, err = c.api.DiffRepository(t.Context(), &antipodev1.DiffRepositoryRequest{Repository: "No/Name"})
	c.want(err, codes.InvalidArgument)
	c.differ.err = fmt.Errorf("list: %w", status.Error(codes.PermissionDenied, "not granted"))
	_, err = c.api.DiffRepository(t.Context(), &antipodev1.DiffRepositoryRequest{Repository: "team/app"})
	if text := c.want(err, codes.PermissionDenied); !strings.Contains(text, "list: ") || !strings.Contains(text, "not granted") {
		t.Errorf("says %q", text)
	}
}

// Either one repository or all of them.
func TestResyncAndVerify(t *testing.T) {
	t.Parallel()
	c := newCounter(t)
	c.apply(1, 2, "a", "b")
	for range 2 {
		c.finish(tracking.Outcome{Synced: true})
	}
	resync := func(name string, all bool) (int64, error) {
		resp, err := c.api.Resync(t.Context(), &antipodev1.ResyncRequest{Repository: name, All: all})
		return resp.GetRepositories(), err
	}
	verify := func(deep bool) func(string, bool) (int64, error) {
		return func(name string, all bool) (int64, error) {
			resp, err := c.api.Verify(t.Context(), &antipodev1.VerifyRequest{Repository: name, All: all, Deep: deep})
			return resp.GetRepositories(), err
		}
	}
	for name, tc := range map[string]struct {
		ask   func(string, bool) (int64, error)
		depth tracking.Depth
	}{
		"resync":      {ask: resync, depth: tracking.TagsOnly},
		"verify":      {ask: verify(false), depth: tracking.Graphs},
		"deep verify": {ask: verify(true), depth: tracking.Deep},
	} {
		for _, bad := range []struct {
			repository string
			all        bool
		}{{"", false}, {"a", true}} {
			_, err := tc.ask(bad.repository, bad.all)
			c.want(err, codes.InvalidArgument)
		}
		_, err := tc.ask("nobody", false)
		c.want(err, codes.NotFound)
		for ask, n := range map[string]int64{"a": 1, "": 2} {
			if got, err := tc.ask(ask, ask == ""); got != n || err != nil {
				t.Errorf("%s %q: %d repositories, %v", name, ask, got, err)
			}
			for range n {
				lease, err := c.store.Claim(t.Context(), "w", tracking.LiveFirst)
				c.must(err)
				if lease == nil || lease.Synced != -1 || lease.Verify != tc.depth {
					t.Fatalf("%s %q: the lease is %+v", name, ask, lease)
				}
				c.must(c.store.Finish(t.Context(), lease, tracking.Outcome{Synced: true}))
			}
		}
	}
}

func TestRelease(t *testing.T) {
	t.Parallel()
	c := newCounter(t)
	release := func(name string) error {
		_, err := c.api.Release(t.Context(), &antipodev1.ReleaseRequest{Repository: name})
		return err
	}
	c.want(release(""), codes.InvalidArgument)
	c.want(release("nobody"), codes.NotFound)
	c.apply(1, 1, "a")
	if text := c.want(release("a"), codes.FailedPrecondition); !strings.Contains(text, "no removals are withheld in a") {
		t.Errorf("says %q", text)
	}
	c.finish(tracking.Outcome{Held: "too many"})
	c.want(release("a"), codes.OK)
	row, _, err := c.store.Get(t.Context(), "a")
	if !row.Released || row.State != tracking.Pending || err != nil {
		t.Errorf("row %+v, %v", row, err)
	}
}

func TestRestore(t *testing.T) {
	t.Parallel()
	c := newCounter(t)
	restore := func(name string, forget bool, tags ...string) ([]string, error) {
		resp, err := c.api.Restore(t.Context(), &antipodev1.RestoreRequest{Repository: name, Tags: tags, Forget: forget})
		return resp.GetTags(), err
	}
	_, err := restore("", false)
	c.want(err, codes.InvalidArgument)
	_, err = restore("nobody", false)
	c.want(err, codes.NotFound)
	c.apply(1, 1, "a")
	c.finish(tracking.Outcome{Synced: true, Journal: []tracking.Entry{
		{Action: "removed", Reference: "v1", Previous: "sha256:1"}, {Action: "removed", Reference: "v2", Previous: "sha256:2"},
	}})
	_, err = restore("a", false, "v3")
	if text := c.want(err, codes.NotFound); !strings.Contains(text, "a:v3") {
		t.Errorf("says %q", text)
	}
	_, err = restore("a", false, "v3", "v1")
	if text := c.want(err, codes.NotFound); !strings.Contains(text, "a:v3") || !strings.Contains(text, "v1") {
		t.Errorf("says %q, want what was done too", text)
	}
	tags, err := restore("a", false)
	if diff := cmp.Diff([]string{"v1", "v2"}, tags); diff != "" || err != nil {
		t.Errorf("restored (%v):\n%s", err, diff)
	}
	tags, err = restore("a", true, "v2")
	if diff := cmp.Diff([]string{"v2"}, tags); diff != "" || err != nil {
		t.Errorf("forgotten (%v):\n%s", err, diff)
	}
	_, err = restore("a", true, "v2")
	if text := c.want(err, codes.NotFound); !strings.Contains(text, "was not restored") {
		t.Errorf("says %q", text)
	}
}

func TestPauseAndResume(t *testing.T) {
	t.Parallel()
	c := newCounter(t)
	for _, want := range []bool{true, true, false, false} {
		var err error
		if want {
			_, err = c.api.Pause(t.Context(), &antipodev1.PauseRequest{})
		} else {
			_, err = c.api.Resume(t.Context(), &antipodev1.ResumeRequest{})
		}
		c.must(err)
		if paused := c.make().GetPaused(); paused != want {
			t.Errorf("paused %t, want %t", paused, want)
		}
	}
}

// A database that is away is said as such, whatever is asked.
func TestDatabaseIsAway(t *testing.T) {
	t.Parallel()
	c := newCounter(t)
	c.must(c.db.Close())
	ctx := t.Context()
	for name, ask := range map[string]func() error{
		"list": func() error {
			_, err := c.api.ListRepositories(ctx, &antipodev1.ReplicationServiceListRepositoriesRequest{})
			return err
		},
		"get": func() error {
			_, err := c.api.GetRepository(ctx, &antipodev1.GetRepositoryRequest{Repository: "a"})
			return err
		},
		"release": func() error {
			_, err := c.api.Release(ctx, &antipodev1.ReleaseRequest{Repository: "a"})
			return err
		},
		"restore": func() error {
			_, err := c.api.Restore(ctx, &antipodev1.RestoreRequest{Repository: "a"})
			return err
		},
		"resync": func() error {
			_, err := c.api.Resync(ctx, &antipodev1.ResyncRequest{All: true})
			return err
		},
		"pause": func() error {
			_, err := c.api.Pause(ctx, &antipodev1.PauseRequest{})
			return err
		},
	} {
		if err := ask(); err == nil {
			t.Errorf("%s: no error without a database", name)
		}
	}
}

func TestMapError(t *testing.T) {
	t.Parallel()
	unknown := errors.New("something else")
	for name, tc := range map[string]struct {
		err  error
		want codes.Code
		says string
	}{
		"status":           {err: status.Error(codes.NotFound, "no such"), want: codes.NotFound, says: "no such"},
		"status, wrapped":  {err: fmt.Errorf("list a: %w", status.Error(codes.PermissionDenied, "not granted")), want: codes.PermissionDenied, says: "list a"},
		"site is refused":  {err: fmt.Errorf("list a: %w", status.Error(codes.Unauthenticated, "who?")), want: codes.Unavailable, says: "who?"},
		"database":         {err: fmt.Errorf("claim: %w", database.ErrUnavailable), want: codes.Unavailable, says: "database"},
		"registry is down": {err: &registry.Error{Side: registry.Source, Err: registry.ErrUnavailable}, want: codes.Unavailable, says: "source"},
		"registry refuses": {err: &registry.Error{Side: registry.Destination, Status: 403, Err: registry.ErrUnauthorized}, want: codes.Unavailable, says: "destination"},
		"registry babbles": {err: &registry.Error{Side: registry.Source, Err: registry.ErrMalformed}, want: codes.FailedPrecondition},
		"deadline":         {err: fmt.Errorf("list: %w", context.DeadlineExceeded), want: codes.Unavailable},
		"cancelled":        {err: context.Canceled, want: codes.Unavailable},
		"unknown":          {err: unknown, want: codes.Unknown},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			mapped := service.MapError(tc.err)
			if got := status.Code(mapped); got != tc.want || !strings.Contains(mapped.Error(), tc.says) {
				t.Errorf("mapped to %v, want %v with %q", mapped, tc.want, tc.says)
			}
		})
	}
	if service.MapError(unknown) != unknown { //nolint:errorlint // the very same
		t.Error("an unknown error was changed; package link is to see it as it is")
	}
}
