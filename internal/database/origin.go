package database

import (
	"context"
	"fmt"
)

// originQuery names the server's data folder (the system identifier, which initdb makes and a standby keeps), the
// timeline that it writes, which every promotion and every recovery to a point in time makes anew, and the database,
// which gets another oid when it is created again.
const originQuery = `SELECT (SELECT system_identifier::text FROM pg_control_system()) || '/' ||
	substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8) || '/' ||
	(SELECT oid::text FROM pg_database WHERE datname = current_database())`

// askOrigins finds out whether the connection's role may run originQuery, without a statement that could fail: one that
// fails breaks the transaction that it is in.
func (db *DB) askOrigins(ctx context.Context) error {
	err := db.reader.QueryRowContext(ctx, `SELECT COALESCE(bool_and(COALESCE(
			has_function_privilege(to_regprocedure(f)::oid, 'EXECUTE'), FALSE)), FALSE)
		FROM (VALUES ('pg_control_system()'), ('pg_walfile_name(pg_lsn)'), ('pg_current_wal_lsn()')) AS needed (f)`).
		Scan(&db.origins)
	return classify(ctx, wrap("database: ask what the server tells of its history", err))
}

// Origin says where the history of the database comes from, asked within a Read or Write: another text than before
// means that what was committed under the one before may be gone, after a failover or a restore. The same text proves
// nothing: a dump that was played back into the same database leaves no trace here. It is empty on SQLite, and on a
// Postgres whose role may not ask.
func (db *DB) Origin(ctx context.Context, q Queryer) (origin string, err error) {
	if !db.origins {
		return "", nil
	}
	if err := q.QueryRowContext(ctx, originQuery).Scan(&origin); err != nil {
		return "", fmt.Errorf("database: ask for the origin of its history: %w", err)
	}
	return origin, nil
}

// Origin says where the history comes from that the transaction continues; see DB.Origin.
func (tx *Tx) Origin(ctx context.Context) (string, error) { return tx.db.Origin(ctx, tx) }
