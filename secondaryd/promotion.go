package main

import (
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	antipodev1 "github.com/antipode-registry/antipode/gen/antipode/v1"
	"github.com/antipode-registry/antipode/internal/cli"
)

// promotionResult is what came of a promotion, for the output.
type promotionResult struct {
	Promoted       bool                 `json:"promoted"`
	CursorRevision int64                `json:"cursor_revision"`
	HeadRevision   int64                `json:"head_revision"`
	PrimaryHeardAt time.Time            `json:"primary_heard_at,omitzero"`
	Lag            string               `json:"lag"`
	ComparedWith   string               `json:"compared_with"` // primaryd, registry or nobody
	PrimaryProblem string               `json:"primary_problem,omitempty"`
	UnknownSince   time.Time            `json:"unknown_since,omitzero"` // what changed later at the primary is not known
	Behind         []promotionBehindRow `json:"behind"`
}

type promotionBehindRow struct {
	Repository       string         `json:"repository"`
	State            string         `json:"state"`
	Wanted           int64          `json:"wanted_revision"`
	Synced           int64          `json:"synced_revision"`
	OldestUnsyncedAt time.Time      `json:"oldest_unsynced_at,omitzero"`
	LastError        string         `json:"last_error,omitempty"`
	Compared         bool           `json:"compared"`         // with the primary, just now
	Others           string         `json:"others,omitempty"` // why tags that are not listed may differ too
	Tags             []promotionTag `json:"tags"`
}

type promotionTag struct {
	Tag        string `json:"tag"`
	Difference string `json:"difference"` // missing, outdated, not_removed or unknown
	Digest     string `json:"digest,omitempty"`
	SiteDigest string `json:"site_digest,omitempty"`
	Reason     string `json:"reason,omitempty"`
}

type promotionStream interface {
	Recv() (*antipodev1.PromoteResponse, error)
}

func readPromotion(stream promotionStream, progress func(*antipodev1.PromoteProgress)) (result promotionResult, err error) {
	result.Behind = []promotionBehindRow{}
	for {
		message, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return result, errors.New("the site ended the promotion without its report; see: secondaryd status")
		}
		if err != nil {
			return result, err
		}
		switch kind := message.GetKind().(type) {
		case *antipodev1.PromoteResponse_Progress:
			progress(kind.Progress)
		case *antipodev1.PromoteResponse_Behind:
			result.Behind = append(result.Behind, behindRow(kind.Behind))
		case *antipodev1.PromoteResponse_Tags:
			if last := len(result.Behind) - 1; last >= 0 {
				result.Behind[last].add(kind.Tags)
			}
		case *antipodev1.PromoteResponse_Report:
			result.take(kind.Report)
			return result, nil
		}
	}
}

func behindRow(b *antipodev1.TrackedRepository) promotionBehindRow {
	row := promotionBehindRow{
		Repository: b.GetName(), State: stateName(b.GetState()), Wanted: b.GetWantedRevision(), Synced: b.GetSyncedRevision(),
		LastError: b.GetLastError().GetMessage(), Tags: []promotionTag{},
	}
	if at := b.GetOldestUnsyncedAt(); at != nil {
		row.OldestUnsyncedAt = at.AsTime()
	}
	return row
}

func (b *promotionBehindRow) add(tags *antipodev1.UnsyncedTags) {
	b.Compared, b.Others = tags.GetCompared(), tags.GetOthers()
	for _, t := range tags.GetTags() {
		b.Tags = append(b.Tags, promotionTag{
			Tag: t.GetTag(), Digest: t.GetDigest(), SiteDigest: t.GetSiteDigest(), Reason: t.GetReason(),
			Difference: strings.ToLower(strings.TrimPrefix(t.GetDifference().String(), "TAG_DIFFERENCE_")),
		})
	}
}

