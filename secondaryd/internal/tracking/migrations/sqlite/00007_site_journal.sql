-- +goose Up
-- What was done to the site as a whole, and who asked for it.
CREATE TABLE site_journal (
    id       INTEGER PRIMARY KEY AUTOINCREMENT,
    at       BIGINT NOT NULL,
    action   TEXT   NOT NULL,
    asked_by TEXT   NOT NULL,
    detail   TEXT   NOT NULL,
    revision BIGINT NOT NULL, -- the cursor then
    head     BIGINT NOT NULL  -- the newest revision heard of then
);
