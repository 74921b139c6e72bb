-- +goose Up
-- How many repositories have a verified_at, kept here so that nobody counts a large table.
ALTER TABLE site ADD COLUMN verified BIGINT NOT NULL DEFAULT 0;
UPDATE site SET verified = (SELECT count(*) FROM repository WHERE verified_at IS NOT NULL);

ALTER TABLE repository ADD COLUMN damaged BOOLEAN NOT NULL DEFAULT FALSE; -- a check found damage that is not mended yet
CREATE INDEX repository_damaged ON repository (name) WHERE damaged;
