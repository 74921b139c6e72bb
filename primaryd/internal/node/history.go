package node

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/antipode-registry/antipode/internal/database"
)

const (
	// sampleEvery is the width of a sample.
	sampleEvery = time.Minute
	// mostCopied bounds what one report can add to a sample, so that no report can make its sum overflow.
	mostCopied = 1 << 50
	// HistoryKept is how long samples are kept.
	HistoryKept = 24 * time.Hour
)

// Sample is how a node was in one minute, as it reported.
type Sample struct {
	At           time.Time     // when the minute began
	Lag          time.Duration // the longest
	LagRevisions int64         // the most
	BytesCopied  int64         // to the node's registry, in the minute
	Failed, Held int64         // repositories, at the end of the minute
}

// History returns the samples of a node of the last since, oldest first, and whether it is configured. A minute in which
// it did not report has none. since is at most HistoryKept, which 0 and anything above stand for.
func (d *Directory) History(ctx context.Context, name string, since time.Duration) (samples []Sample, found bool, err error) {
	if !d.Known(name) {
		return nil, false, nil
	}
	if since <= 0 || since > HistoryKept {
		since = HistoryKept
	}
	err = d.db.Read(ctx, func(ctx context.Context, q database.Queryer) error {
		now, err := d.db.Now(ctx, q)
		if err != nil {
			return err
		}
		rows, err := q.QueryContext(ctx, `SELECT minute, lag_ms, lag_revisions, bytes_copied, failed, held
			FROM node_sample WHERE node = $1 AND minute > $2 ORDER BY minute`, name, now.Add(-since).UnixMilli())
		if err != nil {
			return err
		}
		defer rows.Close()
		samples, err = scanSamples(rows)
		return err
	})
	if err != nil {
		return nil, true, fmt.Errorf("node: history of %s: %w", name, err)
	}
	return samples, true, nil
}

func scanSamples(rows *sql.Rows) ([]Sample, error) {
	var samples []Sample
	for rows.Next() {
		var s Sample
		var minute, lag int64
		if err := rows.Scan(&minute, &lag, &s.LagRevisions, &s.BytesCopied, &s.Failed, &s.Held); err != nil {
			return nil, err
		}
		s.At, s.Lag = time.UnixMilli(minute).UTC(), time.Duration(lag)*time.Millisecond
		samples = append(samples, s)
	}
	return samples, rows.Err()
}

// sample adds a report to the sample of its minute and drops those that are too old. It reads the report before, so it
// comes before that is replaced.
func (d *Directory) sample(ctx context.Context, tx *database.Tx, name string, s Status, now time.Time) error {
	before, err := lastReport(ctx, tx, name)
	if err != nil {
		return err
	}
	_, err = tx.ExecContext(ctx,
		`INSERT INTO node_sample (node, minute, lag_ms, lag_revisions, bytes_copied, failed, held)
		VALUES ($1, $2, $3, $4, $5, $6, $7)
		ON CONFLICT (node, minute) DO UPDATE SET
			lag_ms = CASE WHEN excluded.lag_ms > node_sample.lag_ms THEN excluded.lag_ms ELSE node_sample.lag_ms END,
			lag_revisions = CASE WHEN excluded.lag_revisions > node_sample.lag_revisions
				THEN excluded.lag_revisions ELSE node_sample.lag_revisions END,
			bytes_copied = node_sample.bytes_copied + excluded.bytes_copied,
			failed = excluded.failed, held = excluded.held`,
		name, now.Truncate(sampleEvery).UnixMilli(), max(0, s.Lag.Milliseconds()), max(0, s.LagRevisions),
		min(s.copiedSince(before), mostCopied), max(0, s.Repositories.Failed), max(0, s.Repositories.Held))
	if err != nil {
		return err
	}
	_, err = tx.ExecContext(ctx, "DELETE FROM node_sample WHERE node = $1 AND minute <= $2",
		name, now.Add(-HistoryKept).UnixMilli())
	return err
}

// lastReport is the node's stored report; without a status where there is none.
func lastReport(ctx context.Context, q database.Queryer, name string) (report, error) {
	var at int64
	var text string
	err := q.QueryRowContext(ctx, "SELECT reported_at, status FROM node WHERE name = $1", name).Scan(&at, &text)
	if errors.Is(err, sql.ErrNoRows) {
		return report{}, nil
	}
	if err != nil {
		return report{}, err
	}
	status := new(Status)
	if err := json.Unmarshal([]byte(text), status); err != nil {
		return report{}, fmt.Errorf("status of %s: %w", name, err)
	}
	return report{at: time.UnixMilli(at).UTC(), status: status}, nil
}

// copiedSince is how many bytes were written since the report before. The counter belongs to a process: that of one
// which started later began at 0, and that of another one which ran before already, as when replicas of a site take
// turns, is not comparable and counts from its next report on. The first report of all counts nothing either: how much
// of it was written in this minute is not known.
func (s Status) copiedSince(before report) int64 {
	switch {
	case before.status == nil:
		return 0
	case s.StartedAt.Equal(before.status.StartedAt):
		return max(0, s.BytesCopied-before.status.BytesCopied)
	case s.StartedAt.After(before.at):
		return max(0, s.BytesCopied)
	}
	return 0
}
