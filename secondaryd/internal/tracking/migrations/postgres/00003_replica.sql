-- +goose Up
-- The processes that share the site's work: each writes its row every few seconds, and rows that are old are removed.
CREATE TABLE replica (
    name    TEXT   NOT NULL PRIMARY KEY, -- host and process number
    scope   TEXT   NOT NULL,             -- what it replicates, as configured
    seen_at BIGINT NOT NULL,
    report  TEXT   NOT NULL DEFAULT ''   -- what it says of itself, as JSON
);
