package database

import (
	"context"
	"crypto/rand"
	"database/sql"
	"errors"
	"log/slog"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/stdlib"
)

const (
	// postgresConnections bounds the pool of one process, the listener's connection not counted. A server has 100 by
	// default: five processes fit.
	postgresConnections = 16
	// connectionLifetime makes connections move to the new address after a failover that changed a DNS name.
	connectionLifetime = 30 * time.Minute
	connectTimeout     = 10 * time.Second
)

// openPostgres opens a pool and starts the listener.
func openPostgres(ctx context.Context, url string, logger *slog.Logger, opts options) (*DB, error) {
	config, err := pgx.ParseConfig(url)
	if err != nil {
		// The parser's text can quote the URL; its own redaction is best effort. So the cause stays unsaid.
		return nil, errors.New("database: the Postgres URL cannot be parsed (not shown, for it may hold a password); " +
			"expected postgres://USER:PASSWORD@HOST:PORT/NAME?sslmode=MODE, with % / @ : in the password percent-encoded")
	}
	if config.ConnectTimeout == 0 {
		config.ConnectTimeout = connectTimeout
	}
	if config.RuntimeParams["application_name"] == "" {
		config.RuntimeParams["application_name"] = "antipode"
	}
	pool := sql.OpenDB(opts.wrap(stdlib.GetConnector(*config, stdlib.OptionAfterConnect(prepare))))
	pool.SetMaxOpenConns(postgresConnections)
	pool.SetMaxIdleConns(postgresConnections)
	pool.SetConnMaxIdleTime(5 * time.Minute)
	pool.SetConnMaxLifetime(connectionLifetime)
	db := &DB{
		dialect: Postgres, writer: pool, reader: pool, logger: logger, hub: newHub(), instance: rand.Text(),
		patience: opts.patience,
	}
	if err := db.Ping(ctx); err != nil {
		return nil, errors.Join(err, pool.Close())
	}
	if err := db.askOrigins(ctx); err != nil {
		return nil, errors.Join(err, pool.Close())
	}
	db.stop = startListener(ctx, config, db.instance, db.hub, logger)
	return db, nil
}

// prepare sets what every connection of the pool needs. By statements and not by start-up parameters, which connection
// poolers refuse.
//
// idle_in_transaction_session_timeout lets the server end a transaction whose client fell silent in the middle (stopped,
// or its machine cut off), for it holds row locks that every other replica waits for.
//
// plan_cache_mode: a plan that was made for an empty table and kept reads a table that has grown since from end to end,
// until the server's housekeeping looks at it a minute or more later. Our statements are planned in a fraction of a
// millisecond, so they are planned anew; a first import into the feed is three times as fast for it.
func prepare(ctx context.Context, conn *pgx.Conn) error {
	_, err := conn.Exec(ctx, "SET idle_in_transaction_session_timeout = '10s'; SET plan_cache_mode = force_custom_plan")
	return err
}
