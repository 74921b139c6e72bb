-- +goose Up
-- Defaults, for the version before knows nothing of these.
ALTER TABLE site ADD COLUMN incarnation TEXT NOT NULL DEFAULT ''; -- of the feed, that the cursor belongs to
ALTER TABLE site ADD COLUMN cursor_changed_at BIGINT; -- when the change that the cursor stands at happened
ALTER TABLE site ADD COLUMN head_changed_at BIGINT; -- when the newest change of the feed happened
