package service

import (
	"context"
	"time"

	antipodev1 "github.com/antipode-registry/antipode/gen/antipode/v1"
	"github.com/antipode-registry/antipode/internal/link"
	"github.com/antipode-registry/antipode/secondaryd/internal/tracking"
)

// asked returns a context that journals what is done under it as asked for by the RPC's caller, unless it says already who
// asks.
func asked(ctx context.Context) context.Context {
	id, known := link.IdentityFrom(ctx)
	switch {
	case !known || tracking.Asker(ctx) != "":
		return ctx
	case id.Self:
		return tracking.AskedBy(ctx, id.Name+", on the site")
	}
	return tracking.AskedBy(ctx, id.Name)
}

// journalSize is how many entries of a journal are told.
func journalSize(wanted int32) int {
	const standard, most = 50, 500
	if wanted <= 0 {
		return standard
	}
	return min(int(wanted), most)
}

// GetRepository implements the RPC.
func (s *ReplicationService) GetRepository(
	ctx context.Context, req *antipodev1.GetRepositoryRequest,
) (*antipodev1.GetRepositoryResponse, error) {
	row, err := s.tracked(ctx, req.GetRepository())
	if err != nil {
		return nil, err
	}
	size := journalSize(req.GetJournalSize())
	entries, err := s.tracking.Journal(ctx, row.Name, size)
	if err != nil {
		return nil, err
	}
	resp := &antipodev1.GetRepositoryResponse{Repository: repositoryProto(row)}
	for _, entry := range entries {
		resp.Journal = append(resp.Journal, entryProto(entry))
	}
	var since time.Time
	if len(entries) == size { // what is older was cut off, or let go
		since = entries[size-1].At
	}
	resp.SiteJournal, err = s.acts(ctx, since, size)
	return resp, err
}

// GetSiteJournal implements the RPC.
func (s *ReplicationService) GetSiteJournal(
	ctx context.Context, req *antipodev1.GetSiteJournalRequest,
) (*antipodev1.GetSiteJournalResponse, error) {
	acts, err := s.acts(ctx, time.Time{}, journalSize(req.GetJournalSize()))
	return &antipodev1.GetSiteJournalResponse{Journal: acts}, err
}

func (s *ReplicationService) acts(ctx context.Context, since time.Time, limit int) ([]*antipodev1.SiteJournalEntry, error) {
	acts, err := s.tracking.SiteJournal(ctx, since, limit)
	entries := make([]*antipodev1.SiteJournalEntry, 0, len(acts))
	for _, act := range acts {
		entries = append(entries, &antipodev1.SiteJournalEntry{
			At: timeProto(act.At), Action: act.Action, AskedBy: act.By, Detail: act.Detail, CursorRevision: act.Revision,
			HeadRevision: act.Head,
		})
	}
	return entries, err
}
