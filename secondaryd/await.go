package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	antipodev1 "github.com/antipode-registry/antipode/gen/antipode/v1"
	"github.com/antipode-registry/antipode/internal/cli"
)

// lookEvery is how often work that is waited for is looked at.
const lookEvery = 500 * time.Millisecond

// await is the --wait flag of a command that makes repositories due: to return when they were dealt with.
type await struct {
	wait    bool
	timeout time.Duration

	doing      string // in words
	repository string // empty for all
	before     map[string]int32
}

func (a *await) flags(cmd *cobra.Command) {
	cmd.Flags().BoolVar(&a.wait, "wait", false, "return when it is done, with exit code 1 if anything failed or is held")
	cmd.Flags().DurationVar(&a.timeout, "timeout", time.Hour, "how long to wait with --wait; exit code 3 after that")
}

// call bounds the command in time.
func (a *await) call(ctx context.Context) (context.Context, context.CancelFunc) {
	if a.wait {
		return context.WithTimeout(ctx, a.timeout)
	}
	return cli.Call(ctx)
}

// begin notes how often what fails now has failed: more often than that is an attempt that was made since. Call it before
// the repositories are made due.
func (a *await) begin(ctx context.Context, api antipodev1.ReplicationServiceClient) error {
	if !a.wait {
		return nil
	}
	failed, err := listAll(ctx, api, antipodev1.RepositoryState_REPOSITORY_STATE_FAILED)
	a.before = map[string]int32{}
	for _, row := range failed.GetRepositories() {
		a.before[row.GetName()] = row.GetFailures()
	}
	return err
}

// done returns when the work is done, or says what came of it instead.
func (a *await) done(ctx context.Context, api antipodev1.ReplicationServiceClient, line *cli.Line) error {
	if !a.wait {
		return nil
	}
	defer line.Clear()
	line.Show("%s: asked for", a.doing)
	var pace cli.Pace
	for {
		text, over, err := a.look(ctx, api, &pace)
		if status.Code(err) == codes.DeadlineExceeded || ctx.Err() != nil && errors.Is(ctx.Err(), context.DeadlineExceeded) {
			return cli.NotYet(fmt.Errorf("not done after %s, and going on; see: secondaryd status", a.timeout))
		}
		if over || err != nil {
			return err
		}
		line.Show("%s %s", a.doing, text)
		select {
		case <-time.After(lookEvery):
		case <-ctx.Done():
		}
	}
}

// look says how far the work is, and whether it is over.
func (a *await) look(
	ctx context.Context, api antipodev1.ReplicationServiceClient, pace *cli.Pace,
) (text string, over bool, err error) {
	resp, err := api.GetStatus(ctx, &antipodev1.GetStatusRequest{})
	switch s := resp.GetStatus(); {
	case err != nil:
		return "", false, err
	case s.GetPaused():
		return "", true, cli.NotYet(errors.New("the site is paused, and does it when it goes on: secondaryd resume"))
	case a.repository == "":
		return a.lookAtAll(ctx, api, s, pace)
	default:
		return a.lookAtOne(ctx, api, s, pace)
	}
}

// lookAtOne says how far one repository is, and whether it was dealt with.
func (a *await) lookAtOne(
	ctx context.Context, api antipodev1.ReplicationServiceClient, s *antipodev1.NodeStatus, pace *cli.Pace,
) (text string, over bool, err error) {
	resp, err := api.GetRepository(ctx, &antipodev1.GetRepositoryRequest{Repository: a.repository, JournalSize: 1})
	if err != nil {
		return "", false, err
	}
	row := resp.GetRepository()
	switch state := row.GetState(); {
	case state == antipodev1.RepositoryState_REPOSITORY_STATE_SYNCED:
		return "", true, nil
	case state == antipodev1.RepositoryState_REPOSITORY_STATE_HELD:
		return "", true, fmt.Errorf("%s is held: %s", a.repository, row.GetHeldReason())
	case state == antipodev1.RepositoryState_REPOSITORY_STATE_FAILED && row.GetFailures() != a.before[a.repository]:
		return "", true, fmt.Errorf("%s failed: %s", a.repository, row.GetLastError().GetMessage())
	}
	return a.repository + ": " + stateName(row.GetState()) + copying(s, a.repository, pace), false, nil
}

// lookAtAll says how far all repositories are, and whether each was dealt with.
func (a *await) lookAtAll(
	ctx context.Context, api antipodev1.ReplicationServiceClient, s *antipodev1.NodeStatus, pace *cli.Pace,
) (text string, over bool, err error) {
	counts := s.GetRepositories()
	waiting, err := a.untried(ctx, api, counts)
	if err != nil {
		return "", false, err
	}
	if waiting += counts.GetPending() + counts.GetSyncing(); waiting == 0 {
		if n := counts.GetFailed() + counts.GetHeld(); n > 0 {
			err = fmt.Errorf("%d repositories failed and %d are held; see: secondaryd repositories --state failed", counts.GetFailed(),
				counts.GetHeld())
		}
		return "", true, err
	}
	done := counts.GetTotal() - waiting
	text = fmt.Sprintf("%d of %d repositories%s%s", done, counts.GetTotal(), pace.Left(done, counts.GetTotal()), busy(s))
	return text, false, nil
}

// untried is how many repositories failed before, and were not tried again yet.
func (a *await) untried(
	ctx context.Context, api antipodev1.ReplicationServiceClient, counts *antipodev1.RepositoryCounts,
) (n int64, err error) {
	if len(a.before) == 0 || counts.GetFailed() == 0 {
		return 0, nil
	}
	failed, err := listAll(ctx, api, antipodev1.RepositoryState_REPOSITORY_STATE_FAILED)
	for _, row := range failed.GetRepositories() {
		if times, known := a.before[row.GetName()]; known && times == row.GetFailures() {
			n++
		}
	}
	return n, err
}

// busy is what a site copies now, altogether and by name.
func busy(s *antipodev1.NodeStatus) string {
	var done, total, rate int64
	var names []string
	for _, active := range s.GetActive() {
		done, total, rate = done+active.GetBytesDone(), total+active.GetBytesTotal(), rate+active.GetBytesPerSecond()
		names = append(names, active.GetRepository())
	}
	if len(names) == 0 {
		return ""
	}
	text := "; now " + strings.Join(names, ", ")
	if total > 0 {
		text = fmt.Sprintf("; %s of %s at %s/s%s", cli.Bytes(done), cli.Bytes(total), cli.Bytes(rate), text)
	}
	return text
}

// copying is how far the copy of one repository is; empty when nothing of it is copied now.
func copying(s *antipodev1.NodeStatus, repository string, pace *cli.Pace) string {
	for _, active := range s.GetActive() {
		if done, total := active.GetBytesDone(), active.GetBytesTotal(); active.GetRepository() == repository && total > 0 {
			return fmt.Sprintf(", %s of %s, %s/s%s", cli.Bytes(done), cli.Bytes(total), cli.Bytes(active.GetBytesPerSecond()),
				pace.Left(done, total))
		}
	}
	return ""
}
