package request

import (
	"context"
	"crypto/rand"
	"database/sql"
	"embed"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"time"

	"github.com/antipode-registry/antipode/internal/database"
)

//go:embed migrations
var migrations embed.FS

// Nodes knows the configured sites; *node.Directory implements it.
type Nodes interface {
	Known(name string) bool
}

// Desk takes requests and hands out answers. It is safe for concurrent use. Errors match database.ErrUnavailable where
// trying again later may help.
type Desk struct {
	db    *database.DB
	nodes Nodes
}

// Open brings the table up to date. The database stays the caller's to close.
func Open(ctx context.Context, db *database.DB, nodes Nodes) (*Desk, error) {
	folder, err := fs.Sub(migrations, "migrations")
	if err != nil {
		return nil, fmt.Errorf("request: migrations: %w", err)
	}
	if err := db.Migrate(ctx, "request", folder); err != nil {
		return nil, fmt.Errorf("request: %w", err)
	}
	return &Desk{db: db, nodes: nodes}, nil
}

// asks and answers are what the two directions notify, for each site: who waits for one site is not woken for others.
func asks(node string) string    { return "request.ask." + node }
func answers(node string) string { return "request.answer." + node }

// Ask puts the question to a site and waits for its answer: 10 s, or until ctx ends if that is sooner. askedBy is who
// asks, for the site's journal. Errors: ErrUnknownNode, ErrInvalid, ErrTooMany, ErrUnanswered (also at ctx's deadline),
// and a *Refusal with the site's own words.
func (d *Desk) Ask(ctx context.Context, node, askedBy string, ask Ask) (Answer, error) {
	if !d.nodes.Known(node) {
		return Answer{}, fmt.Errorf("request: %q: %w", node, ErrUnknownNode)
	}
	if !slices.Contains([]Kind{Pause, Resume, Resync, Release, Inspect}, ask.Kind) {
		return Answer{}, fmt.Errorf("request: %w: kind %q", ErrInvalid, ask.Kind)
	}
	wait := defaultWait
	if deadline, ok := ctx.Deadline(); ok {
		wait = min(wait, time.Until(deadline)*9/10) // so that the asker still hears that there was no answer
	}
	wake, stop := d.db.Listen(answers(node)) // before the question is there to be answered
	defer stop()
	id, err := d.put(ctx, node, askedBy, ask, wait)
	if err != nil {
		return Answer{}, late(ctx, fmt.Errorf("request: ask %s: %w", node, err))
	}
	timer := time.NewTimer(wait)
	defer timer.Stop()
	for {
		answer, found, err := d.answer(ctx, id)
		switch {
		case err != nil:
			return Answer{}, late(ctx, fmt.Errorf("request: answer of %s: %w", node, err))
		case found && answer.Refusal != nil:
			answer.Refusal.Node = node
			return Answer{}, answer.Refusal
		case found:
			return answer, nil
		}
		select {
		case <-wake:
		case <-timer.C:
			return Answer{}, fmt.Errorf("request: ask %s: %w", node, ErrUnanswered)
		case <-ctx.Done():
			return Answer{}, late(ctx, ctx.Err())
		}
	}
}

// late says of an asker's own deadline that no answer came by it.
func late(ctx context.Context, err error) error {
	if errors.Is(ctx.Err(), context.DeadlineExceeded) {
		return fmt.Errorf("%w: %w", ErrUnanswered, err)
	}
	return err
}