func (r *promotionResult) take(report *antipodev1.PromoteReport) {
	r.Promoted, r.CursorRevision, r.HeadRevision = report.GetPromoted(), report.GetCursorRevision(), report.GetHeadRevision()
	r.Lag = cli.Duration(report.GetLag().AsDuration())
	r.ComparedWith = strings.ToLower(strings.TrimPrefix(report.GetComparedWith().String(), "COMPARED_WITH_"))
	r.PrimaryProblem = report.GetPrimaryProblem()
	if at := report.GetPrimaryHeardAt(); at != nil {
		r.PrimaryHeardAt, r.UnknownSince = at.AsTime(), at.AsTime()
	}
}

func printPromotion(w io.Writer, req *antipodev1.PromoteRequest, r promotionResult) {
	if r.Promoted {
		fmt.Fprintln(w, "promoted: the site follows its primary no more, also after a restart; undo it with: secondaryd demote")
	} else {
		fmt.Fprintln(w, "a rehearsal: nothing was changed")
	}
	fmt.Fprintf(w, "read up to revision %d of %d; the primary was last heard from %s\n",
		r.CursorRevision, r.HeadRevision, cli.Age(r.PrimaryHeardAt))
	if len(r.Behind) == 0 {
		fmt.Fprintln(w, "nothing is missing that the site knows of")
	} else {
		printBehind(w, r)
	}
	if !req.GetPlanned() {
		since := ", which was never heard from,"
		if !r.UnknownSince.IsZero() {
			since = " after " + r.UnknownSince.UTC().Format(time.RFC3339) + ", when it was last heard from,"
		}
		fmt.Fprintf(w, "what changed at the primary%s is not known here\n", since)
	}
}

func printBehind(w io.Writer, r promotionResult) {
	switch r.ComparedWith {
	case "primaryd":
		fmt.Fprintln(w, "compared just now with what primaryd lists")
	case "registry":
		fmt.Fprintln(w, "primaryd does not answer; compared just now with the primary's registry itself")
	default:
		fmt.Fprintln(w, "nobody at the primary answers: the tags are those that were announced, failed or are withheld")
	}
	if r.PrimaryProblem != "" {
		fmt.Fprintf(w, "primaryd: %s\n", r.PrimaryProblem)
	}
	fmt.Fprintf(w, "%d repositories may lack changes, the oldest of %s ago:\n\n", len(r.Behind), r.Lag)
	fmt.Fprintln(w, "REPOSITORY\tSTATE\tSYNCED/WANTED\tCHANGED\tLAST ERROR")
	for _, b := range r.Behind {
		fmt.Fprintf(w, "%s\t%s\t%d/%d\t%s\t%s\n", b.Repository, b.State, b.Synced, b.Wanted, cli.Age(b.OldestUnsyncedAt), b.LastError)
	}
	fmt.Fprintln(w, "\nTAG\tWHAT\tAT THE PRIMARY\tHERE\tHOW THE SITE KNOWS")
	for _, b := range r.Behind {
		for _, t := range b.Tags {
			fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\n", image(b.Repository, t.Tag), strings.ReplaceAll(t.Difference, "_", " "),
				orNone(short(t.Digest)), orNone(short(t.SiteDigest)), b.how(t))
		}
		switch {
		case b.Others != "":
			fmt.Fprintf(w, "%s\t?\t?\t?\t%s\n", b.Repository, b.Others)
		case len(b.Tags) == 0 && b.Compared:
			fmt.Fprintf(w, "%s\tnothing\t\t\tboth have the same, compared just now\n", b.Repository)
		case len(b.Tags) == 0:
			fmt.Fprintf(w, "%s\tnothing\t\t\tall that was announced is here\n", b.Repository)
		}
	}
	fmt.Fprintln(w)
}

func (b promotionBehindRow) how(t promotionTag) string {
	if t.Reason == "" && b.Compared {
		return "compared just now"
	}
	return t.Reason
}

// image names a tag of a repository, or a manifest by its digest.
func image(repository, tag string) string {
	if strings.HasPrefix(tag, "@") {
		return repository + tag
	}
	return repository + ":" + tag
}
