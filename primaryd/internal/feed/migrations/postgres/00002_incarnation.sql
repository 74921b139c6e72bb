-- +goose Up
-- The lives of the feed: what was read in one of them is still true up to where the next one begins. The number orders
-- those that begin at the same revision.
CREATE TABLE incarnation (
    number         BIGINT PRIMARY KEY,
    id             TEXT   NOT NULL UNIQUE,
    first_revision BIGINT NOT NULL,
    began_at       BIGINT NOT NULL
);

-- Defaults, for the version before knows nothing of these.
ALTER TABLE feed ADD COLUMN incarnation TEXT NOT NULL DEFAULT '';
ALTER TABLE feed ADD COLUMN origin TEXT NOT NULL DEFAULT ''; -- of the database's history, in this incarnation