// put stores a question, and lets go of those that nobody waits for any more.
func (d *Desk) put(ctx context.Context, node, askedBy string, ask Ask, wait time.Duration) (id string, err error) {
	text, err := encode(ask, mostAnswer)
	if err != nil {
		return "", err
	}
	if len(askedBy) > mostAskedBy {
		return "", fmt.Errorf("%w: the asker's name is longer than %d bytes", ErrInvalid, mostAskedBy)
	}
	id = node + "/" + rand.Text()
	return id, d.db.Write(ctx, func(ctx context.Context, tx *database.Tx) error {
		now, err := tx.Now(ctx)
		if err != nil {
			return err
		}
		if _, err := tx.ExecContext(ctx, "DELETE FROM request WHERE expires_at < $1", now.Add(-keep).UnixMilli()); err != nil {
			return err
		}
		var open int
		err = tx.QueryRowContext(ctx, "SELECT COUNT(*) FROM request WHERE node = $1 AND answer IS NULL AND expires_at > $2",
			node, now.UnixMilli()).Scan(&open)
		if err != nil {
			return err
		}
		if open >= mostOpen {
			return fmt.Errorf("%w: %d", ErrTooMany, open)
		}
		_, err = tx.ExecContext(ctx, `INSERT INTO request (id, node, ask, asked_by, asked_at, expires_at)
			VALUES ($1, $2, $3, $4, $5, $6)`, id, node, text, askedBy, now.UnixMilli(), now.Add(wait).UnixMilli())
		if err != nil {
			return err
		}
		return tx.Notify(ctx, asks(node))
	})
}

func (d *Desk) answer(ctx context.Context, id string) (answer Answer, found bool, err error) {
	var text sql.NullString
	err = d.db.Read(ctx, func(ctx context.Context, q database.Queryer) error {
		return q.QueryRowContext(ctx, "SELECT answer FROM request WHERE id = $1", id).Scan(&text)
	})
	if err != nil || !text.Valid {
		return Answer{}, false, err
	}
	return answer, true, json.Unmarshal([]byte(text.String), &answer)
}

// Watch returns a channel that receives after something was asked of the site, at any replica. It holds one wake, which
// may be spurious. stop ends it.
func (d *Desk) Watch(node string) (wake <-chan struct{}, stop func()) { return d.db.Listen(asks(node)) }

// Pending returns what is asked of the site and waits for an answer, oldest first.
func (d *Desk) Pending(ctx context.Context, node string) ([]Request, error) {
	var pending []Request
	err := d.db.Read(ctx, func(ctx context.Context, q database.Queryer) error {
		now, err := d.db.Now(ctx, q)
		if err != nil {
			return err
		}
		rows, err := q.QueryContext(ctx, `SELECT id, ask, asked_by, expires_at FROM request
			WHERE node = $1 AND answer IS NULL AND expires_at > $2 ORDER BY asked_at, id LIMIT $3`,
			node, now.UnixMilli(), mostOpen)
		if err != nil {
			return err
		}
		defer rows.Close()
		pending, err = scan(rows)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("request: what is asked of %s: %w", node, err)
	}
	return pending, nil
}

func scan(rows *sql.Rows) (pending []Request, err error) {
	for rows.Next() {
		var r Request
		var text string
		var expires int64
		if err := rows.Scan(&r.ID, &text, &r.AskedBy, &expires); err != nil {
			return nil, err
		}
		if err := json.Unmarshal([]byte(text), &r.Ask); err != nil {
			return nil, fmt.Errorf("request %s: %w", r.ID, err)
		}
		r.ExpiresAt = time.UnixMilli(expires).UTC()
		pending = append(pending, r)
	}
	return pending, rows.Err()
}

// Answer stores a site's answer and wakes who waits for it. The first answer stays. One that nobody waits for any more is
// no error. Errors: ErrOthers, ErrInvalid.
func (d *Desk) Answer(ctx context.Context, node, id string, answer Answer) error {
	// The id says whose it is also when the request itself is gone.
	if !strings.HasPrefix(id, node+"/") {
		return fmt.Errorf("request: answer of %s: %w", node, ErrOthers)
	}
	text, err := encode(answer, mostAnswer)
	if err != nil {
		return fmt.Errorf("request: answer of %s: %w", node, err)
	}
	err = d.db.Write(ctx, func(ctx context.Context, tx *database.Tx) error {
		_, err := tx.ExecContext(ctx, "UPDATE request SET answer = $1 WHERE id = $2 AND node = $3 AND answer IS NULL",
			text, id, node)
		if err != nil {
			return err
		}
		return tx.Notify(ctx, answers(node))
	})
	if err != nil {
		return fmt.Errorf("request: answer of %s: %w", node, err)
	}
	return nil
}
